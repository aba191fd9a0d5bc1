"""What a policy stands for, round by round: curves with their spread, gradient scales, theta.

A policy is a truncated normal over theta (uniform, in a random search). The curves of its samples
are drawn with the same uniforms in every round, so what moves from round to round is the policy.

Shape letters: S samples, C curves, K segments, G points of the grid.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.curves import ROLES, Points, curves_by_head
from search.space import Array
from search.truncated_normal import TruncatedNormal

SAMPLES, SEED = 128, 0
GRID: Array = np.linspace(0.0, 1.0, 41, dtype=np.float64)
LEVELS = (0.05, 0.25, 0.75, 0.95)
"""Quantiles that bound the two bands: 90 % of the samples, and half of them."""
MILLE = 1000
"""Curves travel as whole thousandths: finer than a pixel, and a third of the characters."""

_COORDINATE = re.compile(r"(?P<curve>.+)\.(?P<axis>[xy])(?P<number>[1-9]\d{0,3})")
_SCALE = re.compile(r"(?:(?P<head>.+)\.)?gradient_scale")

Policy = tuple[int, Array, Array]  # round, mean [D], std [D]


def policy_data(
    names: Sequence[str],
    policies: Sequence[Policy],
    found: Mapping[str, Points],
    start: Mapping[str, Points],
    *,
    uniform: bool = False,
) -> dict[str, Any]:
    """Theta, curves and gradient scales of every round, ready for JSON.

    Args:
        names: of theta's coordinates.
        policies: by round; one whose numbers are no policy is left out.
        found, start: control points by the curve's name, of the winner and of the start.
        uniform: thetas are drawn uniformly, as by random search, whatever the policy says.
    """
    policies = [policy for policy in policies if _sensible(policy, len(names))]
    rounds = [
        _round_data(tuple(names), tuple(mean.tolist()), tuple(std.tolist()), uniform)
        for _, mean, std in policies
    ]
    return {
        "names": list(names),
        "rounds": [number for number, _, _ in policies],
        "mean": [_rounded(mean) for _, mean, _ in policies],
        "std": [_rounded(std) for _, _, std in policies],
        "scales": [
            {"head": head, **_by_round([one["scales"] for one in rounds], head)}
            for head in _scale_coordinates(names)
        ],
        "grid": _rounded(GRID),
        "heads": _heads([one["curves"] for one in rounds], found, start),
    }


def curve_coordinates(names: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    """Where each curve's coordinates are in theta: [K - 1, 2] indices by the curve's name.

    A curve "H2" has the coordinates H2.x1, H2.y1, H2.x2, ...; one that lacks any is left out.
    """
    places: dict[str, dict[tuple[int, str], int]] = {}
    for index, name in enumerate(names):
        if match := _COORDINATE.fullmatch(name):
            key = int(match["number"]), match["axis"]
            places.setdefault(match["curve"], {})[key] = index
    whole = {
        curve: [[own.get((k, axis)) for axis in "xy"] for k in range(1, len(own) // 2 + 1)]
        for curve, own in places.items()
    }
    return {
        curve: np.array(rows, dtype=np.intp)
        for curve, rows in whole.items()
        if 2 * len(rows) == len(places[curve]) and all(None not in row for row in rows)
    }


def control_points(shares: Array) -> Array:
    """Control points [..., K + 1, 2] by stick breaking of `shares` [..., K - 1, 2] in [0, 1].

    The same as `loss.piecewise_linear.control_points_from_theta`, which takes torch.
    """
    ends = np.zeros((*shares.shape[:-2], 1, 2))
    inner = 1 - np.cumprod(1 - shares, axis=-2)
    return np.concatenate([ends, inner, ends + 1], axis=-2)


def evaluate_all(points: Array, x: Array) -> Array:
    """Monotone curves through `points` [..., K + 1, 2] at `x` [G] in [0, 1]: [..., G].

    Each segment adds its rise as far as `x` has come in it; one without width is a jump behind
    its x, as in `search.curves.evaluate`.
    """
    begin, step = points[..., :-1, :, None], np.diff(points, axis=-2)[..., None]
    along = x - begin[..., 0, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.clip(along / step[..., 0, :], 0.0, 1.0)
    share = np.where(step[..., 0, :] > 0, share, along > 0)
    value: Array = points[..., :1, 1] + (share * step[..., 1, :]).sum(axis=-2)
    return value


def _sensible(policy: Policy, dimension: int) -> bool:
    _, mean, std = policy
    right = mean.shape == std.shape == (dimension,)
    return right and bool(((mean >= 0) & (mean <= 1) & (std >= 0) & np.isfinite(std)).all())


def _samples(mean: Array, std: Array, uniform: bool) -> Array:
    """Thetas that the policy could draw, [S, D]."""
    uniforms = _uniforms(len(mean))
    if uniform:
        return uniforms
    # A spread of 0 would be a point: its samples are the mean, as those of the smallest spread.
    return TruncatedNormal(mean, np.maximum(std, 1e-9)).sample(uniforms)


@lru_cache(maxsize=4)
def _uniforms(dimension: int) -> Array:
    """[S, D], one in each of S equal parts of [0, 1] for every coordinate (a Latin hypercube)."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    strata = rng.permuted(np.tile(np.arange(SAMPLES)[:, None], (1, dimension)), axis=0)
    uniforms: Array = (strata + rng.random((SAMPLES, dimension))) / SAMPLES
    return uniforms


