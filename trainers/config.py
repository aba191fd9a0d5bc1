"""What a trial trains: detector, data, criterion and schedule, as a user writes them."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from loss import build_criterion, criterion_type
from loss.criterion import Parameterization
from paploss.strict import StrictModel
from trainers.datasets.coco import DataConfig


class ScheduleConfig(StrictModel):
    """How a detector is trained. The defaults are those of a search trial: one epoch."""

    epochs: int = Field(1, ge=1, description="passes over the training images")
    batch_size: int = Field(8, ge=1)
    image_size: tuple[int, int] = Field((512, 512), description="width, height, in pixels")
    keep_ratio: bool = True
    flip: bool = True
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_iterations: int = Field(500, ge=0)
    decay: Literal["constant", "cosine", "step"] = "constant"
    steps: tuple[float, ...] = Field((), description="epochs at which `step` divides by 10")
    clip_gradient: float | None = Field(35.0, gt=0, description="largest norm, or none")
    amp: bool = Field(False, description="train in bfloat16; the criterion stays in float32")
    workers: int = Field(0, ge=0, description="processes that load images; 0: in the trial's own")
    cache_images: bool = Field(False, description="keep decoded, resized images in memory")

    @field_validator("image_size")
    @classmethod
    def _positive(cls, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < 32:
            raise ValueError("expected a width and a height of at least 32 pixels")
        return size

    @model_validator(mode="after")
    def _steps_belong_to_step(self) -> "ScheduleConfig":
        if (self.decay == "step") != bool(self.steps):
            raise ValueError("`steps` and `decay: step` go together")
        return self


class DetectorConfig(StrictModel):
    """A detector as data: mmdet's `model` settings, with a name to show.

    The number of classes is filled in from the data set. The model's own losses are replaced by
    the criterion; they must not be trusted to be read.
    """

    name: str
    model: dict[str, Any]


class TaskConfig(StrictModel):
    """What is trained in every trial of a search; only theta differs."""

    detector: DetectorConfig
    data: DataConfig
    criterion: dict[str, Any] = Field(description="the family of losses that is searched")
    baseline: dict[str, Any] = Field(default={"type": "focal_giou", "giou_weight": 2.0})
    schedule: ScheduleConfig = ScheduleConfig()
    training: ScheduleConfig | None = Field(None, description="the full schedule of best.yaml")

    @field_validator("criterion", "baseline")
    @classmethod
    def _has_type(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(settings.get("type"), str):
            raise ValueError("expected a criterion with its `type`, such as parameterized_ap")
        return settings

    @field_validator("criterion")
    @classmethod
    def _is_searchable(cls, settings: dict[str, Any]) -> dict[str, Any]:
        parameterization(settings)
        return settings

    @field_validator("baseline")
    @classmethod
    def _can_be_built(cls, settings: dict[str, Any]) -> dict[str, Any]:
        build_criterion(settings)
        return settings


def parameterization(settings: dict[str, Any]) -> Parameterization:
    """The family of losses that the `criterion` section of a search describes.

    Raises:
        ValueError: an unknown criterion or option, or one with nothing to search.
    """
    options = dict(settings)
    kind = criterion_type(options.pop("type"))
    try:
        return kind.parameterization(**options)
    except TypeError as error:
        raise ValueError(f"criterion {settings['type']}: {error}") from error
