"""From plain settings to what mmengine builds: models, optimizers, pipelines."""

import copy
from typing import Any

from loss import criterion_type
from paploss.errors import BadConfig
from trainers.config import DetectorConfig, ScheduleConfig
from trainers.datasets.coco import DataConfig
from trainers.mmdet.heads import ADAPTERS
from trainers.mmdet.precision import BFloat16OptimWrapper


def model_settings(
    detector: DetectorConfig, criterion: dict[str, Any], classes: int
) -> dict[str, Any]:
    """The detector's `model`, its head behind the adapter and trained with `criterion`.

    Raises:
        BadConfig: a detector without a head that an adapter covers; a criterion that is not known,
            or trains other scores than the head detects by.
    """
    model = copy.deepcopy(detector.model)
    head = model.get("bbox_head")
    if not isinstance(head, dict) or head.get("type") not in ADAPTERS:
        given = head.get("type") if isinstance(head, dict) else f"no bbox_head in {sorted(model)}"
        raise BadConfig(
            f"detector {detector.name}: its head is {given}; expected a bbox_head of one of the "
            f"types {sorted(ADAPTERS)}, which are the ones with a head adapter."
        )
    try:
        activation = criterion_type(criterion.get("type")).activation
    except ValueError as error:
        raise BadConfig(f"criterion: {error}") from error
    if activation != "sigmoid":
        raise BadConfig(
            f"criterion {criterion['type']} trains {activation} scores, but the {head['type']} of "
            f"detector {detector.name} detects by the sigmoid of each class; take a criterion that "
            "trains sigmoid scores."
        )
    head.update(type=ADAPTERS[head["type"]], criterion=criterion, num_classes=classes)
    return model


def build_model(detector: DetectorConfig, criterion: dict[str, Any], classes: int) -> Any:
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
        return MODELS.build(settings)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BadConfig(
            f"detector {detector.name}: mmengine cannot build its model: {reason} "
            "Check the `model` section of the detector's file."
        ) from error


def optimizer_settings(schedule: ScheduleConfig) -> dict[str, Any]:
    """mmengine's optim_wrapper."""
    optimizer: dict[str, Any] = {
        "lr": schedule.learning_rate,
        "weight_decay": schedule.weight_decay,
    }
    if schedule.optimizer == "sgd":
        optimizer |= {"type": "SGD", "momentum": schedule.momentum}
    else:
        # Unfused, a small detector's many small tensors cost as much as its forward pass.
        optimizer |= {"type": "AdamW", "fused": True}
    wrapper: dict[str, Any] = {"type": "OptimWrapper", "optimizer": optimizer}
    if schedule.amp:
        wrapper["type"] = BFloat16OptimWrapper
    if schedule.clip_gradient is not None:
        wrapper["clip_grad"] = {"max_norm": schedule.clip_gradient, "norm_type": 2}
    return wrapper


def learning_rate_settings(schedule: ScheduleConfig, iterations: int) -> list[dict[str, Any]]:
    """mmengine's param_scheduler for a run of `iterations` in all."""
    schedulers: list[dict[str, Any]] = []
    warmup = min(schedule.warmup_iterations, iterations)
    if warmup:
        schedulers.append(
            {"type": "LinearLR", "start_factor": 1e-3, "by_epoch": False, "begin": 0, "end": warmup}
        )
    # A short run can be over before it is warm.
    if schedule.decay == "cosine" and warmup < iterations:
        schedulers.append(
            {
                "type": "CosineAnnealingLR",
                "T_max": iterations - warmup,
                "by_epoch": False,
                "begin": warmup,
                "end": iterations,
            }
        )
    elif schedule.decay == "step":
        per_epoch = iterations / schedule.epochs
        milestones = [round(step * per_epoch) for step in schedule.steps]
        schedulers.append({"type": "MultiStepLR", "milestones": milestones, "by_epoch": False})
    return schedulers


def dataset_settings(data: DataConfig, split: str, schedule: ScheduleConfig) -> dict[str, Any]:
    """A `TrialDataset` of one split: shuffled, flipped and filtered only for training."""
    training = split == "train"
    files = getattr(data, split)
    prepare = [
        {"type": "LoadImageFromFile"},
        *([{"type": "LoadAnnotations", "with_bbox": True}] if training else []),
        {"type": "Resize", "scale": schedule.image_size, "keep_ratio": schedule.keep_ratio},
    ]
    finish: list[dict[str, Any]] = []
    if training and schedule.flip:
        finish.append({"type": "RandomFlip", "prob": 0.5})
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "unreadable")
    flipped = ("flip", "flip_direction") if training and schedule.flip else ()
    finish.append({"type": "PackDetInputs", "meta_keys": keys + flipped})
    return {
        "type": "TrialDataset",
        "ann_file": str(files.annotations),
        "data_prefix": {"img": str(files.images)},
        "metainfo": {"classes": tuple(data.classes)},
        "test_mode": not training,
        "filter_cfg": {"filter_empty_gt": True} if training else None,
        "prepare": prepare,
        "pipeline": finish,
        "cache": schedule.cache_images and training,
        # Serialising shares memory with loader processes; without those it only costs time.
        "serialize_data": schedule.workers > 0,
    }


def read_mmdet_config(path: Any) -> dict[str, Any]:
    """The `model` of an mmdet config file. A Python config is code, and is run.

    Raises:
        BadConfig: mmengine cannot read it, or it has no `model`.
    """
    from mmengine.config import Config

    try:
        config = Config.fromfile(path)
    except Exception as error:
        raise BadConfig(f"mmengine cannot read {path}: {error}") from error
    if "model" not in config:
        raise BadConfig(f"{path} has no `model`; expected the config of an mmdet detector.")
    model: dict[str, Any] = config.model.to_dict()
    return model