def _quantiles(values: Array) -> Array:
    """[L, ...] at LEVELS of `values` [S, ...]."""
    at = [round(level * (len(values) - 1)) for level in LEVELS]
    return np.partition(values, at, axis=0)[at]


@lru_cache(maxsize=4096)  # a round's policy never changes; a running search asks again and again
def _round_data(
    names: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...], uniform: bool
) -> dict[str, dict[str, Any]]:
    """{"curves": ..., "scales": ...} of one policy: by name, that of the mean and the bands."""
    center = np.array(mean)
    drawn = _samples(center, np.array(std), uniform)
    curves = {
        curve: {
            "mean": _mille(control_points(center[at])),
            "bands": _mille(_quantiles(evaluate_all(control_points(drawn[:, at]), GRID))),
        }
        for curve, at in curve_coordinates(names).items()
    }
    scales = {
        head: {
            "mean": _rounded(_scale(center[at])),
            "bands": _rounded(_scale(_quantiles(drawn[:, at]))),
        }
        for head, at in _scale_coordinates(names).items()
    }
    return {"curves": curves, "scales": scales}


def _by_round(rounds: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[Any]]:
    """What each round has of one name: all means, all bands."""
    return {part: [one[name][part] for one in rounds if name in one] for part in ("mean", "bands")}


def _heads(
    rounds: Sequence[Mapping[str, Any]], found: Mapping[str, Points], start: Mapping[str, Points]
) -> list[dict[str, Any]]:
    """The curves, head by head: what the policy says of each round, the found and the start's."""
    # The found curves are drawn, too, where the experiment does not name its coordinates.
    every = dict.fromkeys([*found, *(rounds[0] if rounds else ())], ())
    return [
        {
            "head": head,
            "curves": [
                {
                    "name": name,
                    "role": ROLES.get(name, ""),
                    "found": _mille(found.get(full)),
                    "start": _mille(start.get(full)),
                    **_by_round(rounds, full),
                }
                for name, full in sorted((name, f"{head}.{name}" if head else name) for name in own)
            ],
        }
        for head, own in curves_by_head(every).items()
    ]


def _scale_coordinates(names: Sequence[str]) -> dict[str, int]:
    """Where each head's gradient scale is in theta; "" is the head of one without a name."""
    matches = ((index, _SCALE.fullmatch(name)) for index, name in enumerate(names))
    return {match["head"] or "": index for index, match in matches if match}


def _scale(theta: Any) -> Any:
    return 10.0 ** (2 * theta - 1)


def _rounded(values: Any) -> Any:
    return np.round(values, 4).tolist()


def _mille(points: Any) -> Any:
    """Nested numbers as whole thousandths; None where there are none or one is no number."""
    if points is None or len(points) == 0:
        return None
    values = np.asarray(points, dtype=np.float64)
    if not np.isfinite(values).all():
        return None
    return np.round(values.clip(0, 1) * MILLE).astype(int).tolist()
