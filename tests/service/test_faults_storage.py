"""Storage that is full or turns read-only while results are written to it: a real file system."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.service.short import ShortSearch, join

pytestmark = pytest.mark.slow

FEW = 0.1  # minutes that a search waits for its storage
SIZE = "24M"


@pytest.fixture
def disk(tmp_path):
    """A small ext4 of its own, mounted; skipped where that is not allowed."""
    disk = Disk(tmp_path / "disk", tmp_path / "image")
    disk.make()
    yield disk
    disk.unmount()


class Disk:
    """A file system in a file, which can be filled, made read-only by an error, and mended."""

    def __init__(self, path: Path, image: Path) -> None:
        self.path, self.image = path, image
        self._filler = path / "filler"

    def make(self) -> None:
        if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
            pytest.skip("needs root and mkfs.ext4 to mount a small disk")
        self.path.mkdir()
        _run("truncate", "-s", SIZE, self.image)
        _run("mkfs.ext4", "-q", self.image)
        try:
            self._mount()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no small disk can be mounted here: {error.stderr}")

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    def free(self) -> None:
        self._filler.unlink()

    def break_down(self) -> None:
        """The kernel turns it read-only, as it does after a real error, open files or not."""
        device = Path(_run("findmnt", "-no", "SOURCE", self.path).strip()).name
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")

    def mend(self) -> None:
        self.unmount()
        subprocess.run(["e2fsck", "-fy", self.image], capture_output=True)  # 1: mended
        self._mount()

    def unmount(self) -> None:
        subprocess.run(["umount", self.path], capture_output=True)

    def _mount(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", self.image, self.path)


def _run(*command: object) -> str:
    parts = [str(part) for part in command]
    return subprocess.run(parts, check=True, capture_output=True, text=True).stdout


def test_one_search_through_all_of_it(start, disk, cluster):
    """Full and freed, a second driver, an impatient user; read-only; damaged files; and done."""
    algorithm = {"rounds": 4, "samples": 4}
    search = ShortSearch(start, disk.path, join(cluster), algorithm=algorithm)

    # A full disk: nothing stops, and what was received waits in the driver.
    driver = search.start()
    driver.wait_for(lambda: len(search.records) >= 2)
    disk.fill()
    driver.wait_for(lambda: "No space left on device; trying again for 10" in driver.output)
    second = search.start()
    assert second.code() == 2
    assert f"(process {driver.process.pid} on {os.uname().nodename}, since " in second.output
    disk.free()
    driver.wait_for(lambda: "storage can be written again" in driver.output)
    driver.process.send_signal(signal.SIGHUP)  # the terminal is closed
    time.sleep(0.2)  # at once, the two might be one
    driver.process.send_signal(signal.SIGINT)
    assert driver.code(60) == 130, driver.output
    kept = finished(search, driver)

    # Read-only for good: the search stops, and goes on where storage is mended.
    config = search.path / "config.yaml"
    config.write_text(
        config.read_text().replace("storage_minutes: 10.0", f"storage_minutes: {FEW}")
    )
    driver = search.start()
    driver.wait_for(lambda: len(search.records) > len(kept))
    disk.break_down()
    assert driver.code(120) == 3, driver.output
    *_, last = driver.output.split("error: ")
    assert "Read-only file system" in last and "resources.storage_minutes" in last
    assert f"of {len(search.expected)} trials are finished and kept; go on with" in last
    disk.mend()
    assert finished(search, driver).items() >= kept.items()

    # Files cut in the middle, and a copy of one.
    kept = finished(search, driver)
    journal = search.path / "journal"
    cut, copied = (journal / f"{key}.json" for key in list(kept)[:2])
    copy = copied.with_stem(f"{copied.stem} (1)")
    copy.write_bytes(copied.read_bytes())
    others = [search.path / name for name in ("status.json", "events.jsonl", "history.csv")]
    for path in (cut, *others):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = kept.pop(cut.stem)
    driver = search.start()
    assert driver.code() == 0, driver.output
    copy.unlink()
    assert f"journal/{cut.name} cannot be read and was left out: its trial" in driver.output
    assert f"{copy.name} holds the trial {copied.stem} and was left out" in driver.output
    assert finished(search, driver).items() >= kept.items()
    assert search.what_counts() == search.expected
    assert search.records[cut.stem]["trial_id"] != before["trial_id"]
    assert json.loads((search.path / "status.json").read_text())["state"] == "finished"


def finished(search, driver):
    """The records on storage, each of which has to be right."""
    assert "Traceback" not in driver.output
    assert search.what_counts().items() <= search.expected.items()
    return search.records
