"""A session: what is still to run of an experiment is run, and written up however it ends."""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from paploss.errors import BadExperiment, SearchStopped
from paploss.files import is_of_storage, storage_reason
from search.config import SearchConfig
from search.exit_codes import Exit, Interrupted
from search.plan import Plan
from search.run.cluster import Cluster
from search.run.experiment import create_experiment, open_experiment, plan_of
from search.run.follower import Follower
from search.run.head import watch_head
from search.run.only_process import only_process
from search.run.results import add_wall_time, write_results
from search.run.screen import build_screen
from search.run.tune import run_tune
from search.screen import Screen
from trainers.config import TaskConfig
from trainers.trainable import TrialTrainable


def start_experiment(config: SearchConfig, task: TaskConfig) -> Path:
    """Create an experiment and run it; nothing is created where the cluster cannot run it.

    Returns and raises as `run_experiment` and `create_experiment` do.
    """
    with Cluster.connect(config.resources, config.algorithm.samples) as cluster:
        decided = config.model_copy(update={"resources": cluster.resources})
        return run_experiment(create_experiment(decided, task))


def run_experiment(experiment: Path, trainable: Any = TrialTrainable) -> Path:
    """Run what is still to run of an experiment, and write its results.

    Args:
        trainable: the actor that runs a trial.

    Returns:
        The path of its best.yaml.

    Raises:
        Interrupted: by the user; `paploss resume` goes on.
        SearchStopped: the search cannot go on; the message says why.
        BadExperiment: another process runs it.
        NotEnoughResources: the cluster can never run one of its trials.
    """
    experiment = experiment.absolute()
    config, task = open_experiment(experiment)
    advice = f"Watch it with `paploss show {experiment}`, or stop it first."
    with only_process(experiment, advice):
        try:
            plan = _plan_to_run(experiment, config, task)
        except KeyboardInterrupt:  # simulated trainings may take a minute there
            raise Interrupted(
                "interrupted before the first trial of this session; go on with: paploss resume "
                f"{_short(experiment)}"
            ) from None
        if plan.finished:  # only written up again
            ending = _write_up(experiment, config, task, None)
        else:
            ending = _run_to_end(experiment, config, task, plan, trainable)
    if ending is not None:
        raise ending
    return experiment / "best.yaml"


def _run_to_end(
    experiment: Path, config: SearchConfig, task: TaskConfig, plan: Plan, trainable: Any
) -> SearchStopped | Interrupted | None:
    """Run trials and write up what is known then; what to tell the user, short of the end."""
    with Follower(experiment, plan.space, config) as follower:
        problem = None
        # Tune does not listen to Ctrl-C before its start and at its end.
        with contextlib.suppress(KeyboardInterrupt):
            end = _EndAtOnce(experiment, config, task, follower)
            screen = partial(build_screen, config, task)
            problem = _run_session(experiment, config, plan, follower, trainable, screen, end)
        ending = _write_up(experiment, config, task, problem)
        if ending is not None:
            stopped = isinstance(ending, SearchStopped)
            follower.end("stopped" if stopped else "interrupted", problem)
    return ending


def _plan_to_run(experiment: Path, config: SearchConfig, task: TaskConfig) -> Plan:
    """What is to run in this session; failures that stopped the last one are tried again."""
    screen = [Console(stderr=True)]

    def say(line: str) -> None:
        for console in screen:
            console.print(line, style="dim", soft_wrap=True)

    plan = plan_of(experiment, config, task, say)
    screen.clear()  # from now on the display has it
    try:
        plan.retry_failed_round()
    except OSError as error:
        raise BadExperiment(
            f"cannot write to {experiment}: {error.strerror}. Make room there, or make it writable."
        ) from error
    return plan


def _run_session(
    experiment: Path,
    config: SearchConfig,
    plan: Plan,
    follower: Follower,
    trainable: Any,
    screen: Callable[[], Screen | None],
    end: Callable[[str], None],
) -> str | None:
    """Run trials as far as this session gets; the searcher's problem, if it has one.

    Args:
        end: ends the process, with a reason, where nothing else is possible any more.
    """
    begun = time.monotonic()
    with Cluster.connect(config.resources, config.algorithm.samples) as cluster:
        follower.begin(plan.records, cluster.slots)
        for line in (*plan.journal.damaged, *plan.notes):
            follower.note(line)
        try:
            with watch_head(follower.note, end):
                searched = (experiment, plan.space, config, plan.baseline)
                return run_tune(*searched, cluster, follower, trainable, screen)
        finally:
            follower.stop()
            with contextlib.suppress(OSError):
                add_wall_time(experiment, time.monotonic() - begun, cluster.slots)


def _write_up(
    experiment: Path, config: SearchConfig, task: TaskConfig, problem: str | None
) -> SearchStopped | Interrupted | None:
    """Write what is known so far; what to tell the user of a search that is not at its end.

    Args:
        problem: why it has stopped; None where the user has interrupted it.
    """
    # What counts is not what Tune says but what is on storage.
    plan = plan_of(experiment, config, task)
    try:
        write_results(experiment)
    except OSError as error:
        if not is_of_storage(error):
            raise
        problem = problem or f"{storage_reason(error, experiment)}. Make room there."
    else:
        if plan.finished:
            return None
    done = f"{len(plan.records)} of {plan.total_trials} trials are finished and kept"
    how = f"go on with: paploss resume {_short(experiment)}"
    if problem:
        return SearchStopped(f"the search has stopped: {problem}\n{done}; {how}")
    return Interrupted(f"interrupted; {done}; {how}")


class _EndAtOnce:
    """Ends a search whose main thread is lost inside Ray: all is written, then the process ends.

    From a thread, a few seconds before Ray would end the process itself, and say so its own way.
    """

    def __init__(
        self, experiment: Path, config: SearchConfig, task: TaskConfig, follower: Follower
    ) -> None:
        self._search = (experiment, config, task)
        self._follower = follower

    def __call__(self, problem: str) -> None:
        try:
            self._follower.stop()
            ending = _write_up(*self._search, problem)
            self._follower.end("stopped", problem)
            self._follower.__exit__(None, None, None)
            print(f"error: {ending}", file=sys.stderr, flush=True)
        finally:
            os._exit(Exit.STOPPED)


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return min(relative, str(path), key=len)
