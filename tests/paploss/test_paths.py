"""Which names of files lead out of a folder."""

from pathlib import Path

import pytest

from paploss.paths import is_plain_name, is_there, stays_inside


@pytest.mark.parametrize("name", ["a.jpg", "a/b.jpg", "./a", "a..b", "..a", "ä ö.jpg", "a/./b"])
def test_inside(name: str) -> None:
    assert stays_inside(name)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../a",
        "a/../../b",
        "a/..",
        "..",
        "",
        "a\0b",
        "..\\a",
        "C:\\a",
        "\\\\host\\a",
        "C:a",
    ],
)
def test_outside(name: str) -> None:
    assert not stays_inside(name)


def test_plain_names() -> None:
    assert all(map(is_plain_name, ["a", "search-000-01-0-1a2b", "x.y"]))
    assert not any(
        map(is_plain_name, ["", ".", "..", "a/b", "/a", "a\\b", ".hidden", "a\n", "ä", "a" * 256])
    )


@pytest.mark.parametrize("name", ["x" * 5000, "x/" * 5000, "\0", "gone", "file/below"])
def test_what_is_not_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_there(tmp_path / name) and not is_there(tmp_path / name, folder=True)
    assert is_there(tmp_path / "file") and not is_there(tmp_path / "file", folder=True)
    assert is_there(tmp_path, folder=True) and not is_there(tmp_path)
