"""reward(theta) as a model of finished trials, so that searches can be compared in seconds.

Its own error is what `benchmarks.surrogate_error` measures.

Theta is a poor description of a loss: late shares of a curve mean nothing once the first ones are
large. The models see the curves themselves: their values and the logarithm of their slopes in eight
bins, and what the training starts with: scores are all alike, so the gradient at the logits is that
of H2 over H1 about 1/2, and boxes have a GIoU of about 1/2, so that of the boxes is I1's slope
about 3/4 times the gradient scale.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import ExtraTreesRegressor

from benchmarks.trials_table import thetas_of
from loss.parameterized_ap import CURVES
from loss.piecewise_linear import control_points_from_theta
from search.space import Array

BINS = 8
_FLOOR = 0.03  # of slopes and values in a logarithm: less than that is as good as none
_LEAST_SD = 0.003
_USUAL_SD = 0.015  # of a reward on shapes over training seeds, where too few repeats tell
_LEAST_FREE = 5  # degrees of freedom of a standard deviation that is worth more than that
TABLE = Path("benchmarks/data/shapes_trials.csv")

Hint = Callable[[Array], float]


# --- what the models see ------------------------------------------------------------------------


def curve_values(thetas: Array, grid: Array) -> Array:
    """[N, curves, G]: each curve at `grid` [G] in [0, 1]; in a jump, its left end."""
    curves = torch.tensor(thetas[:, :-1]).reshape(len(thetas), len(CURVES), -1)
    points = control_points_from_theta(curves).numpy()
    begin, end = points[:, :, :-1, None], points[:, :, 1:, None]
    width = np.maximum(end[..., 0] - begin[..., 0], 1e-9)
    share = np.clip((grid - begin[..., 0]) / width, 0, 1)  # [N, curves, K, G]: of each segment
    rise = end[..., 1] - begin[..., 1]
    return np.asarray((share * rise).sum(axis=2))


def features(thetas: Array) -> Array:
    """[N, F] of thetas [N, D]: the curves, and what a training starts with."""
    values, slopes, scale = _parts(thetas)
    curves = [values[:, :, 1:-1], slopes]
    flat = [part.reshape(len(thetas), -1) for part in curves]
    return np.concatenate([scale, *flat, beginning(thetas)], axis=1)


def beginning(thetas: Array) -> Array:
    """[N, B]: logarithms of the gradients that a training starts with, as far as curves decide."""
    values, slopes, scale = _parts(thetas)
    h2, _, i3, i1, _ = np.moveaxis(slopes, 1, 0)
    middle, upper = BINS // 2, slice(BINS // 2, BINS)
    counts = np.log10(values[:, 4, middle : middle + 1] + _FLOOR)  # H1 at 1/2, the denominator
    weight = np.log10(values[:, 2, BINS // 2 + 1 : BINS] + _FLOOR)  # I3: what a positive counts
    parts = [
        scale + i1[:, upper],
        scale + i3[:, upper],
        h2[:, 1 : BINS - 2] - counts,
        np.log10(values[:, 0, middle : middle + 1] + _FLOOR) - counts,
        weight + h2[:, middle - 1 : middle],
        np.log10(1 - values[:, 1, upper] + _FLOOR),
    ]
    return np.concatenate(parts, axis=1)


def _parts(thetas: Array) -> tuple[Array, Array, Array]:
    """Values [N, curves, BINS + 1], log slopes [N, curves, BINS], log gradient scale [N, 1]."""
    values = curve_values(thetas, np.linspace(0, 1, BINS + 1))
    slopes = np.log10(np.diff(values, axis=2) * BINS + _FLOOR)
    return values, slopes, 2 * thetas[:, -1:] - 1


def inputs_of(thetas: Array, simulated: Array | None = None) -> Array:
    """What a model sees, [N, F]: the curves; or simulated AP [N], and what trainings start with."""
    if simulated is None:
        return features(thetas)
    ap = simulated[:, None]
    return np.concatenate([ap, np.sqrt(ap), beginning(thetas)], axis=1)


# --- models -------------------------------------------------------------------------------------


class Model(Protocol):
    def fit(self, inputs: Array, rewards: Array) -> "Model":
        """Learn from [N, F] and [N]."""

    def predict(self, inputs: Array) -> Array:
        """[N]."""


class Trees:
    """Extremely randomised trees."""

    def __init__(self) -> None:
        self.forest = ExtraTreesRegressor(300, min_samples_leaf=2, max_features=0.5, random_state=0)

    def fit(self, inputs: Array, rewards: Array) -> "Trees":
        self.forest.fit(inputs, rewards)
        return self

    def predict(self, inputs: Array) -> Array:
        return np.asarray(self.forest.predict(inputs))


class GaussianProcess:
    """BoTorch's, with a length scale a feature and the prior that it has for many of them."""

    def fit(self, inputs: Array, rewards: Array) -> "GaussianProcess":
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        torch.manual_seed(0)
        self._mean, self._sd = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
        self._level, self._height = rewards.mean(), rewards.std()
        targets = torch.tensor((rewards - self._level) / self._height)[:, None]
        self.process = SingleTaskGP(self._scaled(inputs), targets, outcome_transform=None)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(self.process.likelihood, self.process))
        self.process.eval()
        return self

    def predict(self, inputs: Array) -> Array:
        with torch.no_grad():
            mean = self.process.posterior(self._scaled(inputs)).mean.numpy()[:, 0]
        return np.asarray(self._level + self._height * mean)

    def _scaled(self, inputs: Array) -> torch.Tensor:
        return torch.tensor((inputs - self._mean) / self._sd)


