"""Where a search starts and how wide, as settings have it."""

from typing import Any

import pytest

from paploss.errors import BadConfig
from paploss.strict import parse
from trainers.config import TaskConfig
from trainers.warm_start import WarmStart

TWO = {"type": "parameterized_ap", "segments": 2}
CURVES = ("H2", "I2", "I3", "I1", "H1")
HALF: dict[str, Any] = {
    "type": "parameterized_ap",
    "control_points": {name: [[0, 0], [0.5, 0.5], [1, 1]] for name in CURVES},
}


def task_from(task: TaskConfig, start: Any, criterion: Any = TWO) -> TaskConfig:
    values = {**task.model_dump(mode="json"), "criterion": criterion, "warm_start": start}
    return parse(TaskConfig, values, "search.yaml")


def test_a_criterion_alone_leaves_the_spread_to_the_algorithm(task: TaskConfig) -> None:
    found = task_from(task, HALF)
    assert found.warm_start == WarmStart(criterion=HALF)
    assert found.spread is None and found.start == (0.5,) * 11


@pytest.mark.parametrize("start", [{**HALF, "spread": 0.1}, {"criterion": HALF, "spread": 0.1}])
def test_one_spread_is_for_every_coordinate(task: TaskConfig, start: Any) -> None:
    found = task_from(task, start)
    assert found.spread == (0.1,) * 11
    assert found.warm_start is not None and found.warm_start.criterion == HALF


def test_each_coordinate_may_have_a_spread(task: TaskConfig) -> None:
    spread = tuple((k + 1) / 100 for k in range(11))
    found = task_from(task, {"criterion": HALF, "spread": list(spread), "source": "mine, best"})
    assert found.spread == spread and found.start_label == "start: mine, best"
    again = parse(TaskConfig, found.model_dump(mode="json"), "config.yaml")
    assert again == found


def test_heads_share_one_spread(task: TaskConfig) -> None:
    by_head = {"rpn": TWO, "rcnn": TWO}
    found = task_from(task, {"rpn": HALF, "rcnn": HALF, "spread": 0.07}, by_head)
    assert found.spread == (0.07,) * 22


@pytest.mark.parametrize(
    ("spread", "said"),
    [
        (0, "got 0; expected a number above 0 and at most 1"),
        (1.5, "got 1.5; expected a number above 0 and at most 1"),
        ("wide", "got 'wide'; expected a number above 0"),
        ([], "expected a number above 0"),
        ([0.1, float("nan")], "expected a number above 0"),
        ([0.1, 0.1], "2 spreads for 11 coordinates; expected one for each"),
    ],
    ids=str,
)
def test_spreads_that_cannot_be(task: TaskConfig, spread: Any, said: str) -> None:
    with pytest.raises(BadConfig) as error:
        task_from(task, {"criterion": HALF, "spread": spread})
    assert said in str(error.value)


def test_an_unknown_key_is_an_error(task: TaskConfig) -> None:
    with pytest.raises(BadConfig, match=r"warm_start\.spred: unknown key; did you mean 'spread'"):
        task_from(task, {"criterion": HALF, "spred": 0.1})
