"""The shipped presets: criteria whose curves were published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loss import CURVES, DetectionBatch, ap_loss, build_criterion, theta_from_control_points
from loss.localization import iou_and_giou
from paploss.configs import config_folder, find
from paploss.files import read_yaml
from trainers.config import TaskConfig

PRESETS = sorted(
    path.stem for path in (config_folder() / "presets").glob("parameterized_ap_*.yaml")
)
# The cases of the reference that were run with the same curves.
CASES = {
    "parameterized_ap_retinanet_coco": "small retinanet",
    "parameterized_ap_faster_rcnn_rpn_coco": "medium rpn",
    "parameterized_ap_faster_rcnn_rcnn_coco": "init-like narrow rcnn",
}


def settings(name: str) -> dict[str, Any]:
    return read_yaml(find("presets", name))


def test_every_preset_is_compared_with_the_reference() -> None:
    assert sorted(CASES) == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_its_curves_are_the_published_ones(name: str) -> None:
    cases = np.load(Path(__file__).parent / "reference" / "losses.npz")
    (case,) = (c["i"] for c in json.loads(str(cases["meta"])) if c["name"] == CASES[name])
    points = settings(name)["control_points"]
    flat = np.array([np.ravel(points[curve]) for curve in CURVES])
    np.testing.assert_array_equal(flat.astype(np.float32), cases[f"c{case:02d}_ctrl"])


@pytest.mark.parametrize("name", PRESETS)
def test_its_curves_rise_from_corner_to_corner(name: str) -> None:
    for curve in settings(name)["control_points"].values():
        points = torch.tensor(curve, dtype=torch.float64)
        assert points[0].tolist() == [0, 0]
        assert points[-1].tolist() == [1, 1]
        assert (points.diff(dim=0) > 0).all()
        # So a search could have found it.
        theta = theta_from_control_points(points)
        assert ((theta > 0) & (theta < 1)).all()


@pytest.mark.parametrize("name", PRESETS)
def test_its_gradient_scale_is_within_what_is_searched(name: str) -> None:
    assert 0.1 <= settings(name)["gradient_scale"] <= 10


@pytest.mark.parametrize("name", PRESETS)
def test_it_trains(name: str) -> None:
    """Plain gradient descent on scores and boxes: positives come to the top, and boxes to fit."""
    A, C, P = 60, 2, 8
    generator = torch.Generator().manual_seed(0)
    pos, labels = torch.arange(P), torch.full((A,), C)
    labels[pos] = pos % C
    logits = torch.randn(A, C, generator=generator)
    logits[pos, labels[pos]] += 1
    target = torch.tensor([[10.0, 10.0, 50.0, 40.0]]).repeat(P, 1)
    boxes = target + 4 * torch.randn(P, 4, generator=generator)
    batch = DetectionBatch(
        logits.requires_grad_(), labels, torch.ones(A), pos, boxes.requires_grad_(), target
    )
    groups = [{"params": [logits], "lr": 3.0}, {"params": [boxes], "lr": 30.0}]
    optimizer, criterion = torch.optim.SGD(groups), build_criterion(settings(name))

    def state() -> tuple[float, float, float]:
        with torch.no_grad():
            loss = criterion(batch)["loss_pap"].item()
            ap = 1 - ap_loss(logits.flatten(), batch.targets().flatten(), delta=0).item()
            return loss, ap, iou_and_giou(boxes, target)[0].mean().item()

    loss, ap, iou = state()
    assert ap < 0.2 and iou < 0.7
    for _ in range(100):
        optimizer.zero_grad()
        criterion(batch)["loss_pap"].backward()
        optimizer.step()
    trained_loss, ap, iou = state()
    assert trained_loss < loss / 2
    assert ap > 0.9 and iou > 0.75


@pytest.mark.parametrize("name", PRESETS)
def test_it_may_be_the_baseline_of_a_search(name: str) -> None:
    shapes = read_yaml(config_folder() / "search" / "shapes.yaml")
    task = TaskConfig(
        detector={"name": "any", "model": {}},
        data=read_yaml(find("datasets", "shapes")),
        criterion=shapes["criterion"],
        baseline=settings(name),
    )
    assert task.baseline["type"] == "parameterized_ap"
