"""How often does the final race pick the best candidate, against the same trials dealt out evenly?

    PYTHONPATH=. python benchmarks/race.py [--races 200] [--candidates 4] [--repeats 3]

Made-up races: candidates' true means are normal, at several spreads; luck is as large as it was
measured on shapes (benchmarks/results/paired_seeds.md), part of it shared by trials of one seed,
part by the two splits of one run. Baseline and start run beside them and tell how large luck is.
Every design meets the same candidates and the same luck.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from search.config import FinalConfig
from search.noise import Scores
from search.race import Pair, next_wave, run_race
from search.space import Array

SPREADS = (0.005, 0.01, 0.02, 0.04)  # standard deviation of the candidates' true means
SEED = {"val": 0.0096, "test": 0.0025}  # standard deviation of a seed's luck, by split
RUN = {"val": 0.0143, "test": 0.0108}  # of a run's
TOGETHER = 0.8  # correlation of a run's luck on val and on test (.73 in the ablation table)


@dataclass(frozen=True)
class World:
    """Everything that could be scored: means [losses], val and test [losses, seeds].

    The last two losses are baseline and start.
    """

    means: Array
    val: Array
    test: Array

    @property
    def others(self) -> Scores:
        """Baseline's and start's scores on val, 3 repeats each."""
        return {(row, k): float(self.val[row - 2, k]) for row in range(2) for k in range(3)}


@dataclass(frozen=True)
class Outcome:
    """Of one race: whether the best was picked, what it cost in AP, and so on."""

    right: bool
    regret: float
    trials: int
    said: float
    flattery: float


def make_world(candidates: int, seeds: int, spread: float, rng: np.random.Generator) -> World:
    losses = candidates + 2
    means = 0.2 + spread * rng.standard_normal(losses)
    covariance = np.array([[1, TOGETHER], [TOGETHER, 1]])
    run = rng.standard_normal((losses, seeds, 2)) @ np.linalg.cholesky(covariance).T
    val, test = (
        means[:, None] + SEED[split] * rng.standard_normal(seeds) + RUN[split] * run[..., index]
        for index, split in enumerate(("val", "test"))
    )
    return World(means, val, test)


def play(world: World, config: FinalConfig, by: str) -> Outcome:
    """One race, its winner chosen by its mean score `by` val or test."""
    candidates = len(world.means) - 2
    results: dict[Pair, float | None] = {}
    while wave := next_wave(results, candidates, config, world.others):
        results |= {pair: float(world.val[pair]) for pair in wave}
    race = run_race(results, candidates, config, world.others)
    table = world.val if by == "val" else world.test
    chosen = max(race.left, key=lambda one: np.mean([table[p] for p in results if p[0] == one]))
    reported = np.mean([world.test[pair] for pair in results if pair[0] == chosen])
    best = int(world.means[:candidates].argmax())
    return Outcome(
        right=chosen == best,
        regret=float(world.means[best] - world.means[chosen]),
        trials=len(results),
        said=race.chance(chosen) or 0.0,
        flattery=float(reported - world.means[chosen]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--races", type=int, default=200)
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    budget = {"candidates": arguments.candidates, "repeats": arguments.repeats}
    fixed = FinalConfig(**budget, drop=0)
    designs = {
        "even, chosen on test": (fixed, "test"),
        "even, chosen on val": (fixed, "val"),
        "race, first: 1": (FinalConfig(**budget, first=1), "val"),
        "race, first: 2": (FinalConfig(**budget, first=2), "val"),
    }
    print(f"{arguments.candidates} x {arguments.repeats} trials, {arguments.races} races each:\n")
    print("| candidates spread by | design | best one picked | AP lost | trials | probability said "
          "| test mean too high by |\n" + "| --- " * 7 + "|")  # fmt: skip
    seeds = arguments.candidates * arguments.repeats
    for spread in SPREADS:
        worlds = [
            make_world(arguments.candidates, seeds, spread, np.random.default_rng([race, 1]))
            for race in range(arguments.races)
        ]
        for name, (config, by) in designs.items():
            ends = [play(world, config, by) for world in worlds]
            right, regret, trials, said, flattery = (
                np.mean([getattr(end, field) for end in ends])
                for field in ("right", "regret", "trials", "said", "flattery")
            )
            print(f"| {spread:g} | {name} | {right:.0%} | {regret:.4f} | {trials:.1f} | "
                  f"{said:.0%} | {flattery:+.4f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
