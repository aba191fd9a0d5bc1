"""What a trial trains, as users write it: what is taken and what is refused."""

from typing import Any

import pytest

from loss import CRITERIA
from paploss.configs import config_folder
from paploss.errors import BadConfig
from paploss.files import read_yaml
from paploss.strict import parse
from trainers.config import DetectorConfig, ScheduleConfig, TaskConfig, parameterization
from trainers.datasets.coco import DataConfig


@pytest.fixture
def values(detector: DetectorConfig, shapes: DataConfig) -> dict[str, Any]:
    """A task as YAML has it."""
    return {
        "detector": detector.model_dump(),
        "data": shapes.model_dump(mode="json"),
        "criterion": {"type": "parameterized_ap"},
    }


@pytest.mark.parametrize("path", sorted((config_folder() / "search").glob("*.yaml")), ids=str)
def test_schedules_of_shipped_searches(path: Any) -> None:
    shipped = read_yaml(path)
    for section in ("schedule", "training"):
        if section in shipped:
            parse(ScheduleConfig, shipped[section], str(path))
    parameterization(shipped["criterion"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 2}, "epoch: unknown key; did you mean 'epochs'?"),
        ({"colour": 2}, "colour: unknown key; known here: amp, batch_size, "),
        ({"epochs": 0}, "epochs: got 0; input should be greater than or equal to 1"),
        ({"epochs": "many"}, "epochs: got 'many'"),
        ({"learning_rate": 0}, "learning_rate: got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan"),
        ({"momentum": 1.0}, "momentum: got 1.0"),
        ({"optimizer": "adam"}, "optimizer: got 'adam'; input should be 'sgd' or 'adamw'"),
        ({"image_size": (512, 16)}, "image_size: got (512, 16); expected a width and a height"),
        ({"image_size": 512}, "image_size: got 512"),
        ({"decay": "step"}, "`steps` and `decay: step` go together"),
        ({"steps": (2, 3)}, "`steps` and `decay: step` go together"),
        ({"clip_gradient": 0}, "clip_gradient: got 0"),
    ],
    ids=str,
)
def test_a_schedule_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig) as error:
        parse(ScheduleConfig, settings, "search.yaml")
    assert str(error.value).startswith("search.yaml:\n")
    assert message in str(error.value)


def test_a_schedule_takes_what_yaml_gives() -> None:
    schedule = parse(
        ScheduleConfig,
        {"image_size": [96, 64], "decay": "step", "steps": [8, 11], "clip_gradient": None},
        "search.yaml",
    )
    assert schedule.image_size == (96, 64)
    assert schedule.steps == (8, 11)
    assert schedule.clip_gradient is None


def test_the_baseline_is_the_papers(values: dict[str, Any]) -> None:
    task = parse(TaskConfig, values, "search.yaml")
    assert task.baseline == {"type": "focal_giou", "giou_weight": 2.0}
    assert task.schedule.epochs == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"criterion": {"segments": 5}}, "criterion: got {'segments': 5}; expected a criterion"),
        ({"baseline": {"alpha": 1}}, "baseline: got {'alpha': 1}; expected a criterion"),
        (
            {"criterion": {"type": "focal"}},
            "criterion: got {'type': 'focal'}; unknown criterion 'focal'; known: alrp, ap, ",
        ),
        ({"criterion": {"type": "focal_giou"}}, "has no parameters to search"),
        ({"criterion": {"type": "parameterized_ap", "segments": 1}}, "segments is 1"),
        ({"criterion": {"type": "parameterized_ap", "segment": 5}}, "'segment'"),
        ({"criterion": {"type": "parameterized_ap", "localization": "ciou"}}, "'ciou'"),
        ({"schedule": {"epoch": 1}}, "schedule.epoch: unknown key; did you mean 'epochs'?"),
        ({"training": {"epoch": 1}}, "training.epoch: unknown key; did you mean 'epochs'?"),
        ({"detector": {"name": "x"}}, "detector.model: missing"),
        ({"datum": {}}, "datum: unknown key; did you mean 'data'?"),
    ],
    ids=str,
)
def test_a_task_that_cannot_be_searched(
    values: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadConfig) as error:
        parse(TaskConfig, values | changes, "search.yaml")
    assert message in str(error.value)
    assert len(str(error.value)) < 300, "of what is wrong, not of all that was given"


def test_a_task_cannot_be_changed(task: TaskConfig) -> None:
    with pytest.raises(ValueError, match="frozen"):
        task.schedule = ScheduleConfig()  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_every_criterion_has_a_family_or_says_that_it_has_none(name: str) -> None:
    if "parameterization" not in vars(CRITERIA[name]):
        with pytest.raises(ValueError, match="has no parameters to search"):
            parameterization({"type": name})
        return
    family = parameterization({"type": name})
    assert len(family.names) == len(family.start) == len(set(family.names)) > 0
    assert all(0 < value < 1 for value in family.start)
    assert family.settings(family.start)["type"] == name
