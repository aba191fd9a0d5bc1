"""The collapse rule, one iteration at a time; and the end of an epoch."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.runner import get_priority
from torch import nn

from loss import FocalGIoU, GatheredCriterion
from trainers.mmdet.hooks import CollapseHook, EndEpochs, ScoreEpochs
from trainers.trial import Diverged


def train(hook: CollapseHook, losses: list[Any]) -> None:
    """Calls the hook as mmengine does: the runner counts an iteration after its hooks.

    Each of `losses` is one head's, or {name: loss} of several.
    """
    runner = SimpleNamespace(iter=0)
    for loss in losses:
        named = loss if isinstance(loss, dict) else {"loss_pap": loss}
        outputs = {"loss": sum(named.values()), **named, "acc": 1.0}
        tensors = {name: torch.tensor(value) for name, value in outputs.items()}
        hook.after_train_iter(runner, runner.iter, None, tensors)
        runner.iter += 1
    hook.after_train(runner)


def hook() -> CollapseHook:
    return CollapseHook(lambda: None)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.0, 1 - 5e-7, 1 + 5e-7])
def test_more_than_fifty_collapsed_iterations_end_a_training(bad: float) -> None:
    train(hook(), [*[bad] * 50, 0.5])
    with pytest.raises(Diverged, match=r"^loss_pap was .* on 51 of 51 iterations"):
        train(hook(), [*[bad] * 51, 0.5])


def test_they_need_not_follow_each_other() -> None:
    with pytest.raises(Diverged, match="on 51 of 101 iterations"):
        train(hook(), [1.0, 0.5] * 60)
    train(hook(), [1.0, 0.5] * 50)


@pytest.mark.parametrize("good", [1 - 2e-6, 1 + 2e-6, 0.0, 2.0])
def test_other_losses_do_not_count(good: float) -> None:
    train(hook(), [good] * 60)


@pytest.mark.parametrize("stuck", ["rpn_loss_pap", "d3.loss_pap", "s0.loss_pap"])
def test_every_head_is_judged_by_itself(stuck: str) -> None:
    """The sum of two heads that are stuck is 2, and of one of them anything."""
    with pytest.raises(Diverged, match=rf"^{stuck} was .* on 51 of 51 iterations"):
        train(hook(), [{"loss_pap": 0.5, stuck: 1.0}] * 60)
    with pytest.raises(Diverged, match="on 51 of 51 iterations"):
        train(hook(), [{"loss_pap": 1.0, stuck: 1.0}] * 60)
    # Half of the time each is not more than 50 times either of them.
    turns = [{"loss_pap": 1.0, stuck: 0.5}, {"loss_pap": 0.5, stuck: 1.0}]
    train(hook(), [turn for turn in turns for _ in range(50)])


@pytest.mark.parametrize("last", [math.nan, math.inf])
def test_a_short_training_may_not_end_with_nan(last: float) -> None:
    with pytest.raises(Diverged, match="on the last of 3 iterations"):
        train(hook(), [0.5, 0.5, last])


def test_progress_is_told_at_every_iteration() -> None:
    calls: list[None] = []
    train(CollapseHook(lambda: calls.append(None)), [0.5] * 3)
    assert len(calls) == 3


class Counts(FocalGIoU):
    """Counts its epochs."""

    epochs = 0

    def end_epoch(self) -> None:
        self.epochs += 1


def test_every_criterion_hears_of_the_end_of_an_epoch_once() -> None:
    one, other, inside = Counts(), Counts(), Counts()
    head = nn.ModuleDict({"criterion": one, "gathered": GatheredCriterion(inside)})
    model = nn.ModuleDict({"head": head, "other": other})
    EndEpochs().after_train_epoch(SimpleNamespace(model=model))
    assert (one.epochs, other.epochs, inside.epochs) == (1, 1, 1)


def test_scores_in_between_change_nothing_that_is_drawn() -> None:
    """Every second epoch, but for the last, which is scored in the end."""
    shown: dict[int, Any] = {}
    visualizer = SimpleNamespace(add_scalars=lambda values, step: shown.__setitem__(step, values))
    said: list[str] = []

    def measure() -> dict[str, float]:
        torch.rand(3)
        return {"AP": 0.25, "oLRP": 0.5}

    hook = ScoreEpochs(2, measure, said.append)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    for epoch in range(6):
        runner = SimpleNamespace(
            epoch=epoch, max_epochs=6, iter=10 * (epoch + 1), visualizer=visualizer
        )
        hook.after_train_epoch(runner)
    assert said == ["epoch 2/6  val AP 0.2500", "epoch 4/6  val AP 0.2500"]
    assert shown == {step: {"val/AP": 0.25, "val/oLRP": 0.5} for step in (20, 40)}
    assert torch.equal(torch.rand(2), expected)


def test_workers_that_have_no_scores_say_nothing() -> None:
    """Only the first has them: what a runner shows them with is not even asked for."""
    said: list[str] = []
    ScoreEpochs(1, lambda: None, said.append).after_train_epoch(
        SimpleNamespace(epoch=0, max_epochs=2)
    )
    assert said == []


def test_they_come_after_the_checkpoint() -> None:
    assert get_priority(ScoreEpochs.priority) > get_priority(CheckpointHook.priority)


def test_it_hears_of_it_before_the_checkpoint_is_written() -> None:
    """Lower numbers come first."""
    assert get_priority(EndEpochs.priority) < get_priority(CheckpointHook.priority)
