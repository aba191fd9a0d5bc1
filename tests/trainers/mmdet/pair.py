"""What each of two processes that gloo has joined does for test_data_parallel.py."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch.nn.modules.batchnorm import _BatchNorm

from trainers.mmdet.evaluation import score
from trainers.mmdet.probe import prove_theta_together
from trainers.mmdet.runner import build_runner, detector_of
from trainers.mmdet.training import build_dataset, train_and_score
from trainers.trial import TrialSpec


def step(spec: TrialSpec, folder: Path, images: list[int]) -> dict[str, Any]:
    """One step on these training images: losses, gradients after averaging, and the fingerprint."""
    runner = build_runner(spec, folder, [])
    detector = detector_of(runner)
    fingerprint = prove_theta_together(detector, spec)
    runner.model.train()
    for module in detector.modules():
        # Its statistics are a worker's own, as in all data-parallel training.
        if isinstance(module, _BatchNorm):
            module.eval()
    dataset = runner.train_dataloader.dataset
    data = detector.data_preprocessor(pseudo_collate([dataset[k] for k in images]), True)
    total, losses = detector.parse_losses(runner.model(**data, mode="loss"))
    total.backward()
    gradients = {
        name: parameter.grad.numpy() for name, parameter in detector.named_parameters()
        if parameter.requires_grad
    }  # fmt: skip
    losses = {name: value.item() for name, value in losses.items() if "loss" in name}
    return {"losses": losses, "gradients": gradients, "fingerprint": fingerprint}


def scored(spec: TrialSpec, folder: Path, batch_size: int, keep: Path) -> dict[str, float] | None:
    """The scores of an untrained detector."""
    runner = build_runner(spec, folder, [])
    detector = detector_of(runner)
    with torch.no_grad():
        detector.bbox_head.retina_cls.bias.fill_(0)  # it would find next to nothing
    return score(detector, build_dataset(spec, "val", folder), batch_size, keep=keep)


def trial_of(spec: TrialSpec, folder: Path) -> dict[str, Any]:
    """A trial that both train, as each of them tells of it."""
    return train_and_score(spec, folder, lambda: None).model_dump()


def fingerprints_of(spec: TrialSpec, folder: Path) -> str:
    return prove_theta_together(detector_of(build_runner(spec, folder, [])), spec)


def equal_to(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> bool:
    """Whether all entries are equal up to `tolerance` of the largest in their array."""
    assert found.keys() == expected.keys()
    return all(
        np.abs(found[name] - value).max() <= tolerance * max(np.abs(value).max(), 1e-8)
        for name, value in expected.items()
    )
