"""Experiment directories as a search leaves them, without running one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CURVES = ("H2", "I2", "I3", "I1", "H1")
SEGMENTS = 5
NAMES = [f"{c}.{axis}{k}" for c in CURVES for k in range(1, SEGMENTS) for axis in "xy"]
NAMES.append("gradient_scale")
# The identity by stick breaking: c_k = k / K needs theta_k = 1 / (K - k + 1).
IDENTITY = [1 / (SEGMENTS - k + 1) for k in range(1, SEGMENTS) for _ in "xy"] * len(CURVES) + [0.5]
HEADS = ("rpn", "rcnn")
NAMES_OF_TWO = [f"{head}.{name}" for head in HEADS for name in NAMES[:-1]]
NAMES_OF_TWO += [f"{head}.gradient_scale" for head in HEADS]


def curves_of(theta: list[float]) -> dict[str, list[list[float]]]:
    """Control points by the stick breaking of the design, written out."""
    curves: dict[str, list[list[float]]] = {}
    for index, name in enumerate(CURVES):
        points = [[0.0, 0.0]]
        for k in range(SEGMENTS - 1):
            offset = index * 2 * (SEGMENTS - 1) + 2 * k
            points.append([c + theta[offset + axis] * (1 - c) for axis, c in enumerate(points[-1])])
        curves[name] = [*points, [1.0, 1.0]]
    return curves


def make_record(phase: str, round: int = 0, slot: int = 0, repeat: int = 0, **other: Any) -> Any:
    """A journal record with every field of the format; `ap` sets val, test and reward at once."""
    labels = {"baseline": "Focal + GIoU", "start": "start", "final": f"candidate {round}"}
    theta = None if phase == "baseline" else other.pop("theta", list(IDENTITY))
    ap = other.pop("ap", 0.1)
    metrics = (
        None
        if ap is None
        else {
            "AP": ap, "AP50": min(1.0, 2 * ap), "AP75": ap / 2, "APs": -1.0, "APm": ap, "APl": ap,
            "oLRP": 1 - ap, "oLRP_loc": 0.25, "oLRP_fp": ap, "oLRP_fn": 0.5,
        }
    )  # fmt: skip
    status = other.get("status", "ok")
    record = {
        "phase": phase, "round": round, "slot": slot, "repeat": repeat,
        "label": labels.get(phase, f"round {round} slot {slot}"),
        "theta": theta,
        "control_points": curves_of(theta) if theta and len(theta) == len(NAMES) else None,
        "gradient_scale": None if theta is None else 10 ** (2 * theta[-1] - 1),
        "seed": 1000 + 100 * round + 10 * slot + repeat,
        "status": status,
        "reward": {"ok": ap, "stopped": ap, "diverged": 0.0, "failed": None}[status],
        "val": metrics if status == "ok" else None,
        "test": metrics if status == "ok" and phase != "search" else None,
        "seconds": 12.0,
        "timing": {"setup": 1.0, "train": 9.0, "evaluate": 1.5},
        "fingerprint": f"{phase[0]}{round:03d}{slot:02d}abcdef",
        "error": None, "skipped_images": {}, "iterations": 100, "attempt": 0,
        "trial_id": f"t{round}{slot}{repeat}", "trial_dir": f"{phase}-{round}-{slot}-{repeat}",
        "node": "127.0.0.1", "pid": 4321, "cpus": 1.0, "gpus": 0.0,
        "started": 1.7e9, "finished": 1.7e9 + 12,
    }  # fmt: skip
    return record | other


def of_two_heads(record: Any) -> Any:
    """`record` as one of a search over two heads: the RPN has its theta, the R-CNN half of it."""
    if record["theta"] is None:
        return record
    own = {"rpn": record["theta"], "rcnn": [x / 2 for x in record["theta"]]}
    curves = {head: curves_of(theta) for head, theta in own.items()}
    return record | {
        "theta": [x for head in HEADS for x in own[head][:-1]] + [own[head][-1] for head in HEADS],
        "control_points": {f"{h}.{name}": curves[h][name] for h in HEADS for name in CURVES},
        "gradient_scale": {head: 10 ** (2 * own[head][-1] - 1) for head in HEADS},
    }


def write_experiment(
    path: Path, records: list[Any], *, rounds: int = 3, names: Any = NAMES, **config: Any
) -> Path:
    """An experiment directory with `records` as its journal and a policy that drifts."""
    start = IDENTITY if names is NAMES else [0.3] * len(names)
    settings = {
        "name": "shapes", "seed": 7, "baseline": {"type": "focal_giou"},
        "algorithm": {"type": "ppo2", "rounds": rounds, "samples": 8},
        "final": {"candidates": 2, "repeats": 3},
    }  # fmt: skip
    files = {"config.yaml": settings | config, "space.json": {"names": names, "start": start}}
    for record in records:
        key = "{phase}-{round:03d}-{slot:02d}-{repeat}".format(**record)
        files[f"journal/{key}.json"] = record
    for number in range(rounds + 1):
        mean = np.clip(np.array(start) + 0.03 * number * np.cos(np.arange(len(start))), 0, 1)
        std = [0.2 * (1 - number / (rounds + 1))] * len(start)
        policy = {"round": number, "mean": mean.tolist(), "std": std}
        files[f"policy/round-{number:03d}.json"] = policy
    for name, value in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps(value))  # JSON is YAML too
    return path


def whole_search(rounds: int = 3, samples: int = 8) -> list[Any]:
    """The records of a search that got better, with one diverged and one failed trial."""
    rng = np.random.default_rng(5)
    records = [make_record("baseline", repeat=k, ap=0.131 + 0.002 * k) for k in range(3)]
    records += [make_record("start", repeat=k, ap=0.100 + 0.002 * k) for k in range(3)]
    for number in range(rounds):
        for slot in range(samples):
            theta = np.clip(np.array(IDENTITY) + rng.normal(0, 0.1, 41), 0, 1).tolist()
            ap = float(np.clip(0.1 + 0.05 * number / rounds + rng.normal(0, 0.01), 0, 1))
            records.append(make_record("search", number, slot, theta=theta, ap=ap))
    best = max((r for r in records if r["phase"] == "search"), key=lambda r: r["reward"])
    for index, label in enumerate(("policy mean", best["label"])):
        records += [
            make_record("final", index, repeat=k, theta=best["theta"], label=label,
                        ap=0.140 + 0.01 * index + 0.002 * k)
            for k in range(3)
        ]  # fmt: skip
    where = {(r["phase"], r["round"], r["slot"]): i for i, r in enumerate(records)}
    bad = {"status": "diverged", "ap": None, "error": "the loss stayed at 1 for 51 iterations"}
    records[where["search", 1, 2]] = make_record("search", 1, 2, **bad)
    bad = {"status": "failed", "ap": None, "error": "out of memory"}
    records[where["search", 0, 3]] = make_record("search", 0, 3, fingerprint=None, **bad)
    return records


@pytest.fixture
def record() -> Callable[..., Any]:
    """`make_record`: a journal record."""
    return make_record


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Path]:
    """Writes an experiment directory: `experiment(records, rounds=3, **config)`."""
    return lambda records, **settings: write_experiment(tmp_path / "shapes", records, **settings)


@pytest.fixture
def searched() -> list[Any]:
    """The records of a whole search: 3 rounds of 8, all phases, every status."""
    return whole_search()


@pytest.fixture
def of_two() -> Callable[..., Any]:
    """`of_two_heads`: a record as one of a search over an RPN and an R-CNN head."""
    return of_two_heads


@pytest.fixture
def two_heads(experiment: Callable[..., Path], searched: list[Any]) -> Path:
    """The directory of a whole search over two heads that started from presets."""
    records = [of_two_heads(record) for record in searched]
    for record in records:
        if record["phase"] == "start":
            record["label"] = "start: preset_of_the_rpn, preset_of_the_rcnn"
    return experiment(records, names=NAMES_OF_TWO)
