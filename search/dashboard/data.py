"""What the page shows of an experiment, as plain values that JSON can hold.

`history_data` changes when a trial finishes, `status_data` as long as a search runs. Nothing here
knows HTML, and no string here has been escaped: the page only ever sets texts.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paploss.files import read_json
from search.config import FinalConfig
from search.confirmation import confirmation
from search.dashboard.formulas import formulas_data
from search.dashboard.policy import Policy, policy_data
from search.dashboard.rewards import best_so_far, device_hours, levels, round_rows
from search.dashboard.spared import noise_data, race_data, spared_data
from search.dashboard.values import count, number, section, short
from search.headline import best_curves, start_curves
from search.history import METRICS, TIMINGS, History, shared_fingerprints
from search.progress import race_is_over
from search.result import role_of
from search.reward import column_name, reward_name
from search.standings import Standing, standings, verdict, winner
from search.status import read_events, read_status

Record = Mapping[str, Any]

COLUMNS = (
    *("phase", "round", "slot", "repeat", "label", "status", "reward", "test", "seconds"),
    *("fingerprint", "attempts", "node", "finished", "folder", "error"),
)
EVENTS, IMAGES = 200, 200
"""How many of them the page lists; it says how many there are."""


def history_data(history: History) -> dict[str, Any]:
    """All that the page shows of an experiment but its status; see the functions below."""
    table = standings(history)
    curves, title = best_curves(history, table)
    uniform = section(history.config, "algorithm").get("type") == "random"
    return {
        "name": experiment_name(history),
        "settings": settings_of(history.config, _not_needed(history)),
        "verdict": verdict(table, scored_by(history.config)[0]),
        "confirmation": confirmation(history.path),
        "race": race_data(history),
        "noise": noise_data(history),
        "spared": spared_data(history),
        "standings": [standing_row(one, winner(table)) for one in table],
        "metrics": metrics_table(history),
        "rounds": round_rows(history.records),
        "levels": levels(history.records),
        "best": best_so_far(history.records),
        "found": title,
        "formulas": formulas_data(history),
        "policy": policy_data(*_policies(history), curves, start_curves(history), uniform=uniform),
        "trials": {"columns": COLUMNS, "rows": trial_rows(history)},
        "time": time_parts(history),
        "device": device_hours(history.records),
        "images": skipped_images(history.records),
        "fingerprints": list(shared_fingerprints(history).items()),
        "damaged": list(history.damaged),
        "trained": (history.path / "best.yaml").is_file(),
    }


def status_data(experiment: Path) -> dict[str, Any]:
    """The status as its search wrote it last, or None, and the latest events, newest first."""
    status, events = read_status(experiment), read_events(experiment)
    latest = [(number(when), short(text)) for when, text in events[: -EVENTS - 1 : -1]]
    return {
        "status": None if status is None else status.model_dump(mode="json"),
        "events": latest,
        "events_in_all": len(events),
    }


def configuration(config: Mapping[str, Any]) -> dict[str, str]:
    """The configuration as {"algorithm.rounds": "4"}, for comparisons."""
    return {key: short(value) for key, value in _flat(config, "")}


def experiment_name(history: History) -> str:
    """As its configuration has it, or the name of its folder."""
    return short(history.config.get("name", history.path.resolve().name))


def settings_of(config: Mapping[str, Any], not_needed: int = 0) -> dict[str, Any]:
    """What was asked for: budget, race, reward, seed, what a trial holds. None where not said.

    Args:
        not_needed: trials of a race that is over, which are no part of the total.
    """
    algorithm, final, resources = (
        section(config, key) for key in ("algorithm", "final", "resources")
    )
    rounds, samples = count(algorithm.get("rounds")), count(algorithm.get("samples"))
    candidates, repeats = count(final.get("candidates")), count(final.get("repeats"))
    full, rung = _trials_of_round(config, samples)
    reward, score = scored_by(config)
    return {
        "algorithm": short(algorithm.get("type", "unknown algorithm")),
        "rounds": rounds,
        "samples": samples,
        "candidates": candidates,
        "repeats": repeats,
        "total": _total(not_needed, rounds, full, candidates, repeats, rung),
        "saving": _saving(config, full),
        "reward": short(reward),
        "score": short(score),
        "seed": count(config.get("seed")),
        "cpus": number(resources.get("cpus_per_trial")),
        "gpus": number(resources.get("gpus_per_trial")),
        "detector": short(section(config, "detector").get("name") or ""),
        "data": short(section(config, "data").get("name") or ""),
    }


def scored_by(config: Mapping[str, Any]) -> tuple[str, str]:
    """What the reward is called, and its name at the head of a column; see `search.reward`."""
    try:
        return reward_name(config), column_name(config)
    except (TypeError, ValueError, ZeroDivisionError):  # a configuration that no search would take
        return "reward", "reward"


def standing_row(one: Standing, best: Standing | None) -> dict[str, Any]:
    """A line of the standings."""
    return {
        "label": short(one.label),
        "role": role_of(one),
        "winner": one is best,
        "n": one.n,
        "test": number(one.mean_test),
        "std": number(one.std_test),
        "val": number(one.mean_val),
        "statuses": dict(one.statuses),
    }


def metrics_table(history: History) -> dict[str, Any]:
    """Every metric on test, mean over the repeats that ended well, one row a loss.

    A metric that no trial has takes no column.
    """
    columns = {f"test_{name}": name for name in METRICS}
    trials = history.trials[history.trials["status"] == "ok"].rename(columns=columns)
    means = trials.groupby(["phase", "round", "label"], sort=False)[list(METRICS)].mean()
    # Search trials are not scored on test, and no old experiment has oLRP.
    means = means.dropna(how="all").dropna(axis=1, how="all")
    rows = [[short(key[-1]), *map(number, values)] for key, *values in means.itertuples()]
    return {"columns": list(means.columns), "rows": rows}


def trial_rows(history: History) -> list[list[Any]]:
    """All finished trials, a row of `COLUMNS` each; `folder` is None where it is not there."""
    folders = log_folders(history.path)
    return [
        [
            *(record[name] for name in ("phase", "round", "slot", "repeat")),
            short(record["label"]),
            record["status"],
            number(record["reward"]),
            number(record["test_reward"]),
            number(record["seconds"], 2),
            None if record["fingerprint"] is None else short(record["fingerprint"]),
            record["attempt"] + 1,
            None if record["node"] is None else short(record["node"]),
            number(record["finished"], 1),
            record["trial_dir"] if record["trial_dir"] in folders else None,
            None if record["error"] is None else short(record["error"]),
        ]
        for record in history.records
    ]


def log_folders(experiment: Path) -> frozenset[str]:
    """Names of the folders right in an experiment, links left out: where a log may be."""
    try:
        with os.scandir(experiment) as entries:
            return frozenset(e.name for e in entries if e.is_dir(follow_symlinks=False))
    except OSError:
        return frozenset()


def time_parts(history: History) -> dict[str, Any] | None:
    """Where the trials' time went, in seconds; None before there is any.

    `overhead` is wall time over ideal time, where summary.json has `wall_seconds` and `slots`.
    """
    records = history.records
    total = sum(record["seconds"] for record in records)
    if not total or not math.isfinite(total):
        return None
    parts = {part: sum(r["timing"].get(part, 0.0) for r in records) for part in TIMINGS}
    parts = {part: seconds for part, seconds in parts.items() if seconds or part != "early"}
    parts["other"] = max(0.0, total - sum(parts.values()))
    return {
        "total": number(total, 2),
        "trials": len(records),
        "parts": {part: number(seconds, 2) for part, seconds in parts.items()},
        "overhead": _overhead(history.path / "summary.json", total),
    }


def skipped_images(records: Iterable[Record]) -> dict[str, Any]:
    """Images that trials could not read: [file, reason, trials], the first `IMAGES` of them."""
    reasons: dict[str, str] = {}
    times: Counter[str] = Counter()
    for record in records:
        reasons |= record["skipped_images"]
        times.update(record["skipped_images"].keys())
    rows = [[short(file), short(why), times[file]] for file, why in sorted(reasons.items())]
    return {"in_all": len(rows), "rows": rows[:IMAGES]}


def _overhead(path: Path, total: float) -> dict[str, float | None] | None:
    try:
        summary = read_json(path)
        wall, slots = float(summary["wall_seconds"]), int(summary["slots"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return {"wall": number(wall, 2), "slots": slots, "ratio": number(wall * slots / total)}


def _policies(history: History) -> tuple[Sequence[str], list[Policy]]:
    """Names of the coordinates, and the policy of each round."""
    table = history.policy
    names = list(dict.fromkeys(table["coordinate"]))
    by_round = (group for _, group in table.groupby("round"))
    return names, [
        (int(own["round"].iloc[0]), own["mean"].to_numpy(), own["std"].to_numpy())
        for own in by_round
    ]


def _flat(value: Any, way: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{way}.{key}" if way else str(key))
    else:
        yield way, value


def _trials_of_round(config: Mapping[str, Any], samples: int | None) -> tuple[int | None, int]:
    """Whole trials of a round, and cheaper ones of its rung, as `SearchConfig.full_samples`."""
    factor = count(section(config, "rungs").get("factor"))
    return (samples // factor, samples) if samples and factor else (samples, 0)


def _total(*counts: int | None) -> int | None:
    """Trials of a whole search, as `Plan.total_trials`; None where a count is not known."""
    if None in counts:
        return None
    not_needed, rounds, samples, candidates, repeats, rung = (one or 0 for one in counts)
    return rounds * (samples + rung) + (2 + candidates) * repeats - not_needed


def _saving(config: Mapping[str, Any], full: int | None) -> list[str]:
    """By what means a search saves trials, in words."""
    ways = ["preflight"] if section(config, "preflight").get("enabled") else []
    ways += [f"rungs: {full} of a round in full"] if section(config, "rungs") else []
    return ways + (["early stop"] if section(config, "early_stop") else [])


def _not_needed(history: History) -> int:
    """Trials of the final race that were planned and will not run, once it is over."""
    try:
        final = FinalConfig.model_validate(section(history.config, "final"))
    except ValueError:  # a configuration that no search would take
        return 0
    ran = sum(record["phase"] == "final" for record in history.records)
    over = race_is_over(history.records, final)
    return final.candidates * final.repeats - ran if over else 0
