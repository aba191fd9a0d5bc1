"""Bins from the look-up grid, against bisection of every score."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loss.bins import CHUNK, BinFinder, chunks, counts

NAN, INF = float("nan"), float("inf")
DTYPES = [torch.float32, torch.float64]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def bisected(boundaries: Tensor, scores: Tensor) -> Tensor:
    """How many boundaries lie below each score, by torch; NaN has the bin after the last."""
    bins = torch.searchsorted(boundaries, scores.contiguous())
    return bins.masked_fill(scores.isnan(), len(boundaries) + 1)


def assert_bisects(boundaries: Tensor, scores: Tensor) -> BinFinder:
    find = BinFinder(boundaries, len(scores))
    expected = bisected(boundaries, scores)
    for part in chunks(len(scores), scores.device):
        assert torch.equal(find(scores[part]).int(), expected[part].int())
    return find


def beside(boundaries: Tensor) -> Tensor:
    """Every boundary, and its neighbours in floating point."""
    up, down = (boundaries.nextafter(torch.full_like(boundaries, end)) for end in (INF, -INF))
    return torch.cat([boundaries, up, down])


def everything(dtype: torch.dtype) -> Tensor:
    """The ends of the type, subnormal numbers, and what is no number."""
    info = torch.finfo(dtype)
    sizes = [0.0, info.smallest_normal / 8, 1e-30, 1e-6, 1.0, 50.0, 1e30, info.max, INF]
    return torch.tensor([NAN, *sizes, *(-size for size in sizes)], dtype=dtype)


def test_bins_by_hand():
    find = BinFinder(torch.tensor([0.0, 1.0, 1.0, 2.0]), 100)
    # A boundary counts for the scores above it, not for those on it.
    scores = torch.tensor([-INF, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, INF, NAN])
    assert find(scores).tolist() == [0, 0, 0, 1, 1, 3, 3, 4, 4, 5]


@every_dtype
@pytest.mark.parametrize("boundaries", [1, 2, 30, 1000, 20_000])
@pytest.mark.parametrize("scores", [0, 1, 1000, 3 * CHUNK + 7])
def test_equals_bisection(dtype: torch.dtype, boundaries: int, scores: int):
    generator = torch.Generator().manual_seed(boundaries)
    limits = torch.randn(boundaries, generator=generator, dtype=dtype).sort().values
    values = 2 * torch.randn(scores, generator=generator, dtype=dtype)
    find = assert_bisects(limits, values)
    assert find._table is not None  # else this test compares bisection with itself
    assert_bisects(limits, beside(limits))
    assert_bisects(limits, everything(dtype))


@every_dtype
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("offset", [0.0, -3.0, 1e4, -1e30])
def test_equals_bisection_at_every_scale(dtype: torch.dtype, scale: float, offset: float):
    """Where the offset is large, boundaries fall together; where the scale is small, all of them
    share a cell of the grid."""
    generator = torch.Generator().manual_seed(0)
    limits = scale * torch.randn(200, generator=generator, dtype=dtype).sort().values + offset
    near = 3 * scale * torch.randn(2000, generator=generator, dtype=dtype) + offset
    assert_bisects(limits, torch.cat([near, beside(limits), everything(dtype)]))


@every_dtype
@pytest.mark.parametrize(
    "boundaries",
    [
        [],
        [0.3],
        [0.3] * 500,
        [1e30],
        [1e30] * 5,
        [-1.0] + [0.25] * 1000 + [0.5] * 1000 + [3.0],
        # A thousand in one cell of the grid, one far away.
        [k * 1e-9 for k in range(1000)] + [1000.0],
        [-3e38, 0.0, 3e38],  # their distance is infinite in float32
        [3e38],
        [1e-40, 2e-40, 3e-40],
    ],
    ids=lambda values: f"{len(values)} from {values[0]} to {values[-1]}" if values else "none",
)
def test_equals_bisection_where_boundaries_are_odd(dtype: torch.dtype, boundaries: list[float]):
    limits = torch.tensor(boundaries, dtype=dtype)
    near = torch.linspace(-2, 2, 999, dtype=dtype)
    assert_bisects(limits, torch.cat([near, beside(limits), everything(dtype)]))


@every_dtype
@pytest.mark.parametrize("odd", [[NAN], [INF], [-INF], [-INF, INF], [INF, NAN], [NAN, NAN]])
def test_boundaries_that_are_not_finite_crash_nothing(dtype: torch.dtype, odd: list[float]):
    limits = torch.tensor([0.0, 1.0, *odd], dtype=dtype).sort().values
    bins = BinFinder(limits, 10)(everything(dtype))
    assert ((bins >= 0) & (bins <= len(limits) + 1)).all()
    assert bins[0] == len(limits) + 1  # the score that is NaN


def test_scores_need_not_be_contiguous():
    limits = torch.linspace(-1, 1, 50)
    scores = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))[:, 0]
    assert not scores.is_contiguous()
    assert_bisects(limits, scores)


def floats(width: int) -> st.SearchStrategy[float]:
    """Numbers of every size; close ones that tie and crowd more often."""
    return st.one_of(
        st.integers(-16, 16).map(lambda n: n / 8),
        st.floats(-2, 2, width=width),
        st.floats(width=width, allow_nan=False, allow_infinity=False),
    )


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 32), (torch.float64, 64)], ids=str)
@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.data())
def test_equals_bisection_of_anything(dtype: torch.dtype, width: int, data: st.DataObject):
    limits = torch.tensor(sorted(data.draw(st.lists(floats(width), max_size=20))), dtype=dtype)
    more = st.lists(st.one_of(floats(width), st.sampled_from([NAN, INF, -INF])), max_size=20)
    scores = torch.tensor(data.draw(more), dtype=dtype)
    assert_bisects(limits, torch.cat([scores, beside(limits)]))


@pytest.mark.parametrize("device", ["cpu", "elsewhere"])
def test_counts_equal_numpys(device: str, monkeypatch: pytest.MonkeyPatch):
    """Also as another device does it, which has no bincount without waiting."""
    bins = torch.randint(0, 7, (1000,), generator=torch.Generator().manual_seed(2))
    expected = np.bincount(bins.numpy(), minlength=10)
    if device == "elsewhere":
        monkeypatch.setattr(torch, "bincount", None)
        monkeypatch.setattr(Tensor, "device", torch.device("meta"))
        real = torch.zeros
        monkeypatch.setattr(torch, "zeros", lambda *size, device, **options: real(*size, **options))
    assert counts(bins.short(), 10).tolist() == expected.tolist()


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 3])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_chunks_cover_everything_once(count: int, device: str):
    covered = torch.zeros(count, dtype=torch.int64)
    for part in chunks(count, torch.device(device)):
        covered[part] += 1
    assert (covered == 1).all()
