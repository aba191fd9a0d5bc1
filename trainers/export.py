"""From a searched theta to a training YAML that says everything about a training."""

from pathlib import Path
from typing import Any

from pydantic import Field

from paploss.files import read_yaml, write_yaml
from paploss.strict import StrictModel, override, parse
from trainers.config import DetectorConfig, ScheduleConfig, TaskConfig, parameterization
from trainers.datasets.coco import DataConfig

_HEADER = """The loss that a search found, with all that is needed to train a detector with it:
    paploss train {name}
"""


class TrainingConfig(StrictModel):
    """A training in full: detector, data, criterion, schedule, and where it came from."""

    detector: DetectorConfig
    data: DataConfig
    criterion: dict[str, Any]
    schedule: ScheduleConfig
    seed: int = Field(0, ge=0, lt=2**32)
    found_by: dict[str, Any] = Field(default_factory=dict, description="for the reader alone")


def training_config(
    task: TaskConfig, theta: Any, seed: int, found_by: dict[str, Any]
) -> TrainingConfig:
    """The training that `theta` stands for, on the task's full schedule."""
    return TrainingConfig(
        detector=task.detector,
        data=task.data,
        criterion=parameterization(task.criterion).settings(theta),
        schedule=task.training or task.schedule,
        seed=seed,
        found_by=found_by,
    )


def write_training_yaml(config: TrainingConfig, path: Path) -> None:
    write_yaml(path, config.model_dump(mode="json"), _HEADER.format(name=path.name))


def read_training_yaml(path: Path, overrides: dict[str, Any] | None = None) -> TrainingConfig:
    """A training YAML, with `overrides` ("schedule.epochs": 3) on top.

    Raises:
        BadConfig: a missing file, an unknown key or a value out of range.
    """
    values = override(read_yaml(path), overrides or {}, str(path))
    config = parse(TrainingConfig, values, str(path))
    return config.model_copy(update={"data": config.data.anchored(path.absolute().parent)})
