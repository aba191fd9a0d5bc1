"""The screen of a search: families by their criterion, head by head."""

import numpy as np
import pytest

from loss.by_head import family_of
from search.run.hint import Simulations
from search.run.screen import LossScreen, Screens, Told, build_screen
from tests.search.run.by_hand import TASK, config_in

PAP = {"type": "parameterized_ap", "segments": 5}


def screen_of(tmp_path, criterion, **preflight):
    config = config_in(tmp_path).model_copy(deep=True)
    values = config.model_dump() | {"preflight": preflight}
    task = TASK.model_copy(update={"criterion": criterion})
    return build_screen(type(config)(**values), task, Simulations())


def downhill(family, head=None):
    """A theta whose boxes are pulled away: above u = .6, I3 rises and I1 does not yet."""
    linear = [[k / 5, k / 5] for k in range(6)]
    curves = {
        **dict.fromkeys(("H1", "H2", "I2"), linear),
        "I1": [[0, 0], [0.2, 0.002], [0.4, 0.004], [0.6, 0.006], [0.95, 0.01], [1, 1]],
        "I3": [[0, 0], [0.2, 0.01], [0.4, 0.02], [0.6, 0.03], [0.95, 0.99], [1, 1]],
    }
    settings = {"type": "parameterized_ap", "control_points": curves, "gradient_scale": 1.0}
    return np.array(family.theta({head: settings} if head else settings))


def test_off_is_none(tmp_path):
    assert screen_of(tmp_path, PAP, enabled=False) is None


def test_the_start_passes_and_a_loss_that_pushes_boxes_away_does_not(tmp_path):
    screen, family = screen_of(tmp_path, PAP), family_of(PAP)
    assert isinstance(screen, LossScreen)
    assert screen(np.array(family.start)) is None
    bad = downhill(family)
    verdict = screen(bad)
    assert verdict is not None and verdict.startswith("gradient: ") and "boxes" in verdict
    screen.accepted(bad)  # it remembers nothing
    assert screen(bad) == verdict


def test_the_head_is_named_and_fixed_heads_are_not_looked_at(tmp_path):
    fixed = {"type": "focal_giou", "giou_weight": 0.0}  # examined, it would be rejected
    criterion = {"rpn": fixed, "rcnn": PAP}
    screen, family = screen_of(tmp_path, criterion), family_of(criterion)
    assert screen is not None and screen(np.array(family.start)) is None
    verdict = screen(downhill(family, "rcnn"))
    assert verdict is not None and verdict.endswith("(rcnn)")


def test_many_looks_are_told():
    class Picky:
        def __init__(self):
            self.told = []

        def __call__(self, theta):
            return None if theta[0] > 0.9 else "stage: reason"

        def accepted(self, theta):
            self.told.append(theta)

    lines, picky = [], Picky()
    screen = Told(picky, lines.append)
    verdicts = [screen(np.array([i / 500])) for i in range(500)]
    assert [v is None for v in verdicts] == [i > 450 for i in range(500)]
    assert lines == [
        "  250 formulas looked at before a trial, 250 rejected",
        "  500 formulas looked at before a trial, 451 rejected",
    ]
    screen.accepted(np.ones(1))
    assert len(picky.told) == 1


def test_formulas_have_filters_of_their_own(tmp_path):
    assert isinstance(screen_of(tmp_path, {"type": "formula"}), Told)
    mixed = {"rpn": PAP, "rcnn": {"type": "formula"}}
    screen = screen_of(tmp_path, mixed)
    assert isinstance(screen, Screens)
    theta = np.array(family_of(mixed).start)
    theta[0] = 0.25  # of the curves
    assert screen(theta) is None
    screen.accepted(theta)
    verdict = screen(theta)
    assert verdict is not None and verdict.startswith("duplicate: ")


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_corners_are_judged(tmp_path, value):
    screen = screen_of(tmp_path, PAP)
    verdict = screen(np.full(41, value))
    assert verdict is None or ": " in verdict
