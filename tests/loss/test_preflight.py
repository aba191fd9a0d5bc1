"""What passes before a trial, and what does not."""

import pytest

from loss import build_criterion
from loss.by_head import family_of
from loss.criterion import Criterion
from loss.preflight import Limits, examine, examine_criterion, simulated
from paploss.configs import find
from paploss.files import read_yaml
from tests.loss.test_gradient_checks import Known
from tests.loss.test_simulation import Scaled

FAMILY = family_of({"type": "parameterized_ap"})
PUBLISHED = read_yaml(find("presets", "parameterized_ap_retinanet_coco"))
GOOD = {
    "Focal + GIoU": {"type": "focal_giou"},
    "CE + GIoU": {"type": "standard", "classification": "cross_entropy"},
    "AP Loss": {"type": "ap"},
    "aLRP": {"type": "alrp"},
    "NDCG": {"type": "ndcg"},
    "CSE-AutoLoss-B": {"type": "cse_autoloss_b"},
    "identity": FAMILY.settings(FAMILY.start),
    "published curves": PUBLISHED,
}


@pytest.mark.parametrize("name", GOOD)
def test_losses_that_train_pass(name):
    assert examine(GOOD[name]) is None


@pytest.mark.parametrize("name", GOOD)
def test_their_negatives_do_not(name):
    verdict = examine_criterion(Scaled(build_criterion(GOOD[name]), -1.0))
    assert verdict is not None and verdict.startswith("gradient: ")


class Only(Criterion):
    """One of a criterion's losses; the other is turned round, or left out."""

    def __init__(self, name: str, other: float) -> None:
        super().__init__()
        self.of, self.name, self.other = build_criterion({"type": "focal_giou"}), name, other

    def forward(self, batch):
        losses = self.of(batch)
        return {
            name: value if name == self.name else self.other * value
            for name, value in losses.items()
        }


@pytest.mark.parametrize(
    ("criterion", "reason"),
    [
        (Only("loss_cls", -1.0), "boxes that go 5% of the way to their objects raise the loss"),
        (Only("loss_bbox", -1.0), "of the pull at positives lowers their scores"),
        (Only("loss_cls", 0.0), "the boxes have no gradient"),
        (Only("loss_bbox", 0.0), "the scores have no gradient"),
        (Known(-1e4, 1.0), "the gradient of the scores explodes"),
        (Known(-1.0, 1e6), "the gradient of the boxes explodes"),
        (Known(float("nan"), 1.0), "not finite"),
    ],
)
def test_reasons_are_said(criterion, reason):
    verdict = examine_criterion(criterion)
    assert verdict is not None and verdict.startswith("gradient: ") and reason in verdict
    assert "\n" not in verdict and verdict.endswith("in a training)")


class Upward(Criterion):
    """Raises every score, and trains the boxes."""

    def forward(self, batch):
        (boxes,) = (loss for name, loss in Known(0.0, 1.0)(batch).items() if "bbox" in name)
        return {"loss_cls": -batch.logits.mean(), "loss_bbox": boxes}


def test_a_right_pull_that_gets_nowhere_is_found_by_the_simulation():
    verdict = examine_criterion(Upward())
    assert verdict is not None and verdict.startswith("simulation: AP 0.0")
    assert examine_criterion(Upward(), Limits(ap=0.0)) is None


def test_limits_decide():
    strict = Limits(ap=0.99)
    verdict = examine(GOOD["Focal + GIoU"], strict)
    assert verdict is not None and verdict.endswith("at least 0.99 expected")


def test_simulated_ranks_what_real_trials_rank_clearly():
    # Real trials on shapes: .258 and .067 (benchmarks/results/ablations/shapes.md).
    curves = {"type": "parameterized_ap", "control_points": PUBLISHED["control_points"]}
    free = curves | {"detach_denominator": False}
    assert simulated(curves).ap > simulated(free).ap


def test_settings_of_no_criterion_are_told():
    with pytest.raises(ValueError, match="unknown criterion"):
        examine({"type": "nonsense"})
