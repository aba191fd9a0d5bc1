"""Every score's bin among the boundaries of functions around pivots, and what follows from it.

Which piece of f the pair (s_j, p_i) is on depends only on which of the boundaries p_i + t_k lie
below s_j. So the M = P B boundaries are sorted once, every score gets its bin (the number of
boundaries below it), and all that is needed of the scores are the sums of their powers by bin:
O(N + M log M) time and O(N + M) memory instead of O(N P). The sum over i at every j is had the
same way: between two boundaries it is one polynomial of s_j.

Nothing here makes a GPU wait for the host.

Shape letters: N scores, P pivots, F functions, B boundaries of a function, M = P * sum of B.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from loss.bins import BinFinder, chunks, counts
from loss.pair_function import PairFunction


class PairIndex:
    """The bins of scores among the boundaries of functions around pivots, worked out once.

    Nothing here is differentiable; `pair_sums` is.

    Args:
        scores: [N] float; float16 and bfloat16 are computed in float32. -inf lies below every
            window, +inf above.
        pivots: [P] float, finite: otherwise no sum means anything, and `nan` says so.
        functions: F of them; they share the sort and the bins.
        include: [N] bool: a score where it is False is not there. None: all are.
    """

    def __init__(
        self,
        scores: Tensor,
        pivots: Tensor,
        functions: Sequence[PairFunction],
        *,
        include: Tensor | None = None,
    ) -> None:
        scores, pivots = scores.detach(), pivots.detach().double()
        self.scores, self.functions = scores, [f.to(scores.device) for f in functions]
        working = torch.float32 if scores.element_size() < 4 else scores.dtype
        offsets = torch.cat([f.offsets for f in self.functions])
        closed = torch.cat([f.closed for f in self.functions])
        ordered, self._order = _round_down(pivots[:, None] + offsets, closed, working).sort()
        self._boundaries = len(ordered)
        self._rank = torch.empty_like(self._order)
        self._rank[self._order] = torch.arange(len(ordered), device=scores.device)
        # Powers of scores cancel less around 0. A whole number: subtracting it is exact.
        self._origin = pivots.mean().round()
        self._pivots = pivots - self._origin

        find = BinFinder(ordered, len(scores))
        # The M + 1 real bins begin at 1, the last one is of NaN. 0 is of what is not included: a
        # product takes a score there, in a quarter of the time of filling by a mask.
        self._bins = torch.empty(len(scores), dtype=find.dtype, device=scores.device)
        self._unweighted = self._zero_moments(max(f.degree for f in self.functions))
        for part in chunks(len(scores), scores.device):
            bins = find(scores[part].to(working)).add_(1)
            if include is not None:
                bins *= include[part]
            self._bins[part] = bins
            self._add_moments(self._unweighted, part, bins, None)

    @property
    def _size(self) -> int:
        return self._boundaries + 3

    @property
    def nan(self) -> Tensor:
        """[] bool: whether a score that is included is NaN, which has no bin and is in no sum, or
        a pivot is not finite."""
        return (self._unweighted[0][-1] > 0) | ~self._pivots.isfinite().all()

    def sums(self, weights: Tensor | None = None, *, derivative: bool = False) -> Tensor:
        """[F, P] float64: sum_j weights_j f(scores_j - pivots_i), or of the derivative of f.

        Args:
            weights: [N] float, 1 where None.
        """
        functions = self._functions(derivative)
        degree = max(f.degree for f in functions)
        moments = self._moments(degree, weights)
        # Suffix sums over the bins, seen from each boundary: what lies above it.
        shape = (len(self._pivots), sum(len(f.offsets) for f in functions))
        above = [_suffix_sums(moment)[self._rank].view(shape) for moment in moments]
        split = [part.split([len(f.offsets) for f in functions], dim=1) for part in above]
        total = moments[0].sum()
        pairs = zip(functions, zip(*split, strict=True), strict=True)
        return torch.stack([self._evaluate(f, parts, total) for f, parts in pairs])

    def _evaluate(self, f: PairFunction, above: Sequence[Tensor], total: Tensor) -> Tensor:
        """[P], from the moments [P, B] of what lies above each boundary."""
        inside = [moment[:, :-1] - moment[:, 1:] for moment in above]
        # Moments of the difference d = s - p from those of s.
        powers = [
            _sum(weight * inside[m] for m, weight in enumerate(_binomial(-self._pivots, k)))
            for k in range(f.degree + 1)
        ]
        pieces = _sum(power @ c for power, c in zip(powers, f.coefficients, strict=True))
        return f.below * (total - above[0][:, 0]) + pieces + f.above * above[0][:, -1]

    def _zero_moments(self, degree: int) -> list[Tensor]:
        zeros = self._pivots.new_zeros(self._size)
        return [zeros.clone() for _ in range(degree + 1)]

    def _add_moments(
        self, moments: list[Tensor], part: slice, bins: Tensor, weights: Tensor | None
    ) -> None:
        """Add the weights * (score - origin)^k of some scores to `moments` [M + 3], by
        power k and bin."""
        # One after the other on a CPU, so that the bits do not depend on the chunks.
        if weights is None:
            moments[0] += counts(bins, self._size)
        bins = bins.to(torch.int32)
        power = weights
        for k, moment in enumerate(moments):
            if k > 0:
                power = self._centred(part) if power is None else power * self._centred(part)
            if power is not None:
                moment.index_add_(0, bins, power)

    def _moments(self, degree: int, weights: Tensor | None) -> list[Tensor]:
        """[M + 1] by bin: the sums of weights * (score - origin)^k for k = 0 to `degree`."""
        moments = self._unweighted[: degree + 1]
        if weights is not None:
            moments = self._zero_moments(degree)
            for part in chunks(len(self.scores), self.scores.device):
                self._add_moments(moments, part, self._bins[part], weights[part].double())
        moments = [moment[1:-1].clone() for moment in moments]
        for moment in moments[1:]:
            # What lies below or above every boundary is only counted: it may be infinite.
            moment[0] = moment[-1] = 0
        return moments

    def _centred(self, part: slice) -> Tensor:
        return self.scores[part].to(torch.float64, copy=True).sub_(self._origin)

    def spread(self, amounts: Tensor, *, derivative: bool = False) -> Tensor:
        """[N] in the type of the scores: sum_f sum_i amounts[f, i] f(scores_j - pivots_i), or of
        the derivative of f. It is 0 at NaN and at scores that are not included.

        Args:
            amounts: [F, P] float.
        """
        tables = self._tables(amounts.double(), self._functions(derivative))
        out = torch.empty_like(self.scores, memory_format=torch.contiguous_format)
        if len(tables) == 1:
            # Rounded in the table already, which is smaller than what is looked up in it.
            tables = [tables[0].to(out.dtype)]
        for part in chunks(len(out), out.device):
            bins = self._bins[part].to(torch.int32)
            if len(tables) == 1:
                torch.index_select(tables[0], 0, bins, out=out[part])
                continue
            values = self._centred(part).nan_to_num_(0, 0, 0)
            sums = tables[-1].index_select(0, bins)
            for table in tables[-2::-1]:
                sums.mul_(values).add_(table.index_select(0, bins))
            out[part] = sums
        return out

    def _tables(self, amounts: Tensor, functions: Sequence[PairFunction]) -> list[Tensor]:
        """[M + 3] by bin: the coefficients of the polynomial that the sum over i is there,
        in powers of score - origin."""
        degree = max(f.degree for f in functions)
        jumps: list[list[Tensor]] = [[] for _ in range(degree + 1)]
        for f, amount in zip(functions, amounts, strict=True):
            terms: list[list[Tensor]] = [[] for _ in range(degree + 1)]
            for k, jump in enumerate(f.jumps(degree)):
                # c (s - p)^k in powers of s.
                for m, weight in enumerate(_binomial(-self._pivots, k)):
                    terms[m].append(amount[:, None] * weight * jump)
            for m, parts in enumerate(terms):
                jumps[m].append(_sum(parts))
        below = sum(f.below * a.sum() for f, a in zip(functions, amounts, strict=True))
        above = sum(f.above * a.sum() for f, a in zip(functions, amounts, strict=True))
        tables = []
        for k, parts in enumerate(jumps):
            table = amounts.new_zeros(self._size)
            real = table[1:-1]
            real[1:] = torch.cat(parts, dim=1).flatten()[self._order].cumsum(0)
            if k == 0:
                real += below
            # Beyond every boundary f is constant: exactly so, whatever sums were rounded to.
            real[0], real[-1] = (below, above) if k == 0 else (0, 0)
            tables.append(table)
        return tables

    def _functions(self, derivative: bool) -> list[PairFunction]:
        return [f.derivative for f in self.functions] if derivative else self.functions


def _round_down(exact: Tensor, closed: Tensor, dtype: torch.dtype) -> Tensor:
    """[P, sum of B] float64 -> [M] in `dtype`, the type of the scores.

    A score of that type is above the exact boundary if and only if it is above the rounded one.
    A boundary that is closed moves just below itself, unless rounding did that already.
    """
    rounded = exact.to(dtype)
    lower = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    too_high = rounded.double() > exact
    on_boundary = (rounded.double() == exact) & closed
    return torch.where(too_high | on_boundary, lower, rounded).flatten()


def _suffix_sums(bins: Tensor) -> Tensor:
    """[M + 1] by bin -> [M] by boundary: the sum over the bins above it."""
    return bins.flip(0).cumsum(0).flip(0)[1:]


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def _binomial(b: Tensor, k: int) -> list[Tensor]:
    """The coefficients [P, 1] of (a + b)^k, for b [P], in rising powers of a."""
    return [math.comb(k, m) * b[:, None] ** (k - m) for m in range(k + 1)]
