"""From a detector's settings to a module."""

import copy
from typing import Any

import pytest
import torch

from paploss.errors import BadConfig
from trainers.config import DetectorConfig
from trainers.mmdet.models import build_model, model_settings
from trainers.read import load_detector

PAP = {"type": "parameterized_ap"}


def test_the_detector_is_left_as_it_was(detector: DetectorConfig) -> None:
    before = copy.deepcopy(detector.model)
    model_settings(detector, PAP, 7)
    build_model(detector, PAP, 7)
    assert detector.model == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox_head": {"type": "SSDHead"}}, "bbox_head is SSDHead; expected .* RetinaHead"),
        ({"bbox_head": None}, "no head among .*backbone"),
        ({"backbone": {"type": "ResNett"}}, "backbone.type is 'ResNett'.* did you mean 'ResNet'"),
        ({"neck": {"type": "FPN"}}, "cannot build its model.*in_channels"),
        ({"colour": "red"}, "cannot build its model.*colour"),
    ],
)
def test_a_detector_that_cannot_be_built(
    detector: DetectorConfig, change: dict[str, Any], message: str
) -> None:
    broken = DetectorConfig(name="broken", model={**detector.model, **change})
    with pytest.raises(BadConfig, match=f"(?s)detector broken: .*{message}"):
        build_model(broken, PAP, 3)


@pytest.mark.usefixtures("mmdet_modules")
@pytest.mark.parametrize("name", ["deformable_detr_r18_small", "dino_r18_small"])
def test_no_weight_is_left_as_the_memory_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads a model before its training begins would meet a NaN now and then."""
    from mmdet.models.detectors import DINO, DeformableDETR

    for kind in (DINO, DeformableDETR):
        made = kind._init_layers

        def with_what_was_there(self: Any, made: Any = made) -> None:
            made(self)
            self.level_embed.data.fill_(float("nan"))

        monkeypatch.setattr(kind, "_init_layers", with_what_was_there)
    model = build_model(load_detector(name), PAP, 3)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
