"""A trial, or a training in full, in mmengine: build, prove, train, score."""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from mmdet.utils import register_all_modules
from mmengine.dist import get_world_size
from mmengine.hooks import Hook

from paploss.errors import BadConfig
from trainers.coco_eval import DETECTIONS
from trainers.distributed import ALONE, Worker, joined, told_by_all
from trainers.early_stop import EarlyStop
from trainers.mmdet.config import check_paramwise
from trainers.mmdet.dataset import read_skipped
from trainers.mmdet.evaluation import score
from trainers.mmdet.hooks import (
    CollapseHook,
    EpochLines,
    ScoreEpochs,
    ScorePartWay,
    log_metrics,
)
from trainers.mmdet.models import build_model
from trainers.mmdet.probe import ThetaNotApplied, prove_theta, prove_theta_together
from trainers.mmdet.runner import SKIPPED, build_dataset, build_runner, detector_of
from trainers.mmdet.weights import check_weights
from trainers.reward import reward_of, weights_of
from trainers.trial import Diverged, Stopped, TrialResult, TrialSpec


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


def train_and_score(
    spec: TrialSpec,
    folder: Path,
    progress: Callable[[], None],
    worker: Worker = ALONE,
    watch: Sequence[Hook] = (),
) -> TrialResult:
    """`trainers.trial.run_trial` without its net for exceptions.

    Args:
        watch: more that looks on while the detector trains.
    """
    torch.set_num_threads(spec.threads)
    timing: dict[str, float] = {}
    with _timed(timing, "setup"):
        spec = spec.reduced()
    hook, early = CollapseHook(progress), None
    if spec.early_stop is not None:
        measure = partial(score_early, spec, spec.early_stop, folder, progress, timing)
        early = ScorePartWay(spec.early_stop, measure)
    status: Literal["ok", "diverged", "stopped"] = "ok"
    reward: float | None = None
    skipped = folder / worker.own(SKIPPED)
    skipped.unlink(missing_ok=True)  # of an earlier attempt
    fingerprint, error = None, None
    scores: dict[str, dict[str, float]] = {}
    try:
        with joined(worker, spec.device):
            with _timed(timing, "setup"):
                hooks = [hook, *watch] if early is None else [hook, early, *watch]
                runner = build_runner(spec, folder, hooks)
                progress()
                fingerprint = prove_theta_together(detector_of(runner), spec)
            with _timed(timing, "train"):
                runner.train()
            with _timed(timing, "evaluate"):
                for split in spec.evaluate:
                    kept = spec.keep_detections and split == "test"
                    keep = folder / DETECTIONS if kept else None
                    metrics = _measure(runner, spec, split, folder, progress, keep)
                    if metrics is not None:
                        scores[split] = metrics
            reward = _reward(scores, "val", spec)
    except Diverged as end:
        status, reward, error = "diverged", 0.0, str(end)
    except Stopped as end:
        status, reward, error = "stopped", end.reward, str(end)
    if "early" in timing:
        timing["train"] -= timing["early"]
    return TrialResult(
        status=status,
        reward=reward,
        test_reward=_reward(scores, "test", spec),
        early=None if early is None else early.score,
        **scores,
        fingerprint=fingerprint,
        iterations=hook.iterations,
        timing=timing,
        skipped_images=read_skipped(skipped),
        error=error,
    )


def _reward(scores: dict[str, dict[str, float]], split: str, spec: TrialSpec) -> float | None:
    """None for a split that was not scored, or that another worker has the scores of."""
    return reward_of(scores[split], spec.reward) if split in scores else None


def score_early(
    spec: TrialSpec,
    rule: EarlyStop,
    folder: Path,
    progress: Callable[[], None],
    timing: dict[str, float],
    runner: Any,
) -> float | None:
    """The reward on the first images of val, told to all workers; None if it is not defined there.

    A few images may lack what the reward is about, large objects say, which all of val has.
    """
    with _timed(timing, "early"):
        metrics = _measure(runner, spec, "val", folder, progress, most=rule.images) or {}
        known = all(name in metrics for name in weights_of(spec.reward))
        told = told_by_all(reward_of(metrics, spec.reward) if known else None)
    score: float | None = told[0]
    return score


