"""The shipped searches of formulas: where they start, and what their screen turns down."""

import numpy as np
import pytest

from loss.by_head import family_of
from loss.formula import as_data
from loss.formula_known import (
    CSE_A_CLASSIFICATION,
    CSE_A_REGRESSION,
    GIOU,
    WRITTEN_CROSS_ENTROPY,
)
from search.run.hint import Simulations
from search.run.load import load_search
from search.run.screen import build_screen

SEARCHES = ["shapes_cse", "retinanet_r50_coco_cse", "faster_rcnn_r50_coco_cse"]


@pytest.fixture(params=SEARCHES)
def loaded(request):
    return load_search(request.param, {"data": "shapes"})


def test_they_evolve_and_draw_a_sample_often(loaded):
    config, _ = loaded
    assert config.algorithm.type == "evolution"
    assert config.algorithm.attempts >= 1000
    assert config.preflight.enabled


def test_they_start_at_a_loss_that_has_much_beside_it(loaded):
    _, task = loaded
    found = family_of(task.criterion).settings(task.start)
    if "rcnn" in found:
        label, expected = "formula_cse_autoloss_a", (CSE_A_CLASSIFICATION, CSE_A_REGRESSION)
    else:
        label, expected = "CE + GIoU", (WRITTEN_CROSS_ENTROPY, GIOU)
    found = found.get("rcnn", found)
    assert (found["classification"], found["regression"]) == tuple(map(as_data, expected))
    assert task.start_label == f"start: {label}"


def test_what_trains_as_the_start_is_a_duplicate(loaded):
    config, task = loaded
    screen = build_screen(config, task, Simulations())
    screen.accepted(np.array(task.start))  # as an algorithm tells it of its start
    same = np.array(task.start)
    names = family_of(task.criterion).names
    silent = [i for i, name in enumerate(names) if name.split(".")[-2] == "1"]
    same[silent] = 0.99  # the first node of either branch, which nothing reads
    assert screen(same).startswith("duplicate: ")
