"""Finished trials of many experiments as one small table, for what is learned from all of them.

    python -m benchmarks.trials_table EXPERIMENT... --out benchmarks/data/shapes_trials.csv

An EXPERIMENT is the folder of a search, the runs.jsonl that `benchmarks.search_real` keeps, or the
fidelities.jsonl of `benchmarks.fidelities`. One row is one trial of one theta: where it comes from,
how it ended, what it gave, and theta itself. Experiments that are there already are replaced by
what their folders hold now. All of them must train what `--search` trains, so that their rewards
can be compared. `--simulate` adds what the preflight's simulation gives for each theta
(`loss.preflight.simulated`).
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import fidelities
from loss.by_head import family_of
from paploss.errors import BadExperiment, UserError
from paploss.files import open_atomic
from search.journal import Journal
from search.run.experiment import open_experiment
from search.run.hint import FILE, SimulatedReward, Simulations
from search.run.load import load_search, parse_overrides
from search.space import Array
from trainers.config import TaskConfig

PHASES = ("start", "search", "rung", "final", fidelities.PHASE)
KEY = ["source", "phase", "round", "slot", "repeat"]
_FIDELITY = {"images": 1.0, "image_size": 1.0, "classes": None, "epochs": 1.0, "val_images": 1.0}
_DIGITS = 6


def rows_of(records: Iterator[dict[str, Any]], source: str) -> pd.DataFrame:
    """One row a trial that has a theta, in the order of keys."""
    rows = []
    for record in records:
        if record["theta"] is None or record["phase"] not in PHASES:
            continue
        fidelity = {**_FIDELITY, **(record.get("fidelity") or {})}
        rows.append(
            {
                "source": source,
                **{name: record[name] for name in (*KEY[1:], "seed", "status")},
                **{name: record.get(name) for name in ("reward", "test_reward", "early")},
                **{name: fidelity[name] for name in _FIDELITY},
                "seconds": round(record["seconds"], 2),
                **{f"theta_{n}": value for n, value in enumerate(record["theta"])},
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values(KEY, ignore_index=True) if rows else table


def read_trials(path: Path, task: TaskConfig) -> pd.DataFrame:
    """The rows of an experiment, or of a file of JSON lines with journal records.

    Raises:
        BadExperiment: it is neither, or it trains something else than `task`.
    """
    if path.stem == "fidelities":
        return rows_of(fidelities.records_of(path), path.stem)
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        return rows_of((json.loads(line) for line in lines), path.parent.name)
    config, own = open_experiment(path)
    check_same_task(own, task, f"{path}, beside --search")
    return rows_of(Journal(path).records(), config.name)


def check_same_task(one: TaskConfig, other: TaskConfig, where: str) -> None:
    """Raise BadExperiment unless rewards of both compare; where the data lie is no matter."""
    for name in ("detector", "criterion", "schedule", "reward"):
        if getattr(one, name) != getattr(other, name):
            raise BadExperiment(f"{where}: another {name}, so it has to be left out.")
    if (one.data.name, one.data.classes) != (other.data.name, other.data.classes):
        raise BadExperiment(f"{where}: trained on {one.data.name}, not on {other.data.name}.")


def merge(known: pd.DataFrame, fresh: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """`known`, with every source that is in `fresh` replaced by its rows there."""
    fresh = [table for table in fresh if len(table)]
    if not fresh:
        return known
    taken = {source for table in fresh for source in table["source"]}
    kept = known[~known["source"].isin(taken)] if len(known) else known
    tables = [table for table in (kept, *fresh) if len(table)]
    merged = pd.concat([table.astype(object) for table in tables])
    merged = merged.drop_duplicates(KEY, keep="last").sort_values(KEY, ignore_index=True)
    return merged.infer_objects()


def thetas_of(table: pd.DataFrame) -> Array:
    """[trials, D]."""
    columns = [name for name in table.columns if name.startswith("theta_")]
    return table[columns].to_numpy(np.float64)


def read_table(path: Path) -> pd.DataFrame:
    """The table at `path`; one without rows if there is none."""
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=KEY)


def full_trials(table: pd.DataFrame) -> pd.DataFrame:
    """The trials at full fidelity that are evidence about their theta: ok or diverged."""
    whole = table["classes"].isna()
    for name in ("images", "image_size", "epochs", "val_images"):
        whole &= table[name] == 1
    ended = table["status"].isin(("ok", "diverged"))
    return table[whole & ended & (table["phase"] != "rung")].reset_index(drop=True)


def with_simulations(
    table: pd.DataFrame, before: pd.DataFrame, hint: Callable[[Array], float] | None
) -> pd.DataFrame:
    """`table` with a column `simulated`: as in `before`, and of `hint` (None: NaN) where not."""
    known = {}
    if "simulated" in before:
        there = before[before["simulated"].notna()]
        known = dict(zip(_digits(there), there["simulated"], strict=True))
    rest = hint or (lambda theta: math.nan)
    values = [
        known[key] if key in known else rest(theta)
        for key, theta in zip(_digits(table), thetas_of(table), strict=True)
    ]
    table = table.drop(columns="simulated", errors="ignore")
    table.insert(list(table.columns).index("theta_0"), "simulated", values)
    return table


def simulations_of(experiments: Sequence[Path], folder: Path) -> Simulations:
    """What the experiments' own searches have simulated, copied to `folder`, and all else."""
    with (folder / FILE).open("ab") as file:
        for path in experiments:
            with suppress(OSError):
                file.write((path / "samples" / FILE).read_bytes())
    return Simulations(folder)


def _digits(table: pd.DataFrame) -> list[str]:
    """Each theta as the file has it."""
    return [" ".join(f"{x:.{_DIGITS}g}" for x in theta) for theta in thetas_of(table)]


def write_table(table: pd.DataFrame, path: Path) -> None:
    with open_atomic(path) as file:
        table.to_csv(file, index=False, float_format=f"%.{_DIGITS}g")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/data/shapes_trials.csv"))
    parser.add_argument("--simulate", action="store_true", help="what is not known yet")
    parser.add_argument("--search", default="configs/search/shapes.yaml")
    parser.add_argument("--set", action="append", default=[], help="over --search's settings")
    arguments = parser.parse_args()
    try:
        _, task = load_search(arguments.search, parse_overrides(arguments.set))
        fresh = [read_trials(path, task) for path in arguments.experiments]
    except UserError as error:
        sys.exit(str(error))
    dimension = len(family_of(task.criterion).names)
    before = read_table(arguments.out)
    table = merge(before, fresh)
    if len(table) and thetas_of(table).shape[1] != dimension:
        sys.exit(f"{arguments.out} holds thetas of another dimension than {dimension}.")
    with tempfile.TemporaryDirectory() as folder:
        known = simulations_of(arguments.experiments, Path(folder))
        hint = SimulatedReward(family_of(task.criterion), task.criterion, known)
        table = with_simulations(table, before, hint if arguments.simulate else None)
    write_table(table, arguments.out)
    counts = table.groupby(["source", "phase"], sort=False).size().unstack(fill_value=0)
    print(counts.to_string())
    print(f"\n{arguments.out}: {len(table)} trials, {len(full_trials(table))} of them full.")


if __name__ == "__main__":
    main()
