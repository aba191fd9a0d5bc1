"""Several workers that train one trial together: started together, and ended together.

What one of them meets, all of them meet: when a process crashes, the others' next exchange of
gradients fails, or never returns. So a trial of several workers has one end, which is what happened
first to one of them, and whoever still runs then is stopped.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from trainers.distributed import PeersLost, environments, meeting_point
from trainers.trial import TrialResult, TrialSpec
from trainers.worker import WorkerLost

_TURN_SECONDS = 0.1
_GRACE_SECONDS = 10.0
"""How long the worker that has left the others may take to be noticed, and told apart."""
_TOGETHER = ("diverged", "stopped")
"""Ends that all workers come to by themselves, some before others have told of them."""


class Member(Protocol):
    """A worker of a team; see `trainers.worker.TrialProcess`."""

    @property
    def host(self) -> str:
        """The address of its machine."""

    def start(
        self, spec: TrialSpec, folder: Path, stall_seconds: float, environment: dict[str, str]
    ) -> None: ...

    def poll(self, seconds: float) -> TrialResult | None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


def run_together(
    members: Sequence[Member], spec: TrialSpec, folder: Path, stall_seconds: float
) -> TrialResult:
    """Run `spec` on all `members`, by rank; nothing of it runs any more when this returns.

    Args:
        stall_seconds: of every member: each has to get on.

    Returns:
        The first member's result, with the images that any of them has skipped; or that of the
        member that failed, diverged or was stopped, and so ended the trial for all.

    Raises:
        WorkerLost: a member stalled or is gone with its machine, or they have lost each other.
    """
    if len(members) == 1:
        with _stopping(members):
            members[0].start(spec, folder, stall_seconds, {})
            return _together(members)
    hosts = [member.host for member in members]
    # On one machine nothing of theirs is to be seen from outside.
    meet_at = hosts[0] if len(set(hosts)) > 1 else "127.0.0.1"
    with meeting_point(meet_at, len(members)) as point, _stopping(members):
        for member, environment in zip(members, environments(point, hosts), strict=True):
            member.start(spec, folder, stall_seconds, environment)
        return _together(members)


@contextlib.contextmanager
def _stopping(members: Sequence[Member]) -> Iterator[None]:
    try:
        yield
    finally:
        for member in members:
            member.stop()


def _together(members: Sequence[Member]) -> TrialResult:
    results: dict[int, TrialResult] = {}
    left: dict[int, str] = {}
    until = float("inf")
    while len(results) + len(left) < len(members) and time.monotonic() < until:
        waiting = [rank for rank in range(len(members)) if rank not in results | left]
        for rank in waiting:
            try:
                # The others have had their turn by then.
                result = members[rank].poll(_TURN_SECONDS if rank == waiting[0] else 0)
            except PeersLost as error:
                left[rank] = str(error)
            except WorkerLost as error:
                raise WorkerLost(_by(rank, members, str(error))) from error
            else:
                if result is not None:
                    results[rank] = result
            if rank in results and results[rank].status in ("failed", "lost"):
                return _of_member(rank, members, results)
            if rank in left or (rank in results and results[rank].status in _TOGETHER):
                # The worker that they have lost is about to be noticed; all end together.
                until = min(until, time.monotonic() + _GRACE_SECONDS)
    ended = [rank for rank, result in sorted(results.items()) if result.status in _TOGETHER]
    if ended:
        return _of_member(ended[0], members, results)
    if left:
        rank, error = next(iter(left.items()))
        raise WorkerLost(_by(rank, members, f"lost its connection to the others: {error}"))
    return _of_member(0, members, results)


def _of_member(
    rank: int, members: Sequence[Member], results: dict[int, TrialResult]
) -> TrialResult:
    skipped = {image: why for r in results.values() for image, why in r.skipped_images.items()}
    result, error = results[rank], results[rank].error
    if result.status in ("failed", "lost") and error is not None:
        error = _by(rank, members, error)
    return result.model_copy(update={"skipped_images": skipped, "error": error})


def _by(rank: int, members: Sequence[Member], what: str) -> str:
    """Says which of several workers it was."""
    if len(members) == 1:
        return what
    return f"worker {rank} of {len(members)} ({members[rank].host}): {what}"
