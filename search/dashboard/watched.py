"""An experiment as the server sees it: read when it has changed, kept until it changes again."""

import hashlib
import json
import os
import threading
from pathlib import Path

from search.dashboard.data import (
    configuration,
    experiment_name,
    history_data,
    log_folders,
    status_data,
)
from search.history import History, load_history
from search.status import read_status

LOG_BYTES = 256 * 1024
"""How much of the end of a log is sent."""

# What a history is read from. The experiment itself is not among them: it changes with its status.
_PARTS = ("journal", "policy", "samples", "config.yaml", "space.json", "summary.json", "best.yaml")


class Watched:
    """One experiment; its methods read files, and may be called from any thread.

    Raises:
        BadExperiment: there is none at `path`.
        BadConfig: its config.yaml cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._tag, self._body, self._folders = "", b"", frozenset[str]()
        self.name = experiment_name(self._read())

    def tag(self) -> str:
        """A short text that differs when the history may have changed."""
        parts = [_stamp(self.path / name) for name in _PARTS]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def status(self) -> dict[str, object]:
        """The status, and the tag of the history that belongs to it."""
        return {"name": self.name, "history": self.tag(), **status_data(self.path)}

    def history(self) -> tuple[str, bytes]:
        """The tag, and `history_data` with the configuration, as JSON.

        Raises as the class does, where the experiment is not what it was.
        """
        with self._lock:
            tag = self.tag()  # before the files are read: what changes meanwhile changes the next
            if tag != self._tag:
                self._read()
                self._tag = tag
            return tag, self._body

    def log(self, folder: str) -> bytes | None:
        """The end of a trial's log; None where no trial has a folder of that name, or no log."""
        if folder not in self._folders | self._running():
            return None
        try:
            path = (self.path / folder / "train.log").resolve(strict=True)
            if not path.is_relative_to(self.path.resolve()) or not path.is_file():
                return None
            return _tail(path)
        except (OSError, ValueError):
            return None

    def _read(self) -> History:
        history = load_history(self.path)
        data = {**history_data(history), "configuration": configuration(history.config)}
        self._body = json.dumps(data, allow_nan=False, separators=(",", ":")).encode()
        names = {record["trial_dir"] for record in history.records}
        self._folders = log_folders(self.path) & names
        return history

    def _running(self) -> frozenset[str]:
        status = read_status(self.path)
        names = {trial.folder for trial in status.running} if status else set()
        return log_folders(self.path) & names if names else frozenset()


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes with a file, or with the names in a folder; None where there is none."""
    try:
        stat = path.stat()
        # A second file within one tick of the clock does not change a folder's time.
        count = len(os.listdir(path)) if path.is_dir() else stat.st_size
        return stat.st_mtime_ns, count
    except OSError:
        return None


def _tail(path: Path) -> bytes:
    with open(path, "rb") as file:
        left_out = max(0, os.fstat(file.fileno()).st_size - LOG_BYTES)
        file.seek(left_out)
        text = file.read(LOG_BYTES)
    if not left_out:
        return text
    _, _, text = text.partition(b"\n")
    return f"... the first {left_out / 1024:,.0f} KiB are left out ...\n".encode() + text
