"""Independent trials side by side on Ray: as many at once as the cluster has room for."""

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from paploss.errors import SearchStopped
from search.run.cluster import Cluster
from trainers.trial import TrialResult, TrialSpec, one_line
from trainers.worker import TrialProcess, WorkerLost

_ATTEMPTS = 3
"""So often a trial is tried whose process or machine was lost, and an actor started."""
_POLL_SECONDS = 1.0
_LOOK_SECONDS = 5.0
"""So often machines that have joined or gone are looked for."""


@dataclass(frozen=True)
class Job:
    """One trial to run.

    Attributes:
        row, repeat: what it is for.
        folder: where its log goes; every machine of the cluster has to see it.
    """

    row: str
    repeat: int
    spec: TrialSpec
    folder: Path


def run_jobs(
    jobs: Sequence[Job], cluster: Cluster, note: Callable[[str], None]
) -> Generator[tuple[Job, dict[str, Any]], None, None]:
    """Each job with its record as it ends, in whatever way: a `TrialResult`, and when and where.

    Close the iterator to end what still runs.

    Args:
        note: told when a trial has lost its process and is tried again.

    Raises:
        SearchStopped: no trial can be started, or none gets room on the cluster.
    """
    pool = _Pool(jobs, cluster, note)
    try:
        while pool.unfinished:
            yield from pool.advance()
    finally:
        pool.close()


class _Slot:
    """An actor: it holds the resources of one trial, and a process that runs trial after trial."""

    def __init__(self) -> None:
        self._process = TrialProcess()

    def ready(self) -> None:
        """Return once it can be given a trial."""

    def run(self, spec: str, folder: str, stall_seconds: float) -> str:
        """One trial to its end, as JSON both ways.

        Raises:
            WorkerLost: the training process is gone; and with it this actor's use.
        """
        started = time.time()
        result = self._process.run(TrialSpec.model_validate_json(spec), Path(folder), stall_seconds)
        if result.status == "lost":
            raise WorkerLost(result.error)
        finished = time.time()
        about = {"seconds": finished - started, "started": started, "finished": finished}
        node = ray.util.get_node_ip_address()
        return json.dumps({**result.model_dump(mode="json"), **about, "node": node})


class _Pool:
    def __init__(self, jobs: Sequence[Job], cluster: Cluster, note: Callable[[str], None]) -> None:
        self._cluster, self._note = cluster, note
        self._waiting = deque((job, 1) for job in jobs)
        self._starting: dict[Any, Any] = {}  # the answer to come -> the actor
        self._running: dict[Any, tuple[Any, Job, int]] = {}  # and its job, and which attempt it is
        self._failed_starts = 0
        self._last_event = time.monotonic()
        self._next_look = self._last_event + _LOOK_SECONDS

    @property
    def unfinished(self) -> bool:
        return bool(self._waiting or self._running)

    def advance(self) -> Iterator[tuple[Job, dict[str, Any]]]:
        """Start what there is room for, and wait a moment for something to end."""
        wanted = min(self._room(), len(self._waiting) + len(self._running))
        while len(self._starting) + len(self._running) < wanted:
            self._start_actor()
        answers = [*self._running, *self._starting]
        done, _ = ray.wait(answers, num_returns=1, timeout=_POLL_SECONDS)
        for answer in done:
            self._last_event = time.monotonic()
            if answer in self._starting:
                self._take_up(answer, self._starting.pop(answer))
            else:
                yield from self._end(answer, *self._running.pop(answer))
        self._check_room()

    def close(self) -> None:
        """Kill the actors, and with them what they run."""
        actors = [*self._starting.values(), *(actor for actor, *_ in self._running.values())]
        self._starting.clear()
        self._running.clear()
        for actor in actors:
            ray.kill(actor)

    def _room(self) -> int:
        """Trials that fit side by side now; any number where machines are added for them."""
        if self._cluster.resources.autoscaling:
            return len(self._waiting) + len(self._running)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            self._cluster.look()
        return self._cluster.slots

    def _start_actor(self) -> None:
        resources = self._cluster.resources
        slot: Any = ray.remote(_Slot)
        actor = slot.options(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus).remote()
        self._starting[actor.ready.remote()] = actor

    def _take_up(self, answer: Any, actor: Any) -> None:
        """An actor that has started gets its first trial."""
        try:
            ray.get(answer)
        except (RayActorError, RayTaskError) as error:
            self._failed_starts += 1
            if self._failed_starts >= _ATTEMPTS:
                raise SearchStopped(
                    f"no training process could be started: {_said(error)}"
                ) from error
            return
        self._failed_starts = 0
        self._give(actor)

    def _give(self, actor: Any) -> None:
        """The next trial to a free actor; without one, the actor's resources back."""
        if not self._waiting:
            ray.kill(actor)
            return
        job, attempt = self._waiting.popleft()
        stall_seconds = 60 * self._cluster.resources.stall_minutes
        answer = actor.run.remote(job.spec.model_dump_json(), str(job.folder), stall_seconds)
        self._running[answer] = (actor, job, attempt)

    def _end(
        self, answer: Any, actor: Any, job: Job, attempt: int
    ) -> Iterator[tuple[Job, dict[str, Any]]]:
        try:
            record = json.loads(ray.get(answer))
        except (RayActorError, RayTaskError) as error:
            ray.kill(actor)
            if attempt < _ATTEMPTS:
                self._waiting.appendleft((job, attempt + 1))
                self._note(f"{job.row} seed {job.repeat}: lost its process; trying again")
                return
            lost = TrialResult(status="failed", error=f"{attempt} attempts: {_said(error)}")
            record = {**lost.model_dump(mode="json"), "seconds": 0.0}
        else:
            self._give(actor)
        yield job, {**record, "attempt": attempt, "seed": job.spec.seed}

    def _check_room(self) -> None:
        minutes = self._cluster.resources.pending_minutes
        if not self._running and time.monotonic() - self._last_event > 60 * minutes:
            raise SearchStopped(
                f"for {minutes:g} minutes no trial could start: the cluster has no room for "
                f"{self._cluster.resources.cpus_per_trial:g} CPUs and "
                f"{self._cluster.resources.gpus:g} GPUs. See `ray status`."
            )


def _said(error: Exception) -> str:
    """What went wrong in the actor, without the stack that Ray puts into its message."""
    cause = getattr(error, "cause", None)
    return one_line(cause if isinstance(cause, BaseException) else error)
