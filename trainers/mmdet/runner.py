"""mmengine's runner for one training, in one process or in one of several."""

import time
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.dist import get_rank, get_world_size, is_distributed
from mmengine.hooks import SyncBuffersHook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import Runner, set_random_seed
from torch import nn

from trainers.distributed import Worker
from trainers.mmdet.config import (
    check_paramwise,
    dataset_settings,
    has_mask_head,
    learning_rate_settings,
    optimizer_settings,
)
from trainers.mmdet.hooks import EndEpochs
from trainers.mmdet.models import build_model, criterion_heads
from trainers.mmdet.weights import with_urls
from trainers.trial import TrialSpec

SKIPPED = "skipped.jsonl"
"""In a training's folder: the images that could not be read, a file a worker (`skipped_file`)."""


def skipped_file(folder: Path) -> Path:
    """This worker's own: appending to one file from several machines garbles it."""
    return folder / Worker(get_rank(), get_world_size()).own(SKIPPED)


class DetectorRunner(Runner):
    """Leaves the model on the device that it is on; mmengine's own takes any GPU that it finds."""

    def wrap_model(self, model_wrapper_cfg: Any, model: nn.Module) -> nn.Module:
        device = next(model.parameters()).device
        if not self.distributed or device.type == "cpu":
            # Alone there is nothing to synchronise, and on CPUs torch cannot.
            model = revert_sync_batchnorm(model)
        if not self.distributed:
            return model
        return MMDistributedDataParallel(
            model,
            device_ids=None if device.type == "cpu" else [device.index],
            broadcast_buffers=False,
            # A parameter without a gradient is a fault of the detector, and an error here.
            find_unused_parameters=False,
        )


def build_runner(spec: TrialSpec, folder: Path, hooks: list[Any], **settings: Any) -> Runner:
    """A runner that trains `spec`, a `reduced` one, on this worker.

    `settings` go to `Runner` on top.

    Raises:
        BadConfig: mmengine cannot build it, or the schedule does not fit the detector.
    """
    workers = get_world_size()
    schedule = spec.schedule.on(workers)
    # Before the model is built, so that its initial weights depend on the seed alone.
    set_random_seed(spec.seed)
    model = build_model(with_urls(spec.detector), spec.criterion_settings, len(spec.data.classes))
    check_paramwise(schedule, model)
    if schedule.gather_logits:
        for _, _, head in criterion_heads(model):
            head.gather_logits()
    dataset = build_dataset(spec, "train", folder)
    iterations = schedule.epochs * -(-len(dataset) // schedule.batch_size)
    # Images of one shape are batched together, as mmdet does, where shapes are kept.
    by_ratio = {"batch_sampler": {"type": "AspectRatioBatchSampler"}} if schedule.keep_ratio else {}
    # Workers see other images: what they count, such as a norm's statistics, is averaged.
    agree = [SyncBuffersHook()] if workers > 1 else []
    return DetectorRunner(
        model=model.to(spec.device),
        work_dir=str(folder),
        train_dataloader={
            "dataset": dataset,
            "batch_size": schedule.batch_size // workers,
            "num_workers": schedule.workers,
            "persistent_workers": schedule.workers > 0,
            "sampler": {"type": "DefaultSampler", "shuffle": True, "seed": spec.seed},
            "collate_fn": {"type": "pseudo_collate"},
            **by_ratio,
        },
        train_cfg={"by_epoch": True, "max_epochs": schedule.epochs, "val_interval": 10**9},
        optim_wrapper=optimizer_settings(schedule),
        param_scheduler=learning_rate_settings(schedule, iterations) or None,
        custom_hooks=[*agree, EndEpochs(), *hooks],
        randomness={"seed": spec.seed, "diff_rank_seed": workers > 1},
        launcher="pytorch" if is_distributed() else "none",
        default_scope="mmdet",
        experiment_name=f"{folder.name}_{time.time_ns()}",
        **{"default_hooks": {"checkpoint": None}, "log_level": "INFO", **settings},
    )


def build_dataset(spec: TrialSpec, split: str, folder: Path, most: int | None = None) -> Any:
    """The `TrialDataset` of one split, as the detector of `spec` needs it.

    Args:
        spec: a `reduced` one.
        most: use at most so many of its images.
    """
    masks = has_mask_head(spec.detector.model)
    settings = dataset_settings(spec.data, split, spec.schedule, masks)
    settings["part"] = 1.0 if spec.fidelity is None else spec.fidelity.part(split)
    return DATASETS.build({**settings, "most": most, "skipped": str(skipped_file(folder))})


def detector_of(runner: Runner) -> Any:
    """The runner's model without what keeps workers in step."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
