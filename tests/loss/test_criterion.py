"""The contract of every criterion in the registry: what is added there is tested here."""

import json

import pytest
import torch
from torch import Tensor

from loss import CRITERIA, Criterion, DetectionBatch, build_criterion, criterion_type
from loss.criterion import value_and_gradients

A, C, P = 24, 3, 6
IGNORED = slice(P, P + 4)


def batch(name: str, positives: int = P, seed: int = 0) -> DetectionBatch:
    """The first anchors are positives, the next four are ignored; leaves that want gradients.

    Criteria of softmax scores get one more column of logits, the background.
    """
    columns = C + (criterion_type(name).activation == "softmax")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((A,), C)
    labels[:positives] = torch.arange(positives) % C
    weights = torch.ones(A)
    weights[IGNORED] = 0
    low = 50 * torch.rand(positives, 2, generator=generator)
    target = torch.cat([low, low + 10 + 20 * torch.rand(positives, 2, generator=generator)], 1)
    shift = 3 * torch.randn(positives, 4, generator=generator)
    return DetectionBatch(
        logits=torch.randn(A, columns, generator=generator).requires_grad_(),
        labels=labels,
        weights=weights,
        pos=torch.arange(positives),
        pred_boxes=(target + shift).requires_grad_(),
        target_boxes=target,
        anchor_sizes=torch.full((positives, 2), 32.0),
    )


def run(name: str, given: DetectionBatch) -> dict[str, Tensor]:
    """The losses of a criterion with its default arguments; gradients arrive in `given`."""
    losses = build_criterion({"type": name})(given)
    torch.stack(list(losses.values())).sum().backward()
    return losses


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_losses_are_finite_scalars_whose_names_frameworks_sum(name: str):
    losses = run(name, batch(name))
    assert losses
    for key, value in losses.items():
        assert key.startswith("loss")
        assert value.shape == ()
        assert value.isfinite()


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_gradients_reach_logits_and_boxes_but_nothing_that_is_ignored(name: str):
    given = batch(name)
    run(name, given)
    assert given.logits.grad.isfinite().all()
    assert given.pred_boxes.grad.isfinite().all()
    assert (given.logits.grad[:P] != 0).any(dim=1).all()
    assert (given.logits.grad[P:] != 0).any()
    assert (given.pred_boxes.grad != 0).any(dim=1).all()
    assert not given.logits.grad[IGNORED].any()


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_what_is_ignored_changes_nothing(name: str):
    one, other = batch(name), batch(name)
    with torch.no_grad():
        other.logits[IGNORED] += 5
    losses, same = run(name, one), run(name, other)
    assert all(torch.equal(losses[key], same[key]) for key in losses)
    assert torch.equal(one.logits.grad, other.logits.grad)
    assert torch.equal(one.pred_boxes.grad, other.pred_boxes.grad)


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_every_column_of_the_logits_is_trained(name: str):
    given = batch(name)
    run(name, given)
    assert (given.logits.grad != 0).any(dim=0).all()


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_a_batch_without_positives_can_be_trained_on(name: str):
    """Data-parallel training needs a gradient, if only of zeros, for every output."""
    given = batch(name, positives=0)
    losses = run(name, given)
    assert all(value.isfinite() for value in losses.values())
    assert given.logits.grad.isfinite().all()
    assert not given.logits.grad[IGNORED].any()
    assert given.pred_boxes.grad.shape == (0, 4)


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_the_same_batch_gives_the_same_bits(name: str):
    one, other = batch(name), batch(name)
    losses, same = run(name, one), run(name, other)
    assert all(torch.equal(losses[key], same[key]) for key in losses)
    assert torch.equal(one.logits.grad, other.logits.grad)
    assert torch.equal(one.pred_boxes.grad, other.pred_boxes.grad)


def searchable(name: str) -> bool:
    inherited = Criterion.parameterization.__func__
    return criterion_type(name).parameterization.__func__ is not inherited


@pytest.mark.parametrize("name", filter(searchable, sorted(CRITERIA)))
def test_a_family_names_its_coordinates_and_builds_from_plain_data(name: str):
    family = criterion_type(name).parameterization()
    assert len(set(family.names)) == len(family.names) == len(family.start) > 0
    assert all(0 < share < 1 for share in family.start)
    settings = family.settings(family.start)
    assert settings["type"] == name
    assert json.loads(json.dumps(settings)) == settings
    criterion = build_criterion(settings)
    assert isinstance(criterion, criterion_type(name))
    for positives in (P, 0):
        given = batch(name, positives)
        expected = family.expected(family.start, given)
        torch.testing.assert_close(value_and_gradients(criterion, given), expected)


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_value_and_gradients_are_those_of_backward(name: str):
    given = batch(name)
    loss, at_logits, at_boxes = value_and_gradients(build_criterion({"type": name}), given)
    assert given.logits.grad is None  # the batch that was given is left alone
    losses = run(name, given)
    torch.testing.assert_close(loss, sum(losses.values()).detach())
    torch.testing.assert_close(at_logits, given.logits.grad)
    torch.testing.assert_close(at_boxes, given.pred_boxes.grad)


def test_a_criterion_without_a_family_says_so():
    assert searchable("parameterized_ap")
    with pytest.raises(ValueError, match="FocalGIoU has no parameters to search"):
        criterion_type("focal_giou").parameterization()


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'focal_gio'.*focal_giou, .*parameterized_ap"):
        build_criterion({"type": "focal_gio"})


def test_building_reads_the_arguments_and_leaves_the_settings_alone():
    settings = {"type": "focal_giou", "giou_weight": 3.0}
    criterion = build_criterion(settings)
    assert isinstance(criterion, Criterion)
    assert criterion.giou_weight == 3.0
    assert settings == {"type": "focal_giou", "giou_weight": 3.0}
