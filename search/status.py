"""What a running search says of itself in its folder: status.json, as it is now, and events.jsonl.

Whoever watches, on this machine or another, reads these two and the journal. They are no part of
the result: what cannot be written is left out, and what cannot be read is passed over.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from paploss.files import read_json, write_json

SILENT_SECONDS = 30.0
"""A search that calls itself running and has not written for so long gives no sign of life."""

State = Literal["running", "finished", "interrupted", "stopped"]


class _Lenient(BaseModel):
    """Frozen; what a later version adds is left aside."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Node(_Lenient):
    """A machine of the cluster and what it has."""

    address: str
    cpus: float = Field(ge=0)
    gpus: float = Field(ge=0)
    alive: bool


class RunningTrial(_Lenient):
    """A trial under way: its key, the time it began, its folder in the experiment."""

    phase: Literal["baseline", "start", "rung", "search", "final"]
    round: int = Field(ge=0)
    slot: int = Field(ge=0)
    repeat: int = Field(ge=0)
    started: float = Field(ge=0)
    folder: str | None = None


class Status(_Lenient):
    """How a search stands; times are seconds since 1970, by the clock of its machine.

    Attributes:
        problem: why it has stopped, if it has.
        updated: the last sign of life; it advances while nothing happens, too.
        started: the begin of this session.
        host, pid: where its process is.
        slots: trials that fit side by side.
        total_trials: all of the search, finished ones too.
        pending: trials that are neither finished nor running.
        left_seconds: an estimate; None before a trial has finished.
    """

    state: State
    problem: str | None = None
    updated: float = Field(ge=0)
    started: float = Field(ge=0)
    host: str = ""
    pid: int = 0
    slots: int = Field(0, ge=0)
    nodes: tuple[Node, ...] = ()
    total_trials: int = Field(0, ge=0)
    running: tuple[RunningTrial, ...] = ()
    pending: int = Field(0, ge=0)
    left_seconds: float | None = Field(None, ge=0)

    def silent_seconds(self, now: float | None = None) -> float:
        """Seconds since the last sign of life; never negative, where clocks differ."""
        return max(0.0, (time.time() if now is None else now) - self.updated)

    def is_lost(self, now: float | None = None) -> bool:
        """Whether it calls itself running and gives no sign of life."""
        return self.state == "running" and self.silent_seconds(now) > SILENT_SECONDS


class Event(NamedTuple):
    """Something that the user was told in one line, and when (seconds since 1970)."""

    time: float
    text: str


def read_status(experiment: Path) -> Status | None:
    """The status of an experiment; None where it has none that can be used. Never raises."""
    try:
        return Status.model_validate(read_json(Path(experiment) / "status.json"))
    except (OSError, ValueError, RecursionError, ValidationError):
        return None


def append_event(experiment: Path, text: str, now: float | None = None) -> None:
    """Add one line to events.jsonl; a line that was cut before it stays the only one lost.

    Nothing is raised where it cannot be written.
    """
    line = json.dumps({"time": time.time() if now is None else now, "text": text})
    with contextlib.suppress(OSError), open(Path(experiment) / "events.jsonl", "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        whole = end == 0 or (file.seek(end - 1), file.read(1))[1] == b"\n"
        file.write(("" if whole else "\n").encode() + f"{line}\n".encode())


def read_events(experiment: Path) -> tuple[Event, ...]:
    """All events in their order; lines that are cut or make no sense are passed over.

    Never raises.
    """
    try:
        text = (Path(experiment) / "events.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(event for event in map(_event, text.split("\n")) if event is not None)


def _event(line: str) -> Event | None:
    try:
        value = json.loads(line)
        moment, text = value["time"], value["text"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    known = isinstance(text, str) and isinstance(moment, float | int)
    return Event(float(moment), text) if known and 0 <= moment < 1e12 else None


class StatusWriter:
    """Keeps status.json of a running search up to date, from a thread of its own.

    So a search never waits for the disk, or ends, because of its status; and a sign of life is
    given while nothing else happens. Used as a context: at its end the state is what `end` was
    given, else what the exception says.

    Args:
        facts: fields of `Status` as they are now (running, pending, left_seconds ...), asked for
            before each writing, from the thread.
        least: seconds between two writings, at least.
        beat: seconds between two signs of life.
    """

    def __init__(
        self,
        experiment: Path,
        facts: Callable[[], Mapping[str, Any]] = dict,
        *,
        least: float = 1.0,
        beat: float = 5.0,
    ) -> None:
        self._path = Path(experiment) / "status.json"
        self._facts = facts
        self._least, self._beat = least, beat
        self._fields: dict[str, Any] = {
            "state": "running",
            "problem": None,
            "started": time.time(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self._changed, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="status", daemon=True)

    def __enter__(self) -> "StatusWriter":
        for left in self._path.parent.glob(".status.json.*.tmp"):  # of a process that was killed
            with contextlib.suppress(OSError):
                left.unlink()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fields["state"] == "running":
            self._end_of(error)
        self._ended.set()
        self._changed.set()
        self._thread.join(timeout=10)  # of storage that hangs

    def update(self, **fields: Any) -> None:
        """Set fields of the status that `facts` does not tell, such as `slots` and `nodes`."""
        self._fields = {**self._fields, **fields}
        self._changed.set()

    def changed(self) -> None:
        """Something has happened: write what `facts` tells, soon."""
        self._changed.set()

    def end(self, state: State, problem: str | None = None) -> None:
        """Say how the search has ended, and put an event beside it."""
        self.update(state=state, problem=problem)
        ends = {"finished": "has finished", "interrupted": "was interrupted"}
        how = ends.get(state, "has stopped")
        append_event(self._path.parent, f"the search {how}{f': {problem}' if problem else ''}")

    def _end_of(self, error: BaseException | None) -> None:
        if error is None:
            self.end("finished")
        elif isinstance(error, KeyboardInterrupt):
            self.end("interrupted")
        else:
            self.end("stopped", " ".join(str(error).split()) or type(error).__name__)

    def _keep_writing(self) -> None:
        while not self._ended.is_set():
            self._write()
            self._ended.wait(self._least)
            self._changed.wait(self._beat)
            self._changed.clear()
        self._write()

    def _write(self) -> None:
        # Whatever it is, a full disk or a fact that cannot be told: the search goes on.
        with contextlib.suppress(Exception):
            ended = self._fields["state"] != "running"
            facts = {**self._facts(), **({"running": ()} if ended else {})}
            status = Status.model_validate({**self._fields, **facts, "updated": time.time()})
            if self._path.parent.is_dir():  # one that was removed does not come back
                write_json(self._path, status.model_dump(mode="json"))
