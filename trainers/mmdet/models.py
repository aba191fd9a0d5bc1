"""From a detector's settings to a module whose heads train with criteria."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from loss.by_head import by_head
from paploss.errors import BadConfig
from trainers.config import DetectorConfig
from trainers.mmdet.heads import ADAPTERS, CriterionHead
from trainers.mmdet.heads.roi import ROI_HEADS
from trainers.mmdet.types import check_types


def model_settings(
    detector: DetectorConfig, criterion: Mapping[str, Any], classes: int
) -> dict[str, Any]:
    """The detector's `model`, every head behind its adapter and trained with its criterion.

    Args:
        criterion: settings, flat or by head.

    Raises:
        BadConfig: a detector with a head that no adapter covers; criteria for other heads than the
            detector has; settings that would run code (see `trainers.mmdet.types`).
    """
    check_types(detector.model, f"detector {detector.name}")
    model = copy.deepcopy(detector.model)
    heads = dict(_heads(model))
    strange = {path: head.get("type") for path, head in heads.items()
               if head.get("type") not in ADAPTERS}  # fmt: skip
    if strange or not heads:
        found = ", ".join(f"{'.'.join(path)} is {kind}" for path, kind in strange.items())
        raise BadConfig(
            f"detector {detector.name}: {found or f'no head among {sorted(model)}'}; expected "
            "bbox_head, rpn_head or roi_head.bbox_head of a type that has an adapter: "
            f"{', '.join(sorted(ADAPTERS))}."
        )
    roi_head = (model.get("roi_head") or {}).get("type", ROI_HEADS[0])
    if roi_head not in ROI_HEADS:
        raise BadConfig(
            f"detector {detector.name}: roi_head is {roi_head}, which computes losses in a way "
            f"that no adapter covers; expected one of {', '.join(ROI_HEADS)}."
        )
    try:
        criteria = by_head(criterion, {head_name(path) for path in heads})
    except ValueError as error:
        raise BadConfig(f"detector {detector.name}: {error}") from error
    for path, head in heads.items():
        name = head_name(path)
        head.update(type=ADAPTERS[head["type"]], criterion=criteria[name])
        # To an RPN everything is an object.
        head["num_classes"] = 1 if name == "rpn" else classes
    for mask_head in _mask_heads(model):
        mask_head["num_classes"] = classes
    return model


def build_model(detector: DetectorConfig, criterion: Mapping[str, Any], classes: int) -> Any:
    """The detector as a module; mmengine's runner fills in its initial weights.

    Raises:
        BadConfig: mmengine cannot build it; the message has mmengine's reason.
    """
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import ConfigDict

    register_all_modules()
    settings = ConfigDict(model_settings(detector, criterion, classes))
    try:
        model = MODELS.build(settings)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BadConfig(
            f"detector {detector.name}: mmengine cannot build its model: {reason} "
            "Check the `model` section of the detector's file."
        ) from error
    # mmdet's DETRs leave it as the memory was until a training begins; the probe comes before, and
    # may have met a NaN there. No random numbers: initial weights stay those of the seed.
    if hasattr(model, "level_embed"):
        nn.init.zeros_(model.level_embed)
    return model


def criterion_heads(model: Any) -> Iterator[tuple[str, str, CriterionHead]]:
    """(head's name, path in the model, head) of every head with a criterion."""
    for path, module in model.named_modules():
        if isinstance(module, CriterionHead):
            yield head_name(tuple(path.split("."))), path, module


def head_name(path: tuple[str, ...]) -> str:
    """What settings call the head at `path` of a model: "rpn", "rcnn", or "head"."""
    return {"rpn_head": "rpn", "roi_head": "rcnn"}.get(path[0], "head")


def _heads(model: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Settings of the heads that classify and regress boxes, with the way to each."""
    places = [("bbox_head",), ("rpn_head",), ("roi_head", "bbox_head")]
    for place in places:
        section: Any = model
        for key in place:
            section = section.get(key) if isinstance(section, Mapping) else None
        if isinstance(section, dict):
            yield place, section
        elif isinstance(section, list):  # a cascade's stages
            for stage, settings in enumerate(section):
                yield (*place, str(stage)), settings


def _mask_heads(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings of the heads that predict masks: none, one, or one a stage of a cascade."""
    found = (model.get("roi_head") or {}).get("mask_head") or []
    return found if isinstance(found, list) else [found]
