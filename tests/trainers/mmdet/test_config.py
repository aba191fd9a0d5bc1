"""From settings to mmengine's parts: built for real, and asked what they do."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

from paploss.configs import config_folder
from paploss.errors import BadConfig
from paploss.files import read_yaml
from trainers.config import DetectorConfig, ScheduleConfig
from trainers.mmdet.config import (
    build_model,
    dataset_settings,
    learning_rate_settings,
    model_settings,
    optimizer_settings,
    read_mmdet_config,
)
from trainers.mmdet.training import build_dataset
from trainers.trial import TrialSpec

DETECTORS = sorted((config_folder() / "detectors").glob("*.yaml"))
PAP = {"type": "parameterized_ap"}


@pytest.mark.parametrize("path", DETECTORS, ids=lambda path: path.stem)
def test_every_shipped_detector_builds(path: Path) -> None:
    model = build_model(DetectorConfig(**read_yaml(path)), PAP, 7)
    assert model.bbox_head.num_classes == model.bbox_head.cls_out_channels == 7


def test_the_detector_is_left_as_it_was(detector: DetectorConfig) -> None:
    before = copy.deepcopy(detector.model)
    model_settings(detector, PAP, 7)
    build_model(detector, PAP, 7)
    assert detector.model == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox_head": {"type": "FCOSHead"}}, "its head is FCOSHead; .*'RetinaHead'"),
        ({"bbox_head": None}, "no bbox_head"),
        ({"backbone": {"type": "ResNett"}}, "cannot build its model.*ResNett"),
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


def learning_rates(schedule: ScheduleConfig, iterations: int) -> list[float]:
    """The learning rate of every iteration of a run."""
    wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), optimizer_settings(schedule))
    schedulers = [
        PARAM_SCHEDULERS.build(settings, default_args={"optimizer": wrapper})
        for settings in learning_rate_settings(schedule, iterations)
    ]
    rates = []
    for _ in range(iterations):
        rates.append(wrapper.param_groups[0]["lr"])
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


def test_a_warm_up_rises_in_a_line() -> None:
    rates = learning_rates(ScheduleConfig(learning_rate=0.1, warmup_iterations=5), 10)
    assert rates[0] == pytest.approx(0.1 * 1e-3)
    steps = [b - a for a, b in itertools.pairwise(rates[:5])]
    assert steps == pytest.approx([steps[0]] * 4)
    assert rates[4:] == pytest.approx([0.1] * 6)


def test_a_cosine_falls_to_nothing() -> None:
    rates = learning_rates(
        ScheduleConfig(learning_rate=0.1, warmup_iterations=2, decay="cosine"), 102
    )
    assert max(rates) == pytest.approx(0.1)
    assert rates[52] == pytest.approx(0.05)
    assert rates[-1] < 0.1 * 1e-3
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_steps_divide_by_ten_at_their_epochs() -> None:
    schedule = ScheduleConfig(
        learning_rate=0.1, warmup_iterations=0, epochs=4, decay="step", steps=(2, 3)
    )
    expected = [0.1] * 6 + [0.01] * 3 + [0.001] * 3
    assert learning_rates(schedule, 12) == pytest.approx(expected)


@pytest.mark.parametrize("decay", ["constant", "cosine", "step"])
@pytest.mark.parametrize("iterations", [1, 4, 5, 6])
def test_a_run_may_be_shorter_than_its_warm_up(decay: Any, iterations: int) -> None:
    steps = (0.5,) if decay == "step" else ()
    schedule = ScheduleConfig(learning_rate=0.1, warmup_iterations=5, decay=decay, steps=steps)
    rates = learning_rates(schedule, iterations)
    assert all(0 < rate <= 0.1 + 1e-12 for rate in rates)


def test_optimizers_are_what_the_schedule_says() -> None:
    def build(**settings: Any) -> Any:
        return build_optim_wrapper(
            torch.nn.Linear(1, 1), optimizer_settings(ScheduleConfig(**settings))
        )

    sgd = build(optimizer="sgd", momentum=0.8, weight_decay=0.3, learning_rate=0.2)
    assert type(sgd.optimizer) is torch.optim.SGD
    assert {k: sgd.param_groups[0][k] for k in ("lr", "momentum", "weight_decay")} == {
        "lr": 0.2, "momentum": 0.8, "weight_decay": 0.3,
    }  # fmt: skip
    adamw = build(optimizer="adamw", weight_decay=0.3, learning_rate=0.2)
    assert type(adamw.optimizer) is torch.optim.AdamW
    assert adamw.param_groups[0]["weight_decay"] == 0.3
    assert build(clip_gradient=4.0).clip_grad_kwargs == {"max_norm": 4.0, "norm_type": 2}
    assert not build(clip_gradient=None).clip_grad_kwargs


@pytest.mark.parametrize("amp", [True, False])
def test_amp_runs_the_forward_pass_in_bfloat16(amp: bool) -> None:
    layer = torch.nn.Linear(4, 4)
    wrapper = build_optim_wrapper(layer, optimizer_settings(ScheduleConfig(amp=amp)))
    with wrapper.optim_context(layer):
        out = layer(torch.ones(1, 4))
    assert out.dtype == (torch.bfloat16 if amp else torch.float32)
    before = layer.weight.detach().clone()
    wrapper.update_params(out.float().sum())
    assert layer.weight.dtype == torch.float32
    assert (layer.weight != before).all()


@pytest.mark.usefixtures("mmdet_modules")
def test_only_training_shuffles_its_images_sides(
    make_spec: Callable[..., TrialSpec], tmp_path: Path
) -> None:
    spec = make_spec(schedule={"image_size": (96, 64)})
    for split in ("train", "val", "test"):
        dataset = build_dataset(spec, split, tmp_path)
        flips = {bool(dataset[0]["data_samples"].metainfo.get("flip")) for _ in range(40)}
        assert flips == ({True, False} if split == "train" else {False})
        assert dataset.test_mode == (split != "train")
        # 64 x 64 into 96 x 64 with its ratio kept.
        assert dataset[0]["inputs"].shape == (3, 64, 64)
    still = build_dataset(make_spec(schedule={"flip": False}), "train", tmp_path)
    assert not any(still[0]["data_samples"].metainfo.get("flip") for _ in range(20))


def test_images_may_be_stretched(make_spec: Callable[..., TrialSpec], tmp_path: Path) -> None:
    spec = make_spec(schedule={"image_size": (96, 64), "keep_ratio": False})
    for split in ("train", "val"):
        assert build_dataset(spec, split, tmp_path)[0]["inputs"].shape == (3, 64, 96)


def test_only_training_images_are_kept(shapes: Any) -> None:
    for cache in (True, False):
        schedule = ScheduleConfig(cache_images=cache)
        kept = [dataset_settings(shapes, s, schedule)["cache"] for s in ("train", "val", "test")]
        assert kept == [cache, False, False]


def test_a_config_of_mmdet_gives_its_model(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text("depth = 18\nmodel = dict(type='RetinaNet', backbone=dict(depth=depth))\n")
    assert read_mmdet_config(path) == {"type": "RetinaNet", "backbone": {"depth": 18}}


@pytest.mark.parametrize(
    ("text", "message"),
    [("lr = 0.1\n", "has no `model`"), ("model = dict(\n", "cannot read"), (None, "cannot read")],
)
def test_a_config_of_mmdet_without_a_model(tmp_path: Path, text: Any, message: str) -> None:
    path = tmp_path / "config.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadConfig, match=f"(?s){message}"):
        read_mmdet_config(path)
