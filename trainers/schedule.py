"""How a detector is trained: passes, images and their augmentation, optimizer, learning rate."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from paploss.errors import BadConfig
from paploss.strict import StrictModel

Size = tuple[int, int]


class Multipliers(StrictModel):
    """What the learning rate and weight decay of some parameters are multiplied by."""

    lr_mult: float = Field(1.0, ge=0)
    decay_mult: float = Field(1.0, ge=0)


class ParamwiseConfig(StrictModel):
    """Parameters that are optimized in another way than the rest (mmengine's `paramwise_cfg`).

    `custom_keys` goes by a part of a parameter's name, "backbone" say. A parameter that it matches
    takes nothing from the other multipliers.
    """

    custom_keys: dict[str, Multipliers] = Field(default_factory=dict)
    bias_lr_mult: float = Field(1.0, ge=0)
    bias_decay_mult: float = Field(1.0, ge=0)
    norm_decay_mult: float = Field(1.0, ge=0)


class ScheduleConfig(StrictModel):
    """How a detector is trained. The defaults are those of a search trial: one epoch."""

    epochs: int = Field(1, ge=1, description="passes over the training images")
    batch_size: int = Field(8, ge=1, description="images of one step, over all devices")
    batch_per_device: int | None = Field(
        None, ge=1, description="most images that one device takes; see `on`"
    )
    gather_logits: bool = Field(
        False, description="several devices rank the whole batch, not each its share"
    )
    image_size: Size = Field((512, 512), description="width, height, in pixels")
    keep_ratio: bool = Field(True, description="fit images into the size; False: stretch them")
    test_image_size: Size | None = Field(None, description="None: as in training")
    test_keep_ratio: bool | None = Field(None, description="None: as in training")
    augmentation: Literal["none", "flip", "multi_scale", "ssd", "detr", "jitter"] = Field(
        "flip", description="of training images; trainers/mmdet/augmentation.py has what each is"
    )
    filter_empty: bool = Field(True, description="leave out training images without boxes")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(0.01, gt=0, description="for steps of `batch_size` images")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    paramwise: ParamwiseConfig = ParamwiseConfig()
    warmup_iterations: int = Field(500, ge=0)
    warmup_factor: float = Field(
        1e-3, gt=0, le=1, description="part of the learning rate that the first iteration has"
    )
    decay: Literal["constant", "cosine", "flat_cosine", "step"] = Field(
        "constant", description="flat_cosine: constant for half of the training, then a cosine"
    )
    cosine_floor: float = Field(
        0.0, ge=0, lt=1, description="part of the learning rate that a cosine ends at"
    )
    steps: tuple[float, ...] = Field((), description="epochs at which `step` divides by 10")
    clip_gradient: float | None = Field(35.0, gt=0, description="largest norm, or none")
    amp: bool = Field(False, description="train in bfloat16; the criterion stays in float32")
    workers: int = Field(0, ge=0, description="processes that load images; 0: in the trial's own")
    cache_images: bool = Field(
        False, description="keep decoded images, resized where that is without chance, in memory"
    )

    @field_validator("image_size", "test_image_size")
    @classmethod
    def _positive(cls, size: Size | None) -> Size | None:
        if size is not None and min(size) < 32:
            raise ValueError("expected a width and a height of at least 32 pixels")
        return size

    @model_validator(mode="after")
    def _options_belong_to_decay(self) -> "ScheduleConfig":
        if (self.decay == "step") != bool(self.steps):
            raise ValueError("`steps` and `decay: step` go together")
        if self.cosine_floor and "cosine" not in self.decay:
            raise ValueError("`cosine_floor` goes with `decay: cosine` or `flat_cosine`")
        return self

    @property
    def test_size(self) -> Size:
        """Width and height that held-out images are fitted into, in pixels."""
        return self.test_image_size or self.image_size

    @property
    def test_keeps_ratio(self) -> bool:
        return self.keep_ratio if self.test_keep_ratio is None else self.test_keep_ratio

    def on(self, devices: int) -> "ScheduleConfig":
        """The schedule that `devices` devices train: as much of the batch as they can take.

        The learning rate follows the batch in proportion (the linear rule of Goyal et al., arXiv
        1706.02677), so that an epoch moves the weights about as far.

        Raises:
            BadConfig: more devices than images.
        """
        share = min(self.batch_size // devices, self.batch_per_device or self.batch_size)
        if share == 0:
            raise BadConfig(
                f"batch_size is {self.batch_size}, but {devices} devices are to train: each needs "
                f"an image at least. Use at most {self.batch_size} devices, or a larger batch."
            )
        batch = share * devices
        if batch == self.batch_size:
            return self
        rate = self.learning_rate * batch / self.batch_size
        return self.model_copy(update={"batch_size": batch, "learning_rate": rate})

    def describe_on(self, devices: int) -> str:
        """One line about the batch and the learning rate on `devices` devices."""
        scaled = self.on(devices)
        where = f"{devices} device{'s' if devices > 1 else ''}"
        batch = f"batches of {scaled.batch_size} images on {where}"
        if scaled is self:
            return f"{batch}, learning rate {self.learning_rate:g}"
        return (
            f"{batch} in place of {self.batch_size}: learning rate {scaled.learning_rate:g} in "
            f"place of {self.learning_rate:g} (linear rule)"
        )
