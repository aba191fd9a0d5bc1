"""What is it worth that trials which are compared train with the same seed?

    PYTHONPATH=. python benchmarks/paired_seeds.py [RUNS ...] [--trials TABLE] [--searches 50]

RUNS are repeats that shared their seeds: tables of `paploss ablate` and of experiments (.csv),
experiments (their baseline, start and final race), or journal records (.jsonl). Three answers:

1. The parts of a score: a two-way analysis of variance, loss x seed. The seed's part is the same
   for all losses that train with it, so it cancels where they are compared; the run's does not.
2. PPO2's update on the real rounds of TABLE (benchmarks/trials_table.py): their rewards, with luck
   of that size made up on top, once with one seed for the round, once with one for each sample.
3. Whole searches by PPO2 on a cheap objective, with the same luck.

The luck is that of the first of RUNS, on val.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from benchmarks.overlap import hill
from benchmarks.trials_table import read_table, thetas_of
from search.config import AlgorithmConfig
from search.journal import Journal
from search.ppo2 import PPO2, ppo2_update, share_of_round
from search.space import Array, SearchSpace

SCORES = ("val", "test")
SIGMA = 0.2  # of the searches in the table: the released spread of the first round
REPEATS = 50  # of the luck of a round


@dataclass(frozen=True)
class Parts:
    """Of a score's spread over seeds: standard deviations of the seed's part and of the run's.

    `low` and `high` hold the seed's share of the variance with 95 % (from F, exact where every loss
    met every seed); `p` is that of F if seeds had no part.
    """

    losses: int
    seeds: int
    seed: float
    run: float
    low: float
    high: float
    p: float

    @property
    def share(self) -> float:
        return self.seed**2 / (self.seed**2 + self.run**2)


def parts(rows: pd.DataFrame, score: str) -> Parts:
    """Restricted maximum likelihood of score = loss + seed + run; fixed losses, random seeds."""
    rows = rows.dropna(subset=[score])
    rows = rows[rows.groupby("loss")[score].transform("count") > 1]
    losses, seeds = (pd.get_dummies(rows[name]).to_numpy(float) for name in ("loss", "seed"))
    y = rows[score].to_numpy()
    # Each within its loss: what is left of both after the losses' means.
    centre = np.eye(len(y)) - losses @ np.linalg.pinv(losses)
    within, design = centre @ y, centre @ seeds
    values, vectors = np.linalg.eigh(centre)
    basis = vectors[:, values > 0.5]
    seen, carrier = basis.T @ y, basis.T @ seeds

    def spread(ratio: float) -> tuple[float, float]:
        """Minus the likelihood's logarithm, twice; the run's variance."""
        cov = np.eye(len(seen)) + ratio * carrier @ carrier.T
        variance = seen @ np.linalg.solve(cov, seen) / len(seen)
        return np.linalg.slogdet(cov)[1] + len(seen) * np.log(variance), variance

    best = optimize.minimize_scalar(lambda r: spread(r)[0], method="bounded", bounds=(0, 20))
    ratio = float(best.x)
    run = float(np.sqrt(spread(ratio)[1]))
    fitted = design @ np.linalg.lstsq(design, within, rcond=None)[0]
    df = np.linalg.matrix_rank(design), len(seen) - np.linalg.matrix_rank(design)
    f = float(np.mean(fitted @ fitted) / df[0] / (((within - fitted) ** 2).sum() / df[1]))
    met = np.trace(design.T @ design) / df[0]  # losses that met a seed, where all met all
    limits = [max(0.0, (f / stats.f.ppf(q, *df) - 1) / met) for q in (0.975, 0.025)]
    low, high = (limit / (1 + limit) for limit in limits)
    return Parts(
        rows["loss"].nunique(), rows["seed"].nunique(), run * ratio**0.5, run, low, high,
        float(stats.f.sf(f, *df)),
    )  # fmt: skip


def read_runs(path: Path) -> pd.DataFrame:
    """Columns loss, seed, val, test: trials that trained, of losses by name."""
    if path.suffix == ".csv":
        table = pd.read_csv(path)
        if "phase" in table:  # of an experiment
            table = table[table["phase"] != "search"]
            table["row"] = table["phase"] + table["round"].astype(str)
        else:
            table["reward"] = table["val_AP"]
        table = table[table["status"] == "ok"]
        names = {"row": "loss", "reward": "val", "test_AP": "test"}
        return table.rename(columns=names)[["loss", "seed", *SCORES]]
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").splitlines()
        return _rows(json.loads(line) for line in lines)
    return _rows(Journal(path).records())


def _rows(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    rows = [
        {
            "loss": f"{record['phase']} {record['theta']}",
            "seed": record["seed"],
            "val": record["reward"],
            "test": record.get("test_reward"),
        }
        for record in records
        if record["status"] == "ok" and record["phase"] in ("baseline", "start", "final")
    ]
    return pd.DataFrame(rows, columns=["loss", "seed", *SCORES])


def print_parts(runs: dict[str, pd.DataFrame]) -> Parts:
    """A table; the first parts in it.

    Raises:
        SystemExit: no two losses were trained with two seeds.
    """
    print("\n| runs | losses x seeds | score | seed's sd | run's sd | seed's share | p |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    found = []
    for name, rows in runs.items():
        for score in SCORES:
            repeats = rows.dropna(subset=[score]).groupby("loss").size()
            if (repeats > 1).sum() < 2:
                continue
            one = parts(rows, score)
            found.append(one)
            share = f"{one.share:.0%} ({one.low:.0%} to {one.high:.0%})"
            print(f"| {name} | {one.losses} x {one.seeds} | {score} | {one.seed:.4f} | "
                  f"{one.run:.4f} | {share} | {one.p:.2g} |")  # fmt: skip
    if not found:
        raise SystemExit("No two losses among RUNS were trained with two seeds each.")
    return found[0]


def real_rounds(
    table: pd.DataFrame,
) -> Iterator[tuple[str, int, Array, float, float, Array, Array]]:
    """(source, round, mean, std, next std, thetas, rewards) of every PPO2 search in the table."""
    for source in sorted({s for s in table["source"] if s.startswith("ppo2")}):
        rows = table[table["source"] == source]
        search = rows[rows["phase"] == "search"].sort_values(["round", "slot"])
        mean = thetas_of(rows[rows["phase"] == "start"])[0]
        rounds = search["round"].nunique()
        for number, group in search.groupby("round"):
            std, then = (SIGMA * share_of_round(n, rounds) for n in (number, number + 1))
            thetas, rewards = thetas_of(group), group["reward"].to_numpy()
            yield source, number, mean, std, then, thetas, rewards
            mean = ppo2_update(mean, std, then, thetas, rewards)


def noise_of_update(round: tuple[Any, ...], luck: Parts, rng: np.random.Generator) -> list[float]:
    """[spread of the rewards, noise with own seeds, with one seed, share of its variance left].

    Noise: the root mean square distance of the update from that by the rewards as they are, as a
    share of that update's length.
    """
    *_, mean, std, then, thetas, rewards = round
    step = ppo2_update(mean, std, then, thetas, rewards) - mean
    squares = []
    for paired in (False, True):
        away = []
        for _ in range(REPEATS):
            seeds = rng.normal(0, luck.seed, 1 if paired else len(rewards))
            noisy = rewards + seeds + rng.normal(0, luck.run, len(rewards))
            away.append(ppo2_update(mean, std, then, thetas, noisy) - mean - step)
        squares.append(float(np.mean(np.sum(np.square(away), axis=1)) / np.sum(step**2)))
    own, one = squares
    return [float(np.nanstd(rewards, ddof=1)), own**0.5, one**0.5, one / own]


def height(seed: int, paired: bool, luck: Parts, rounds: int) -> float:
    """Of the policy's mean after a whole search on a hill of .35 over 41 coordinates."""
    space = SearchSpace(tuple(f"x{n}" for n in range(41)), (0.3,) * 41)
    search = PPO2(space, AlgorithmConfig(rounds=rounds), seed)
    objective, rng = hill(seed), np.random.default_rng([seed, 1])
    while not search.finished:
        heights = np.array([objective(theta) for theta in search.ask()])
        run, seeds = rng.standard_normal((2, len(heights)))
        seeds = np.full(len(heights), seeds[0]) if paired else seeds
        search.tell(np.clip(heights + luck.run * run + luck.seed * seeds, 0, 1))
    return objective(search.best_guess())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results = Path("benchmarks/results")
    default = [results / "ablations/shapes.csv", results / "bccd/history.csv"]
    parser.add_argument("runs", nargs="*", type=Path, default=default)
    parser.add_argument("--trials", type=Path, default=Path("benchmarks/data/shapes_trials.csv"))
    parser.add_argument("--searches", type=int, default=50)
    arguments = parser.parse_args()
    luck = print_parts(
        {f"{path.parent.name}/{path.stem}": read_runs(path) for path in arguments.runs}
    )
    rng = np.random.default_rng(0)
    print("\n| PPO2's round | spread of its rewards | noise of the update: own seeds | one seed | "
          "variance left |\n| --- | --- | --- | --- | --- |")  # fmt: skip
    left = []
    for round in real_rounds(read_table(arguments.trials)):
        spread, own, one, ratio = noise_of_update(round, luck, rng)
        left.append(ratio)
        print(f"| {round[0]}, {round[1]} | {spread:.3f} | {own:.2f} | {one:.2f} | {ratio:.0%} |")
    if left:
        print(f"| mean | | | | {np.mean(left):.0%} |")
    print("\n| rounds of 8 | height, own seeds | one seed | difference | its standard error |\n"
          "| --- | --- | --- | --- | --- |")  # fmt: skip
    for rounds in (8, 24):
        own, one = (
            np.array([height(seed, paired, luck, rounds) for seed in range(arguments.searches)])
            for paired in (False, True)
        )
        error = np.std(one - own, ddof=1) / len(own) ** 0.5
        print(f"| {rounds} | {own.mean():.4f} | {one.mean():.4f} | {np.mean(one - own):+.4f} | "
              f"{error:.4f} |")  # fmt: skip


if __name__ == "__main__":
    main()
