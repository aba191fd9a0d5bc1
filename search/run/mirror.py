"""A copy of an experiment's small files on other storage, brought up to date while it runs.

With it a search survives the loss of its machine and its disk: `paploss restore` brings back what
`paploss resume` needs.
"""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from search.run.remote import Connect, get, local_names, one_line, open_remote, put, remote_names

FLUSH_SECONDS = 60.0
"""How long the end of a search waits for its last files to be copied."""
_PATIENCE = 3  # failures in a row before the user is told
_LONGEST_PAUSE = 60.0  # seconds


class Mirror:
    """Copies what has changed, in a thread of its own; the search neither waits nor fails for it.

    A context, which ends with a last copy. Without an address it does nothing.

    Args:
        uri: the folder to copy to, see `search.mirror_uri`; it is this experiment's alone.
        say: told one line when copying keeps failing, when it works again, or when it is refused.
        retry_seconds: the first pause after a failure; each one after it is twice as long.
    """

    def __init__(
        self,
        experiment: Path,
        uri: str | None,
        say: Callable[[str], object],
        connect: Connect | None = None,
        retry_seconds: float = 2.0,
    ) -> None:
        self._experiment = experiment
        self._uri = uri or ""
        self._say = say
        self._connect = connect or open_remote
        self._remote: tuple[Any, str] | None = None
        self._copied: dict[str, tuple[int, int]] = {}
        self._retry_seconds = retry_seconds
        self._failures = 0
        self._reason = "it does not answer"
        self._changed = threading.Event()
        self._ending = threading.Event()
        # A daemon: a storage that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def __enter__(self) -> "Mirror":
        if self._uri:
            self._thread.start()
            self.changed()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def changed(self) -> None:
        """Something in the experiment is new: copy it soon. Returns at once."""
        self._changed.set()

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Copy what is still missing, for at most `seconds`."""
        if not self._thread.is_alive():
            return
        self._ending.set()
        self._changed.set()
        self._thread.join(seconds)
        if self._thread.is_alive() or self._failures:
            self._say(
                f"the mirror {self._uri} lacks the newest files ({self._reason}); they are in "
                f"{self._experiment}."
            )

    def _run(self) -> None:
        while True:
            if self._failures:
                pause = self._retry_seconds * 2 ** min(self._failures - 1, 10)
                self._ending.wait(min(pause, _LONGEST_PAUSE))
            else:
                self._changed.wait()
            last = self._ending.is_set()  # before the copy: nothing changes after it
            self._changed.clear()
            try:
                self._copy()
            except MirrorTaken as problem:
                self._say(f"nothing is mirrored: {problem}")
                return
            except Exception as error:  # whatever a storage raises: the search goes on
                self._failed(one_line(error))
            else:
                if self._failures >= _PATIENCE:
                    self._say(f"the mirror {self._uri} is written again.")
                self._failures = 0
            if last and self._is_settled():
                return

    def _is_settled(self) -> bool:
        """Whether everything is copied, or was tried often enough."""
        if 0 < self._failures < _PATIENCE:
            time.sleep(self._retry_seconds / 4)
            return False
        return True

    def _failed(self, reason: str) -> None:
        self._failures += 1
        self._reason = reason
        if self._failures == _PATIENCE and not self._ending.is_set():
            self._say(
                f"the mirror {self._uri} cannot be written ({reason}); the search goes on and "
                "tries again."
            )

    def _copy(self) -> None:
        """Copy every file that is not there as it is here."""
        if self._remote is None:
            remote = self._connect(self._uri)
            _claim(*remote, self._experiment)
            self._remote = remote
        filesystem, root = self._remote
        for name in local_names(self._experiment):
            path = self._experiment / name
            try:
                about = path.stat()
                stamp = (about.st_mtime_ns, about.st_size)
                if self._copied.get(name) == stamp:
                    continue
                data = path.read_bytes()
            except FileNotFoundError:  # replaced or taken back in this moment
                continue
            put(filesystem, f"{root}/{name}", data)
            self._copied[name] = stamp


class MirrorTaken(Exception):
    """The mirror holds what this experiment would overwrite."""


def _claim(filesystem: Any, root: str, experiment: Path) -> None:
    """Make sure that the mirror is this experiment's.

    Raises:
        MirrorTaken: it is another's, or has finished trials that are missing here; copying over
            them would lose the one or mix both.
    """
    names = remote_names(filesystem, root)
    config = "config.yaml"
    if (
        config in names
        and get(filesystem, f"{root}/{config}") != (experiment / config).read_bytes()
    ):
        raise MirrorTaken(
            f"{root} holds another experiment. Give this one another name, or another mirror."
        )
    here = set(local_names(experiment))
    more = [name for name in names if name.startswith("journal/") and name not in here]
    for name in more:
        # A resume takes failed trials back, to try them again; that is all that may be missing.
        if not _is_failed(get(filesystem, f"{root}/{name}")):
            raise MirrorTaken(
                f"{root} has finished trials that {experiment} lacks. Bring them back with "
                "`paploss restore` into a new folder and resume there, or give another mirror."
            )
    for name in more:
        filesystem.delete_file(f"{root}/{name}")


def _is_failed(record: bytes) -> bool:
    try:
        return bool(json.loads(record)["status"] == "failed")
    except (ValueError, KeyError, TypeError):  # damaged: not ours to delete
        return False
