"""What a trial watches while mmengine trains it."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from torch import nn

from loss import Criterion, GatheredCriterion
from trainers.early_stop import EarlyStop
from trainers.trial import Diverged, Stopped


class EpochLines(Hook):
    """Says one line an epoch, with the mean loss of all workers."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._losses: list[float] = []
        self._begun = time.monotonic()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._losses.append(outputs["loss"].item())

    def after_train_epoch(self, runner: Any) -> None:
        loss = torch.tensor(sum(self._losses) / len(self._losses))
        all_reduce(loss, op="mean")
        self._losses.clear()
        minutes = (time.monotonic() - self._begun) / 60
        self._say(
            f"epoch {runner.epoch + 1}/{runner.max_epochs}  mean loss {loss:.4f}  {minutes:.1f} min"
        )


class ScoreEpochs(Hook):
    """Scores the detector after every so many epochs, each worker a share of the images.

    The last epoch is left to whoever scores in the end.

    Args:
        measure: metrics by name, AP among them where there is one; None in workers other than the
            first.
    """

    # After the checkpoint is written.
    priority = "LOWEST"

    def __init__(
        self,
        every: int,
        measure: Callable[[], dict[str, float] | None],
        say: Callable[[str], None],
    ) -> None:
        self._every = every
        self._measure = measure
        self._say = say

    def after_train_epoch(self, runner: Any) -> None:
        epoch = runner.epoch + 1
        if epoch % self._every or epoch == runner.max_epochs:
            return
        with undisturbed(runner.model):
            metrics = self._measure()
        if metrics is None:
            return
        log_metrics(runner, "val", metrics)
        self._say(f"epoch {epoch}/{runner.max_epochs}  val AP {metrics.get('AP', math.nan):.4f}")


class ScorePartWay(Hook):
    """Scores the detector once, on a few images part of the way, and ends a trial that is hopeless.

    All workers call `measure` together, are told the same score and end together.

    Args:
        measure: takes the runner; the score in every worker, or None where it is not defined.

    Attributes:
        score: what was measured; None before that.
    """

    # After the collapse rule, which ends the trials that are its own.
    priority = "LOWEST"

    def __init__(self, rule: EarlyStop, measure: Callable[[Any], float | None]) -> None:
        self._rule = rule
        self._measure = measure
        self.score: float | None = None

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        trained = runner.iter + 1
        if trained != self._rule.iteration(runner.max_iters):
            return
        if not _is_finite(runner.model):
            # It finds nothing any more, and the collapse rule is about to end it.
            self.score = 0.0
            return
        with undisturbed(runner.model):
            self.score = self._measure(runner)
        below, score = self._rule.below, self.score
        if below is not None and score is not None and score < below:
            raise Stopped(
                f"stopped after {trained} of {runner.max_iters} iterations: {score:.4f} on "
                f"{self._rule.images} images of val is below {below:.4f}",
                self._rule.reward,
            )


def _is_finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(weights).all()) for weights in model.parameters())


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Lets a model be scored in the middle of its training, which then goes on as without.

    What scoring changes is the mode of the modules, which decides on batch norms' statistics, and
    a number that each data loader draws.
    """
    training = [(module, module.training) for module in model.modules()]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, was in training:
            module.training = was


def log_metrics(runner: Any, split: str, metrics: Mapping[str, float]) -> None:
    """Put metrics beside the losses in TensorBoard, under the split's name."""
    values = {f"{split}/{name}": value for name, value in metrics.items()}
    runner.visualizer.add_scalars(values, step=runner.iter)


class EndEpochs(Hook):
    """Tells every criterion in the model when an epoch of training has ended."""

    # Before the checkpoint is written, which has to carry what the criteria made of the epoch.
    priority = "NORMAL"

    def after_train_epoch(self, runner: Any) -> None:
        for module in runner.model.modules():
            # One that is gathered passes it on to the criterion inside.
            if isinstance(module, Criterion) and not isinstance(module, GatheredCriterion):
                module.end_epoch()


COLLAPSE_ITERATIONS = 50
"""More collapsed iterations than this end a trial, as in the released code of the paper."""


class CollapseHook(Hook):
    """Ends a training with a loss that is NaN, or stuck at 1.

    A loss within 1e-6 of 1 has no gradient left to leave it: every positive is ranked last, or
    counts for nothing. Each head's losses are judged by themselves, under the names that they are
    logged by, and of several workers the mean: all of them end together.

    Attributes:
        iterations: that were trained.
        collapsed: how many of them each loss was such a loss on.
        last: the last sum of all losses.
    """

    priority = "VERY_LOW"

    def __init__(self, progress: Callable[[], None]) -> None:
        self.progress = progress
        self.iterations = 0
        self.collapsed: Counter[str] = Counter()
        self.last = 0.0

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.progress()
        self.iterations += 1
        losses = _means_of_workers(outputs)
        self.last = losses["loss"]
        self.collapsed.update(
            name
            for name, value in losses.items()
            if not math.isfinite(value) or abs(value - 1) < 1e-6
        )
        for name, count in self.collapsed.items():
            if count > COLLAPSE_ITERATIONS:
                raise Diverged(
                    f"{name} was NaN or within 1e-6 of 1 on {count} of {runner.iter + 1} iterations"
                )

    def after_train(self, runner: Any) -> None:
        # A short trial may end before the rule counts far enough.
        if not math.isfinite(self.last):
            raise Diverged(f"the loss was {self.last} on the last of {runner.iter} iterations")


def _means_of_workers(outputs: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """What mmengine logs, losses only: the heads' by name, and "loss", their sum, last."""
    names = [name for name in outputs if "loss" in name and name != "loss"] + ["loss"]
    # In one tensor, so that a GPU is waited for once.
    values = torch.stack([outputs[name].detach().double() for name in names])
    all_reduce(values, op="mean")
    return dict(zip(names, values.tolist(), strict=True))
