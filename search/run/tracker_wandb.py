"""Weights & Biases: one run a trial, grouped by the search.

WANDB_PROJECT, WANDB_ENTITY, WANDB_RUN_GROUP, WANDB_MODE=offline, WANDB_API_KEY and the others mean
what they always do. Offline, runs are kept in EXPERIMENT/wandb unless WANDB_DIR says otherwise.
"""

import os
from pathlib import Path
from typing import Any

import ray
import wandb
from ray.air.integrations.wandb import WandbLoggerCallback, _WandbLoggingActor
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from paploss.errors import BadConfig
from search.run.trackers import PATIENCE, environment


def check_wandb() -> None:
    """Make sure that there is a login, without asking for one.

    Raises:
        BadConfig: there is none, and WANDB_MODE does not say offline.
    """
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return
    if not os.environ.get("WANDB_API_KEY") and not wandb.login(prompt=False, verify=False):
        raise BadConfig(
            "trackers: wandb has no login. Run `wandb login`, or set WANDB_API_KEY, or keep runs "
            "on this machine with WANDB_MODE=offline."
        )


def make_wandb(name: str, experiment: Path) -> Any:
    """Ray's callback for the search `name`."""
    return _Wandb(
        experiment,
        project=os.environ.get("WANDB_PROJECT") or "paploss",
        group=os.environ.get("WANDB_RUN_GROUP") or name,
        upload_timeout=int(PATIENCE / 2),
    )


class _Actor(_WandbLoggingActor):
    """Logs one trial, set by the environment of the search's process, wherever Ray starts it."""

    def __init__(self, *args: Any, variables: dict[str, str], **kwargs: Any) -> None:
        os.environ.update(variables)
        super().__init__(*args, **kwargs)


class _Wandb(WandbLoggerCallback):
    """Ray's callback with names that are unique in a project, and no key in Ray's records."""

    AUTO_CONFIG_KEYS = ["trial_id", "status", "fingerprint"]  # noqa: RUF012

    def __init__(self, experiment: Path, **settings: Any) -> None:
        super().__init__(excludes=["training_iteration"], **settings)
        self.experiment = experiment
        self._ended: set[Any] = set()
        # Ray's own way gives the key to a runtime environment, and those are written to its logs.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
        actor: Any = ray.remote(**options)(_Actor)
        self._remote_logger_class = actor

    def setup(self, *_: Any, **__: Any) -> None:
        """Everything is known already (`check_wandb`)."""

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self._ended.add(trial)
        super().log_trial_end(trial, failed)

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        for trial in set(self._trial_queues) - self._ended:  # of an interrupted search
            self._signal_logging_actor_stop(trial)
        super().on_experiment_end(trials)

    def _start_logging_actor(self, trial: Any, exclude_results: list[str], **run: Any) -> None:
        super()._start_logging_actor(
            trial,
            exclude_results,
            **run | {"id": f"{trial.experiment_dir_name}-{trial}"[:128]},
            dir=os.environ.get("WANDB_DIR") or str(self.experiment),
            variables=environment("WANDB_"),
        )
