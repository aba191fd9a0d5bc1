"""What travels to a cluster, and what never does."""

from pathlib import Path

import pytest

from cluster import upload
from cluster.upload import plan_upload
from paploss.errors import BadConfig

ROOT = Path(__file__).parents[2]


def write(folder: Path, *names: str, size: int = 1) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)


def travels(folder: Path) -> set[str]:
    return {path.as_posix() for path in plan_upload(folder).files}


def test_code_and_settings_travel_data_runs_weights_and_caches_do_not(tmp_path: Path) -> None:
    kept = {"search.yaml", "mine/losses.py", "mine/data/table.csv"}
    left = {
        ".git/config", ".venv/bin/python", "data/coco/train/1.jpg", "experiments/one/best.yaml",
        "trainings/one/log", "mine/__pycache__/losses.pyc", "mine/model.pth", ".mypy_cache/x",
    }  # fmt: skip
    write(tmp_path, *kept, *left)
    assert travels(tmp_path) == kept


def test_secrets_stay(tmp_path: Path) -> None:
    write(tmp_path, ".env", ".netrc", "keys/server.pem", ".ray/auth_token", "my_token", "a.yaml")
    planned = plan_upload(tmp_path, secret=tmp_path / "my_token")
    assert {path.as_posix() for path in planned.files} == {"a.yaml"}
    assert "/my_token" in planned.excludes  # which is what Ray is told


def test_ignore_files_are_heeded_in_each_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "b.txt", "deep/a.txt", "deep/b.txt", "deep/c.txt")
    (tmp_path / ".gitignore").write_text("/a.txt\n")
    (tmp_path / "deep" / ".rayignore").write_text("c.txt\n")
    assert travels(tmp_path) == {
        ".gitignore", "b.txt", "deep/.rayignore", "deep/a.txt", "deep/b.txt",
    }  # fmt: skip


def test_what_is_counted_is_what_ray_packs(tmp_path: Path) -> None:
    from zipfile import ZipFile

    from ray._private.runtime_env.packaging import create_package

    write(tmp_path / "project", "a.py", ".git/x", "data/1.jpg", "deep/.env", "deep/b.py")
    planned = plan_upload(tmp_path / "project")
    package = tmp_path / "package.zip"
    create_package(
        str(planned.folder), package, include_gitignore=True, excludes=list(planned.excludes)
    )
    assert set(ZipFile(package).namelist()) == {path.as_posix() for path in planned.files}


def test_a_checkout_brings_paploss_and_is_small() -> None:
    planned = plan_upload(ROOT)
    assert planned.has_paploss
    assert planned.holds(ROOT / "configs" / "search" / "shapes.yaml")
    assert planned.size < 30 * 2**20
    assert not planned.holds(ROOT / ".git")


def test_a_project_has_no_paploss(tmp_path: Path) -> None:
    write(tmp_path, "search.yaml")
    assert not plan_upload(tmp_path).has_paploss


def test_too_much_is_refused_with_the_largest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "LIMIT", 1_000_000)
    write(tmp_path, "images/train/1.jpg", "images/train/2.jpg", size=400_000)
    write(tmp_path, "images/val/1.jpg", "video.mp4", size=250_000)
    with pytest.raises(BadConfig) as caught:
        plan_upload(tmp_path)
    lines = str(caught.value).splitlines()
    assert "1.2 MiB would be uploaded" in lines[0]  # 1,300,000 bytes
    assert [line.split()[-1] for line in lines[1:4]] == ["images/train", "images/val", "video.mp4"]
    assert ".rayignore" in lines[-1]


@pytest.mark.parametrize("folder", [Path.home(), Path("/"), Path("/no/such/folder")])
def test_a_folder_that_is_no_project_is_refused(folder: Path) -> None:
    with pytest.raises(BadConfig, match="--working-dir"):
        plan_upload(folder)
