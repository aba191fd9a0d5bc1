"""The bin of every score: how many of the sorted boundaries lie below it.

Bisection takes log2(M) dependent steps for each of N scores, and was four fifths of the cost of a
ranking loss. Most scores are not close to any boundary, so a fine grid over the boundaries knows
their bins beforehand: a cell without a boundary has one bin, and one look-up finds it. Only the
few scores in a cell with a boundary are bisected. The cell is a monotone function of the score in
floating point too, and boundaries get theirs from the same function, so the bins are exact.

Shape letters: N scores, M boundaries, G cells.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK, PARALLEL_CHUNK = (1 << 17) - 1, (1 << 15) - 1
"""Scores that are worked on at once on a CPU, with one thread and with more. Each chunk costs some
fifty calls, and its temporaries fit a cache. With several threads they are fewer than 32768, so
that torch does an operation on one: more would wait for each other at every small operation, for
long where other processes take a core."""

_GPU_CHUNK = 1 << 22
"""Enough to keep a GPU busy, and little memory for what is made of them in float64."""

_CELLS = (1 << 10, 1 << 20)
_NAN = 1
"""NaN has a bin of its own, after the M + 1 real ones."""


class BinFinder:
    """Finds bins among `boundaries`.

    Args:
        boundaries: [M] rising, in the type of the scores.
        expected: about how many scores will be looked up; a finer grid pays for more of them.
    """

    def __init__(self, boundaries: Tensor, expected: int) -> None:
        self.boundaries = boundaries
        # The narrowest type that holds every bin, and one more: most of the memory is bins.
        self.dtype = torch.int16 if len(boundaries) + _NAN + 1 < 2**15 else torch.int32
        self._table: Tensor | None = None
        # A GPU hides the latency of bisection, and would have to wait for the list of the few.
        if boundaries.device.type == "cpu" and len(boundaries) > 0:
            self._make_table(_cells(expected, len(boundaries)))

    def _make_table(self, cells: int) -> None:
        self._cells = cells
        low, high = self.boundaries[0], self.boundaries[-1]
        # The cells at both ends hold no boundary: whatever is outside of all of them is there.
        self._scale = (cells - 5) / (high - low).clamp(min=1e-6)
        self._shift = 2 - low * self._scale
        if not bool((self._scale > 0) & self._scale.isfinite() & self._shift.isfinite()):
            return  # No grid fits boundaries that are NaN or at the limits of their type.
        own = self._cell(self.boundaries)
        within = torch.zeros(cells + 1, dtype=torch.int32).index_add_(0, own, torch.ones_like(own))
        table = within.cumsum(0, dtype=torch.int32)
        # A cell with boundaries says how many lie below all of it, as -1 - n.
        table[own] = within[own] - table[own] - 1
        table[cells] = len(self.boundaries) + _NAN
        self._table = table.to(self.dtype)
        self._bounds = torch.cat([self.boundaries, self.boundaries.new_tensor([torch.inf])])

    def _cell(self, scores: Tensor) -> Tensor:
        """[n] int32, rising with the score; `cells` for NaN. Never one fused operation, which
        would round otherwise for some of the scores."""
        place = (scores * self._scale).add_(self._shift)
        return place.clamp_(0, self._cells - 1).nan_to_num_(self._cells).to(torch.int32)

    def __call__(self, scores: Tensor) -> Tensor:
        """[n] bins, of type `dtype`, of scores [n]: 0..M, and M + 1 for NaN."""
        if self._table is None:
            bins = torch.searchsorted(self.boundaries, scores.contiguous(), out_int32=True)
            return bins.masked_fill_(scores.isnan(), len(self.boundaries) + _NAN).to(self.dtype)
        bins = self._table.index_select(0, self._cell(scores))
        # The sign, by what torch does several times faster than `bins < 0`.
        close = bins.clamp(max=0).bool().nonzero().squeeze(1)
        if len(close) == 0:
            return bins
        exact = self._among(scores[close], -1 - bins[close].to(torch.int32))
        return bins.index_copy_(0, close, exact.to(self.dtype))

    def _among(self, scores: Tensor, below: Tensor) -> Tensor:
        """[n] bins of scores in cells with boundaries, of which `below` [n] lie below the cell."""
        # Most of these cells have one boundary: one comparison settles it, and a second says so.
        bins = below + (scores > self._bounds[below])
        more = (scores > self._bounds[bins]).nonzero().squeeze(1)
        if len(more) == 0:
            return bins
        exact = torch.searchsorted(self.boundaries, scores[more], out_int32=True)
        return bins.index_copy_(0, more, exact)


def counts(bins: Tensor, size: int) -> Tensor:
    """[size]: how many of `bins` [n] are each."""
    if bins.device.type == "cpu":
        return torch.bincount(bins, minlength=size)
    # `bincount` asks the GPU for the largest bin, and waits for the answer.
    return torch.zeros(size, dtype=torch.int64, device=bins.device).index_add_(
        0, bins.to(torch.int32), torch.ones_like(bins, dtype=torch.int64)
    )


def chunks(count: int, device: torch.device) -> Iterator[slice]:
    """Slices that cover `count` scores."""
    size = _chunk() if device.type == "cpu" else _GPU_CHUNK
    return (slice(begin, begin + size) for begin in range(0, count, size))


def _chunk() -> int:
    return CHUNK if torch.get_num_threads() == 1 else PARALLEL_CHUNK


def _cells(scores: int, boundaries: int) -> int:
    """A table costs by the cell, bisection by scores that share a cell with a boundary: about
    N M / cells. Their sum is least at about this power of two."""
    best = math.sqrt(20 * max(scores, 1) * max(boundaries, 1))
    return min(max(1 << round(math.log2(best)), _CELLS[0]), _CELLS[1])
