"""What AP, aLRP and NDCG Loss have in common: the update of their framework, and every corner."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loss import DetectionBatch, alrp_loss, ap_loss, ndcg_loss
from loss.error_driven import Elements, Ranking
from loss.pair_function import PairFunction
from tests import oracles
from tests import ranking_oracles as ro

NAN, INF = math.nan, math.inf
Loss = Callable[..., Tensor]


def alrp_classification(logits: Tensor, targets: Tensor, delta: float = 1.0) -> Tensor:
    """With localisation errors 1/4, 2/4, 3/4, ... of the positives."""
    return alrp_loss(logits, targets, localization_errors(targets), delta)["classification"]


def localization_errors(targets: Tensor) -> Tensor:
    return torch.arange(1, int((targets == 1).sum()) + 1) / 4


LOSSES = {"ap": ap_loss, "alrp": alrp_classification, "ndcg": ndcg_loss}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def value_and_grad(loss: Loss, logits: Tensor, targets: Tensor, delta: float = 1.0) -> list[Tensor]:
    return list(oracles.value_and_grads(lambda s: loss(s, targets, delta), logits))


def tensors(logits: list[float], targets: list[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor(logits), torch.tensor(targets)


# ---------------------------------------------------------------------------- the framework


def definition(
    name: str, logits: Tensor, targets: Tensor, delta: float
) -> tuple[float, list[float]]:
    """Value and gradient by Definition 1 and Theorem 1, from l(i), l*(i) and Z of each loss."""
    r = ro.ranks(logits, targets, delta)
    P, pos, fp, rank = len(r.positive), r.pos, r.fp, r.rank
    if name == "ap":
        error, target, Z = 1 - ro.interpolated_precision(logits, r), 0 * rank, P
    elif name == "alrp":
        E = localization_errors(targets).double()
        error, target, Z = (fp + E + (r.x_pos * E).sum(1)) / rank, E / rank, P
    else:
        Z = sum(1 / math.log2(1 + place) for place in range(1, P + 1))
        error, target = Z / P - 1 / (1 + rank).log2(), Z / P - 1 / (1 + pos).log2()
    return ro.error_driven(r, error.tolist(), target.tolist(), Z, len(logits))


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(scene=ro.scenes(largest=8), delta=ro.DELTAS)
def test_equals_definition_1_and_theorem_1(name: str, scene: tuple[Tensor, Tensor], delta: float):
    logits, targets = scene
    if not (targets == 1).any():
        return
    value, gradient = value_and_grad(LOSSES[name], logits.double(), targets, delta)
    expected, expected_gradient = definition(name, logits, targets, delta)
    oracles.assert_close(gradient, torch.tensor(expected_gradient, dtype=torch.float64), 1e-9)
    if (ro.ranks(logits, targets, delta).fp > 1e-5).all():
        if name == "alrp":  # the terms sum up to both parts, the other one by ramps too
            r, E = ro.ranks(logits, targets, delta), localization_errors(targets).double()
            value = value + ((E + (r.x_pos * E).sum(1)) / r.rank).mean()
        assert float(value) == pytest.approx(expected, abs=1e-12)


@every_loss
@settings(max_examples=300, deadline=None, derandomize=True)
@given(scene=ro.scenes(largest=20), delta=ro.DELTAS)
def test_positives_and_negatives_get_equal_magnitudes(
    loss: Loss, scene: tuple[Tensor, Tensor], delta: float
):
    """Theorem 2; positives are only pushed up, and negatives only down."""
    logits, targets = scene
    value, gradient = value_and_grad(loss, logits.double(), targets, delta)
    up, down = -gradient[targets == 1], gradient[targets == 0]
    assert (up >= 0).all()
    assert (down >= -1e-12).all()
    assert float(up.sum()) == pytest.approx(float(down.sum()), rel=1e-9, abs=1e-12)
    assert -1e-12 <= float(value) < 1


def test_a_positive_is_not_above_itself():
    """Positives at 0, 1 and 3, negatives at 1/2 and 5, delta 1: every x by hand."""
    logits = torch.tensor([0.0, 0.5, 1.0, 3.0, 5.0, 9.0])
    targets = torch.tensor([1, 0, 1, 1, 0, -1])
    ranking = Ranking(Elements.from_targets(logits, targets), PairFunction.ramp(1.0))
    assert ranking.positives_above.tolist() == [2, 0 + 1, 0]
    assert ranking.false_positives.tolist() == [0.75 + 1, 0.25 + 1, 1]
    assert ranking.rank.tolist() == [1 + 2 + 1.75, 1 + 1 + 1.25, 1 + 0 + 1]
    weights = torch.tensor([2.0, 4.0, 8.0], dtype=torch.float64)
    assert ranking.sum_above(weights).tolist() == [4 + 8, 8, 0]


def test_a_batch_is_its_targets_and_logits_flat():
    """Three anchors of two classes: the second is positive for class 1, the third ignored."""
    batch = DetectionBatch(
        logits=torch.arange(6.0).view(3, 2),
        labels=torch.tensor([2, 1, 2]),
        weights=torch.tensor([1.0, 1.0, 0.0]),
        pos=torch.tensor([1]),
        pred_boxes=torch.zeros(1, 4),
        target_boxes=torch.zeros(1, 4),
    )
    elements = Elements.from_batch(batch)
    assert elements.logits.tolist() == [0, 1, 2, 3, 4, 5]
    assert elements.negative.tolist() == [True, True, True, False, False, False]
    assert elements.positive.tolist() == [3]
    for one, other in zip(
        elements, Elements.from_targets(elements.logits, batch.targets().flatten()), strict=True
    ):
        assert torch.equal(one, other)


# ---------------------------------------------------------------------------- corners


@every_loss
@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        ([], []),
        ([0.5, -2.0], [0, 0]),
        ([0.5, NAN, INF], [-1, -1, -1]),
        ([0.5, NAN, 2.0], [0, -1, 0]),
        ([INF, NAN, -INF], [0, 0, 0]),
    ],
    ids=["empty", "negatives", "all ignored", "both", "nothing to rank"],
)
def test_without_positives_the_loss_is_zero(loss: Loss, logits: list[float], targets: list[int]):
    value, gradient = value_and_grad(loss, *tensors(logits, targets))
    assert value.item() == 0
    assert gradient.tolist() == [0] * len(logits)


@every_loss
@pytest.mark.parametrize("count", [1, 4])
def test_without_negatives_there_is_no_gradient(loss: Loss, count: int):
    """Apart by 2 delta, positives have the ranks of a perfect ranking."""
    logits = torch.arange(2.0 * count + 1)[::2][:count]
    value, gradient = value_and_grad(loss, logits, torch.ones(count))
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert not gradient.any()


@every_loss
def test_a_perfect_ranking_is_content(loss: Loss):
    """Negatives at delta below the lowest positive, and lower."""
    logits, targets = tensors([3.0, 1.0, 0.0, -50.0, -INF], [1, 1, 0, 0, 0])
    value, gradient = value_and_grad(loss, logits, targets)
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert not gradient.any()


@every_loss
def test_one_positive_ends_a_ramp_exactly_at_delta(loss: Loss):
    """d = -1 counts 0 and d = 1 counts 1, as all that is beyond."""
    near, far = (
        value_and_grad(loss, *tensors([2.0, 2.0 - d, 2.0 + d], [1, 0, 0])) for d in (1.0, 50.0)
    )
    assert near[0] == far[0]
    assert near[1].tolist() == far[1].tolist()
    assert near[1][1] == 0
    assert near[1][2] == -near[1][0] > 0


@every_loss
@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
def test_all_scores_equal(loss: Loss, delta: float):
    """Every x is 1/2, whatever delta; all positives get the same, and all negatives."""
    logits, targets = tensors([0.75] * 6, [1, 0, 1, 0, 0, 0])
    value, gradient = value_and_grad(loss, logits, targets, delta)
    # rank+ 1 + 1/2, N_FP 4/2, rank 3 1/2.
    if loss is ndcg_loss:
        best = 1 + 1 / math.log2(3)
        assert value.item() == pytest.approx(1 - 2 / math.log2(1 + 3.5) / best)
        each = (1 / math.log2(1 + 1.5) - 1 / math.log2(1 + 3.5)) / best
        expected = [each, each]
    elif loss is ap_loss:
        assert value.item() == pytest.approx(2 / 3.5)
        expected = [2 / 3.5 / 2, 2 / 3.5 / 2]
    else:  # errors 1/4 and 1/2: half of the other's is above
        assert value.item() == pytest.approx(2 / 3.5)
        expected = [(2 + 0.25) / 3.5 / 2, (2 + 0.125) / 3.5 / 2]
    assert (-gradient[targets == 1]).tolist() == pytest.approx(expected)
    assert gradient[targets == 0].tolist() == pytest.approx([sum(expected) / 4] * 4)


@every_loss
def test_infinite_negatives_are_above_or_below_everything(loss: Loss):
    targets = [1, 0, 0, 1, 0]
    infinite = value_and_grad(loss, *tensors([0.5, INF, -INF, -1.0, 0.0], targets))
    finite = value_and_grad(loss, *tensors([0.5, 60.0, -60.0, -1.0, 0.0], targets))
    assert infinite[0] == finite[0]
    assert infinite[1].tolist() == finite[1].tolist()


@every_loss
@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        ([0.0, NAN, 1.0], [1, 0, 1]),
        ([0.0, NAN, 1.0], [0, 1, 1]),
        ([0.0, INF, 1.0], [0, 1, 1]),
        ([0.0, -INF, 1.0], [0, 1, 1]),
        ([NAN], [1]),
    ],
    ids=str,
)
def test_what_has_no_rank_makes_the_loss_nan(loss: Loss, logits: list[float], targets: list[int]):
    """And the gradient too, where it is not that of an ignored element."""
    logits, targets = tensors([*logits, 0.25], [*targets, -1])
    value, gradient = value_and_grad(loss, logits, targets)
    assert value.isnan()
    assert gradient[targets == 1].isnan().all()
    assert gradient[-1] == 0


@every_loss
@settings(max_examples=150, deadline=None, derandomize=True)
@given(scene=ro.scenes(), delta=ro.DELTAS, other=st.sampled_from([-1e30, 0.0, INF, NAN]))
def test_ignored_elements_change_nothing(
    loss: Loss, scene: tuple[Tensor, Tensor], delta: float, other: float
):
    logits, targets = scene
    ignored = targets == -1
    value, gradient = value_and_grad(loss, logits, targets, delta)
    changed, same = value_and_grad(loss, logits.masked_fill(ignored, other), targets, delta)
    kept, rest = value_and_grad(loss, logits[~ignored], targets[~ignored], delta)
    assert not gradient[ignored].any()
    assert torch.equal(value, changed)
    assert torch.equal(gradient, same)
    assert torch.equal(value, kept)
    assert torch.equal(gradient[~ignored], rest)


@every_loss
@settings(max_examples=100, deadline=None, derandomize=True)
@given(scene=ro.scenes(), data=st.data())
def test_a_shift_of_all_scores_changes_nothing(
    loss: Loss, scene: tuple[Tensor, Tensor], data: st.DataObject
):
    logits, targets = scene
    logits = (logits * 8).round() / 8  # so that the sum is exact
    shift = data.draw(st.integers(-40, 40)) / 8
    one, other = (value_and_grad(loss, s, targets) for s in (logits, logits + shift))
    for a, b in zip(other, one, strict=True):
        oracles.assert_close(a, b, 2e-6)


@every_loss
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)], ids=str
)
def test_halves_are_computed_in_float32(loss: Loss, dtype: torch.dtype, tolerance: float):
    """Only what comes out is rounded; 200 negatives alone would not be counted right in bfloat16
    (after 256 come 258)."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(400, generator=generator)).to(dtype)
    targets = (torch.arange(400) < 20).long()
    value, gradient = value_and_grad(loss, logits, targets)
    expected = value_and_grad(loss, logits.double(), targets)
    assert value.dtype == gradient.dtype == dtype
    oracles.assert_close(value, expected[0], tolerance)
    oracles.assert_close(gradient, expected[1], tolerance)


@every_loss
def test_strides_and_upstream_gradients(loss: Loss):
    logits, targets = tensors([0.5, 9.0, 1.0, 9.0, 0.0, 9.0], [1, 0, 1, 0, 0, -1])
    value, gradient = value_and_grad(loss, logits[::2].contiguous(), targets[::2])
    strided = oracles.value_and_grads(
        lambda s: loss(s, targets[::2]), logits[::2], upstream=torch.tensor(3.0)
    )
    assert strided[0] == value
    assert strided[1].tolist() == pytest.approx((3 * gradient).tolist())


@every_loss
@pytest.mark.parametrize("targets", [[1, 0], [0, 0], []], ids=str)
@pytest.mark.parametrize("delta", [-1.0, NAN, INF])
def test_a_bad_delta(loss: Loss, targets: list[int], delta: float):
    with pytest.raises(ValueError, match=f"delta is {delta}"):
        loss(torch.zeros(len(targets)), torch.tensor(targets), delta)


@every_loss
def test_shapes_that_differ(loss: Loss):
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2,\)"):
        loss(torch.zeros(3), torch.tensor([1, 0]))
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(2, 2\)"):
        loss(torch.zeros(2, 2), torch.ones(2, 2))
