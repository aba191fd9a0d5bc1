"""What follows a search: the display, and the files that grow with it."""

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from search.config import SearchConfig
from search.display import Display
from search.history import load_history, write_history_csv
from search.mirror_uri import under
from search.progress import Progress
from search.run.mirror import Mirror
from search.space import SearchSpace
from search.status import Node, State, StatusWriter, append_event
from search.tensorboard import TRIAL, write_columns, write_round, write_trial

_DRAWN_ROUNDS = 10
"""Of about so many rounds figures are drawn: on a busy driver all of them would cost too much."""


class Follower:
    """Passes the searcher's events to the display and to the files that grow with a search.

    A context, from before a session to when its results are written: the status in the
    experiment's folder is "running" in it, and afterwards what `end` was told, or what the
    exception says that ended it.
    """

    def __init__(self, experiment: Path, space: SearchSpace, config: SearchConfig) -> None:
        self._experiment = experiment
        self._progress, self._final = Progress.of(config), config.final
        self._display: Display | None = None
        self._status = StatusWriter(experiment, self._progress.facts)
        self._mirror = Mirror(
            experiment, config.mirror and under(config.mirror, config.name), self.note
        )
        self._names = space.names
        self._tensorboard = experiment / "tensorboard"
        # One thread: figures take a second, in which the driver would start no trial.
        self._later = ThreadPoolExecutor(1, "follower")

    def __enter__(self) -> "Follower":
        self._status.__enter__()
        self._mirror.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()
        self._status.__exit__(*error)
        self._mirror.close()

    def begin(self, records: Iterable[Mapping[str, Any]], slots: int) -> None:
        """Trials can run: `records` have finished before, and so many fit side by side."""
        self._progress.slots = slots
        self._display = Display(self._progress)
        self._display.replay(records)
        host, done = socket.gethostname(), len(self._progress.records)
        if done:
            self._display.note(f"resumed with {done} finished trials")
            append_event(self._experiment, f"resumed on {host} with {done} finished trials")
        else:
            append_event(self._experiment, f"started on {host}, {slots} trials side by side")
        self._status.changed()
        self._do(self._catch_up)

    def stop(self) -> None:
        """No more trials run: give the terminal back, and finish the files."""
        if self._display is not None:
            self._display.stop()
        self._later.shutdown()

    def end(self, state: State, problem: str | None = None) -> None:
        """Say how the search ends, where it has not come to its end."""
        self._status.end(state, problem)

    def nodes(self, nodes: Sequence[Node], slots: int) -> None:
        """The cluster has changed: its machines, and how many trials fit on them now."""
        self._progress.slots = slots
        self._status.update(nodes=tuple(nodes))

    def started(self, key: Mapping[str, Any]) -> None:
        if self._display:
            self._display.started(key)
        self._status.changed()

    def note(self, text: str) -> None:
        if self._display:
            self._display.note(text)
        append_event(self._experiment, text)
        self._status.changed()

    def finished(self, record: Mapping[str, Any]) -> None:
        self._progress.take(record)
        if record["phase"] == "final":
            self._progress.end_race(self._final)
        if self._display:
            self._display.finished(record)
        self._status.changed()
        self._mirror.changed()
        self._do(self._write_trial, record)

    def round_done(self, round: int) -> None:
        if self._display:
            self._display.round_done(round)
        self._do(self._write_round, round)

    # --- files, in a thread of their own; what fails there is in the journal all the same -------

    def _do(self, what: Callable[..., object], *arguments: Any) -> None:
        self._later.submit(what, *arguments)

    def _write_trial(self, record: Mapping[str, Any]) -> None:
        folder = self._experiment / str(record["trial_dir"])
        if folder.is_dir():
            write_trial(folder, record, self._names)

    def _write_round(self, round: int) -> None:
        history = load_history(self._experiment)
        write_history_csv(history, self._experiment / "history.csv")
        rounds = self._progress.rounds
        drawn = round % max(1, rounds // _DRAWN_ROUNDS) == 0 or round == rounds - 1
        write_round(self._tensorboard, history, round, figures=drawn)

    def _catch_up(self) -> None:
        """Write what an earlier session had no time for."""
        write_columns(self._tensorboard, self._names)
        for record in list(self._progress.records.values()):
            folder = self._experiment / str(record["trial_dir"])
            if not any(folder.glob(f"*{TRIAL}")):
                self._write_trial(record)
        for number in self._progress.whole_rounds():
            if not any(self._tensorboard.glob(f"*.round-{number:03d}")):
                self._write_round(number)
