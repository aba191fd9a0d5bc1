"""Files that are whole or absent."""

import errno
import json
import os
from pathlib import Path

import pytest

from paploss.errors import BadConfig
from paploss.files import (
    is_of_storage,
    read_json,
    read_yaml,
    storage_reason,
    write_atomic,
    write_json,
    write_yaml,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")  # a lone surrogate cannot be written
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_floats_survive_json_and_yaml_to_the_last_digit(tmp_path: Path) -> None:
    values = {"x": [0.1 + 0.2, 1 / 3, 5e-324, 1e308]}
    write_json(tmp_path / "a.json", values)
    write_yaml(tmp_path / "a.yaml", values, "why\nand how")
    assert read_json(tmp_path / "a.json") == values
    assert read_yaml(tmp_path / "a.yaml") == values
    assert (tmp_path / "a.yaml").read_text().startswith("# why\n# and how\n")
    assert json.loads((tmp_path / "a.json").read_text()) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("- 1\n- 2\n", "should hold keys and values, but holds list"),
        ("", "holds NoneType"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(BadConfig, match=message):
        read_yaml(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"cannot read .*none\.yaml: No such file"):
        read_yaml(tmp_path / "none.yaml")


def test_what_storage_is_to_blame_for(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/train.log")
    assert is_of_storage(full)
    assert storage_reason(full) == "cannot write /x/train.log: No space left on device"
    assert storage_reason(full, tmp_path) == f"cannot write {tmp_path}: No space left on device"
    behind = RuntimeError("the log could not be written")
    behind.__cause__ = OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert is_of_storage(behind)
    assert storage_reason(behind) == "cannot write to storage: Read-only file system"
    assert not is_of_storage(FileNotFoundError(errno.ENOENT, "gone", "val.json"))
    assert not is_of_storage(MemoryError())
