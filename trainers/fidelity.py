"""A cheaper trial in place of a full one: fewer images, smaller ones, fewer classes, fewer passes.

    fidelity: {images: 0.25, image_size: 0.67, val_images: 0.5}

A search can send many thetas through such trials and train the best of them in full. That pays
where the cheap rewards put thetas in about the order of the full ones, which is to be measured
first: benchmarks/fidelities.py does.
"""

from collections import Counter

import numpy as np
from pydantic import Field

from paploss.strict import StrictModel
from trainers.datasets.coco import DataConfig
from trainers.datasets.instances import read_instances
from trainers.schedule import ScheduleConfig, Size

_PAD = 32
"""Detectors pad images to multiples of this: a size in between costs as much as the next one."""
_ORDER = 20211205
"""Seeds the order in which images are taken, the same in every trial of every search."""


class Fidelity(StrictModel):
    """What part of a full trial a trial is; 1 everywhere is the full trial itself.

    Which images are taken is the same for all trials, so that their rewards can be compared, and a
    smaller part is a part of a larger one. They are drawn without a look at their classes.
    """

    images: float = Field(1.0, gt=0, le=1, description="part of the training images")
    image_size: float = Field(
        1.0, gt=0, le=1, description="scale of image_size, to the nearest 32 pixels in width and "
        "height"
    )  # fmt: skip
    classes: int | None = Field(
        None, ge=1, description="the most frequent ones of train only, in training and scoring"
    )
    epochs: float = Field(1.0, gt=0, le=1, description="part of the passes, to whole ones")
    val_images: float = Field(
        1.0, gt=0, le=1,
        description="part of the val images: where training is short, scoring costs more than it",
    )  # fmt: skip

    def data(self, data: DataConfig) -> DataConfig:
        """`data` with the classes that are left; which images are, its data sets decide.

        Raises:
            ValueError: there are fewer classes than are asked for.
            BadData: train's annotations cannot be read.
        """
        self.check(data)
        if self.classes is None or self.classes == len(data.classes):
            return data
        return data.model_copy(update={"classes": most_frequent_classes(data, self.classes)})

    def check(self, data: DataConfig) -> None:
        """See that `data` has the classes that are asked for.

        Raises:
            ValueError: it has not.
        """
        if self.classes is not None and self.classes > len(data.classes):
            raise ValueError(
                f"{self.classes} classes of the data set {data.name}, which has "
                f"{len(data.classes)}; expected at most as many, or no `classes` to keep all"
            )

    def schedule(self, schedule: ScheduleConfig) -> ScheduleConfig:
        """`schedule` with the image size and the passes that are left.

        Its warm-up and its steps keep their place: they are as large a part of this trial as of the
        full one.
        """
        epochs = max(1, round(self.epochs * schedule.epochs))
        passes = epochs / schedule.epochs
        test_size = schedule.test_image_size
        return schedule.model_copy(
            update={
                "epochs": epochs,
                "steps": tuple(step * passes for step in schedule.steps),
                "warmup_iterations": round(schedule.warmup_iterations * passes * self.images),
                "image_size": self._scaled(schedule.image_size),
                "test_image_size": None if test_size is None else self._scaled(test_size),
            }
        )

    def part(self, split: str) -> float:
        """The part of a split's images that is used, in (0, 1]."""
        return {"train": self.images, "val": self.val_images}.get(split, 1.0)

    @property
    def images_only(self) -> "Fidelity":
        """What is left of it once data and schedule are changed."""
        return Fidelity(images=self.images, val_images=self.val_images)

    def _scaled(self, size: Size) -> Size:
        if self.image_size == 1:
            return size
        width, height = (max(_PAD, _PAD * round(self.image_size * n / _PAD)) for n in size)
        return width, height


def most_frequent_classes(data: DataConfig, count: int) -> list[str]:
    """Those of `data.classes` with the most objects in train, in their order there.

    Objects are annotations that are trained on: no crowds, none to be ignored. Among classes with
    equally many the first ones are taken.

    Raises:
        BadData: train's annotations cannot be read.
    """
    train = read_instances(data.train.annotations)
    names = {category.id: category.name for category in train.categories}
    objects = Counter(
        names[each.category_id] for each in train.annotations if not (each.iscrowd or each.ignore)
    )
    kept = sorted(data.classes, key=lambda name: -objects[name])[:count]
    return [name for name in data.classes if name in kept]


def some_of(images: int, part: float = 1.0, most: int | None = None) -> list[int]:
    """Which of the images 0, 1, ... stand for all of them: at least one, in ascending order.

    A function of the arguments alone, and a smaller selection is a part of a larger one.

    Args:
        images: how many there are, >= 1.
        part: of them, in (0, 1].
        most: take at most so many, >= 1.
    """
    count = max(1, round(part * images))
    if most is not None:
        count = min(count, most)
    if count == images:
        return list(range(images))
    order = np.random.default_rng(_ORDER).permutation(images)
    return sorted(order[:count].tolist())
