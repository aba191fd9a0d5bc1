"""The shipped searches of formulas: where they start, and what their screen turns down."""

import numpy as np
import pytest

from loss.by_head import family_of
from loss.formula import as_data
from loss.formula_known import GIOU, SOFTMAX_CROSS_ENTROPY, WRITTEN_CROSS_ENTROPY
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


def test_they_start_at_cross_entropy_and_giou(loaded):
    _, task = loaded
    found = family_of(task.criterion).settings(task.start)
    two_stages = "rcnn" in found
    found = found.get("rcnn", found)
    expected = SOFTMAX_CROSS_ENTROPY if two_stages else WRITTEN_CROSS_ENTROPY
    assert found["classification"] == as_data(expected)
    assert found["regression"] == as_data(GIOU)
    assert task.start_label == f"start: {'CE + GIoU' if two_stages else 'formula_ce_giou'}"


def test_what_trains_as_the_start_is_a_duplicate(loaded):
    config, task = loaded
    screen = build_screen(config, task)
    same = np.array(task.start)
    names = family_of(task.criterion).names
    silent = [i for i, name in enumerate(names) if name.split(".")[-2] == "1"]
    same[silent] = 0.99  # the first node of either branch, which nothing reads
    assert screen(same).startswith("duplicate: ")
