"""One process at a time on a folder."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from paploss.errors import BadExperiment


@contextlib.contextmanager
def only_process(folder: Path, advice: str) -> Iterator[None]:
    """Refuse a second process on the same folder; the lock ends with the process.

    On NFS this holds between machines as well, where its locks are on (the default; not with
    the mount options `nolock` and `local_lock`).

    Args:
        advice: what to do, for who is refused.

    Raises:
        BadExperiment: another process holds it, nothing can be written there, or storage there
            has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not emptied here: it says who holds the lock.
        file = os.fdopen(os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644), "r+")
    except OSError as error:
        raise BadExperiment(
            f"cannot write to {folder}: {error.strerror}. Choose another place, or make room there."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadExperiment(
                f"another process is running {folder}{_holder(file)}. {advice}"
            ) from error
        except OSError as error:
            raise BadExperiment(
                f"cannot lock {folder}: {error.strerror}. An experiment needs storage with file "
                "locks, so that no two searches write to it."
            ) from error
        _sign(file)
        yield


def _sign(file: IO[str]) -> None:
    """Say who holds the lock: for messages alone, so a full disk is no matter."""
    with contextlib.suppress(OSError):
        file.truncate()
        begun = time.strftime("%Y-%m-%d %H:%M:%S")
        os.pwrite(
            file.fileno(),
            f"process {os.getpid()} on {socket.gethostname()}, since {begun}".encode(),
            0,
        )


def _holder(file: IO[str]) -> str:
    try:
        told = file.read(200)
    except (OSError, ValueError):
        return ""
    return f" ({told})" if told.isprintable() and told else ""
