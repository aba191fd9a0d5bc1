"""One trial in mmengine: build, prove, train, score."""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.runner import Runner, set_random_seed

from trainers.mmdet.config import (
    build_model,
    dataset_settings,
    learning_rate_settings,
    optimizer_settings,
)
from trainers.mmdet.dataset import read_skipped
from trainers.mmdet.evaluation import score
from trainers.mmdet.hooks import CollapseHook, EndEpochs, EpochLines
from trainers.mmdet.probe import prove_theta
from trainers.trial import Diverged, TrialResult, TrialSpec


def preload() -> None:
    """Import what mmengine imports on first use, so that forked trials find it there."""
    for name in (
        "matplotlib.backends.backend_agg",
        "torch.onnx",
        "torch.utils.cpp_extension",
        "yapf",
    ):
        importlib.import_module(name)
    register_all_modules()


def train_and_score(spec: TrialSpec, folder: Path, progress: Callable[[], None]) -> TrialResult:
    """`trainers.trial.run_trial` without its net for exceptions."""
    torch.set_num_threads(spec.threads)
    timing: dict[str, float] = {}
    hook = CollapseHook(progress)
    skipped = folder / "skipped.jsonl"
    skipped.unlink(missing_ok=True)  # of an earlier attempt
    fingerprint, error = None, None
    scores: dict[str, dict[str, float]] = {}
    try:
        with _timed(timing, "setup"):
            runner = build_runner(spec, folder, [hook])
            fingerprint = prove_theta(runner.model, spec)
        with _timed(timing, "train"):
            runner.train()
        with _timed(timing, "evaluate"):
            for split in spec.evaluate:
                dataset = build_dataset(spec, split, folder)
                scores[split] = score(runner.model, dataset, spec.schedule.batch_size, 0, progress)
    except Diverged as end:
        error = str(end)
    return TrialResult(
        status="diverged" if error else "ok",
        reward=0.0 if error else _reward(scores["val"]),
        **scores,
        fingerprint=fingerprint,
        iterations=hook.iterations,
        timing=timing,
        skipped_images=read_skipped(skipped),
        error=error,
    )


def train_in_full(
    spec: TrialSpec, folder: Path, *, resume: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Train with checkpoints and mmengine's log; metrics of both held-out splits by name.

    Raises:
        Diverged: the loss has collapsed.
    """
    hooks = {"checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 2}}
    skipped = folder / "skipped.jsonl"
    if not resume:
        skipped.unlink(missing_ok=True)
    watchers = [CollapseHook(lambda: None), EpochLines(say)]
    runner = build_runner(spec, folder, watchers, default_hooks=hooks, resume=resume)
    fingerprint = prove_theta(runner.model, spec)
    say(f"the criterion reaches the head (probe passed, fingerprint {fingerprint})")
    runner.train()
    scores = {
        split: score(runner.model, build_dataset(spec, split, folder), spec.schedule.batch_size)
        for split in spec.evaluate
    }
    return {**scores, "fingerprint": fingerprint, "skipped_images": read_skipped(skipped)}


def check_task(spec: TrialSpec) -> None:
    """Build the model of `spec` and send the probe batch through it, without data.

    Raises:
        BadConfig: mmengine cannot build it.
        ThetaNotApplied: its head does not train on theta.
    """
    model = build_model(spec.detector, spec.criterion_settings, len(spec.data.classes))
    prove_theta(model, spec)


def build_runner(spec: TrialSpec, folder: Path, hooks: list[Any], **settings: Any) -> Runner:
    """An mmengine runner that trains `spec`; `settings` go to `Runner` on top."""
    schedule = spec.schedule
    # Before the model is built, so that its initial weights depend on the seed alone.
    set_random_seed(spec.seed)
    model = build_model(spec.detector, spec.criterion_settings, len(spec.data.classes))
    dataset = build_dataset(spec, "train", folder)
    iterations = schedule.epochs * -(-len(dataset) // schedule.batch_size)
    return Runner(
        model=model.to(spec.device),
        work_dir=str(folder),
        train_dataloader={
            "dataset": dataset,
            "batch_size": schedule.batch_size,
            "num_workers": schedule.workers,
            "persistent_workers": schedule.workers > 0,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "collate_fn": {"type": "pseudo_collate"},
        },
        train_cfg={"by_epoch": True, "max_epochs": schedule.epochs, "val_interval": 10**9},
        optim_wrapper=optimizer_settings(schedule),
        param_scheduler=learning_rate_settings(schedule, iterations) or None,
        custom_hooks=[EndEpochs(), *hooks],
        randomness={"seed": spec.seed},
        default_scope="mmdet",
        experiment_name=f"{folder.name}_{time.time_ns()}",
        **{"default_hooks": {"checkpoint": None}, "log_level": "INFO", **settings},
    )


def build_dataset(spec: TrialSpec, split: str, folder: Path) -> Any:
    settings = dataset_settings(spec.data, split, spec.schedule)
    return DATASETS.build({**settings, "skipped": str(folder / "skipped.jsonl")})


def _reward(val: dict[str, float]) -> float:
    if "AP" not in val:
        raise ValueError(
            "the search validation split has no readable image with ground truth, so there is no "
            "AP; see skipped.jsonl in the trial's folder."
        )
    return val["AP"]


@contextlib.contextmanager
def _timed(timing: dict[str, float], part: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        timing[part] = time.perf_counter() - begin