def _measure(
    runner: Any,
    spec: TrialSpec,
    split: str,
    folder: Path,
    progress: Callable[[], None] | None = None,
    keep: Path | None = None,
    most: int | None = None,
) -> dict[str, float] | None:
    """`score` with the worker's share of a batch, which is what its device can take."""
    size = get_world_size()
    dataset = build_dataset(spec, split, folder, most)
    batch = spec.schedule.on(size).batch_size // size
    return score(detector_of(runner), dataset, batch, spec.schedule.workers, progress, keep)


def train_in_full(
    spec: TrialSpec,
    folder: Path,
    *,
    say: Callable[[str], None],
    worker: Worker = ALONE,
    resume: bool = False,
    evaluate_every: int = 0,
) -> dict[str, Any] | None:
    """Train with all workers, checkpoints, mmengine's log and TensorBoard's events; then score.

    Args:
        say: shows a line.
        evaluate_every: epochs between scores on the search validation split; 0: none.

    Returns:
        Metrics of the held-out splits by name, the fingerprint, and the images that could not be
        read; None in workers other than the first.

    Raises:
        BadConfig: the detector cannot be built, starts from weights that are not to be had, or
            does not train on its criterion.
        Diverged: the loss has collapsed.
    """
    spec = spec.reduced()
    skipped = folder / worker.own(SKIPPED)
    if worker.first:
        check_weights(spec.detector)
    if not resume:
        skipped.unlink(missing_ok=True)
    with joined(worker, spec.device):
        runner = build_runner(spec, folder, [], resume=resume, **_kept_in(folder))
        for hook in (CollapseHook(lambda: None), EpochLines(say)):
            runner.register_hook(hook)
        if evaluate_every:
            measure = partial(_measure, runner, spec, "val", folder)
            runner.register_hook(ScoreEpochs(evaluate_every, measure, say))
        try:
            fingerprint = prove_theta_together(detector_of(runner), spec)
        except ThetaNotApplied as error:
            raise BadConfig(f"detector {spec.detector.name}: {error}") from error
        say(f"the criterion reaches the head (probe passed, fingerprint {fingerprint})")
        runner.train()
        scores = {split: _measure(runner, spec, split, folder) for split in spec.evaluate}
        unread = told_by_all(read_skipped(skipped))
    if not worker.first:
        return None
    for split, metrics in scores.items():
        log_metrics(runner, split, metrics or {})
    runner.visualizer.close()
    skipped_images = {image: why for own in unread for image, why in own.items()}
    return {**scores, "fingerprint": fingerprint, "skipped_images": skipped_images}


def _kept_in(folder: Path) -> dict[str, Any]:
    """Settings of a runner whose training is kept: checkpoints, and events for TensorBoard."""
    events = {"type": "TensorboardVisBackend", "save_dir": str(folder / "tensorboard")}
    return {
        "default_hooks": {
            "checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 2}
        },
        "visualizer": {"type": "Visualizer", "vis_backends": [events]},
    }


def check_task(spec: TrialSpec) -> None:
    """Build the model of `spec` and send the probe batch through it, without data.

    Raises:
        BadConfig: mmengine cannot build it, its pretrained weights are not to be had, or its
            schedule names parameters that it has not.
        ThetaNotApplied: its head does not train on theta.
    """
    model = build_model(spec.detector, spec.criterion_settings, len(spec.data.classes))
    check_paramwise(spec.schedule, model)
    prove_theta(model, spec)
    check_weights(spec.detector)


@contextlib.contextmanager
def _timed(timing: dict[str, float], part: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        timing[part] = timing.get(part, 0.0) + time.perf_counter() - begin