class Mean:
    """The mean of both: their errors differ."""

    def __init__(self) -> None:
        self.models: tuple[Model, ...] = (Trees(), GaussianProcess())

    def fit(self, inputs: Array, rewards: Array) -> "Mean":
        for model in self.models:
            model.fit(inputs, rewards)
        return self

    def predict(self, inputs: Array) -> Array:
        return np.asarray(np.mean([model.predict(inputs) for model in self.models], axis=0))


MODELS: dict[str, Callable[[], Model]] = {
    "trees": Trees,
    "process": GaussianProcess,
    "mean": Mean,
}


# --- the surrogate ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """Standard deviation of a reward over training seeds.

    One for all thetas that learn; below, it falls with the reward. In between are those that learn
    with some seeds and not with others (.04 to .13 from .05 to .15): too few to tell them apart.

    Attributes:
        sd: of thetas that learn.
        level: the reward from which on they do.
        trials, thetas: that it was measured on.
    """

    sd: float
    level: float
    trials: int
    thetas: int

    def __call__(self, rewards: Array) -> Array:
        return np.maximum(self.sd * np.minimum(rewards / self.level, 1), _LEAST_SD)


def noise_of(table: pd.DataFrame) -> Noise:
    """From full trials of one theta with several seeds.

    Search trials are left out: those that ran again were chosen for their rewards, so these lie too
    high.
    """
    again = table[table["phase"].isin(("start", "final", "fidelity"))]
    columns = [name for name in table.columns if name.startswith("theta_")]
    # Searches of one seed start with the same trials.
    again = again.drop_duplicates([*columns, "seed"])
    groups = [rows["reward"].to_numpy() for _, rows in again.groupby(columns) if len(rows) > 1]
    level = float(np.median([group.mean() for group in groups])) / 2 if groups else 0.0
    learn = [group for group in groups if group.mean() >= level]
    known = sum(float(group.var(ddof=1)) * (len(group) - 1) for group in learn)
    trials, free = sum(map(len, learn)), sum(len(group) - 1 for group in learn)
    sd = float(np.sqrt(known / free)) if free >= _LEAST_FREE else _USUAL_SD
    return Noise(sd, max(level, _LEAST_SD), trials, len(learn))


class Surrogate:
    """reward(theta), fitted on a table of trials; the same for the same table.

    Args:
        table: full trials; their simulated AP too where there is a hint.
        kind: of `MODELS`.
        hint: theta -> simulated AP, for models that see it; it takes a quarter of a second.
    """

    def __init__(self, table: pd.DataFrame, kind: str = "mean", hint: Hint | None = None) -> None:
        self.thetas = thetas_of(table)
        self.rewards = table["reward"].to_numpy(np.float64)
        self.noise = noise_of(table)
        self._hint = hint
        simulated = None if hint is None else table["simulated"].to_numpy(np.float64)
        self.model = MODELS[kind]().fit(inputs_of(self.thetas, simulated), self.rewards)

    def __call__(self, thetas: Array) -> Array:
        """Rewards without noise, [N] in [0, 1]."""
        simulated = None if self._hint is None else np.array([self._hint(t) for t in thetas])
        return np.clip(self.model.predict(inputs_of(thetas, simulated)), 0, 1)

    def trial(self, thetas: Array, rng: np.random.Generator) -> Array:
        """Rewards as trials would give them, [N] in [0, 1]."""
        return self.noisy(self(thetas), rng)

    def noisy(self, rewards: Array, rng: np.random.Generator) -> Array:
        """What trials of thetas with these rewards give."""
        noise = self.noise(rewards) * rng.standard_normal(len(rewards))
        return np.clip(rewards + noise, 0, 1)
