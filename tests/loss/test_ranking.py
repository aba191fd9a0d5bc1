"""Sums over all pairs with gradients, against the pairs themselves."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loss.bins import CHUNK
from loss.piecewise_linear import PiecewiseLinear
from loss.ranking import PairFunction, assign_gradient, element_sums, pair_sums
from tests import oracles
from tests.pair_functions import SQUARE, STEP, dense_sums, of_curve, of_ramp, pairs
from tests.scenes import curves
from tests.watch import Copies

NAN, INF = float("nan"), float("inf")
MIXED = [of_curve(curves(0)[0]), STEP, of_ramp(0.5), SQUARE]
FUNCTIONS = [pair.function for pair in MIXED]


def pair_function(points: Tensor) -> PairFunction:
    return PairFunction.from_curve(PiecewiseLinear(points))


IDENTITY = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)


def test_a_sum_by_hand():
    # Differences -2, -1, 0, 1/2, 1, 3 are x = 0, 0, 1/2, 3/4, 1, 1.
    scores = torch.tensor([-2, -1, 0, 0.5, 1, 3], dtype=torch.float64, requires_grad=True)
    pivot = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    sums = pair_sums(scores, pivot, [pair_function(IDENTITY), PairFunction.step()])
    # The step counts 1/2 for the tie, and 1 for each of the three above.
    assert sums.tolist() == [[3.25], [3.5]]
    sums.sum().backward()
    # The slope is 1/2 within the clip, its ends included; a step has none.
    assert scores.grad.tolist() == [0, 0.5, 0.5, 0.5, 0.5, 0]
    assert pivot.grad.tolist() == [-2]


def test_weights_by_hand():
    scores = torch.tensor([-9, 0, 9], dtype=torch.float64)
    weights = torch.tensor([2, 4, 8], dtype=torch.float64, requires_grad=True)
    lifted = torch.tensor([[0, 0.25], [1, 0.75]])  # f = 1/4, 1/2, 3/4
    sums = pair_sums(scores, scores.new_zeros(1), [pair_function(lifted)], weights=weights)
    assert sums.item() == 2 * 0.25 + 4 * 0.5 + 8 * 0.75
    sums.sum().backward()
    assert weights.grad.tolist() == [0.25, 0.5, 0.75]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.data(), weighted=st.booleans(), masked=st.booleans())
def test_equals_the_sum_over_all_pairs(data: st.DataObject, weighted: bool, masked: bool):
    """Value and all gradients, for up to three functions that share the sort; weights of any sign,
    and what is not included may be anything."""
    N, P = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    drawn = data.draw(st.lists(pairs(), min_size=1, max_size=3))
    draw = [oracles.eighths(-2, 2, n) for n in (N, P, N, len(drawn) * P)]
    scores, pivots, weights, upstream = (
        torch.tensor(data.draw(numbers), dtype=torch.float64) for numbers in draw
    )
    include = torch.tensor(data.draw(st.lists(st.booleans(), min_size=N, max_size=N)))
    upstream = upstream.view(len(drawn), P)
    options = {"include": include} if masked else {}

    def fast(s: Tensor, p: Tensor, w: Tensor) -> Tensor:
        functions = [pair.function for pair in drawn]
        return pair_sums(s, p, functions, weights=w if weighted else None, **options)

    def dense(s: Tensor, p: Tensor, w: Tensor) -> Tensor:
        return dense_sums(drawn, s, p, w if weighted else None, **options)

    expected = oracles.value_and_grads(dense, scores, pivots, weights, upstream=upstream)
    if masked:
        scores, weights = (x.masked_fill(~include, NAN) for x in (scores, weights))
    actual = oracles.value_and_grads(fast, scores, pivots, weights, upstream=upstream)
    for a, e in zip(actual, expected, strict=True):
        oracles.assert_close(a, e, 1e-8)


def test_infinite_scores_lie_outside_of_every_window():
    lifted = torch.tensor([[0, 0.25], [1, 0.75]])
    scores = torch.tensor([-torch.inf, torch.inf, 0.0], requires_grad=True)
    weights = torch.tensor([2, 4, 8], dtype=torch.float64, requires_grad=True)
    sums = pair_sums(scores, torch.zeros(1), [pair_function(lifted)], weights=weights)
    assert sums.item() == 2 * 0.25 + 4 * 0.75 + 8 * 0.5
    sums.sum().backward()
    assert scores.grad.tolist() == [0, 0, 8 * 0.25]  # the slope per unit of score is 1/4
    assert weights.grad.tolist() == [0.25, 0.75, 0.5]


def test_scores_outside_of_every_window_have_no_gradient_at_all():
    generator = torch.Generator().manual_seed(2)
    steps = torch.rand(5, 2, generator=generator, dtype=torch.float64).cumsum(0)
    curve = torch.cat([steps.new_zeros(1, 2), steps / steps[-1]])
    scores = torch.tensor([-99.0, 0.3, 99.0], dtype=torch.float64, requires_grad=True)
    pivots = torch.randn(50, generator=generator, dtype=torch.float64)
    pair_sums(scores, pivots, [pair_function(curve)]).sum().backward()
    assert [grad != 0 for grad in scores.grad.tolist()] == [False, True, False]


def test_a_score_that_is_not_included_is_not_there():
    lifted = pair_function(torch.tensor([[0, 0.25], [1, 0.75]]))
    scores, pivots = torch.tensor([0.0, 0.5, -3.0]), torch.tensor([0.25, 1.0])
    padded = torch.cat([scores, torch.tensor([0.3, torch.nan, torch.inf])])
    include = torch.tensor([True] * 3 + [False] * 3)
    actual = pair_sums(padded, pivots, [lifted], include=include)
    torch.testing.assert_close(actual, pair_sums(scores, pivots, [lifted]))


def test_float32_scores_one_step_from_a_boundary_are_on_its_right_side():
    """A curve that is 0 up to its jump at 0.3 and 1 above counts the scores above p - 0.4."""
    jump = pair_function(torch.tensor([[0, 0], [0.3, 0], [0.3, 1], [1, 1]], dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    pivots = torch.randn(200, generator=generator)
    boundary = pivots.double() + (2 * 0.3 - 1)  # in float64, off the float32 grid
    nearest = boundary.float()
    infinity = torch.tensor(torch.inf)
    neighbours = [nearest, nearest.nextafter(infinity), nearest.nextafter(-infinity)]
    for scores in neighbours:
        for score, pivot, limit in zip(scores, pivots, boundary.tolist(), strict=True):
            above = Fraction(score.item()) > Fraction(limit)
            assert pair_sums(score[None], pivot[None], [jump]).item() == above


# ---------------------------------------------------------------------------- at pivots


def at_elements(scores: Tensor, elements: Tensor, include: Tensor | None) -> Tensor:
    """What `element_sums` stands for: sums, and a use of the pivots beside."""
    pivots = scores[elements].double()
    sums = pair_sums(scores, pivots, FUNCTIONS, include=include)
    return sums.square().sum() + (sums[1] * pivots).sum()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("elements", [[], [4], [7, 0, 19, 3]])
def test_element_sums_are_pair_sums_around_some_of_the_scores(masked: bool, elements: list[int]):
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(20, generator=generator, dtype=torch.float64)
    chosen = torch.tensor(elements, dtype=torch.int64)
    include = torch.ones(20, dtype=torch.bool).index_fill_(0, chosen, False) if masked else None

    def with_elements(s: Tensor) -> Tensor:
        sums, pivots = element_sums(s, chosen, FUNCTIONS, include=include)
        assert torch.equal(pivots, s[chosen].double())
        return sums.square().sum() + (sums[1] * pivots).sum()

    actual = oracles.value_and_grads(with_elements, scores)
    expected = oracles.value_and_grads(lambda s: at_elements(s, chosen, include), scores)
    for a, e in zip(actual, expected, strict=True):
        oracles.assert_close(a, e, 1e-12)


# ---------------------------------------------------------------------------- types and sizes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradients_have_the_types_of_their_inputs(dtype: torch.dtype):
    """Sums are in float64; each gradient is rounded once, with weights once more."""
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(n, generator=generator).to(dtype) for n in (50, 4, 50)]

    def fast(s: Tensor, p: Tensor, w: Tensor) -> Tensor:
        return pair_sums(s, p, FUNCTIONS, weights=w)

    upstream = torch.ones(4, 4, dtype=torch.float64)
    value, *grads = oracles.value_and_grads(fast, *inputs, upstream=upstream)
    assert value.dtype == torch.float64
    assert [grad.dtype for grad in grads] == [dtype] * 3
    expected = oracles.value_and_grads(
        lambda s, p, w: dense_sums(MIXED, s, p, w), *(x.double() for x in inputs), upstream=upstream
    )
    oracles.assert_close(value, expected[0], 1e-12)
    for grad, e in zip(grads, expected[1:], strict=True):
        oracles.assert_close(grad, e, 2 * torch.finfo(dtype).eps)


def large(weighted: bool) -> tuple[Tensor, ...]:
    """Value and gradients of more scores than a chunk."""
    generator = torch.Generator().manual_seed(3)
    N = 2 * CHUNK + 5
    scores = 2 * torch.randn(N, generator=generator)
    pivots = torch.randn(3000, generator=generator, dtype=torch.float64)
    weights = torch.randn(N, generator=generator, dtype=torch.float64)
    upstream = torch.randn(4, 3000, generator=generator, dtype=torch.float64)

    def fast(s: Tensor, p: Tensor, w: Tensor) -> Tensor:
        return pair_sums(s, p, FUNCTIONS, weights=w if weighted else None)

    return oracles.value_and_grads(fast, scores, pivots, weights, upstream=upstream)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_bits_are_the_same_on_any_number_of_threads(weighted: bool):
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            found.append(large(weighted))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(("N", "P"), [(0, 3), (5, 0), (0, 0)])
@pytest.mark.parametrize("weighted", [True, False])
def test_nothing_to_sum_or_nowhere_to_sum_it(N: int, P: int, weighted: bool):
    inputs = [torch.ones(n, dtype=torch.float64) for n in (N, P, N)]

    def fast(s: Tensor, p: Tensor, w: Tensor) -> Tensor:
        return pair_sums(s, p, FUNCTIONS, weights=w if weighted else None)

    upstream = torch.ones(4, P, dtype=torch.float64)
    value, *grads = oracles.value_and_grads(fast, *inputs, upstream=upstream)
    assert torch.equal(value, torch.zeros(4, P, dtype=torch.float64))
    assert [grad.tolist() for grad in grads] == [[0] * N, [0] * P, [0] * N]


# ---------------------------------------------------------------------------- what is not a number


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("weighted", [True, False])
def test_nan_among_what_counts_is_nan_in_every_sum(function: PairFunction, weighted: bool):
    scores = torch.tensor([0.5, -1.0, 2.0])
    pivots = torch.tensor([-90.0, 0.0, 90.0])
    weights = torch.ones(3, dtype=torch.float64) if weighted else None
    scores[1] = NAN
    assert pair_sums(scores, pivots, [function], weights=weights).isnan().all()
    include = torch.tensor([True, False, True])
    sums = pair_sums(scores, pivots, [function], weights=weights, include=include)
    assert sums.isfinite().all()
    pivots[0] = INF
    assert pair_sums(scores, pivots, [function], weights=weights, include=include).isnan().all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nan_around_elements_is_nan_in_every_sum(function: PairFunction):
    scores, elements = torch.tensor([0.0, 90.0, NAN, INF]), torch.tensor([0, 1])
    assert element_sums(scores, elements, [function])[0].isnan().all()
    include = torch.tensor([True, True, False, True])
    assert element_sums(scores, elements, [function], include=include)[0].isfinite().all()
    infinite = torch.tensor([0, 3])
    assert element_sums(scores, infinite, [function], include=include)[0].isnan().all()


# ---------------------------------------------------------------------------- autograd


def test_scores_that_were_changed_after_the_forward_are_noticed():
    """They are read again in the backward: gradients would be those of other scores."""
    for run in (
        lambda s: pair_sums(s, torch.zeros(2), FUNCTIONS).sum(),
        lambda s: element_sums(s, torch.tensor([0, 1]), FUNCTIONS)[0].sum(),
    ):
        leaf = torch.randn(5, requires_grad=True)
        scores = leaf * 1
        value = run(scores)
        scores.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


@pytest.mark.parametrize("what", ["weights", "include"])
def test_weights_and_masks_that_were_changed_are_noticed(what: str):
    scores = torch.randn(5, requires_grad=True)
    options = {"weights": torch.ones(5), "include": torch.ones(5, dtype=torch.bool)}
    value = pair_sums(scores, torch.zeros(2), FUNCTIONS, **options).sum()
    options[what].fill_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_there_are_no_second_derivatives_and_it_says_so():
    """A gradient of the gradient would silently lack the terms that the engine does not derive."""
    leaf, pivots = torch.randn(5, requires_grad=True), torch.zeros(2, requires_grad=True)
    sums = pair_sums(leaf, pivots, FUNCTIONS).square().sum()
    (first,) = torch.autograd.grad(sums, pivots, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_an_assigned_gradient_is_taken_as_it_is():
    logits = torch.tensor([1.0, 2.0], dtype=torch.float16, requires_grad=True)
    value = torch.tensor(7.0, dtype=torch.float64)
    gradient = torch.tensor([0.25, -3.0], dtype=torch.float64)
    loss = assign_gradient(value, logits, lambda upstream: (upstream * gradient).half())
    (2 * loss).backward()
    assert (loss.item(), loss.dtype) == (7, torch.float64)
    assert logits.grad.tolist() == [0.5, -6]
    assert logits.grad.dtype == torch.float16


# ---------------------------------------------------------------------------- no waiting


def sums_on(device: str) -> Tensor:
    scores = torch.zeros(9, device=device, requires_grad=True)
    pivots = torch.zeros(2, device=device, requires_grad=True)
    weights = torch.zeros(9, device=device, requires_grad=True)
    include = torch.zeros(9, device=device, dtype=torch.bool)
    elements = torch.zeros(2, device=device, dtype=torch.int64)
    sums = pair_sums(scores, pivots, FUNCTIONS, weights=weights, include=include)
    return sums.sum() + element_sums(scores, elements, FUNCTIONS, include=include)[0].sum()


def test_a_gpu_never_waits_for_the_host():
    sums_on("meta").backward()  # the first time, the functions are copied there
    with Copies() as copies:
        sums_on("meta").backward()
    assert copies.found == []


@pytest.mark.parametrize(
    "slow",
    [
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: bool(x.any()),
        lambda x: x.sum().item(),
        lambda x: x + torch.ones(3).to(x.device),
        lambda x: x.new_tensor([1.0, 2.0]),
    ],
    ids=["mask", "nonzero", "bool", "item", "copy", "new_tensor"],
)
def test_what_makes_a_gpu_wait_would_be_found(slow: Callable[[Tensor], object]):
    """In the backward too, where a GPU's kernels are launched from the same thread."""
    x = torch.zeros(3, device="meta", requires_grad=True)
    failed = False
    with Copies() as copies:
        y = x * 2
        y.register_hook(lambda grad: slow(grad) and None)
        try:
            y.sum().backward()
        except (RuntimeError, NotImplementedError):
            failed = True
    assert failed or copies.found
