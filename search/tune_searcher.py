"""The searcher that Ray Tune asks for trials.

Everything is keyed by a trial's key, which travels in its config, and never by Tune's trial id:
an error arrives with an id and nothing else, and a sample that is issued again has a new one.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ray.tune.search import Searcher

from paploss.files import is_of_storage, storage_reason
from search.config import SearchConfig
from search.journal import Journal, TrialKey
from search.ledger import Assignment
from search.plan import Plan
from search.screen import Screen
from search.space import SearchSpace
from search.storage import StorageTrouble

_ATTEMPTS = 2
"""How often a sample may fail by itself, or be lost by the cluster, before that counts."""


class Listener(Protocol):
    """What follows a search (see `search.display.Display`)."""

    def started(self, key: Mapping[str, Any]) -> None: ...
    def finished(self, record: Mapping[str, Any]) -> None: ...
    def round_done(self, round: int) -> None: ...
    def note(self, text: str) -> None: ...


def no_screen() -> Screen | None:
    """Every sample is tried. (A function with a name, so that it can be pickled.)"""
    return None


class PlanSearcher(Searcher):
    """Carries out a `Plan`, round by round.

    All open trials are issued at once, as many as `slots` allows. A sample whose trial fails is
    issued once more, and then recorded as failed; so is a sample that the cluster has lost, after
    Ray's own retries, but then the search stops: that says nothing about theta.

    While storage cannot be written, what has been received waits here, in its order, and no trial
    is issued; trials that run go on.

    Args:
        experiment: the experiment's directory.
        slots: the most trials alive at a time.
        listener: told of what happens; not part of the searcher's state.
        interrupted: whether the user has asked for the end, so that nothing is waited for.
        screen: makes what samples have to pass.

    Attributes:
        problem: why the search has stopped issuing trials, or None.
    """

    def __init__(
        self,
        experiment: Path,
        space: SearchSpace,
        config: SearchConfig,
        *,
        baseline: str,
        slots: int,
        listener: Listener | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        screen: Callable[[], Screen | None] = no_screen,
    ) -> None:
        # No metric: with one set, a trial that ends without reporting it would end all.
        super().__init__()
        self._settings = (experiment, space, config, baseline, slots)
        self._listener = listener
        self._interrupted = interrupted
        self._screen = screen
        self._build()

    def _build(self) -> None:
        experiment, space, config, baseline, self._slots = self._settings
        self.plan = Plan(space, config, Journal(experiment), baseline, self._screen())
        self.problem = self.plan.problem
        self._live: dict[str, TrialKey] = {}
        self._failures: Counter[TrialKey] = Counter()
        self._losses: Counter[TrialKey] = Counter()
        self._reasons: dict[TrialKey, str] = {}
        self._received: list[tuple[str, TrialKey, dict[str, Any]]] = []
        self._storage = StorageTrouble(config.resources.storage_minutes, self._note)

    # --- asked by Tune --------------------------------------------------------------------------

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """True: the cap is kept here, and Tune's limiter stays out of the way.

        Its own bookkeeping drops the ids that it does not know after a restore. Its presence
        makes Tune queue as many trials, without which they would start one after another.
        """
        self._slots = max_concurrent
        return True

    def suggest(self, trial_id: str) -> Any:
        """The config of a trial; None to wait; FINISHED after the last reward, or a problem."""
        self.keep()
        self._tell_notes()
        if self.problem or self.plan.finished:
            return Searcher.FINISHED
        if self._received or self._storage.waits:
            # With no trial alive Tune asks for minutes on end, deaf to Ctrl-C.
            return Searcher.FINISHED if self._interrupted() else None
        if len(self._live) >= self._slots:
            return None
        taken = set(self._live.values())
        waiting = (a for a in self.plan.open if a.key not in taken)
        assignment = next(waiting, None)
        if assignment is None:
            return None
        self._live[trial_id] = assignment.key
        return self._config(assignment)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take a reward; ids that are not alive are ignored. Never raises: Tune would repeat it."""
        key = self._live.pop(trial_id, None)
        if key is None:
            return
        try:
            if error or not result or "record" not in result:
                self._lost(key)
                return
            outcome = json.loads(result["record"])
            if outcome["status"] == "lost":
                self._storage_failed(f"{key}: {outcome['error']}")
            elif outcome["status"] == "failed" and self._failures[key] + 1 < _ATTEMPTS:
                self._failures[key] += 1
                self._note(f"{key} failed, trying once more: {outcome['error']}")
            else:
                self._received.append((trial_id, key, outcome))
                self.keep()
        except Exception as failure:
            self._stop(f"the result of {key} could not be kept: {failure}")

    def keep(self) -> None:
        """Write what was received and is not yet on storage. Never raises.

        Called again and again from Tune's loop.
        """
        while self._received and not self._storage.waits:
            trial_id, key, outcome = self._received[0]
            try:
                self._record(trial_id, key, outcome)
                self._storage.works()
            except Exception as failure:
                if is_of_storage(failure):
                    self._storage_failed(storage_reason(failure, self._settings[0]))
                    return
                self._stop(f"the result of {key} could not be kept: {failure}")
            del self._received[0]

    @property
    def unwritten(self) -> int:
        """How many finished trials could not be written so far."""
        return len(self._received)

    @property
    def gave_up(self) -> bool:
        """Whether storage has failed for so long that nothing is waited for."""
        return self._storage.problem is not None

    # --- state ----------------------------------------------------------------------------------

    def save(self, checkpoint_path: str) -> None:
        """A hint for Tune's snapshot; the journal is what counts."""
        Path(checkpoint_path).write_text(json.dumps({"finished": len(self.plan.records)}))

    def restore(self, checkpoint_path: str) -> None:
        """Replay the journal; the snapshot may be older or newer than it, and is not read."""
        self._build()

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self._settings, "screen": self._screen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self._settings = state["settings"]
        self._listener = None
        self._interrupted = lambda: False
        self._screen = state["screen"]
        self._build()

    # --- inside ---------------------------------------------------------------------------------

    def _config(self, assignment: Assignment) -> dict[str, Any]:
        theta, stop = assignment.theta, assignment.early_stop
        return {
            "experiment": str(self._settings[0]),
            **assignment.key._asdict(),
            "seed": assignment.seed,
            "theta": {} if theta is None else self.plan.space.as_dict(theta),
            **({} if stop is None else {"early_stop": dict(stop)}),
        }

    def _record(self, trial_id: str, key: TrialKey, outcome: dict[str, Any]) -> None:
        assignment = self.plan.assignment(key)
        assert assignment is not None
        record = {
            **key._asdict(),
            "label": assignment.label,
            "theta": None if assignment.theta is None else list(assignment.theta),
            "seed": assignment.seed,
            **outcome,
            "attempt": self._failures[key] + self._losses[key],
            "trial_id": trial_id,
        }
        before = self.plan.algorithm.round
        for taken in self.plan.record(record):
            self._tell("finished", taken)
        for round in range(before, self.plan.algorithm.round):
            self._tell("round_done", round)
        self._tell_notes()
        if self.plan.problem:
            self._stop(self.plan.problem)

    def _lost(self, key: TrialKey) -> None:
        self._losses[key] += 1
        if self._losses[key] < _ATTEMPTS:
            self._note(f"{key} was lost with its process or machine; issued again.")
            return
        why = self._reasons.get(key)
        self._stop(
            f"{key} was lost {self._losses[key]} times with its process or machine, after Ray's "
            "own retries: the cluster keeps failing, which says nothing about the loss."
            + (f" The last time: {why}" if why else "")
        )

    def remember_loss(self, key: TrialKey, why: str) -> None:
        """Why Ray has started a trial again; Tune does not tell when it gives one up."""
        self._reasons[key] = why

    def _storage_failed(self, reason: str) -> None:
        self._storage.failed(reason)
        if self._storage.problem:
            self._stop(self._storage.problem)

    def _stop(self, problem: str) -> None:
        """Issue no more trials. The first problem is the one that is told."""
        if self.problem is None:
            self.problem = problem
            self._note(problem)

    def _tell_notes(self) -> None:
        while self.plan.notes:
            self._note(self.plan.notes.pop(0))

    def _note(self, text: str) -> None:
        self._tell("note", text)

    def _tell(self, event: str, *what: Any) -> None:
        tell(self._listener, event, *what)


def tell(listener: Listener | None, event: str, *what: Any) -> None:
    """Tell the listener. A terminal that is gone, or a full disk, must not end a search."""
    if listener:
        with contextlib.suppress(Exception):
            getattr(listener, event)(*what)
