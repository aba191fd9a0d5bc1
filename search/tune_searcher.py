"""The searcher that Ray Tune asks for trials, and what Tune tells the user through it.

Everything is keyed by a trial's key, which travels in its config, and never by Tune's trial id:
an error arrives with an id and nothing else, and a sample that is issued again has a new one.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ray.tune import Callback
from ray.tune.search import Searcher

from paploss.errors import SearchStopped
from search.config import SearchConfig
from search.journal import Journal, TrialKey
from search.plan import Assignment, Plan
from search.space import SearchSpace

_ATTEMPTS = 2
"""How often a sample may fail by itself, or be lost by the cluster, before that counts."""


class Listener(Protocol):
    """What follows a search (see `search.display.Display`)."""

    def started(self, key: Mapping[str, Any]) -> None: ...
    def finished(self, record: Mapping[str, Any]) -> None: ...
    def round_done(self, round: int) -> None: ...
    def note(self, text: str) -> None: ...


class PlanSearcher(Searcher):
    """Carries out a `Plan`, round by round.

    All open trials are issued at once, as many as `slots` allows. A sample whose trial fails is
    issued once more, and then recorded as failed; so is a sample that the cluster has lost, after
    Ray's own retries, but then the search stops: that says nothing about theta.

    Args:
        experiment: the experiment's directory.
        slots: the most trials alive at a time.
        listener: told of what happens; not part of the searcher's state.

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
    ) -> None:
        # No metric: with one set, a trial that ends without reporting it would end all.
        super().__init__()
        self._settings = (experiment, space, config, baseline, slots)
        self._listener = listener
        self._build()

    def _build(self) -> None:
        experiment, space, config, baseline, self._slots = self._settings
        self.plan = Plan(space, config, Journal(experiment), baseline)
        self.problem = self.plan.problem
        self._live: dict[str, TrialKey] = {}
        self._failures: Counter[TrialKey] = Counter()
        self._losses: Counter[TrialKey] = Counter()

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
        if self.problem or self.plan.finished:
            return Searcher.FINISHED
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
            if outcome["status"] == "failed" and self._failures[key] + 1 < _ATTEMPTS:
                self._failures[key] += 1
                self._note(f"{key} failed, trying once more: {outcome['error']}")
            else:
                self._record(trial_id, key, outcome)
        except Exception as failure:
            self.problem = f"the result of {key} could not be kept: {failure}"
            self._note(self.problem)

    # --- state ----------------------------------------------------------------------------------

    def save(self, checkpoint_path: str) -> None:
        """A hint for Tune's snapshot; the journal is what counts."""
        Path(checkpoint_path).write_text(json.dumps({"finished": len(self.plan.records)}))

    def restore(self, checkpoint_path: str) -> None:
        """Replay the journal; the snapshot may be older or newer than it, and is not read."""
        self._build()

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self._settings = state["settings"]
        self._listener = None
        self._build()

    # --- inside ---------------------------------------------------------------------------------

    def _config(self, assignment: Assignment) -> dict[str, Any]:
        theta = assignment.theta
        return {
            "experiment": str(self._settings[0]),
            **assignment.key._asdict(),
            "seed": assignment.seed,
            "theta": {} if theta is None else self.plan.space.as_dict(theta),
        }

    def _record(self, trial_id: str, key: TrialKey, outcome: dict[str, Any]) -> None:
        assignment = self.plan.assignment(key)
        assert assignment is not None
        before = self.plan.algorithm.round
        record = {
            **key._asdict(),
            "label": assignment.label,
            "theta": None if assignment.theta is None else list(assignment.theta),
            "seed": assignment.seed,
            **outcome,
            "attempt": self._failures[key] + self._losses[key],
            "trial_id": trial_id,
        }
        self.plan.record(record)
        self._tell("finished", record)
        if self.plan.algorithm.round > before:
            self._tell("round_done", before)
        if self.plan.problem:
            self.problem = self.plan.problem
            self._note(self.problem)

    def _lost(self, key: TrialKey) -> None:
        self._losses[key] += 1
        if self._losses[key] < _ATTEMPTS:
            self._note(f"{key} was lost with its process or machine; issued again.")
            return
        self.problem = (
            f"{key} was lost {self._losses[key]} times with its process or machine, after Ray's "
            "own retries: the cluster keeps failing, which says nothing about the loss."
        )
        self._note(self.problem)

    def _note(self, text: str) -> None:
        self._tell("note", text)

    def _tell(self, event: str, *what: Any) -> None:
        """Tell the listener. A terminal that is gone, or a full disk, must not end a search."""
        if self._listener:
            with contextlib.suppress(Exception):
                getattr(self._listener, event)(*what)


class ProgressCallback(Callback):
    """Passes Tune's events on, and notices when none come.

    Args:
        pending_seconds: with trials waiting and none running for so long, the search stops.

    Raises (out of Tune's loop):
        SearchStopped: the cluster does not give the waiting trials what they ask for.
    """

    def __init__(self, listener: Listener, pending_seconds: float) -> None:
        self._listener = listener
        self._pending_seconds = pending_seconds
        self._last_running = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._listener.started(trial.config)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = TrialKey.of(trial.config)
        self._listener.note(f"{key} lost its process; Ray starts it again.")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        alive = [trial.status for trial in trials if trial.status in ("PENDING", "RUNNING")]
        if "RUNNING" in alive or not alive:
            self._last_running = time.monotonic()
            return
        waited = time.monotonic() - self._last_running
        if waited > self._pending_seconds:
            raise SearchStopped(
                f"{len(alive)} trials have waited for {waited / 60:.0f} minutes and none is "
                "running: the cluster has lost the resources that a trial asks for. Look at "
                "`ray status`; then go on with `paploss resume`."
            )
