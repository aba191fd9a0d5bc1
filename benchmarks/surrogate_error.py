"""How good is the surrogate of finished trials?

    python -m benchmarks.surrogate_error [--table benchmarks/data/shapes_trials.csv] [--model trees]

Prints how far each model, or the one asked for, is off on trials that it has not seen, which curves
matter, how far rewards of one theta spread, what it says of known losses, and how high an optimiser
gets that is let loose on it.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.model_selection import KFold, LeaveOneGroupOut

from benchmarks.measure import head, row
from benchmarks.surrogate import MODELS, TABLE, Surrogate, features, inputs_of
from benchmarks.trials_table import full_trials, read_table, thetas_of
from loss.by_head import family_of
from loss.parameterized_ap import CURVES
from paploss.configs import find
from paploss.files import read_yaml
from search.space import Array

FAMILY = {"type": "parameterized_ap", "segments": 5}
INPUTS: dict[str, Callable[[pd.DataFrame], Array]] = {
    "simulated AP": lambda table: inputs_of(
        thetas_of(table), table["simulated"].to_numpy(np.float64)
    ),
    "curves alone": lambda table: inputs_of(thetas_of(table)),
    "theta itself": thetas_of,
}
PRESET = "parameterized_ap_retinanet_coco"


def held_out(
    table: pd.DataFrame,
    by_experiment: bool,
    seen: str = "curves alone",
    models: Sequence[str] = ("trees", "process"),
) -> dict[str, Array]:
    """Predictions, [N], each by models that have not seen its trial, nor any of its theta.

    Args:
        seen: what the models see, of `INPUTS`.

    Returns:
        Those of each of `models`, and their mean where there are several.
    """
    inputs = INPUTS[seen](table)
    rewards = table["reward"].to_numpy(np.float64)
    theta_ids = table.groupby([c for c in table if c.startswith("theta_")]).ngroup().to_numpy()
    predicted = {name: np.empty(len(table)) for name in models}
    for known, unseen in _splits(table, theta_ids, by_experiment):
        known = known[~np.isin(theta_ids[known], theta_ids[unseen])]
        for name in models:
            model = MODELS[name]().fit(inputs[known], rewards[known])
            predicted[name][unseen] = np.clip(model.predict(inputs[unseen]), 0, 1)
    if len(models) > 1:
        predicted["mean"] = np.mean(list(predicted.values()), axis=0)
    return predicted


def _splits(table: pd.DataFrame, theta_ids: Any, by_experiment: bool) -> Iterator[tuple[Any, Any]]:
    if by_experiment:
        yield from LeaveOneGroupOut().split(theta_ids, groups=table["source"])
        return
    distinct = np.unique(theta_ids)
    for _, chosen in KFold(10, shuffle=True, random_state=0).split(distinct):
        mask = np.isin(theta_ids, distinct[chosen])
        yield np.flatnonzero(~mask), np.flatnonzero(mask)


def error_row(name: str, predicted: Array, rewards: Array) -> str:
    """RMSE, R2 and Spearman; on the best quarter of the rewards RMSE, bias and Spearman."""
    cells: list[str] = []
    for part in (np.ones(len(rewards), bool), rewards >= np.quantile(rewards, 0.75)):
        p, r = predicted[part], rewards[part]
        error = f"{np.sqrt(np.mean((p - r) ** 2)):.4f}"
        second = f"{np.mean(p - r):+.4f}" if cells else f"{1 - np.mean((p - r) ** 2) / r.var():.2f}"
        cells += [error, second, f"{spearmanr(p, r)[0]:.2f}"]
    return row([name, *cells])


def importance(surrogate: Surrogate, table: pd.DataFrame) -> dict[str, float]:
    """How much the rank correlation falls when one curve is another theta's, by curve.

    The curve itself is exchanged, so all features that come of it are.
    """
    rng = np.random.default_rng(0)
    thetas, rewards = thetas_of(table), table["reward"].to_numpy(np.float64)
    whole = spearmanr(surrogate(thetas), rewards)[0]
    size = (thetas.shape[1] - 1) // len(CURVES)
    places = {name: slice(n * size, (n + 1) * size) for n, name in enumerate(CURVES)}
    places["gradient scale"] = slice(thetas.shape[1] - 1, None)
    lost = {}
    for name, place in places.items():
        falls = []
        for _ in range(5):
            mixed = thetas.copy()
            mixed[:, place] = thetas[rng.permutation(len(thetas)), place]
            falls.append(whole - spearmanr(surrogate(mixed), rewards)[0])
        lost[name] = float(np.mean(falls))
    return lost


def climb(surrogate: Surrogate, seed: int, steps: int = 60) -> tuple[Array, float, float]:
    """The best theta that an optimiser without noise finds: (theta, value, distance to data).

    A separable CMA-ES from the best trial. The distance is to the nearest trial, in units of the
    median distance of trials to their nearest neighbour, over the models' standardised features.
    """
    from cmaes import SepCMA

    best = surrogate.thetas[int(np.argmax(surrogate.rewards))]
    bounds = np.tile([0.0, 1.0], (len(best), 1))
    search = SepCMA(np.clip(best, 0.01, 0.99), 0.1, bounds=bounds, seed=seed, population_size=24)
    top, value = best, float(surrogate(best[None])[0])
    for _ in range(steps):
        asked = [search.ask() for _ in range(search.population_size)]
        values = surrogate(np.array(asked))
        search.tell(list(zip(asked, -values, strict=True)))
        if values.max() > value:
            top, value = asked[int(np.argmax(values))], float(values.max())
    return top, value, distance(surrogate, top)


def distance(surrogate: Surrogate, theta: Array) -> float:
    """Of theta to the nearest trial, see `climb`."""
    known = features(surrogate.thetas)
    center, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
    scaled = (known - center) / spread
    gaps = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    gaps[gaps < 1e-9] = np.inf
    own = np.linalg.norm(scaled - (features(theta[None]) - center) / spread, axis=1)
    return float(own.min() / np.median(gaps.min(axis=1)))


def known_losses(surrogate: Surrogate, table: pd.DataFrame) -> list[str]:
    """What the surrogate says of losses that are no search's sample, beside their trials."""
    family = family_of(FAMILY)
    published = read_yaml(find("presets", PRESET))
    known = {
        "identity": family.start,
        "published curves": family.theta(published),
        "published curves, gradient scale 1": family.theta({**published, "gradient_scale": 1.0}),
    }
    lines = []
    for name, theta in known.items():
        point = np.array(theta)
        same = np.abs(thetas_of(table) - point).max(axis=1) < 1e-4
        real = table.loc[same, "reward"]
        told = f"{real.mean():.3f} ({len(real)})" if len(real) else "not in the table"
        value = surrogate(point[None])[0]
        lines.append(row([name, f"{value:.3f}", told, f"{distance(surrogate, point):.2f}"]))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--model", choices=sorted(MODELS), default="mean")
    arguments = parser.parse_args()
    kind = arguments.model
    single = [name for name in MODELS if name != "mean"] if kind == "mean" else [kind]
    table = full_trials(read_table(arguments.table))
    rewards = table["reward"].to_numpy(np.float64)
    print(f"{len(table)} full trials, rewards {rewards.mean():.3f} ± {rewards.std():.3f}\n")

    print(head(["model", "left out", "RMSE", "R2", "Spearman", *_BEST]))
    for seen in INPUTS:
        for by_experiment in (False, True):
            for model, predicted in held_out(table, by_experiment, seen, single).items():
                left_out = "an experiment" if by_experiment else "a tenth of the thetas"
                name = f"{seen}, {model} | {left_out}"
                print(error_row(name, predicted, rewards), flush=True)

    surrogate = Surrogate(table, kind)
    noise = surrogate.noise
    at = ", ".join(f"{sd:.4f} at {r:g}" for r, sd in zip(_LEVELS, noise(_LEVELS), strict=True))
    print(f"\nSpread over seeds ({noise.trials} trials of {noise.thetas} thetas): {at}.\n")

    print(head(["exchanged", "Spearman falls by"]))
    for name, lost in sorted(importance(surrogate, table).items(), key=lambda item: -item[1]):
        print(row([name, f"{lost:.3f}"]))

    print("\n" + head(["loss", "surrogate", "trials (number)", "distance"]))
    print("\n".join(known_losses(surrogate, table)))
    print("\n" + head(["optimiser's seed", "surrogate", "distance", "by each model"]))
    others = {name: Surrogate(table, name) for name in single}
    for seed in range(5):
        theta, value, away = climb(surrogate, seed)
        told = ", ".join(f"{name} {one(theta[None])[0]:.3f}" for name, one in others.items())
        print(row([str(seed), f"{value:.3f}", f"{away:.2f}", told]), flush=True)
    print(f"\nThe best trial: {rewards.max():.3f}, by the surrogate {_best_known(surrogate):.3f}.")


def _best_known(surrogate: Surrogate) -> float:
    """The surrogate's highest value at a theta of the table."""
    return float(surrogate(surrogate.thetas).max())


_BEST = ("RMSE, best quarter", "bias, best quarter", "Spearman, best quarter")
_LEVELS = np.array([0.0, 0.05, 0.1, 0.2, 0.25])


if __name__ == "__main__":
    main()
