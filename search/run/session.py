"""A session: what is still to run of an experiment is run, and written up however it ends."""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from paploss.errors import BadExperiment, SearchStopped
from paploss.files import is_of_storage, storage_reason
from search.config import SearchConfig
from search.exit_codes import Exit, Interrupted
from search.plan import Plan
from search.run.cluster import Cluster
from search.run.experiment import (
    create_experiment,
    open_experiment,
    plan_of,
    simulations_of,
)
from search.run.follower import Follower
from search.run.head import watch_head
from search.run.only_process import only_process
from search.run.results import add_wall_time, write_results
from search.run.screen import build_screen
from search.run.threads import one_blas_thread
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
    session = _Session(experiment, trainable)
    advice = f"Watch it with `paploss show {experiment}`, or stop it first."
    with only_process(experiment, advice), one_blas_thread():
        try:
            ending = session.run()
        except KeyboardInterrupt:  # simulated trainings may take a minute before the first trial
            ending = Interrupted(
                "interrupted before the trials of this session, or after them; what is finished is "
                f"kept; go on with: paploss resume {_short(experiment)}"
            )
    if ending is not None:
        raise ending
    return experiment / "best.yaml"


class _Session:
    """One session of an experiment; simulated trainings are asked for in one place in all of it.

    Args:
        trainable: the actor that runs a trial.
    """

    def __init__(self, experiment: Path, trainable: Any) -> None:
        self.experiment = experiment
        self._trainable = trainable
        self._config, self._task = open_experiment(experiment)
        self._say = _Say()
        self._simulations = simulations_of(experiment, self._say)

    def run(self) -> SearchStopped | Interrupted | None:
        """Run trials and write up what is known then; what to tell the user, short of the end.

        Raises:
            KeyboardInterrupt: before the trials, or after them.
        """
        plan = self._plan_to_run()
        if plan.finished:  # only written up again
            return self.write_up(None)
        with Follower(self.experiment, plan.space, self._config) as follower:
            self._say.tell = follower.note
            problem = None
            # Tune does not listen to Ctrl-C before its start and at its end.
            with contextlib.suppress(KeyboardInterrupt):
                problem = self._run_trials(plan, follower)
            ending = self.write_up(problem)
            if ending is not None:
                stopped = isinstance(ending, SearchStopped)
                follower.end("stopped" if stopped else "interrupted", problem)
        return ending

    def _plan_to_run(self) -> Plan:
        """What is to run now; failures that stopped the last session are tried again."""
        plan = plan_of(self.experiment, self._config, self._task, self._simulations, self._say)
        try:
            plan.retry_failed_round()
        except OSError as error:
            raise BadExperiment(
                f"cannot write to {self.experiment}: {error.strerror}. Make room there, or make it "
                "writable."
            ) from error
        return plan

    def _screen(self) -> Screen | None:
        """A new one: a screen remembers what it has accepted."""
        return build_screen(self._config, self._task, self._simulations, self._say)

    def _run_trials(self, plan: Plan, follower: Follower) -> str | None:
        """Run trials as far as this session gets; the searcher's problem, if it has one."""
        begun = time.monotonic()
        config = self._config
        with Cluster.connect(config.resources, config.algorithm.samples) as cluster:
            follower.begin(plan.records, cluster.slots)
            for line in (*plan.journal.damaged, *plan.notes):
                follower.note(line)
            try:
                with watch_head(follower.note, _EndAtOnce(self, follower)):
                    searched = (self.experiment, plan.space, config, plan.baseline)
                    return run_tune(*searched, cluster, follower, self._trainable, self._screen)
            finally:
                follower.stop()
                with contextlib.suppress(OSError):
                    add_wall_time(self.experiment, time.monotonic() - begun, cluster.slots)

    def write_up(self, problem: str | None) -> SearchStopped | Interrupted | None:
        """Write what is known so far; what to tell the user of a search that is not at its end.

        Args:
            problem: why it has stopped; None where the user has interrupted it.
        """
        # What counts is not what Tune says but what is on storage.
        plan = plan_of(self.experiment, self._config, self._task, self._simulations, draw=False)
        try:
            write_results(self.experiment)
        except OSError as error:
            if not is_of_storage(error):
                raise
            reason = storage_reason(error, self.experiment)
            problem = problem or f"{reason}. Make room there."
        else:
            if plan.finished:
                return None
        done = f"{len(plan.records)} of {plan.total_trials} trials are finished and kept"
        how = f"go on with: paploss resume {_short(self.experiment)}"
        if problem:
            return SearchStopped(f"the search has stopped: {problem}\n{done}; {how}")
        return Interrupted(f"interrupted; {done}; {how}")


class _Say:
    """Tells the user what takes long: in the terminal, until `tell` is the search's display.

    A copy that was pickled tells the terminal again.
    """

    def __init__(self) -> None:
        self.tell: Callable[[str], None] = _print

    def __call__(self, line: str) -> None:
        self.tell(line)

    def __reduce__(self) -> Any:
        return _Say, ()


def _print(line: str) -> None:
    Console(stderr=True).print(line, style="dim", soft_wrap=True)


class _EndAtOnce:
    """Ends a search whose main thread is lost inside Ray: all is written, then the process ends.

    From a thread, a few seconds before Ray would end the process itself, and say so its own way.
    """

    def __init__(self, session: _Session, follower: Follower) -> None:
        self._session = session
        self._follower = follower

    def __call__(self, problem: str) -> None:
        try:
            self._follower.stop()
            ending = self._session.write_up(problem)
            self._follower.end("stopped", problem)
            self._follower.__exit__(None, None, None)
            print(f"error: {ending}", file=sys.stderr, flush=True)
        finally:
            os._exit(Exit.STOPPED)


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return min(relative, str(path), key=len)
