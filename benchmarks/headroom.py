"""Is there a much better loss to find than searches have found?

    python -m benchmarks.headroom --work experiments/headroom

A Gaussian process learns from all good trials of the table, more than any search has seen. It is
asked for the best of the tried thetas, for the best theta of all, and for the one that is best less
its own uncertainty; these run with fresh seeds, as the winners of `benchmarks.search_real` do. Runs
of its own that are in the table are left out, so that the same table gives the same again.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import GroupKFold

from benchmarks.measure import head, row
from benchmarks.race_trials import Loss, Runs, report, run_missing
from benchmarks.search_real import REFERENCE_REPEATS
from benchmarks.surrogate import TABLE, features
from benchmarks.trials_table import full_trials, read_table, thetas_of
from loss.by_head import family_of
from search.candidates import climb, genes_of
from search.run.load import load_search
from search.space import Array

GOOD = 0.15
"""Rewards below it are left out: why a loss fails says little about which good one is best."""
SOURCE = "headroom"
"""What the table calls runs of this script, by the folder that they are kept in."""
_FOLDS = 5
_CENTERS = 30
_SPREAD = 0.15
_CLIMBS = 2


class Model:
    """Expected reward of a theta, by the curves that it stands for, and how sure that is.

    Attributes:
        noise: standard deviation of one trial's reward.
    """

    def __init__(self, thetas: Array, rewards: Array) -> None:
        inputs = features(thetas)
        self._center, self._spread = inputs.mean(0), inputs.std(0).clip(1e-3)
        self._level = rewards.mean()
        kernel = ConstantKernel(0.02**2, (1e-6, 1e-2)) * Matern(15, (1, 1000), nu=2.5)
        kernel += WhiteKernel(0.02**2, (1e-6, 1e-2))
        self._process = GaussianProcessRegressor(kernel)
        self._process.fit(self._scaled(inputs), rewards - self._level)
        self.noise = float(np.sqrt(self._process.kernel_.k2.noise_level))

    def mean(self, thetas: Array) -> Array:
        """[N]."""
        found: Array = self._level + self._process.predict(self._scaled(features(thetas)))
        return found

    def less_doubt(self, thetas: Array) -> Array:
        """The mean less one standard deviation of what is not known of it, [N]."""
        inputs = self._scaled(features(thetas))
        mean, sd = self._process.predict(inputs, return_std=True)
        found: Array = self._level + mean - np.sqrt((sd**2 - self.noise**2).clip(min=0))
        return found

    def _scaled(self, inputs: Array) -> Array:
        return (inputs - self._center) / self._spread


def held_out(thetas: Array, rewards: Array) -> Array:
    """What models expect of thetas that they have not seen, [N]."""
    _, group = np.unique(thetas, axis=0, return_inverse=True)
    found = np.empty(len(rewards))
    for seen, unseen in GroupKFold(_FOLDS).split(thetas, groups=group.ravel()):
        found[unseen] = Model(thetas[seen], rewards[seen]).mean(thetas[unseen])
    return found


def told(expected: Array, rewards: Array) -> str:
    """How good `held_out` is: in its order, and where it expects most."""
    top = expected >= np.quantile(expected, 0.9)
    return (
        f"Of thetas that it has not seen: Spearman {spearmanr(expected, rewards)[0]:.2f}; of its "
        f"highest tenth it expects {expected[top].mean():.3f}, and {rewards[top].mean():.3f} came."
    )


@dataclass(frozen=True)
class Promise:
    """A theta, and what the model expects of it."""

    label: str
    theta: Array
    expected: float


def promises(model: Model, tried: Array, names: Sequence[str], seed: int = 0) -> list[Promise]:
    """What the model says is best, of `tried` [N, D] and of all."""
    rng = np.random.default_rng(seed)
    best = tried[np.argmax(model.mean(tried))]
    found = {
        "best of the tried": best,
        "best of all": _climbed(model.mean, tried, names, rng),
        "best of all, less doubt": _climbed(model.less_doubt, tried, names, rng),
    }
    return [Promise(label, t, float(model.mean(t[None])[0])) for label, t in found.items()]


def _climbed(
    value: Callable[[Array], Array], tried: Array, names: Sequence[str], rng: np.random.Generator
) -> Array:
    centers = tried[np.argsort(-value(tried))[:_CENTERS]]
    spread, genes = np.full(tried.shape[1], _SPREAD), genes_of(names)
    for _ in range(_CLIMBS):
        centers = np.concatenate([climb(value, centers, spread, genes, rng)[:1], centers])
    return centers[0]


def table_of(found: Sequence[Promise], losses: Sequence[Loss], runs: Runs) -> str:
    lines = [head(["theta", "expected on val", "val", "AP, third split", "seeds"])]
    for promise, loss in zip(found, losses, strict=True):
        records = [runs.get(loss, repeat) or {} for repeat in REFERENCE_REPEATS]
        val, test = (
            np.array([record.get(name) or 0.0 for record in records])
            for name in ("reward", "test_reward")
        )
        score = f"{test.mean():.3f} ± {test.std(ddof=1):.3f}"
        cells = [f"{promise.expected:.3f}", f"{val.mean():.3f}", score, str(len(test))]
        lines.append(row([promise.label, *cells]))
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> str:
    """Fit, run what is missing; the table, as Markdown."""
    _, task = load_search(arguments.search, {})
    table = full_trials(read_table(arguments.table))
    table = table[(table["reward"] > GOOD) & (table["source"] != SOURCE)]
    rewards = table["reward"].to_numpy(np.float64)
    model = Model(thetas_of(table), rewards)
    tried = pd.DataFrame(thetas_of(table)).drop_duplicates().to_numpy()
    found = promises(model, tried, family_of(task.criterion).names)
    losses = [Loss(task.criterion, tuple(p.theta.tolist()), p.label) for p in found]
    runs = Runs(arguments.work / "runs.jsonl")
    wanted = [(loss, repeat) for repeat in REFERENCE_REPEATS for loss in losses]
    run_missing(wanted, runs, task, arguments.processes, lambda line: print(line, flush=True))
    counts = f"{len(table)} trials above {GOOD}; noise of one {model.noise:.3f}."
    known = told(held_out(thetas_of(table), rewards), rewards)
    return f"{counts} {known}\n\n{table_of(found, losses, runs)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--search", default="configs/search/shapes.yaml")
    parser.add_argument("--work", type=Path, default=Path("experiments/headroom"))
    parser.add_argument("--processes", type=int, default=2, help="trials at a time")
    arguments = parser.parse_args()
    report(lambda: run(arguments), arguments.work)


if __name__ == "__main__":
    main()
