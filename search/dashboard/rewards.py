"""Rewards by round, by trial and by device time, from a journal's records."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from search.dashboard.values import number, short

Record = Mapping[str, Any]


def round_rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Each round: trials that have a reward, their mean, their best, and the best until then."""
    rounds: dict[int, list[float]] = {}
    for record in records:
        if record["phase"] == "search":
            known = rounds.setdefault(record["round"], [])
            known += [] if record["reward"] is None else [record["reward"]]
    rows, best = [], -math.inf
    for which, rewards in sorted(rounds.items()):
        best = max([best, *rewards])
        rows.append(
            {
                "round": which,
                "n": len(rewards),
                "mean": number(np.mean(rewards)) if rewards else None,
                "best": number(max(rewards, default=None)),
                "best_so_far": number(best),
            }
        )
    return rows


def levels(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Baseline and start on val: label, mean and sample standard deviation (0 of one)."""
    found: dict[str, dict[str, Any]] = {}
    records = list(records)
    for phase in ("baseline", "start"):
        own = [r for r in records if r["phase"] == phase and r["reward"] is not None]
        rewards = [record["reward"] for record in own]
        if rewards:
            found[phase] = {
                "label": short(own[0]["label"]),
                "mean": number(np.mean(rewards)),
                "std": number(np.std(rewards, ddof=1) if len(rewards) > 1 else 0.0),
                "n": len(rewards),
            }
    return found


def best_so_far(records: Iterable[Record]) -> list[list[float | None]]:
    """[trials, device hours, best reward] at each search trial that beat all before, and at the
    last one; trials in the order in which they finished."""
    search = [record for record in records if record["phase"] == "search"]
    search.sort(key=lambda r: (math.inf if r["finished"] is None else r["finished"], r["round"]))
    steps: list[list[float | None]] = []
    best, hours = -math.inf, 0.0
    for count, record in enumerate(search, start=1):
        hours += _device_seconds(record) / 3600
        reward = record["reward"]
        better = reward is not None and reward > best
        best = reward if better else best
        if better or (count == len(search) and steps):
            steps.append([count, number(hours), number(best)])
    return steps


def device_hours(records: Iterable[Record]) -> dict[str, Any]:
    """Hours that trials held GPUs, or CPUs where they had none; of the unit "GPU" or "CPU"."""
    records = list(records)
    gpus = any(record["gpus"] for record in records)
    seconds = sum(map(_device_seconds, records))
    return {"unit": "GPU" if gpus else "CPU", "hours": number(seconds / 3600)}


def _device_seconds(record: Record) -> float:
    seconds = record["seconds"] * (record["gpus"] or record["cpus"] or 1.0)
    return float(seconds) if math.isfinite(seconds) else 0.0
