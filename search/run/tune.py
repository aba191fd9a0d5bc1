"""One session of Ray Tune over an experiment, new or resumed."""

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from paploss.errors import SearchStopped
from search.config import SearchConfig
from search.race import most_trials
from search.run.actors import KeepActors
from search.run.cluster import Cluster
from search.run.machines import MachineWatch
from search.run.metrics import SearchMetrics
from search.run.nodes import check_nodes
from search.run.placement import placement
from search.run.progress_callback import ProgressCallback
from search.run.trackers import tracker_callbacks
from search.screen import Screen
from search.space import SearchSpace
from search.tune_searcher import Listener, PlanSearcher, no_screen
from trainers.trainable import TrialTrainable


def run_tune(
    experiment: Path,
    space: SearchSpace,
    config: SearchConfig,
    baseline: str,
    cluster: Cluster,
    listener: Listener,
    trainable: Any = TrialTrainable,
    screen: Callable[[], Screen | None] = no_screen,
) -> str | None:
    """Run trials until the plan is done, the user interrupts, or the searcher has a problem.

    All trials that can run are given to Tune at once, however many fit on the cluster: those that
    find no room wait in Ray's queue. So slots and samples need not match, a machine that joins
    gets trials at once, and an autoscaling cluster sees the whole demand.

    Tune begins anew in every session, and the searcher gives it what the journal lacks. What Tune
    has left of itself in the experiment is not read: it is pickled, so reading it could run code of
    whoever the experiment came from.

    Args:
        trainable: the actor that runs a trial.
        screen: makes what samples have to pass.

    Returns:
        Why the plan is not done: None if it is, or if the user has interrupted it.

    Raises:
        BadCluster: a machine of the cluster cannot run trials.
    """
    check_nodes(cluster, experiment)
    at_once = most_at_once(config)
    metrics = SearchMetrics(config.name)
    everyone = _Listeners(listener, metrics)
    interrupted = _Interrupted()
    searcher = PlanSearcher(
        experiment,
        space,
        config,
        baseline=baseline,
        slots=at_once,
        listener=everyone,
        interrupted=interrupted,
        screen=screen,
    )
    plan = searcher.plan
    metrics.begin(plan.records, plan.total_trials)
    callbacks = [
        MachineWatch(cluster, everyone, min(at_once, len(plan.open))),
        ProgressCallback(listener, 60 * config.resources.pending_minutes, searcher),
        metrics,
        *tracker_callbacks(config, experiment, everyone.note),
    ]
    try:
        tune.run(**_arguments(experiment, config, trainable, searcher), callbacks=callbacks)
        by_user = interrupted()
    except SearchStopped as stopped:
        return str(stopped)
    except Exception as error:  # of Ray, or of Tune's own files; the user gets a line of it
        return searcher.problem or f"Ray Tune has ended with {_last_line(error)}"
    finally:
        interrupted.restore()
        _keep_all(searcher, everyone)
    if searcher.problem or searcher.plan.finished or by_user:
        return searcher.problem
    return "Ray Tune has ended by itself with trials still to run; what it printed says why."


def _arguments(
    experiment: Path, config: SearchConfig, trainable: Any, searcher: PlanSearcher
) -> dict[str, Any]:
    """Of `tune.run`: what it is told of the search, beside who listens."""
    return {
        "run_or_experiment": tune.with_resources(trainable, placement(config.resources)),
        "name": experiment.name,
        "storage_path": str(experiment.parent),
        "search_alg": searcher,
        "scheduler": KeepActors(searcher, config.algorithm.samples),
        "num_samples": -1,
        "max_concurrent_trials": most_at_once(config),
        "max_failures": 2,
        "reuse_actors": config.resources.reuse_actors,
        "raise_on_failed_trial": False,
        "trial_name_creator": _trial_name,
        "trial_dirname_creator": _trial_name,
        "verbose": 0,
    }


class _Interrupted:
    """Whether the user has interrupted Tune, in its loop or after it.

    Tune puts its handler of SIGINT in the place of ours, and ours back when it is interrupted.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGINT)

    def __call__(self) -> bool:
        return signal.getsignal(signal.SIGINT) is self._handler

    def restore(self) -> None:
        signal.signal(signal.SIGINT, self._handler)


def _keep_all(searcher: PlanSearcher, listener: Any) -> None:
    """Try once more to write what has been received."""
    searcher.keep()
    if searcher.unwritten:
        listener.note(
            f"finished trials that could not be written: {searcher.unwritten}; they run again, and "
            "give the same"
        )


def _last_line(error: Exception) -> str:
    """Of Tune's errors, which hold a whole traceback, the line that says what it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:500]


def most_at_once(config: SearchConfig) -> int:
    """The most trials that can ever be open at once.

    Where machines are added on demand it is a round: what comes on top of that, at the start, is
    over sooner than a machine is worth its start.
    """
    algorithm, final = config.algorithm, config.final
    if config.resources.autoscaling:
        return algorithm.samples
    first = 2 * final.repeats + algorithm.samples + algorithm.overlap
    return max(first, most_trials(final.candidates, final))


class _Listeners:
    """Several listeners as one; what goes wrong in one is kept from the others."""

    def __init__(self, *listeners: Any) -> None:
        self._listeners = listeners

    def __getattr__(self, event: str) -> Any:
        def tell(*what: Any) -> None:
            for listener in self._listeners:
                with contextlib.suppress(Exception):
                    getattr(listener, event)(*what)

        return tell


def _trial_name(trial: Any) -> str:
    """Short, and by the trial's key, so that a listing of the folder reads like the search."""
    key = trial.config
    return f"{key['phase']}-{key['round']:03d}-{key['slot']:02d}-{key['repeat']}-{trial.trial_id}"
