"""Which search algorithm finds the best loss with few trials, on a model of trials?

    python -m benchmarks.search_algorithms [ALGORITHM...] [--seeds 40] [--preflight]

An ALGORITHM is a name of search.algorithms.ALGORITHMS, with settings if wanted: "ppo2 sigma=0.1";
all of them unless told. Every search has rounds of 8 and 64 trials, whose rewards are those of
`benchmarks.surrogate` with its noise. After each round, the best guess and the two best samples run
twice more, and the best by these is the winner, as in `benchmarks.search_real`; the table has what
the winner is worth without noise. Finished searches are kept in WORK, so that the same command goes
on, and a further algorithm only runs itself.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measure import color_of, head, row
from benchmarks.surrogate import MODELS, TABLE, Surrogate
from benchmarks.trials_table import full_trials, read_table
from paploss.errors import UserError
from paploss.files import write_atomic
from paploss.strict import parse
from search.algorithms import ALGORITHMS, build_algorithm
from search.config import AlgorithmConfig
from search.run.experiment import space_of
from search.run.hint import Simulations
from search.run.load import load_search, parse_overrides
from search.run.screen import build_screen
from search.screen import Screen
from search.space import Array, SearchSpace

ROUNDS, SAMPLES, REPEATS, CANDIDATES = 8, 8, 2, 3
FIRST_SEED = 1000
"""Seeds of the searches in the table begin at 0: a first round of theirs would be known to it."""
BUDGETS = (16, 32, 64)


def config_of(name: str) -> AlgorithmConfig:
    """From "cem" or "cem sigma=0.1".

    Raises:
        BadConfig: settings that are none.
    """
    kind, *settings = name.split()
    values = {"type": kind, "rounds": ROUNDS, "samples": SAMPLES, **parse_overrides(settings)}
    return parse(AlgorithmConfig, values, repr(name))


def search(
    name: str, seed: int, surrogate: Surrogate, space: SearchSpace, screen: Screen | None
) -> list[dict[str, Any]]:
    """One search; a line for each of its rounds, with what its winner is worth."""
    algorithm = build_algorithm(space, config_of(name), seed, screen)
    # Equal seeds have equal noise, whatever the algorithm.
    luck = np.random.default_rng([seed, 7])
    start = np.array([space.start] * 3)
    algorithm.tell_start(surrogate.trial(start, luck))
    known: list[tuple[float, tuple[float, ...]]] = []
    lines = []
    begun = time.process_time()
    while not algorithm.finished:
        rejected = len(algorithm.rejections)
        thetas = algorithm.ask()
        rewards = surrogate.trial(thetas, luck)
        algorithm.tell(rewards)
        known += zip(rewards.tolist(), map(tuple, thetas.tolist()), strict=True)
        guess = algorithm.best_guess()
        best = [np.array(theta) for _, theta in sorted(known, key=lambda k: -k[0])]
        race = np.random.default_rng([seed, 8, algorithm.round])
        lines.append(
            {
                "algorithm": name, "seed": seed, "trials": algorithm.round * SAMPLES,
                "winner": winner(_distinct([guess, *best]), surrogate, race),
                "guess": float(surrogate(guess[None])[0]),
                "best": float(surrogate(np.array([theta for _, theta in known])).max()),
                "round mean": float(rewards.mean()), "rejected": rejected,
                "seconds": time.process_time() - begun,
            }
        )  # fmt: skip
    return lines


def winner(candidates: Sequence[Array], surrogate: Surrogate, luck: np.random.Generator) -> float:
    """What the candidate is worth that does best in `REPEATS` trials each."""
    worth = surrogate(np.array(candidates))
    runs = [surrogate.noisy(worth, luck) for _ in range(REPEATS)]
    return float(worth[int(np.argmax(np.mean(runs, axis=0)))])


def _distinct(thetas: Sequence[Array]) -> list[Array]:
    kept: list[Array] = []
    for theta in thetas:
        if len(kept) < CANDIDATES and not any(np.array_equal(theta, other) for other in kept):
            kept.append(theta)
    return kept


def table_of(searches: pd.DataFrame) -> str:
    """Mean ± standard error (spread over searches) of the winner, by algorithm and budget."""
    columns = [f"{budget} trials" for budget in BUDGETS]
    more = ["less ppo2's", "best guess alone", "seeds", "s a search"]
    lines = [head(["algorithm", *columns, *more])]
    last = searches[searches["trials"] == BUDGETS[-1]]
    base = last[last["algorithm"] == "ppo2"].set_index("seed")["winner"]
    order = last.groupby("algorithm")["winner"].mean().sort_values(ascending=False).index
    for name in order:
        own = searches[searches["algorithm"] == name]
        cells = []
        for budget in BUDGETS:
            worth = own.loc[own["trials"] == budget, "winner"]
            cells.append(f"{worth.mean():.4f} ± {_error(worth):.4f} ({worth.std(ddof=1):.3f})")
        end = own[own["trials"] == BUDGETS[-1]].set_index("seed")
        more = (end["winner"] - base).dropna()
        told = (
            f"{more.mean():+.4f} ± {_error(more):.4f}" if len(more) > 1 and name != "ppo2" else ""
        )
        guess, seconds = f"{end['guess'].mean():.4f}", f"{end['seconds'].mean():.1f}"
        lines.append(row([name, *cells, told, guess, str(len(end)), seconds]))
    return "\n".join(lines)


def _error(values: Any) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def draw(searches: pd.DataFrame, levels: dict[str, float], path: Path) -> None:
    """Mean over searches by trials, with a band of one standard error to each side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for n, (name, own) in enumerate(searches.groupby("algorithm", sort=False)):
        by = own.groupby("trials")["winner"]
        mean, error = by.mean(), by.std(ddof=1) / np.sqrt(by.size())
        color = color_of(str(name), n)
        axes.plot(mean.index, mean, color=color, ls="-" if n < 10 else "--", label=str(name))
        axes.fill_between(mean.index, mean - error, mean + error, color=color, alpha=0.2)
    for (name, level), style in zip(levels.items(), (":", "-.", "--"), strict=False):
        axes.axhline(level, color="gray", lw=1, ls=style, label=name)
    axes.set(xlabel="trials", ylabel="reward of the winner, by the surrogate, without noise")
    axes.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> pd.DataFrame:
    """The searches that are asked for, one line a round; those that are kept are not run again."""
    names = arguments.algorithms or list(ALGORITHMS)
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    for name in names:
        config_of(name)
    work, data = arguments.work, arguments.table.read_bytes()
    work.mkdir(parents=True, exist_ok=True)
    # Another table, model or screen is another comparison.
    seen = "simulated" if arguments.simulated else "curves"
    kind = f"{hashlib.sha256(data).hexdigest()[:8]}-{arguments.model}-{seen}"
    path = work / f"{kind}{'-preflight' if arguments.preflight else ''}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(line["algorithm"], line["seed"]) for line in lines}
    jobs = [(n, s) for s in seeds for n in names if (n, s) not in done]
    if jobs:
        config, task = load_search("shapes", {})
        simulations = Simulations(work)
        space = space_of(task, simulations)
        table = full_trials(read_table(arguments.table))
        surrogate = Surrogate(table, arguments.model, space.hint if arguments.simulated else None)
        screen = build_screen(config, task, simulations) if arguments.preflight else None
    for count, (name, seed) in enumerate(jobs, 1):
        found = search(name, seed, surrogate, space, screen)
        with path.open("a", encoding="utf-8") as file:  # whole searches only
            file.write("".join(json.dumps(line) + "\n" for line in found))
        lines += found
        worth, seconds = found[-1]["winner"], found[-1]["seconds"]
        say(f"{name} seed {seed}: {worth:.4f}, {seconds:.1f} s, {count} of {len(jobs)}")
    asked = {(n, s) for s in seeds for n in names}
    return pd.DataFrame([line for line in lines if (line["algorithm"], line["seed"]) in asked])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithms", nargs="*")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--model", choices=sorted(MODELS), default="mean")
    parser.add_argument("--simulated", action="store_true", help="a model that sees simulated AP")
    parser.add_argument("--preflight", action="store_true", help="with the screen of a search")
    parser.add_argument("--work", type=Path, default=Path("experiments/search_algorithms"))
    arguments = parser.parse_args()
    try:
        searches = run(arguments, lambda line: print(line, flush=True))
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; finished searches are kept, and the same command goes on.")
    text = table_of(searches)
    print(f"\n{text}")
    write_atomic(arguments.work / "table.md", f"{text}\n")
    draw(searches, {}, arguments.work / "figure.png")


if __name__ == "__main__":
    main()
