"""What does it gain, and what does it cost, to begin a round before the last one is over?

    PYTHONPATH=. python benchmarks/overlap.py [--seeds 30]

The gain: the time of the paper's 40 rounds of 8 on 8 slots, where trials take a log-normal time,
played through event by event. The cost: what the search finds on a cheap noisy objective over 41
coordinates (a hill of height .35, noise of .015), with samples of the policy before weighed by the
mean ratio of a coordinate, as `search.importance` does, by the whole ratio, and not at all. Equal
seeds have equal objectives and noise; differences are from `overlap: 0`.
"""

import argparse
import heapq
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from search.config import AlgorithmConfig
from search.ppo2 import PPO2
from search.space import Array, SearchSpace

D, ROUNDS, SAMPLES, SLOTS = 41, 40, 8, 8
NOISE = 0.015


class WholeRatio(PPO2):
    """Weighs by the ratio of densities itself."""

    def _weights(self, thetas: Array) -> Array | None:
        weights = super()._weights(thetas)
        return None if weights is None else np.clip(weights**D, 1e-3, 1e3)


class NoWeights(PPO2):
    """Takes samples of the policy before for samples of this one."""

    def _weights(self, thetas: Array) -> Array | None:
        return None


VARIANTS: dict[str, type[PPO2]] = {
    "mean ratio": PPO2, "whole ratio": WholeRatio, "not weighed": NoWeights
}  # fmt: skip


def hill(seed: int) -> Callable[[Array], float]:
    rng = np.random.default_rng(seed)
    top, steepness = rng.uniform(0.15, 0.85, D), rng.uniform(0.3, 1.5, D)
    return lambda theta: float(0.35 * np.exp(-np.mean(steepness * (theta - top) ** 2) / 0.06))


def found(job: tuple[str, int, int]) -> float:
    """The height of the policy's mean after a whole search."""
    variant, overlap, seed = job
    config = AlgorithmConfig(rounds=ROUNDS, samples=SAMPLES, overlap=overlap)
    space = SearchSpace(tuple(f"x{n}" for n in range(D)), (0.3,) * D)
    search, height = VARIANTS[variant](space, config, seed), hill(seed)
    rng = np.random.default_rng([seed, 1])
    while not search.finished:
        heights = np.array([height(theta) for theta in search.ask()])
        search.tell(np.clip(heights + NOISE * rng.standard_normal(SAMPLES), 0, 1))
    return height(search.best_guess())


def makespan(seconds: Array, overlap: int, slots: int = SLOTS) -> float:
    """When the last trial of `seconds` [rounds, samples] ends.

    A round's trials may begin once the round before is over, its first `overlap` ones once that
    has begun; those of earlier rounds go first.
    """
    rounds, samples = seconds.shape
    free, ends = [0.0] * slots, np.zeros((rounds, samples))
    begins = over = 0.0
    for r in range(rounds):
        fresh = range(overlap if r else 0, samples)
        for s in fresh:
            ends[r, s] = max(heapq.heappop(free), over) + seconds[r, s]
            heapq.heappush(free, ends[r, s])
        begins = over
        if r + 1 < rounds:
            for s in range(overlap):
                ends[r + 1, s] = max(heapq.heappop(free), begins) + seconds[r + 1, s]
                heapq.heappush(free, ends[r + 1, s])
        over = float(ends[r].max())
    return float(ends.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    seeds = range(parser.parse_args().seeds)

    print("Hours of a search of trials of 30 minutes (mean over seeds), and busy slots:\n")
    print("| overlap | " + " | ".join(f"spread {s:g}" for s in (0.05, 0.15, 0.3)) + " |")
    print("| --- | --- | --- | --- |")
    for overlap in (0, 1, 2, 4):
        cells = []
        for spread in (0.05, 0.15, 0.3):
            draws = (np.random.default_rng(seed).lognormal(0, spread, (ROUNDS, SAMPLES)) / 2
                     for seed in seeds)  # fmt: skip
            spans = [(makespan(hours, overlap), hours.sum() / SLOTS) for hours in draws]
            wall, busy = np.mean(spans, axis=0)
            cells.append(f"{wall:.1f} h, {busy / wall:.0%}")
        print(f"| {overlap} | {' | '.join(cells)} |")

    jobs = [("mean ratio", 0), *((v, k) for k in (1, 2, 4) for v in VARIANTS)]
    print("\nHeight of the policy's mean in the end (the top is .35):\n")
    print("| overlap | older samples are | height | difference | its standard error |")
    print("| --- | --- | --- | --- | --- |")
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows = {job: np.array([*pool.map(found, [(*job, seed) for seed in seeds])]) for job in jobs}
    base = rows[jobs[0]]
    for (variant, overlap), heights in rows.items():
        change = heights - base
        error = change.std(ddof=1) / np.sqrt(len(change))
        told = f"{variant} | {heights.mean():.4f} | {change.mean():+.4f} | {error:.4f}"
        print(f"| {overlap} | {told if overlap else f'- | {heights.mean():.4f} | |'} |")


if __name__ == "__main__":
    main()
