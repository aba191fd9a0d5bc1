"""The cluster's head node, watched: without it Ray can do nothing, and kills its driver."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

_LOOK_SECONDS = 1.0
_RAY_WAITS = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""The setting of Ray's own patience with its head; 60 s unless it is set."""


@contextmanager
def watch_head(note: Callable[[str], None], lost: Callable[[str], None]) -> Iterator[None]:
    """Look from a thread, as long as the block runs, whether the cluster's head is there.

    A driver whose head is gone hangs inside Ray, out of Python's reach, and after a minute Ray
    ends its process with a message of its own and no clean-up. So half of that time is waited
    for a head that comes back, and the other half is left to whoever is told.

    Args:
        note: told in a line that the head is away, or back.
        lost: told why the search ends, from the thread; it should end the process.
    """
    address = str(ray.get_runtime_context().gcs_address)
    over = threading.Event()
    watch = threading.Thread(
        target=_watch, args=(address, over, note, lost), name="head", daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        over.set()


def patience() -> float:
    """Seconds without a head before the search ends."""
    return float(os.environ.get(_RAY_WAITS, "60")) / 2


def _watch(
    address: str,
    over: threading.Event,
    note: Callable[[str], None],
    lost: Callable[[str], None],
) -> None:
    away: float | None = None  # since when
    while not over.wait(_LOOK_SECONDS):
        now = time.monotonic()
        if _answers(address):
            if away is not None:
                note(f"the cluster's head node at {address} answers again")
            away = None
        elif away is None:
            away = now
            note(
                f"the cluster's head node at {address} does not answer; waiting for it for "
                f"{patience():.0f} seconds"
            )
        elif now - away > patience() and not over.is_set():
            lost(
                f"the cluster's head node at {address} has not answered for {now - away:.0f} "
                "seconds; start the cluster again, or join another."
            )
            return


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=3):
            return True
    except OSError:
        return False
