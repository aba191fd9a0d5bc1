"""Sums over all pairs, against the pairs themselves."""

from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loss.piecewise_linear import PiecewiseLinear
from loss.ranking import PairFunction, pair_sums
from tests import oracles


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


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data(), weighted=st.booleans(), segments=st.integers(1, 5))
def test_equals_the_sum_over_all_pairs(data: st.DataObject, weighted: bool, segments: int):
    """Value and all gradients, for two curves and the step that share the sort."""
    count, pivot_count = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    points = data.draw(oracles.control_points(2, segments))
    draw = [oracles.eighths(-2, 2, n) for n in (count, pivot_count, count, 3 * pivot_count)]
    scores, pivots, weights, upstream = (
        torch.tensor(data.draw(numbers), dtype=torch.float64) for numbers in draw
    )
    functions = [pair_function(points[0]), PairFunction.step(), pair_function(points[1])]

    def fast(s: Tensor, p: Tensor, w: Tensor) -> Tensor:
        return pair_sums(s, p, functions, weights=w if weighted else None)

    def dense(s: Tensor, p: Tensor, w: Tensor) -> Tensor:
        pairs = [oracles.pair_curve(f, s, p) for f in (points[0], None, points[1])]
        return torch.stack([(f * w if weighted else f).sum(1) for f in pairs])

    upstream = upstream.view(3, pivot_count)
    actual = oracles.value_and_grads(fast, scores, pivots, weights, upstream=upstream)
    expected = oracles.value_and_grads(dense, scores, pivots, weights, upstream=upstream)
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


def test_large_offsets_of_all_scores_cost_no_precision():
    """2000 scores around 4096: sums of scores there are 2e7 times the step that counts."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.randint(-512, 512, (2000,), generator=generator).double() / 128
    steep = torch.tensor([[0, 0], [0.5, 0.125], [0.5 + 2**-7, 0.875], [1, 1]])
    functions = [pair_function(steep.double())]
    near = pair_sums(scores, scores[:20], functions)
    far = pair_sums(scores + 4096, scores[:20] + 4096, functions)
    torch.testing.assert_close(far, near, rtol=1e-9, atol=0)
