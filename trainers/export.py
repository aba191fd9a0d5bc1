"""From a searched theta to a training YAML that says everything about a training."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator

from loss.by_head import family_of
from paploss.errors import BadConfig
from paploss.files import write_atomic, write_yaml
from paploss.strict import StrictModel, parse
from trainers.config import DetectorConfig, ScheduleConfig, TaskConfig
from trainers.datasets.coco import DataConfig
from trainers.read import read_complete
from trainers.reward import Reward, check_reward

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
    reward: Reward = Field("AP", description="what the score is that is held against the search's")
    evaluate_every: int = Field(
        0, ge=0, description="epochs between scores on the val split; 0: in the end alone"
    )
    found_by: dict[str, Any] = Field(default_factory=dict, description="for the reader alone")

    @field_validator("reward")
    @classmethod
    def _is_a_reward(cls, reward: Reward) -> Reward:
        return check_reward(reward)


def training_config(
    task: TaskConfig, theta: Any, seed: int, found_by: dict[str, Any]
) -> TrainingConfig:
    """The training that `theta` stands for, on the task's full schedule."""
    return TrainingConfig(
        detector=task.detector,
        data=task.data,
        criterion=family_of(task.criterion).settings(theta),
        schedule=task.training or task.schedule,
        seed=seed,
        reward=task.reward,
        found_by=found_by,
    )


def write_detector_yaml(detector: DetectorConfig, path: Path | None = None) -> str:
    """A detector as one YAML without a base, which is written to `path` if that is given.

    Raises:
        BadConfig: `path` cannot be written.
    """
    text = yaml.safe_dump(detector.model_dump(mode="json"), sort_keys=False, width=100)
    if path is not None:
        try:
            write_atomic(path, text)
        except OSError as error:
            raise BadConfig(f"cannot write {path}: {error.strerror}. Give another file.") from error
    return text


def write_training_yaml(config: TrainingConfig, path: Path) -> None:
    write_yaml(path, config.model_dump(mode="json"), _HEADER.format(name=path.name))


def read_training_yaml(
    name: str | Path, overrides: dict[str, Any] | None = None, *, trust_code: bool = False
) -> TrainingConfig:
    """A training YAML by path or shipped name, with `overrides` ("schedule.epochs": 3) on top.

    It may have a `base`, another training that it is laid over; detector, data and criterion may
    be named, as in a search.

    Args:
        trust_code: run a detector that is Python and more than data.

    Raises:
        BadConfig: a missing file, an unknown key or a value out of range.
    """
    values, path = read_complete("training", str(name), overrides or {}, trust_code=trust_code)
    config = parse(TrainingConfig, values, str(path))
    return config.model_copy(update={"data": config.data.anchored(path.parent)})
