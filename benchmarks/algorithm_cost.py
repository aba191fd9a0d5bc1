"""What does a round of each search algorithm cost, late in a long search?

    python -m benchmarks.algorithm_cost [ALGORITHM...] [--searches shapes shapes_faster_rcnn]

Theta has 41 coordinates in one of these searches and 82 in the other; their simulated trainings are
the hint that an algorithm may ask for, and their time counts. An algorithm is told of so many past
trials, of thetas anywhere, in rounds of 8; then it goes on with `ask`, `tell` and `best_guess`. The
first of these rounds has on top what is done once in a search, such as the rehearsal on the hint;
the others are the cost of a round.
"""

import argparse
import os
import time
from dataclasses import replace

import numpy as np
import torch

from benchmarks.measure import cpu_model, head, row
from search.algorithm import SearchAlgorithm
from search.algorithms import ALGORITHMS, build_algorithm
from search.run.experiment import space_of
from search.run.hint import Simulations
from search.run.load import load_search
from search.space import Array, SearchSpace

SAMPLES = 8


def hill(thetas: Array) -> Array:
    """[N] in [0, .35] with noise of .01: what trials stand for here."""
    heights = 0.35 * np.exp(-np.mean((thetas - 0.6) ** 2, axis=1) / 0.06)
    noise = 0.01 * np.random.default_rng(len(thetas)).standard_normal(len(thetas))
    return np.clip(heights + noise, 0, 1)


def past_thetas(dimension: int, trials: int) -> Array:
    """[trials, D]."""
    return np.random.default_rng(0).random((trials, dimension))


def with_known_hints(space: SearchSpace, thetas: Array) -> SearchSpace:
    """`space`, whose hint knows `thetas`: a search simulated them when it drew them."""
    hint = space.hint
    assert hint is not None
    values = {t.tobytes(): float(v) for t, v in zip(thetas, hill(thetas), strict=True)}
    return replace(space, hint=lambda t: values[t.tobytes()] if t.tobytes() in values else hint(t))


def after(name: str, space: SearchSpace, past: Array, rounds: int) -> SearchAlgorithm:
    """The algorithm after trials of `past` [N, D], with so many rounds to go."""
    batches = past.reshape(-1, SAMPLES, space.dimension)
    settings = {"type": name, "rounds": len(batches) + rounds, "samples": SAMPLES}
    config, _ = load_search("shapes", {"algorithm": settings})
    algorithm = build_algorithm(space, config.algorithm, 0)
    algorithm.tell_start(hill(np.array([space.start] * 3)))
    for round, thetas in enumerate(batches):
        ahead = {"thetas": [], "rejected": []}
        samples = {"thetas": thetas.tolist(), "rejected": [], "ahead": ahead}
        # As if it had asked for them: what that costs late in a search is what is wanted.
        assert algorithm.recall({"round": round, "evidence": algorithm.evidence, **samples})
        algorithm.tell(hill(thetas))
    return algorithm


def rounds_of(algorithm: SearchAlgorithm) -> Array:
    """(CPU, wall) seconds of each round that is left, [rounds, 2]."""
    seconds = []
    while not algorithm.finished:
        begun = (time.process_time(), time.perf_counter())
        algorithm.tell(hill(algorithm.ask()))
        algorithm.best_guess()
        seconds.append((time.process_time() - begun[0], time.perf_counter() - begun[1]))
    return np.array(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithms", nargs="*", default=list(ALGORITHMS))
    parser.add_argument("--searches", nargs="+", default=["shapes", "shapes_faster_rcnn"])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    told = f"{arguments.trials} past trials; {cpu_model()}, {threads} thread(s), load {load:.1f}"
    print(
        f"{told}\n\n{head(['algorithm', 'D', 'CPU s a round', 's a round', 'first round, CPU s'])}"
    )
    for search in arguments.searches:
        _, task = load_search(search, {})
        for name in arguments.algorithms:
            space = space_of(task, Simulations())
            past = past_thetas(space.dimension, arguments.trials // SAMPLES * SAMPLES)
            algorithm = after(name, with_known_hints(space, past), past, arguments.rounds)
            seconds = rounds_of(algorithm)
            cpu, wall = np.median(seconds[1:], axis=0)
            numbers = (cpu, wall, seconds[0, 0])
            line = [name, str(space.dimension), *(f"{number:.2f}" for number in numbers)]
            print(row(line), flush=True)


if __name__ == "__main__":
    main()
