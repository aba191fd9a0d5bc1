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
from trainers.early_stop import EarlyStop
from trainers.mmdet.hooks import CollapseHook, EndEpochs, ScoreEpochs, ScorePartWay
from trainers.trial import Diverged, Stopped


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

    hook, model = ScoreEpochs(2, measure, said.append), nn.Linear(1, 1)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    for epoch in range(6):
        runner = SimpleNamespace(
            epoch=epoch, max_epochs=6, iter=10 * (epoch + 1), visualizer=visualizer, model=model
        )
        hook.after_train_epoch(runner)
    assert said == ["epoch 2/6  val AP 0.2500", "epoch 4/6  val AP 0.2500"]
    assert shown == {step: {"val/AP": 0.25, "val/oLRP": 0.5} for step in (20, 40)}
    assert torch.equal(torch.rand(2), expected)


def test_workers_that_have_no_scores_say_nothing() -> None:
    """Only the first has them: what a runner shows them with is not even asked for."""
    said: list[str] = []
    ScoreEpochs(1, lambda: None, said.append).after_train_epoch(
        SimpleNamespace(epoch=0, max_epochs=2, model=nn.Linear(1, 1))
    )
    assert said == []


def look(below: float | None, score: float | None, model: nn.Module) -> ScorePartWay:
    """Four iterations of a training that is looked at after two of them."""
    seen: list[int] = []

    def measure(runner: Any) -> float | None:
        seen.append(runner.iter)
        model.eval()
        torch.rand(3)
        return score

    hook = ScorePartWay(EarlyStop(at=0.5, images=20, below=below, reward=0.01), measure)
    for iteration in range(4):
        hook.after_train_iter(SimpleNamespace(iter=iteration, max_iters=4, model=model), iteration)
    assert seen == [1]
    return hook


def test_a_low_score_part_of_the_way_ends_a_training() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(
        Stopped, match=r"after 2 of 4 iterations: 0\.0200 on 20 .* below 0\.0300"
    ) as end:
        look(0.03, 0.02, model)
    assert end.value.reward == 0.01
    for below, score in ((0.03, 0.03), (0.03, None), (None, 0.0)):
        assert look(below, score, model).score == score


def test_a_look_leaves_modes_and_chance_as_they_were() -> None:
    """Also of a module that is not in training while the others are, as a frozen stage."""
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)).train()
    model[1].eval()
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    look(None, 0.5, model)
    assert torch.equal(torch.rand(2), expected)
    assert [module.training for module in model.modules()] == [True, True, False]


def test_weights_that_are_no_numbers_are_left_to_the_collapse_rule() -> None:
    model = nn.Linear(1, 1)
    model.weight.data.fill_(math.nan)
    hook = ScorePartWay(EarlyStop(at=0.5, images=20, below=0.03), lambda runner: 1 / 0)
    hook.after_train_iter(SimpleNamespace(iter=1, max_iters=4, model=model), 1)
    assert hook.score == 0
    assert get_priority(ScorePartWay.priority) > get_priority(CollapseHook.priority)


def test_they_come_after_the_checkpoint() -> None:
    assert get_priority(ScoreEpochs.priority) > get_priority(CheckpointHook.priority)


def test_it_hears_of_it_before_the_checkpoint_is_written() -> None:
    """Lower numbers come first."""
    assert get_priority(EndEpochs.priority) < get_priority(CheckpointHook.priority)
