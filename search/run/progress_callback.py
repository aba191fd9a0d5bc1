"""What Tune tells while a search runs, passed on; and what it does not notice, noticed."""

import time
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.tune import Callback

from paploss.errors import SearchStopped
from search.journal import TrialKey
from search.tune_searcher import Listener, PlanSearcher, tell


class ProgressCallback(Callback):
    """Passes Tune's events on, and notices when none come.

    Args:
        pending_seconds: with trials waiting and none running for so long, the search stops.
        searcher: what it has received and could not write is tried again with every step.

    Raises (out of Tune's loop):
        SearchStopped: the cluster does not give the waiting trials what they ask for, or storage
            fails for too long.
    """

    def __init__(
        self, listener: Listener, pending_seconds: float, searcher: PlanSearcher | None = None
    ) -> None:
        self._listener = listener
        self._searcher = searcher
        self._pending_seconds = pending_seconds
        self._last_running = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        tell(self._listener, "started", {**trial.config, "folder": str(trial)})

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = TrialKey.of(trial.config)
        why = _why(trial)
        if self._searcher is not None:
            self._searcher.remember_loss(key, why)
        tell(self._listener, "note", f"{key} lost its process; Ray starts it again. ({why})")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._searcher is not None:
            self._searcher.keep()
            if self._searcher.gave_up:
                raise SearchStopped(str(self._searcher.problem))
        alive = [trial.status for trial in trials if trial.status in ("PENDING", "RUNNING")]
        if "RUNNING" in alive or not alive:
            self._last_running = time.monotonic()
            return
        waited = time.monotonic() - self._last_running
        if waited > self._pending_seconds:
            raise SearchStopped(
                f"{len(alive)} trials have waited for {waited / 60:.0f} minutes and none is "
                "running: the cluster does not have, or has lost, what a trial asks for. Look at "
                "`ray status`; then go on with `paploss resume`."
            )


def _why(trial: Any) -> str:
    """What Tune has kept of a trial's last error, in one line."""
    try:
        if trial.pickled_error_file:
            error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
            cause = getattr(error, "cause", None) or error  # of what the trial raised itself
            said = f"{type(cause).__name__}: {cause}"
        else:  # of an actor that did not get as far as a trial: killed for its memory, say
            text = Path(trial.error_file).read_text(encoding="utf-8")
            said = text.rpartition("Failure #")[2].partition("\n")[2]
        return next(line.strip() for line in said.splitlines() if line.strip())[:300]
    except Exception:  # a file that is not there, or an error that nobody can read
        return "for an unknown reason"
