"""What a trial watches while mmengine trains it."""

import math
import time
from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook

from loss import Criterion
from trainers.trial import Diverged


class EpochLines(Hook):
    """Says one line an epoch."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._losses: list[float] = []
        self._begun = time.monotonic()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._losses.append(outputs["loss"].item())

    def after_train_epoch(self, runner: Any) -> None:
        loss = sum(self._losses) / len(self._losses)
        self._losses.clear()
        minutes = (time.monotonic() - self._begun) / 60
        self._say(
            f"epoch {runner.epoch + 1}/{runner.max_epochs}  mean loss {loss:.4f}  {minutes:.1f} min"
        )


class EndEpochs(Hook):
    """Tells every criterion in the model when an epoch of training has ended."""

    # Before the checkpoint is written, which has to carry what the criteria made of the epoch.
    priority = "NORMAL"

    def after_train_epoch(self, runner: Any) -> None:
        for module in runner.model.modules():
            if isinstance(module, Criterion):
                module.end_epoch()


COLLAPSE_ITERATIONS = 50
"""More collapsed iterations than this end a trial, as in the released code of the paper."""


class CollapseHook(Hook):
    """Ends a training whose loss is NaN, or stuck at 1.

    A loss within 1e-6 of 1 has no gradient left to leave it: every positive is ranked last, or
    counts for nothing.

    Attributes:
        iterations: that were trained.
        collapsed: those of them with such a loss.
        last: the last loss.
    """

    priority = "VERY_LOW"

    def __init__(self, progress: Callable[[], None]) -> None:
        self.progress = progress
        self.iterations = 0
        self.collapsed = 0
        self.last = 0.0

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.progress()
        self.iterations += 1
        self.last = outputs["loss"].item()
        self.collapsed += not math.isfinite(self.last) or abs(self.last - 1) < 1e-6
        if self.collapsed > COLLAPSE_ITERATIONS:
            raise Diverged(
                f"the loss was NaN or within 1e-6 of 1 on {self.collapsed} of "
                f"{runner.iter + 1} iterations"
            )

    def after_train(self, runner: Any) -> None:
        # A short trial may end before the rule counts far enough.
        if not math.isfinite(self.last):
            raise Diverged(f"the loss was {self.last} on the last of {runner.iter} iterations")
