"""How criteria pull, on criteria whose pull is known."""

from dataclasses import replace

import pytest
import torch

from loss import build_criterion
from loss.criterion import Criterion
from loss.gradient_checks import STATES, STEP, pull
from loss.scene import make_scene

SCENE = make_scene(6)


class Known(Criterion):
    """score * (sum of positives' own logits) + box * (sum of |delta - target| over positives)."""

    def __init__(self, score: float, box: float) -> None:
        super().__init__()
        self.score, self.box = score, box

    def forward(self, batch):
        own = batch.logits[batch.pos, batch.labels[batch.pos]]
        apart = (batch.deltas - batch.target_deltas).abs()
        return {"loss_cls": self.score * own.sum(), "loss_bbox": self.box * apart.sum()}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("score", [-2.0, 2.0])
@pytest.mark.parametrize("box", [-0.5, 0.5])
def test_pulls_of_a_loss_that_is_linear(state, score, box):
    found = pull(Known(score, box), SCENE, STATES[state], images=4)
    positives = int((SCENE.labels[:4] < SCENE.num_classes).sum())
    assert found.finite
    assert found.positives == pytest.approx(2 * positives) and found.negatives == 0
    assert found.boxes == pytest.approx(0.5 * 4 * positives)
    assert found.wrong_scores == (score > 0) and found.wrong_boxes == (box < 0)
    assert found.score_rise == pytest.approx(STEP * score * positives, rel=1e-3)
    # A step of a share of what is left takes that share of the distance away.
    distance = (found.loss - Known(score, 0.0)(_batch(state))["loss_cls"].item()) / box
    assert found.box_rise == pytest.approx(-STEP * box * distance, rel=1e-2)


def _batch(state):
    """The very batch that `pull` asks about, caught by a criterion."""
    caught = []

    class Catch(Known):
        def forward(self, batch):
            caught.append(batch)
            return super().forward(batch)

    pull(Catch(1.0, 1.0), SCENE, STATES[state], images=4)
    return replace(caught[0], logits=caught[0].logits.detach())


def test_states_are_those_of_a_training():
    early, middle, late = (_batch(name) for name in STATES)
    for before, after in ((early, middle), (middle, late)):
        assert _lead(after) > _lead(before) + 1
        assert _distance(after) < _distance(before)
    assert abs(_lead(early)) < 0.3


def _lead(batch):
    own = batch.logits[batch.pos, batch.labels[batch.pos]].mean()
    return float(own - batch.logits[batch.labels == SCENE.num_classes].mean())


def _distance(batch):
    return float((batch.deltas - batch.target_deltas).detach().abs().mean())


def test_what_is_not_finite_is_said():
    assert not pull(Known(float("nan"), 1.0), SCENE, STATES["early"]).finite


def test_softmax_is_asked_with_a_background():
    settings = {"type": "standard", "classification": "cross_entropy", "activation": "softmax"}
    found = pull(build_criterion(settings), SCENE, STATES["middle"])
    assert found.finite and found.wrong_scores == 0 and found.score_rise < 0
    assert torch.isfinite(torch.tensor(found.negatives)) and found.negatives > 0
