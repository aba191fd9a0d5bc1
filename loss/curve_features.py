"""What thetas of piecewise linear curves stand for, as numbers that a model of rewards can use.

Theta's coordinates are shares of what their predecessors left, so that one late in a curve means
much or nothing, and two far thetas may be the same curve. A model of the reward sees farther with
the curves themselves: their values, and the logarithms of their slopes, which are what gradients
are made of. (The trials of benchmarks/data: benchmarks/results/search_algorithms.md.)
"""

import torch
from torch import Tensor

from loss.piecewise_linear import control_points_from_theta

BINS = 8
_LEAST_SLOPE = 0.03  # flatter is as good as flat: a logarithm without it would see nothing else


def curve_values(control_points: Tensor, grid: Tensor) -> Tensor:
    """Curves at `grid`.

    Args:
        control_points: [..., K + 1, 2], from (0, 0) to (1, 1), not decreasing.
        grid: [G] in [0, 1].

    Returns:
        [..., G]. At a jump it is the upper end.
    """
    x, y = control_points[..., 0].contiguous(), control_points[..., 1]
    at = grid.expand(*x.shape[:-1], -1).contiguous()
    right = torch.searchsorted(x, at, right=True).clamp(1, x.shape[-1] - 1)
    x0, x1 = x.gather(-1, right - 1), x.gather(-1, right)
    y0, y1 = y.gather(-1, right - 1), y.gather(-1, right)
    width = x1 - x0
    share = torch.where(width > 0, (at - x0) / width.where(width > 0, 1), 1.0)
    return y0 + share * (y1 - y0)


def curve_features(shares: Tensor) -> Tensor:
    """Values inside the unit interval, and log slopes, of several curves.

    Args:
        shares: [N, R, 2 (K - 1)] in [0, 1], theta of R curves.

    Returns:
        [N, R (2 BINS - 1)], each of an order of 1: the values at 1/8 ... 7/8, and log10 of the
        mean slope in each eighth, which is 0 for the identity.
    """
    grid = torch.linspace(0, 1, BINS + 1, dtype=shares.dtype)
    values = curve_values(control_points_from_theta(shares), grid)
    slopes = BINS * values.diff(dim=-1)
    log_slopes = (slopes + _LEAST_SLOPE).log10()
    return torch.cat([values[..., 1:-1], log_slopes], dim=-1).flatten(1)
