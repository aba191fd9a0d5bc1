"""Piecewise linear curves on the unit interval, and the thetas that stand for them.

Shape letters: K segments, so K + 1 control points and 2 (K - 1) coordinates of theta.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


def control_points_from_theta(theta: Tensor) -> Tensor:
    """Control points of the curves that `theta` stands for, by stick breaking.

    Each coordinate takes a share of what its predecessor left of the unit interval:
    c_0 = 0, c_k = c_{k-1} + theta_k (1 - c_{k-1}), c_K = 1, for x and for y alike. So every
    theta of the unit cube is a monotone curve from (0, 0) to (1, 1), and theta_x = theta_y at
    every point is the identity.

    Args:
        theta: [..., 2 (K - 1)] in [0, 1], in the order x1, y1, x2, y2, ...

    Returns:
        [..., K + 1, 2], dtype and device of `theta`.

    Raises:
        ValueError: an odd number of coordinates, or one outside [0, 1].

    Source: Searching Parameterized AP Loss for Object Detection, section 3.3.
    """
    if theta.shape[-1] % 2:
        raise ValueError(
            f"theta has {theta.shape[-1]} coordinates in its last dimension; expected an even "
            "number: x1, y1, x2, y2, ..."
        )
    if not bool(((theta >= 0) & (theta <= 1)).all()):
        raise ValueError("theta has coordinates outside [0, 1]; clip them or sample them there.")
    shares = theta.reshape(*theta.shape[:-1], theta.shape[-1] // 2, 2)
    # 1 - c_k is the product of what each coordinate so far has left over.
    rest = torch.cumprod(1 - shares, dim=-2)
    first = shares.new_zeros((*shares.shape[:-2], 1, 2))
    return torch.cat([first, 1 - rest, torch.ones_like(first)], dim=-2)


def theta_from_control_points(control_points: Tensor) -> Tensor:
    """The theta that `control_points_from_theta` turns into `control_points`.

    Where a coordinate has already reached 1, any share gives the same curve; 0 is returned.

    Args:
        control_points: [..., K + 1, 2], from (0, 0) to (1, 1), not decreasing.

    Returns:
        [..., 2 (K - 1)] in [0, 1], dtype and device of `control_points`.

    Raises:
        ValueError: other ends, or a decreasing coordinate.
    """
    check_control_points(control_points)
    ends = control_points[..., [0, -1], :]
    if not bool((ends == ends.new_tensor([[0.0, 0.0], [1.0, 1.0]])).all()):
        raise ValueError("theta stands for curves from (0, 0) to (1, 1); these have other ends.")
    if bool((control_points.diff(dim=-2) < 0).any()):
        raise ValueError("theta stands for curves that do not decrease; these do.")
    steps = control_points.diff(dim=-2)[..., :-1, :]
    left = 1 - control_points[..., :-2, :]
    shares = torch.where(left > 0, steps / torch.where(left > 0, left, 1), 0)
    return shares.clamp(0, 1).flatten(-2)


def identity_theta(segments: int) -> Tensor:
    """[2 (K - 1)] float64: the identity with equally spaced points, where the paper starts."""
    shares = 1 / torch.arange(segments, 1, -1, dtype=torch.float64)
    return shares.repeat_interleave(2)


def check_control_points(control_points: Tensor) -> None:
    """Raise ValueError unless `control_points` [..., K + 1, 2] are curves over [0, 1]."""
    if control_points.ndim < 2 or control_points.shape[-1] != 2 or control_points.shape[-2] < 2:
        raise ValueError(
            f"control points have shape {tuple(control_points.shape)}; expected "
            "[..., K + 1, 2]: at least two points (x, y) a curve."
        )
    x = control_points[..., 0]
    if not bool(torch.isfinite(control_points).all()):
        raise ValueError("control points hold NaN or infinity; expected finite numbers.")
    if bool((x[..., 0] != 0).any()) or bool((x[..., -1] != 1).any()):
        raise ValueError("the x of a curve's control points has to begin at 0 and end at 1.")
    if bool((x.diff(dim=-1) < 0).any()):
        raise ValueError("the x of a curve's control points must not decrease.")


@dataclass(frozen=True)
class PiecewiseLinear:
    """One curve over [0, 1], ready to be evaluated.

    Segment k covers (x_k, x_{k+1}]: at a breakpoint the value and the slope are those of the
    segment on its left, 0 belongs to the first segment that has a width. Segments without width
    are jumps.

    Attributes:
        control_points: [K + 1, 2], x not decreasing from 0 to 1.
    """

    control_points: Tensor
    _lines: dict[torch.device, tuple[Tensor, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_control_points(self.control_points)
        # On the CPU, so that what is prepared here never makes a GPU wait.
        object.__setattr__(self, "control_points", self.control_points.detach().cpu().double())

    @cached_property
    def segments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(x and y where a segment begins, x and y where it ends), of those with a width."""
        begin, end = self.control_points[:-1], self.control_points[1:]
        wide = end[:, 0] > begin[:, 0]
        begin, end = begin[wide], end[wide]
        return begin[:, 0], begin[:, 1], end[:, 0], end[:, 1]

    @property
    def at_zero(self) -> float:
        """The value at 0: the limit from the right."""
        return float(self.segments[1][0])

    @property
    def at_one(self) -> float:
        """The value at 1: the limit from the left."""
        return float(self.segments[3][-1])

    def __call__(self, x: Tensor) -> Tensor:
        """The curve at `x` (any shape, clipped to [0, 1]); differentiable in `x`."""
        x0, y0, slope, inner = (part.to(x.dtype) for part in self._on(x.device))
        x = x.clamp(0, 1)
        segment = torch.bucketize(x.detach(), inner)
        return y0[segment] + slope[segment] * (x - x0[segment])

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        """Begin x, begin y and slope of each segment, and the x between segments, copied to the
        device once: a copy each iteration would make it wait."""
        if device not in self._lines:
            x0, y0, x1, y1 = self.segments
            lines = (x0, y0, (y1 - y0) / (x1 - x0), x1[:-1].contiguous())
            self._lines[device] = tuple(part.to(device) for part in lines)
        return self._lines[device]
