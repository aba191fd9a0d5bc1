"""Which trial runs next, and on which of Ray's actors: what Tune leaves open, or gets wrong."""

import contextlib
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from search.tune_searcher import PlanSearcher


class KeepActors(FIFOScheduler):
    """Runs trials in their order, and keeps actors from one round to the next.

    Tune keeps idle actors for trials that already wait, and one more. At the end of a round none
    wait, so every slot but one would start a new actor, which takes about as long as a short
    trial. All trials ask for the same resources, so an idle actor is in nobody's way; but no more
    are kept than a round has samples, and none once the last trials run, so that a cluster that
    can shrink does.

    Tune gives an idle actor to any trial that waits, even to one whose own actor is about to be
    up, which it then kills. With trials shorter than a start, one actor would run all of them, and
    the other slots none. So a trial whose actor is starting waits for that.

    Both need private parts of Tune's; without them, it does as it likes.

    Args:
        searcher: knows whether more trials will come.
        samples: of a round.
    """

    def __init__(self, searcher: PlanSearcher, samples: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher
        self._samples = samples
        self._more = 0
        self._controller: Any = None

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first that waits, and for which no actor is starting or being made ready."""
        waiting = [
            trial
            for trial in tune_controller.get_trials()
            if trial.status == Trial.PENDING and trial.temporary_state.ray_actor is None
        ]
        starting = self._starting(waiting)
        return next((trial for trial in waiting if trial not in starting), None)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        # Tune decides whether to keep the trial's actor right after this.
        self._controller = tune_controller
        trials = tune_controller.get_trials()
        waiting = [other for other in trials if other.status == Trial.PENDING]
        running = sum(other.status == Trial.RUNNING for other in trials) - 1
        last = self._searcher.plan.algorithm.finished
        more = 0 if last else max(0, self._samples - len(waiting) - running)
        with contextlib.suppress(AttributeError):
            tune_controller._actor_cache.increase_max(
                trial.placement_group_factory, more - self._more
            )
            self._more = more
            takers = tune_controller._resources_to_pending_trials[trial.placement_group_factory]
            takers.difference_update(self._starting(waiting))

    def _starting(self, waiting: list[Any]) -> set[Any]:
        """Those whose own actor has its resources, and is not up yet."""
        if self._controller is None or not waiting:
            return set()
        with contextlib.suppress(AttributeError):
            live = set(self._controller._actor_manager.live_actors)
            actors = self._controller._trial_to_actor
            return {trial for trial in waiting if actors.get(trial) in live}
        return set()
