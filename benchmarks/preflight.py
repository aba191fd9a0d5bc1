"""What the preflight would have saved, and what it would have lost, on trials that were run.

    python -m benchmarks.preflight [TRIALS...] [--again] --tuned-on random_s0 ppo2_s0

TRIALS are folders of searches or a table of benchmarks.trials_table, by default
benchmarks/data/shapes_trials.csv. Each search trial's theta is examined as a search would, and its
simulated AP compared with the reward that it earned. Searches that the limits were set on are
reported apart from the others. Writes preflight.md, preflight.csv (every trial) and preflight.png;
with --again, trials that preflight.csv has already are not measured anew.
"""

import argparse
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.preflight_report import HELD_OUT, TUNED, figure, report
from benchmarks.trials_table import full_trials, read_table, read_trials, thetas_of
from loss.by_head import family_of
from loss.criterion import build_criterion
from loss.gradient_checks import STATES, Pull, pull
from loss.preflight import LIMITS, gradient_faults, standard_scene
from loss.simulation import simulate
from search.run.load import load_search

_KEY = ["source", "round", "slot"]


def measured(table: pd.DataFrame, criterion: dict[str, Any]) -> pd.DataFrame:
    """Each trial with what the preflight measures of it: AP, CPU seconds, pulls."""
    family = family_of(criterion)
    scene = standard_scene()
    rows = []
    for number, theta in enumerate(thetas_of(table), 1):
        begun = time.process_time()
        built = build_criterion(family.settings(theta.clip(0, 1).tolist()))
        pulls = {name: pull(built, scene, state) for name, state in STATES.items()}
        gradient_seconds = time.process_time() - begun
        simulation = simulate(built, scene)
        rows.append(
            {
                "ap": simulation.ap,
                "finite": simulation.finite,
                "gradient_seconds": gradient_seconds,
                "seconds": time.process_time() - begun,
                **{
                    f"{name}.{key}": value
                    for name, found in pulls.items()
                    for key, value in asdict(found).items()
                },
            }
        )
        if number % 50 == 0:
            print(f"{number} of {len(table)} thetas", flush=True)
    kept = table[[*_KEY, "reward"]].reset_index(drop=True)
    return pd.concat([kept, pd.DataFrame(rows)], axis=1)


def judged(trials: pd.DataFrame) -> pd.DataFrame:
    """With the stage that rejects a trial, "" if none, and whether its AP is too low."""
    names = [field.name for field in fields(Pull)]
    stages = []
    low = ~trials["finite"] | (trials["ap"] < LIMITS.ap)
    for (_, trial), fails in zip(trials.iterrows(), low, strict=True):
        pulls = {
            state: Pull(**{name: trial[f"{state}.{name}"] for name in names}) for state in STATES
        }
        fault = next(gradient_faults(pulls), None)
        stages.append("gradient" if fault else "simulation" if fails else "")
    return trials.assign(stage=stages, low_ap=low)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    table = Path("benchmarks/data/shapes_trials.csv")
    parser.add_argument("trials", nargs="*", type=Path, default=[table])
    parser.add_argument("--tuned-on", nargs="*", default=["random_s0", "ppo2_s0"], metavar="SOURCE")
    parser.add_argument("--search", default="configs/search/shapes.yaml")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--again", action="store_true", help="keep what preflight.csv holds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, task = load_search(arguments.search, {})
    tables = [
        read_table(path) if path.suffix == ".csv" else read_trials(path, task)
        for path in arguments.trials
    ]
    full = full_trials(pd.concat(tables, ignore_index=True))
    start = float(full.loc[full["phase"] == "start", "reward"].mean())
    full = full[full["phase"] == "search"]
    rows = arguments.out / "preflight.csv"
    known = pd.read_csv(rows) if arguments.again and rows.exists() else None
    if known is not None:
        done = pd.MultiIndex.from_frame(known[_KEY])
        full = full[~pd.MultiIndex.from_frame(full[_KEY]).isin(done)]
    fresh = measured(full, task.criterion)
    trials = pd.concat([table for table in (known, fresh) if table is not None and len(table)])
    trials = trials.sort_values(_KEY, ignore_index=True)
    trials.to_csv(rows, index=False, float_format="%.5g")
    trials = judged(trials)
    tuned = trials["source"].isin(arguments.tuned_on)
    trials["group"] = np.where(tuned, TUNED, HELD_OUT)
    figure(trials, arguments.out / "preflight.png")
    lines = list(report(trials, start))
    (arguments.out / "preflight.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
