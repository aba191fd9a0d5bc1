"""One session of Ray Tune over an experiment, new or resumed."""

import contextlib
import json
import logging
import os
import secrets
import signal
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
from ray import cloudpickle, tune
from ray.tune.schedulers import FIFOScheduler

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
        # Ray has just taken SIGTERM, which a scheduler ends a job with, and would crash on it:
        # treat it as Ctrl-C, which Tune ends cleanly on.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        logging.getLogger("ray.tune.execution.experiment_state").addFilter(one_line)
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
        Why the plan is not done: None if it is, or if the user has interrupted it.
    """
    alive = max(config.algorithm.samples, cluster.slots)
    searcher = PlanSearcher(
        experiment, space, config, baseline=baseline, slots=alive, listener=listener
    )
    resources = tune.PlacementGroupFactory(
        [{"CPU": config.resources.cpus_per_trial, "GPU": config.resources.gpus_per_trial}]
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        tune.run(
            tune.with_resources(TrialTrainable, resources),
            name=experiment.name,
            storage_path=str(experiment.parent),
            search_alg=searcher,
            scheduler=_KeepActors(cluster.slots),
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
        # Tune puts the handler back when it is interrupted, and only then.
        interrupted = signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, handler)
    if searcher.problem or searcher.plan.finished or interrupted:
        return searcher.problem
    return "Ray Tune has ended by itself with trials still to run; what it printed says why."


def one_line(record: logging.LogRecord) -> bool:
    """A log filter that says an exception without its stack.

    For Tune's snapshots of itself: one that cannot be copied, because the next one takes its place
    or the search is being ended, is no loss. What counts is in the journal.
    """
    if record.exc_info:
        record.msg, record.args = f"{record.getMessage()}{record.exc_info[1]!r}", ()
        record.exc_info = None
    return True


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
