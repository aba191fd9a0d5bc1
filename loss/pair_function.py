"""Functions of a score difference: constant, then pieces of polynomials, then constant.

Shape letters: B boundaries, so B - 1 pieces; D the degree of the pieces, at most 2.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from loss.piecewise_linear import PiecewiseLinear


@dataclass(frozen=True)
class PairFunction:
    """f(d) of a score difference d.

    Piece k covers (offsets[k], offsets[k + 1]]; below the first offset f is `below`, above the
    last `above`. A closed offset belongs to the piece above it instead.

    Attributes:
        offsets: [B] float64, not decreasing.
        closed: [B] bool.
        coefficients: [D + 1, B - 1] float64: piece k is sum_n coefficients[n, k] d^n.
    """

    offsets: Tensor
    closed: Tensor
    coefficients: Tensor
    below: float
    above: float
    _moved: dict[torch.device, "PairFunction"] = field(default_factory=dict, repr=False)

    @staticmethod
    def from_curve(curve: PiecewiseLinear) -> "PairFunction":
        """curve(clip(d / 2 + 1/2, 0, 1)), whose slope also holds at both ends of the clip."""
        x0, y0, x1, y1 = curve.segments
        offsets = 2 * torch.cat([x0[:1], x1]) - 1
        slope = (y1 - y0) / (x1 - x0) / 2
        coefficients = torch.stack([y0 - slope * offsets[:-1], slope])
        return PairFunction(
            offsets, _closed_below(offsets), coefficients, curve.at_zero, curve.at_one
        )

    @staticmethod
    def step() -> "PairFunction":
        """(sign(d) + 1) / 2: 0, 1/2 for a tie, 1."""
        offsets = torch.zeros(2, dtype=torch.float64)
        return PairFunction(offsets, _closed_below(offsets), offsets.new_tensor([[0.5]]), 0.0, 1.0)

    @staticmethod
    def ramp(delta: float) -> "PairFunction":
        """clip(d / (2 delta) + 1/2, 0, 1): linear between -delta and delta, a step if that is 0.

        Raises:
            ValueError: a delta below 0, or not finite.
        """
        if not 0 <= delta < float("inf"):
            raise ValueError(f"delta is {delta}; expected a number of at least 0.")
        if delta == 0:
            return PairFunction.step()
        offsets = torch.tensor([-delta, delta], dtype=torch.float64)
        line = offsets.new_tensor([[0.5], [1 / (2 * delta)]])
        return PairFunction(offsets, _closed_below(offsets), line, 0.0, 1.0)

    @staticmethod
    def square() -> "PairFunction":
        """x^2 of x = clip(d / 2 + 1/2, 0, 1)."""
        offsets = torch.tensor([-1.0, 1.0], dtype=torch.float64)
        parabola = offsets.new_tensor([[0.25], [0.5], [0.25]])
        return PairFunction(offsets, _closed_below(offsets), parabola, 0.0, 1.0)

    @property
    def degree(self) -> int:
        return len(self.coefficients) - 1

    @cached_property
    def derivative(self) -> "PairFunction":
        """f', jumps left out: 0 outside of the window."""
        powers = torch.arange(len(self.coefficients)).to(self.coefficients)[:, None]
        coefficients = (powers * self.coefficients)[1:]
        if self.degree == 0:
            coefficients = torch.zeros_like(self.coefficients)
        return replace(self, coefficients=coefficients, below=0.0, above=0.0, _moved={})

    def jumps(self, degree: int) -> Tensor:
        """[degree + 1, B]: what each coefficient gains at each boundary."""
        pieces = self.coefficients.new_zeros(degree + 1, len(self.offsets) + 1)
        pieces[0, 0], pieces[0, -1] = self.below, self.above
        pieces[: self.degree + 1, 1:-1] = self.coefficients
        return pieces.diff(dim=1)

    def to(self, device: torch.device) -> "PairFunction":
        """The same on a device, copied there once: a copy each iteration would make it wait."""
        if self.offsets.device == device:
            return self
        if device not in self._moved:
            self._moved[device] = replace(
                self,
                offsets=self.offsets.to(device),
                closed=self.closed.to(device),
                coefficients=self.coefficients.to(device),
                _moved={},
            )
        return self._moved[device]


def _closed_below(offsets: Tensor) -> Tensor:
    """[B] bool: the clip passes gradient at its lower end too."""
    closed = torch.zeros_like(offsets, dtype=torch.bool)
    closed[0] = True
    return closed
