"""Simulated trainings: what trains well gets somewhere, and what does not, nowhere."""

import pytest
import torch

from loss import build_criterion
from loss.criterion import Criterion
from loss.scene import make_scene
from loss.simulation import simulate

SCENE = make_scene(56)


class Scaled(Criterion):
    """Another criterion, times a number that may be anything."""

    def __init__(self, of: Criterion, factor: float) -> None:
        super().__init__()
        self.of, self.factor = of, factor
        self.activation = of.activation

    def forward(self, batch):
        return {name: self.factor * value for name, value in self.of(batch).items()}


FOCAL = build_criterion({"type": "focal_giou"})


def test_ap_rises_with_a_loss_that_trains():
    found = simulate(FOCAL, SCENE)
    assert found.finite and len(found.curve) == 4
    assert found.ap == pytest.approx(sum(found.curve) / 4)
    assert found.ap_before < 0.02 and found.ap > 0.04 and found.curve[-1] > found.curve[0]


def test_ap_does_not_rise_uphill():
    found = simulate(Scaled(FOCAL, -1.0), SCENE)
    assert found.ap < 0.005


def test_scores_alone_are_worth_less_than_scores_and_boxes():
    settings = {"type": "focal_giou", "giou_weight": 0.0}
    assert simulate(build_criterion(settings), SCENE).ap < 0.8 * simulate(FOCAL, SCENE).ap


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_it(factor):
    found = simulate(Scaled(FOCAL, factor), SCENE)
    assert not found.finite and found.ap == 0 and found.curve == ()


def test_softmax_has_a_column_for_the_background():
    settings = {"type": "standard", "classification": "cross_entropy", "activation": "softmax"}
    found = simulate(build_criterion(settings), SCENE)
    assert found.ap > 0.05


def test_it_is_repeatable_and_leaves_the_global_chance_alone():
    state = torch.get_rng_state()
    first = simulate(FOCAL, SCENE, steps=5, measure=(5,))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert simulate(FOCAL, SCENE, steps=5, measure=(5,)) == first
    assert simulate(FOCAL, SCENE, steps=5, measure=(5,), seed=1) != first
