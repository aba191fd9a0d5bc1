"""Experiments whose trials nobody ran: their records are written by hand."""

from pathlib import Path

from loss.by_head import family_of
from search.config import SearchConfig
from search.plan import Plan
from search.run.experiment import open_experiment, plan_of
from trainers.config import TaskConfig
from trainers.search_trial import parameters
from trainers.trial import TrialSpec

CRITERION = {"type": "parameterized_ap", "segments": 3}
SPLIT = {"annotations": "/data/x.json", "images": "/data/x"}
TASK = TaskConfig(
    detector={"name": "tiny", "model": {"type": "RetinaNet"}},
    data={"name": "toy", "classes": ["thing"], "train": SPLIT, "val": SPLIT, "test": SPLIT},
    criterion=CRITERION,
    schedule={"epochs": 1},
    training={"epochs": 12},
)
FAMILY = family_of(CRITERION)
# AP on test by candidate and repeat: the second candidate is best on the mean, not at its best.
TEST_AP = [[0.30, 0.30], [0.35, 0.33], [0.37, 0.20]]


def config_in(folder: Path, **changes) -> SearchConfig:
    values = {
        "name": "toy",
        "storage": folder,
        "algorithm": {"rounds": 2, "samples": 3, "steps": 20},
        "final": {"candidates": 3, "repeats": 2},
        "preflight": {"enabled": False},
    }
    return SearchConfig(**{**values, **changes})


def record_of(assignment, task=TASK, status="ok"):
    """A journal record with every field, of a trial that nobody ran."""
    key, theta = assignment.key, assignment.theta
    spec = TrialSpec(
        detector=task.detector, data=task.data, schedule=task.schedule, seed=assignment.seed,
        criterion=task.criterion if theta else task.baseline, theta=theta,
    )  # fmt: skip
    ap = TEST_AP[key.round][key.repeat] if key.phase == "final" else 0.1
    reward = 0.2 + 0.1 * key.round + 0.01 * key.slot if key.phase == "search" else ap
    metrics = {"AP": reward, "AP50": 0.5, "AP75": 0.1}
    ok = status == "ok"
    return {
        **key._asdict(), "label": assignment.label, "theta": theta and list(theta),
        **parameters(spec), "seed": assignment.seed,
        "status": status, "reward": reward if ok else None, "val": metrics if ok else None,
        "test": {**metrics, "AP": ap} if ok and key.phase != "search" else None,
        "seconds": 2.0, "timing": {"setup": 0.5, "train": 1.0, "evaluate": 0.5},
        "fingerprint": f"{key}", "error": None if ok else "RuntimeError: broken",
        "skipped_images": {}, "iterations": 2, "attempt": 0, "trial_id": "x", "trial_dir": "x",
        "node": "10.0.0.1", "pid": 1, "cpus": 1.0, "gpus": 0.0, "started": 0.0, "finished": 2.0,
    }  # fmt: skip


def open_plan(experiment: Path) -> Plan:
    return plan_of(experiment, *open_experiment(experiment))


def run_by_hand(experiment: Path, stop_before: str | None = None) -> None:
    plan, (_, task) = open_plan(experiment), open_experiment(experiment)
    while plan.open and plan.open[0].key.phase != stop_before:
        plan.record(record_of(plan.open[0], task))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
