"""Sums over scores and over pivots without the pairs, against the pairs themselves."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loss.bins import CHUNK
from loss.pair_index import PairIndex
from tests import oracles
from tests.pair_functions import (
    SQUARE,
    STEP,
    Pair,
    dense_sums,
    differences,
    of_curve,
    of_ramp,
    pairs,
    slope,
)
from tests.scenes import curves

NAN, INF = math.nan, math.inf
MIXED = [of_curve(curves(0)[0]), STEP, of_ramp(0.5), SQUARE]


def assert_equals_pairs(
    pairs: list[Pair],
    scores: Tensor,
    pivots: Tensor,
    *,
    weights: Tensor | None = None,
    amounts: Tensor | None = None,
    include: Tensor | None = None,
    tolerance: float = 1e-9,
) -> None:
    """`sums` and `spread`, of the functions and of their derivatives."""
    if amounts is None:
        generator = torch.Generator().manual_seed(1)
        amounts = torch.randn(len(pairs), len(pivots), generator=generator, dtype=torch.float64)
    keep = torch.ones_like(scores, dtype=torch.bool) if include is None else include
    d = differences(scores[keep], pivots)
    w = 1 if weights is None else weights[keep]
    index = PairIndex(scores, pivots, [pair.function for pair in pairs], include=include)
    for derivative in (False, True):
        f = torch.stack([slope(pair, d) if derivative else pair.dense(d) for pair in pairs])
        sums = index.sums(weights, derivative=derivative)
        oracles.assert_close(sums, (f * w).sum(2), tolerance)
        spread = index.spread(amounts, derivative=derivative)
        expected = torch.zeros(len(scores), dtype=torch.float64)
        expected[keep] = (amounts[:, :, None] * f).sum((0, 1))
        assert spread.dtype == scores.dtype
        rounding = torch.finfo(scores.dtype).eps
        oracles.assert_close(spread, expected, max(tolerance, rounding))


_SCORES = st.one_of(
    st.integers(-16, 16).map(lambda n: n / 8),
    st.floats(-3, 3, width=16),
    st.sampled_from([-50.0, 50.0, -INF, INF]),
)
_AMOUNTS = st.integers(-8, 8).map(lambda n: n / 4)
_DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@settings(max_examples=600, deadline=None, derandomize=True)
@given(data=st.data(), dtype=st.sampled_from(_DTYPES), weighted=st.booleans(), masked=st.booleans())
def test_equals_the_pairs(data: st.DataObject, dtype: torch.dtype, weighted: bool, masked: bool):
    """Mixtures of functions of every degree; ties, and scores exactly on boundaries; weights of
    any sign; scores that are left out may be anything."""
    drawn = data.draw(st.lists(pairs(), min_size=1, max_size=3))
    N, P = data.draw(st.integers(0, 10)), data.draw(st.integers(0, 4))

    def numbers(values: st.SearchStrategy[float], *shape: int) -> Tensor:
        size = math.prod(shape)
        found = data.draw(st.lists(values, min_size=size, max_size=size))
        return torch.tensor(found, dtype=torch.float64).view(shape)

    scores = numbers(_SCORES, N).to(dtype)
    pivots = numbers(st.integers(-16, 16).map(lambda n: n / 8), P)
    include = None
    if masked:
        include = torch.tensor(data.draw(st.lists(st.booleans(), min_size=N, max_size=N))).bool()
        anything = numbers(st.sampled_from([NAN, INF, -INF, 0.5]), N).to(dtype)
        scores = torch.where(include, scores, anything)
    assert_equals_pairs(
        drawn,
        scores,
        pivots,
        weights=numbers(_AMOUNTS, N) if weighted else None,
        amounts=numbers(_AMOUNTS, len(drawn), P),
        include=include,
        tolerance=1e-8,
    )


@pytest.mark.parametrize(("dtype", "weighted"), [(torch.float32, False), (torch.float64, True)])
def test_more_scores_than_a_chunk(dtype: torch.dtype, weighted: bool):
    generator = torch.Generator().manual_seed(2)
    N = 3 * CHUNK + 11
    scores = 3 * torch.randn(N, generator=generator, dtype=dtype)
    pivots = torch.randn(6, generator=generator, dtype=torch.float64)
    weights = torch.randn(N, generator=generator, dtype=torch.float64) if weighted else None
    include = torch.rand(N, generator=generator) < 0.9
    assert_equals_pairs(MIXED, scores, pivots, weights=weights, include=include)


def test_more_boundaries_than_a_short_integer_counts():
    generator = torch.Generator().manual_seed(3)
    pivots = torch.randn(4000, generator=generator, dtype=torch.float64)
    assert len(pivots) * sum(len(pair.function.offsets) for pair in MIXED) > 2**15
    scores = 2 * torch.randn(100, generator=generator)
    assert_equals_pairs(MIXED, scores, pivots)


@pytest.mark.parametrize("pivots", [2**14 - 2, 2**14 - 1, 2**14])
def test_as_many_boundaries_as_a_short_integer_just_counts(pivots: int):
    """A step has two. The highest bins are those of what lies above all of them, and of NaN."""
    index = PairIndex(torch.tensor([-9.0, 9.0, INF]), torch.zeros(pivots), [STEP.function])
    assert (index.sums() == 2).all()
    assert index.spread(torch.ones(1, pivots)).tolist() == [0, pivots, pivots]
    assert not index.nan
    assert PairIndex(torch.tensor([NAN]), torch.zeros(pivots), [STEP.function]).nan


@pytest.mark.parametrize("offset", [-(2.0**12), 1000.5, 2.0**20])
def test_a_large_offset_of_all_scores_costs_no_precision(offset: float):
    """Sums of squares of scores are 1e15 times the differences that count."""
    generator = torch.Generator().manual_seed(4)
    steep = torch.tensor([[0, 0], [0.5, 0.125], [0.5 + 2**-7, 0.875], [1, 1]]).double()
    scores = torch.randint(-512, 512, (2000,), generator=generator).double() / 256
    functions = [pair.function for pair in (of_curve(steep), SQUARE)]
    amounts = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    near = PairIndex(scores, scores[:20], functions)
    far = PairIndex(scores + offset, scores[:20] + offset, functions)
    for derivative in (False, True):
        oracles.assert_close(
            far.sums(derivative=derivative), near.sums(derivative=derivative), 1e-9
        )
        spread = [index.spread(amounts, derivative=derivative) for index in (far, near)]
        oracles.assert_close(*spread, 1e-9)


@pytest.mark.parametrize(
    ("scores", "pivots", "expected"),
    [
        ([0.0, 1.0], [0.0], False),
        ([0.0, NAN], [0.0], True),
        ([INF, -INF], [0.0], False),
        ([0.0], [0.0, NAN], True),
        ([0.0], [INF, 0.0], True),
        ([0.0], [-INF, INF], True),
        ([NAN], [], True),
        ([0.0], [], False),
        ([], [0.0], False),
    ],
)
def test_what_is_no_number_is_said(scores: list[float], pivots: list[float], expected: bool):
    function = [STEP.function]
    index = PairIndex(torch.tensor(scores), torch.tensor(pivots, dtype=torch.float64), function)
    assert bool(index.nan) == expected
    none = torch.zeros(len(scores), dtype=torch.bool)
    finite = torch.zeros(len(pivots))
    assert not PairIndex(torch.tensor(scores), finite, function, include=none).nan


def test_weights_may_be_float32():
    """Summed in float64 all the same: 1e8 + 1 is not a float32 number."""
    weights = torch.tensor([1e8, 1.0])
    index = PairIndex(torch.tensor([3.0, 4.0]), torch.zeros(1), [STEP.function])
    assert index.sums(weights).item() == 1e8 + 1


def test_the_rest_of_what_is_summed_up_is_exactly_the_constant():
    """Beyond every window f is constant: its slope is 0 there, not what sums were rounded to."""
    generator = torch.Generator().manual_seed(5)
    pivots = torch.randn(50, generator=generator, dtype=torch.float64)
    scores = torch.tensor([-99.0, 0.3, 99.0], dtype=torch.float64)
    amounts = torch.rand(1, 50, generator=generator, dtype=torch.float64)
    for pair in (of_curve(curves(1)[0]), SQUARE):
        index = PairIndex(scores, pivots, [pair.function])
        slopes = index.spread(amounts, derivative=True)
        assert [value != 0 for value in slopes.tolist()] == [False, True, False]
        assert index.spread(amounts)[[0, 2]].tolist() == [0, pytest.approx(float(amounts.sum()))]


def test_the_dense_side_by_hand():
    """What this file compares with, at the differences -2, -1, 0, 1/2, 1, 3."""
    scores = torch.tensor([-2, -1, 0, 0.5, 1, 3])
    identity = of_curve(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    sums = dense_sums([identity, STEP, SQUARE, of_ramp(0.5)], scores, torch.zeros(1))
    # x is 0, 0, 1/2, 3/4, 1, 1; its square 0, 0, 1/4, 9/16, 1, 1; the ramp 0, 0, 1/2, 1, 1, 1.
    assert sums[:, 0].tolist() == [3.25, 3.5, 2.8125, 3.5]
