"""The Ray actors around a trial: they hold the resources, run it, and one of them reports it once.

An actor itself does little: it keeps a `TrialProcess`, whose imports are paid for once, and
which runs each trial in a process of its own. That makes actors safe to reuse.

A trial of several workers has a placement group with a bundle for each. Tune's actor is in the
first and starts a `WorkerActor` in each of the others, which it owns: they end with it, however it
ends. docs/training.md says why these are neither Ray Train's workers nor torchrun's.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune import Trainable
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from paploss.files import read_yaml
from trainers.machine import late_problems
from trainers.search_trial import parameters, trial_spec
from trainers.team import Member, run_together
from trainers.trial import TrialResult, one_line
from trainers.worker import TrialProcess, WorkerLost

_NEWS_SECONDS = 0.5
_STOP_SECONDS = 15.0


class TrialTrainable(Trainable):
    """A trial of a search, as Ray Tune runs it; its one result holds a journal record.

    Its config holds `experiment` (the directory), the trial's key (`phase`, `round`, `slot`,
    `repeat`), `seed`, and `theta` by coordinate name (empty: the baseline).

    Attributes:
        trials: the module that runs a trial, see `TrialProcess`.
    """

    trials = "trainers.trial"

    def setup(self, config: dict[str, Any]) -> None:
        # They start while this one does.
        others = start_others(self.trials)
        self._process = FirstWorker(self.trials)
        self._team: list[Member] = [self._process, *others]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def step(self) -> dict[str, Any]:
        """Run the whole trial; everything it gives, under the names of a journal record.

        Raises:
            WorkerLost: for Ray to count as a failure of the infrastructure, and to retry.
        """
        started = time.time()
        experiment = Path(self.config["experiment"])
        self._check_machine(experiment)
        search = read_yaml(experiment / "config.yaml")
        spec = trial_spec(search, self.config, len(self._team))
        stall_seconds = 60 * search["resources"]["stall_minutes"]
        try:
            result = run_together(self._team, spec, experiment / self.trial_name, stall_seconds)
        except BaseException as error:
            # Reported by Ray as a traceback; here is the line that says it.
            print(f"trial {self.trial_name}: {one_line(error)}", flush=True)
            raise
        finished = time.time()
        record = {
            **result.model_dump(mode="json"),
            "seconds": finished - started,
            "started": started,
            "finished": finished,
            "trial_dir": self.trial_name,
            "node": ray.util.get_node_ip_address(),
            "pid": os.getpid(),
            "cpus": search["resources"]["cpus_per_trial"],
            "gpus": search["resources"]["gpus_per_trial"],
            "workers": len(self._team),
            **parameters(spec),
        }
        scores = {
            f"{split}_{name}": value
            for split in ("val", "test")
            for name, value in (record[split] or {}).items()
        }
        shown = {name: record[name] for name in ("status", "reward", "fingerprint", "iterations")}
        # Tune flattens what it reports; in one string the record arrives as it is.
        return {"record": json.dumps(record), **shown, **scores, "done": True}

    def _check_machine(self, experiment: Path) -> None:
        """For a machine that has joined after the driver has looked at all of them.

        Raises:
            WorkerLost: it cannot run this experiment's trials, which says nothing about theta.
        """
        problems = late_problems(experiment)
        if problems:
            raise WorkerLost(f"node {ray.util.get_node_ip_address()}: {'; '.join(problems)}")

    def cleanup(self) -> None:
        for member in self._team:
            member.close()


class FirstWorker(TrialProcess):
    """The worker in Tune's own actor."""

    @property
    def host(self) -> str:
        return ray.util.get_node_ip_address()


class WorkerActor:
    """A Ray actor with a worker beside the first one."""

    def __init__(self, trials: str) -> None:
        self._process = TrialProcess(trials)

    def host(self) -> str:
        return ray.util.get_node_ip_address()

    def start(self, *arguments: Any) -> None:
        self._process.start(*arguments)

    def poll(self, seconds: float) -> TrialResult | None:
        return self._process.poll(seconds)

    def stop(self) -> None:
        self._process.stop()


class RemoteWorker:
    """A `WorkerActor` as a member of a team (see `trainers.team.Member`).

    The actor has one thing to do at a time, and is asked for news again and again: so it can be
    told to stop in between.

    Args:
        bundle: of the placement group, for all that is in it.
    """

    def __init__(self, trials: str, group: PlacementGroup, bundle: int) -> None:
        share = group.bundle_specs[bundle]
        actor = ray.remote(WorkerActor).options(
            num_cpus=share.get("CPU", 0),
            num_gpus=share.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle),
        )
        self._actor = actor.remote(trials)
        self._host = self._actor.host.remote()
        self._news: Any = None

    @property
    def host(self) -> str:
        """Once the worker is there; raises WorkerLost if it does not come up."""
        found: str = _get(self._host)
        return found

    def start(self, *arguments: Any) -> None:
        self._news = self._actor.start.remote(*arguments)

    def poll(self, seconds: float) -> TrialResult | None:
        ready, _ = ray.wait([self._news], timeout=seconds)
        if not ready:
            return None
        news, self._news = self._news, None
        result: TrialResult | None = _get(news)
        if result is None:  # it has started, or trains on
            self._news = self._actor.poll.remote(_NEWS_SECONDS)
        return result

    def stop(self) -> None:
        if self._news is None:
            return
        self._news = None
        try:
            ray.get(self._actor.stop.remote(), timeout=_STOP_SECONDS)
        except (RayError, TimeoutError):
            self.close()

    def close(self) -> None:
        # Its server sees its input end, and ends with what it runs.
        ray.kill(self._actor)


def _get(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:  # what the actor has raised, without Ray's words about it
        raise error.cause from None
    except RayActorError as error:
        raise WorkerLost("the worker's actor is gone with its process or its machine.") from error


def start_others(trials: str) -> list[RemoteWorker]:
    """The workers beside the first, one in each further bundle of this actor's placement group."""
    group = ray.util.get_current_placement_group() if ray.is_initialized() else None
    if group is None:
        return []
    return [RemoteWorker(trials, group, bundle) for bundle in range(1, group.bundle_count)]
