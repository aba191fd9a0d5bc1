"""One session of Ray Tune over an experiment, new or resumed."""

import json
import signal
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune.schedulers import FIFOScheduler

from search.config import SearchConfig
from search.run.cluster import Cluster, placement
from search.run.trackers import tracker_callbacks
from search.space import SearchSpace
from search.tune_searcher import Listener, PlanSearcher, ProgressCallback
from trainers.trainable import TrialTrainable


def run_tune(
    experiment: Path,
    space: SearchSpace,
    config: SearchConfig,
    baseline: str,
    cluster: Cluster,
    listener: Listener,
    trainable: Any = TrialTrainable,
) -> str | None:
    """Run trials until the plan is done, the user interrupts, or the searcher has a problem.

    Args:
        trainable: the actor that runs a trial.

    Returns:
        Why the plan is not done: None if it is, or if the user has interrupted it.
    """
    alive = max(config.algorithm.samples, cluster.slots)
    searcher = PlanSearcher(
        experiment, space, config, baseline=baseline, slots=alive, listener=listener
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        tune.run(
            tune.with_resources(trainable, placement(config.resources)),
            name=experiment.name,
            storage_path=str(experiment.parent),
            search_alg=searcher,
            scheduler=_KeepActors(cluster.slots),
            num_samples=-1,
            max_concurrent_trials=alive,
            max_failures=2,
            reuse_actors=config.resources.reuse_actors,
            raise_on_failed_trial=False,
            callbacks=[
                ProgressCallback(listener, 60 * config.resources.pending_minutes),
                *tracker_callbacks(config),
            ],
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
            verbose=0,
            resume_config=_resume_config(experiment, listener),
        )
        # Tune puts the handler back when it is interrupted, and only then.
        interrupted = signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, handler)
    if searcher.problem or searcher.plan.finished or interrupted:
        return searcher.problem
    return "Ray Tune has ended by itself with trials still to run; what it printed says why."


class _KeepActors(FIFOScheduler):
    """Runs trials in their order, and keeps every slot's actor from one round to the next.

    Tune keeps idle actors for trials that already wait, and one more. At the end of a round none
    wait, so every slot but one would start a new actor, which takes about as long as a short
    trial. All trials ask for the same resources, so an idle actor is in nobody's way.
    """

    def __init__(self, slots: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._more = slots

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        # Tune decides whether to keep the trial's actor right after this.
        cache = getattr(tune_controller, "_actor_cache", None)  # private; without it, as Tune does
        if cache is not None and self._more:
            cache.increase_max(trial.placement_group_factory, self._more)
        self._more = 0


def _resume_config(experiment: Path, listener: Listener) -> Any:
    """How Tune takes up what it left: it keeps its finished trials, and runs none itself.

    The searcher issues what is missing. Where Tune's state cannot be used it is put aside, and
    Tune begins anew; the journal has everything that counts.
    """
    states = [path for pattern in _STATES for path in experiment.glob(pattern)]
    if not states:
        return None
    if not _can_go_on(experiment):
        listener.note("Tune's own record of the search cannot be used and was put aside.")
        for state in states:
            state.rename(state.with_name(f"{state.name}.old"))
        return None
    skip: Any = tune.ResumeConfig.ResumeType.SKIP
    return tune.ResumeConfig(finished=skip, unfinished=skip, errored=skip)


_STATES = ("experiment_state-*.json", "search_gen_state-*.json", "searcher-state-*.pkl")


def _can_go_on(experiment: Path) -> bool:
    """Whether Tune can take up its newest state, and would then ask for trials.

    Over a file that was cut when its writer was killed, or a state without a trial, Tune goes on
    with nothing to do, and calls that success. So it does where a problem had ended the search.
    """
    runs, search = (sorted(experiment.glob(pattern)) for pattern in _STATES[:2])
    try:
        state = json.loads(runs[-1].read_text(encoding="utf-8"))
        generator = cloudpickle.loads(search[-1].read_bytes())
        return bool(state["trial_data"] and state["runner_data"] and not generator["finished"])
    except Exception:  # whatever a damaged pickle raises
        return False


def _trial_name(trial: Any) -> str:
    """Short, and by the trial's key, so that a listing of the folder reads like the search."""
    key = trial.config
    return f"{key['phase']}-{key['round']:03d}-{key['slot']:02d}-{key['repeat']}-{trial.trial_id}"
