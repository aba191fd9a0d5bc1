"""Sums pair by pair, in chunks, against whole matrices and autograd."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import loss.dense_pairs
from loss.dense_pairs import SmoothPairFunction, dense_pair_sums
from tests import oracles
from tests.pair_functions import differences
from tests.watch import Copies, Memory

NAN, INF = math.nan, math.inf
TANH = SmoothPairFunction(torch.tanh, lambda d: 1 - torch.tanh(d) ** 2)


@pytest.fixture(params=[1, 7, 1 << 21], ids="{} pairs at once".format)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss.dense_pairs, "_PAIRS", request.param)


def test_a_sum_by_hand():
    """tanh at the differences 0 and ln 2, where it is (2 - 1/2) / (2 + 1/2) = 3/5."""
    scores = torch.tensor([0.0, math.log(2)], dtype=torch.float64, requires_grad=True)
    pivot = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([5.0, 10.0], dtype=torch.float64, requires_grad=True)
    sums = dense_pair_sums(scores, pivot, TANH, weights=weights)
    assert sums.tolist() == [pytest.approx(10 * 3 / 5)]
    sums.sum().backward()
    # The slope is 1 - tanh^2: 1 and 16/25.
    assert scores.grad.tolist() == pytest.approx([5, 10 * 16 / 25])
    assert pivot.grad.tolist() == pytest.approx([-(5 + 10 * 16 / 25)])
    assert weights.grad.tolist() == pytest.approx([0, 3 / 5])


@pytest.mark.usefixtures("chunk")
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data(), weighted=st.booleans(), masked=st.booleans())
def test_equals_the_whole_matrix(data: st.DataObject, weighted: bool, masked: bool):
    """Value and all gradients; what is not included may be anything."""
    N, P = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 4))
    draw = [oracles.eighths(-3, 3, n) for n in (N, P, N, P)]
    scores, pivots, weights, upstream = (
        torch.tensor(data.draw(numbers), dtype=torch.float64) for numbers in draw
    )
    keep = torch.ones(N, dtype=torch.bool)
    if masked:
        keep = torch.tensor(data.draw(st.lists(st.booleans(), min_size=N, max_size=N))).bool()

    def fast(s: Tensor, p: Tensor, w: Tensor) -> Tensor:
        options = {"weights": w} if weighted else {}
        return dense_pair_sums(s, p, TANH, include=keep if masked else None, **options)

    def dense(s: Tensor, p: Tensor, w: Tensor) -> Tensor:
        values = torch.tanh(differences(s[keep], p))
        return (values * (w[keep] if weighted else 1)).sum(1)

    expected = oracles.value_and_grads(dense, scores, pivots, weights, upstream=upstream)
    scores, weights = (x.masked_fill(~keep, NAN) for x in (scores, weights))
    actual = oracles.value_and_grads(fast, scores, pivots, weights, upstream=upstream)
    for a, e in zip(actual, expected, strict=True):
        oracles.assert_close(a, e, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_have_the_types_of_their_inputs(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(n, generator=generator).to(dtype) for n in (30, 3, 30)]
    upstream = torch.ones(3, dtype=torch.float64)
    value, *grads = oracles.value_and_grads(
        lambda s, p, w: dense_pair_sums(s, p, TANH, weights=w), *inputs, upstream=upstream
    )
    expected = oracles.value_and_grads(
        lambda s, p, w: (torch.tanh(differences(s, p)) * w).sum(1),
        *(x.double() for x in inputs),
        upstream=upstream,
    )
    oracles.assert_close(value, expected[0], 1e-12)
    for grad, e in zip(grads, expected[1:], strict=True):
        assert grad.dtype == dtype
        oracles.assert_close(grad, e, torch.finfo(dtype).eps)


def test_infinite_scores_and_nan():
    scores, pivots = torch.tensor([-INF, 0.0, INF, INF]), torch.zeros(2)
    assert dense_pair_sums(scores, pivots, TANH).tolist() == [-1 + 0 + 1 + 1] * 2
    scores[0] = NAN
    assert dense_pair_sums(scores, pivots, TANH).isnan().all()


def test_memory_does_not_grow_with_the_pairs():
    """20 million pairs, 160 MB a matrix: forward and backward hold less than one of them."""
    scores, pivots = torch.randn(200_000, requires_grad=True), torch.randn(100, requires_grad=True)
    with Memory() as memory:
        dense_pair_sums(scores, pivots, TANH).sum().backward()
    assert memory.largest <= 1 << 21
    assert memory.peak < 100_000_000


def test_a_gpu_never_waits_for_the_host():
    scores = torch.zeros(9, device="meta", requires_grad=True)
    weights = torch.zeros(9, device="meta", dtype=torch.float64, requires_grad=True)
    include = torch.zeros(9, device="meta", dtype=torch.bool)
    with Copies() as copies:
        dense_pair_sums(scores, scores[:2], TANH, weights=weights, include=include).sum().backward()
    assert copies.found == []


def test_inputs_that_were_changed_after_the_forward_are_noticed():
    scores, pivots = torch.randn(5, requires_grad=True), torch.zeros(2)
    value = dense_pair_sums(scores, pivots, TANH).sum()
    pivots.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_there_are_no_second_derivatives_and_it_says_so():
    scores = torch.randn(5, requires_grad=True)
    sums = dense_pair_sums(scores, torch.zeros(2), TANH).square().sum()
    (first,) = torch.autograd.grad(sums, scores, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
