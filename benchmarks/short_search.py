"""A whole search of short trials, all but the training real: `paploss resume` on it.

    python -m benchmarks.short_search EXPERIMENT     # made by `create`

`expected` works out what it must come to, in this process and without Ray.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from benchmarks.short_trials import result_of
from loss.by_head import family_of
from search.cli import run_safely
from search.journal import TrialKey
from search.plan import Plan
from search.run.experiment import create_experiment, open_experiment, plan_of
from search.run.load import split_config
from search.run.session import run_experiment
from trainers.trainable import TrialTrainable, trial_spec

GIVEN = ("status", "reward", "test_reward", "val", "test", "fingerprint", "error")


class ShortTrainable(TrialTrainable):
    """The actor of a search, with short trials in it."""

    trials = "benchmarks.short_trials"


def create(storage: Path, **settings: Any) -> Path:
    """A new experiment of short trials; its data set is named and never read."""
    split = {"annotations": "none.json", "images": "."}
    values = {
        "name": "short",
        "storage": str(storage),
        "detector": {"name": "none", "model": {"type": "RetinaNet"}},
        "data": {
            "name": "none",
            "classes": ["thing"],
            **dict.fromkeys(("train", "val", "test"), split),
        },
        "criterion": {"type": "parameterized_ap", "segments": 5},
        "preflight": {"enabled": False},
        **settings,
    }
    return create_experiment(*split_config(values, "settings"))


def drive(experiment: Path) -> int:
    """Run what is still to run of it; the exit code of `paploss resume`."""
    return run_safely(lambda: run_experiment(experiment, ShortTrainable))


def expected(experiment: Path) -> dict[str, dict[str, Any]]:
    """What every record of the undisturbed search has: theta, seed and what its trial gives."""
    config, task = open_experiment(experiment)
    search = {**config.model_dump(mode="json"), **task.model_dump(mode="json")}
    names = family_of(task.criterion).names
    with tempfile.TemporaryDirectory() as folder:
        plan: Plan = plan_of(Path(folder), config, task)
        while not plan.finished:
            for assignment in plan.open:
                theta = assignment.theta or ()
                given = {
                    **assignment.key._asdict(),
                    "seed": assignment.seed,
                    "theta": dict(zip(names, theta, strict=False)),
                }
                result = result_of(trial_spec(search, given)).model_dump(mode="json")
                plan.record(
                    {
                        **assignment.key._asdict(),
                        "label": assignment.label,
                        "theta": None if assignment.theta is None else list(theta),
                        "seed": assignment.seed,
                        **result,
                    }
                )
        return {str(TrialKey.of(record)): what_counts(record) for record in plan.records}


def trial_of(process: psutil.Process) -> str | None:
    """The key of the trial that a process trains; None of any other process."""
    try:
        parent = process.parent()
        if parent is None or "trainers.worker" not in parent.cmdline():
            return None
        log = Path(os.readlink(f"/proc/{process.pid}/fd/1"))  # its own only since a moment ago
    except (psutil.Error, OSError):
        return None
    return log.parent.name.rpartition("-")[0] if log.name == "train.log" else None


def what_counts(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that two runs of one search have in common."""
    names = ("label", "theta", "seed", *GIVEN)
    return {name: record[name] for name in names}


if __name__ == "__main__":
    sys.exit(drive(Path(sys.argv[1])))
