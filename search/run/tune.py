"""One session of Ray Tune over an experiment, new or resumed."""

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Ray is imported: it reads these once. Every cluster asks for a token (Ray turns that on
# for local ones only), no trial moves the current folder, and no progress report is printed.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "10")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import ray
from ray import tune

from paploss.errors import NotEnoughResources
from search.config import ResourcesConfig, SearchConfig
from search.space import SearchSpace
from search.tune_searcher import Listener, PlanSearcher, ProgressCallback
from trainers.trainable import TrialTrainable


@dataclass(frozen=True)
class Cluster:
    """What trials run on.

    Attributes:
        slots: trials that fit side by side, now.
    """

    resources: ResourcesConfig
    slots: int

    @staticmethod
    @contextlib.contextmanager
    def connect(resources: ResourcesConfig) -> Iterator["Cluster"]:
        """Join the cluster at RAY_ADDRESS, or start one on this machine until the end.

        Raises:
            NotEnoughResources: no node can ever run one trial.
        """
        own = not ray.is_initialized()
        if own:
            _make_token()
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        try:
            alive = [n for n in ray.nodes() if n["Alive"]]
            nodes = [node["Resources"] for node in alive]
            yield Cluster(resources, check_resources(resources, nodes))
        finally:
            if own:
                ray.shutdown()


def check_resources(resources: ResourcesConfig, nodes: list[dict[str, float]]) -> int:
    """How many trials fit on `nodes` side by side; each runs on one node.

    Raises:
        NotEnoughResources: none fits on any of them.
    """
    need = {"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial}
    need = {kind: amount for kind, amount in need.items() if amount}
    slots = sum(int(min(node.get(kind, 0) / need[kind] for kind in need)) for node in nodes)
    if slots:
        return slots
    most = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU")}
    raise NotEnoughResources(
        f"a trial asks for {resources.cpus_per_trial:g} CPUs and {resources.gpus_per_trial:g} "
        f"GPUs on one node, but the largest of the cluster's {len(nodes)} nodes has "
        f"{most['CPU']:g} CPUs and {most['GPU']:g} GPUs: it would wait for ever. Lower "
        "`resources.cpus_per_trial` or `resources.gpus_per_trial`, or join another cluster with "
        "RAY_ADDRESS."
    )


def run_tune(
    experiment: Path,
    space: SearchSpace,
    config: SearchConfig,
    baseline: str,
    cluster: Cluster,
    listener: Listener,
) -> str | None:
    """Run trials until the plan is done, the user interrupts, or the searcher has a problem.

    Returns:
        The searcher's problem, or None.
    """
    alive = max(config.algorithm.samples, cluster.slots)
    searcher = PlanSearcher(
        experiment, space, config, baseline=baseline, slots=alive, listener=listener
    )
    resources = tune.PlacementGroupFactory(
        [{"CPU": config.resources.cpus_per_trial, "GPU": config.resources.gpus_per_trial}]
    )
    tune.run(
        tune.with_resources(TrialTrainable, resources),
        name=experiment.name,
        storage_path=str(experiment.parent),
        search_alg=searcher,
        num_samples=-1,
        max_concurrent_trials=alive,
        max_failures=2,
        reuse_actors=config.resources.reuse_actors,
        raise_on_failed_trial=False,
        callbacks=[ProgressCallback(listener, 60 * config.resources.pending_minutes)],
        trial_name_creator=_trial_name,
        trial_dirname_creator=_trial_name,
        verbose=0,
        resume_config=_resume_config(experiment, listener),
    )
    return searcher.problem


def _resume_config(experiment: Path, listener: Listener) -> Any:
    """How Tune takes up what it left: it keeps its finished trials, and runs none itself.

    The searcher issues what is missing. Tune's state has to be readable: over a file that is
    not, it would start over, run one trial, and call that success.
    """
    states = sorted(experiment.glob("experiment_state-*.json"))
    if not states:
        return None
    try:
        json.loads(states[-1].read_text(encoding="utf-8"))
    except (OSError, ValueError):
        listener.note(f"Tune's {states[-1].name} is damaged and was put aside; nothing is lost.")
        for state in states:
            state.rename(state.with_suffix(".damaged"))
        return None
    skip: Any = tune.ResumeConfig.ResumeType.SKIP
    return tune.ResumeConfig(finished=skip, unfinished=skip, errored=skip)


def _trial_name(trial: Any) -> str:
    """Short, and by the trial's key, so that a listing of the folder reads like the search."""
    key = trial.config
    return f"{key['phase']}-{key['round']:03d}-{key['slot']:02d}-{key['repeat']}-{trial.trial_id}"


def _make_token() -> None:
    """Ray's token for clusters of this user, readable by nobody else, if there is none yet."""
    path = Path.home() / ".ray" / "auth_token"
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH") or path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(handle, secrets.token_hex(32).encode())
        os.close(handle)
