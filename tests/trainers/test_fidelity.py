"""What a fidelity makes of a trial, and when to look at one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paploss.errors import BadConfig
from paploss.strict import parse
from trainers.config import ScheduleConfig, TaskConfig
from trainers.datasets.coco import DataConfig
from trainers.early_stop import EarlyStop
from trainers.fidelity import Fidelity, most_frequent_classes, some_of
from trainers.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]
PARTS = st.floats(0.01, 1)


@given(st.integers(1, 300), PARTS, PARTS, st.integers(1, 300))
def test_a_smaller_part_of_the_images_is_in_a_larger_one(
    images: int, one: float, other: float, most: int
) -> None:
    small, large = (some_of(images, part) for part in sorted((one, other)))
    assert set(small) <= set(large) <= set(range(images))
    assert small == sorted(set(small))
    assert len(small) == max(1, round(min(one, other) * images))
    assert some_of(images) == list(range(images))
    few = some_of(images, one, most)
    assert len(few) == min(most, len(some_of(images, one)))
    assert set(few) <= set(some_of(images, one))


def test_the_images_are_the_same_in_every_search() -> None:
    """In every process of every machine: written down once."""
    assert some_of(20, 0.25) == [3, 4, 5, 9, 16]


def test_all_of_everything_is_the_full_trial(make_spec: MakeSpec) -> None:
    spec = make_spec(fidelity=Fidelity())
    assert spec.reduced() == spec
    assert make_spec().reduced() == make_spec()
    assert make_spec(fidelity=Fidelity(classes=3)).reduced() == spec


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((96, 96), 0.67, (64, 64)),
        ((96, 96), 0.1, (32, 32)),
        ((1333, 800), 0.5, (672, 384)),  # 20.8 and 12.5 times 32; a half goes to the even number
        ((1333, 800), 1.0, (1333, 800)),
    ],
)
def test_sizes_are_what_detectors_pad_to(
    size: tuple[int, int], scale: float, expected: tuple[int, int]
) -> None:
    schedule = ScheduleConfig(image_size=size, test_image_size=size)
    scaled = Fidelity(image_size=scale).schedule(schedule)
    assert scaled == ScheduleConfig(image_size=expected, test_image_size=expected)
    alone = Fidelity(image_size=scale).schedule(ScheduleConfig(image_size=size))
    assert alone.test_size == expected


def test_a_shorter_training_is_warm_and_slows_down_at_the_same_part_of_it() -> None:
    schedule = ScheduleConfig(epochs=12, decay="step", steps=(8, 11), warmup_iterations=500)
    half = Fidelity(epochs=0.5).schedule(schedule)
    assert (half.epochs, half.steps, half.warmup_iterations) == (6, (4, 5.5), 250)
    fewer = Fidelity(epochs=0.5, images=0.1).schedule(schedule)
    assert (fewer.epochs, fewer.steps, fewer.warmup_iterations) == (6, (4, 5.5), 25)
    assert Fidelity(epochs=0.01).schedule(schedule).epochs == 1


def test_only_train_and_val_have_fewer_images() -> None:
    fidelity = Fidelity(images=0.5, val_images=0.25)
    assert [fidelity.part(split) for split in ("train", "val", "test")] == [0.5, 0.25, 1.0]


def test_classes_with_the_most_objects_in_train(
    copy_data: Callable[[Path], DataConfig], tmp_path: Path
) -> None:
    """Crowds and what is to be ignored do not count; equal classes in their order."""
    data = copy_data(tmp_path / "data")
    coco = json.loads(data.train.annotations.read_text())
    ids = {each["name"]: each["id"] for each in coco["categories"]}
    (square, circle, triangle), (first, *_) = data.classes, coco["annotations"]

    def objects(name: str, count: int, **marks: Any) -> list[dict[str, Any]]:
        return [{**first, "category_id": ids[name], **marks} for _ in range(count)]

    many = [*objects(square, 2), *objects(square, 9, iscrowd=1), *objects(square, 9, ignore=1)]
    coco["annotations"] = [
        {**each, "id": k}
        for k, each in enumerate([*many, *objects(circle, 3), *objects(triangle, 3)])
    ]
    data.train.annotations.write_text(json.dumps(coco))
    assert most_frequent_classes(data, 1) == [circle]
    assert most_frequent_classes(data, 2) == [circle, triangle]
    assert most_frequent_classes(data, 3) == data.classes


@pytest.mark.parametrize(
    ("fidelity", "message"),
    [
        ({"classes": 4}, "fidelity: .*4 classes of the data set .*, which has 3; expected at most"),
        ({"image": 0.5}, "fidelity.image: unknown key; did you mean 'images'"),
        ({"images": 0}, "fidelity.images: got 0; input should be greater than 0"),
        ({"val_images": 1.5}, "fidelity.val_images: got 1.5; input should be less than or equal"),
        ({"classes": 0}, "fidelity.classes: got 0"),
    ],
)
def test_a_fidelity_that_is_none(task: TaskConfig, fidelity: Any, message: str) -> None:
    values = task.model_dump(mode="json") | {"fidelity": fidelity}
    with pytest.raises(BadConfig, match=message):
        parse(TaskConfig, values, "search.yaml")


def test_too_few_classes_fail_a_trial_with_a_reason(make_spec: MakeSpec) -> None:
    with pytest.raises(ValueError, match="which has 3; expected at most as many"):
        make_spec(fidelity=Fidelity(classes=4)).reduced()


@pytest.mark.parametrize(
    ("at", "iterations", "expected"),
    [(0.5, 160, 80), (0.25, 10, 2), (0.01, 10, 1), (0.99, 10, 9), (0.5, 2, 1), (0.5, 1, None)],
)
def test_a_look_is_neither_before_nor_after_the_training(
    at: float, iterations: int, expected: int | None
) -> None:
    assert EarlyStop(at=at, images=20).iteration(iterations) == expected
