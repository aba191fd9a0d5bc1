import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paploss.errors import BadData
from trainers.datasets.check import check_dataset
from trainers.datasets.coco import SPLITS, DataConfig, SplitConfig

CLASSES = ["cat", "dog"]


def make_coco(split: str, images: int = 3) -> dict[str, Any]:
    """Images of 40 x 30, each with a cat; the first has a dog as well."""
    boxes = [(1, 1, [2, 3, 10, 8]), *((i, 1, [1, 1, 5, 5]) for i in range(2, images + 1))]
    boxes.append((1, 2, [20, 10, 20, 20]))  # to the very edge
    return {
        "images": [
            {"id": i, "file_name": f"{split}{i}.png", "width": 40, "height": 30}
            for i in range(1, images + 1)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, (image, category, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


class Disk:
    """A data set on disk that a test spoils before it is checked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.coco = {split: make_coco(split) for split in SPLITS}
        self.classes = list(CLASSES)
        self.images = {split: folder / split for split in SPLITS}
        for split in SPLITS:
            self.images[split].mkdir()
            for image in self.coco[split]["images"]:
                (self.images[split] / image["file_name"]).touch()

    def data(self) -> DataConfig:
        splits = {}
        for split in SPLITS:
            path = self.folder / f"{split}.json"
            path.write_text(json.dumps(self.coco[split]))
            splits[split] = SplitConfig(annotations=path, images=self.images[split])
        return DataConfig(name="pets", classes=self.classes, **splits)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_a_sound_data_set_is_reported(disk: Disk) -> None:
    disk.coco["val"]["images"][1].update(width=64, height=24)
    disk.coco["train"]["annotations"].pop(1)  # image 2 loses its only box

    report = check_dataset(disk.data())

    train = report.splits["train"]
    assert (train.images, train.boxes, train.images_without_boxes) == (3, 3, 1)
    assert train.boxes_per_class == {"cat": 2, "dog": 1}
    assert (report.splits["val"].boxes, report.splits["test"].boxes) == (4, 4)
    assert (report.smallest, report.largest) == ((40, 24), (64, 30))
    assert report.warnings == []
    assert report.lines() == [
        "pets: 2 classes (cat, dog), images 40 x 24 to 64 x 30",
        "  train         3 images           3 boxes         1 images without boxes",
        "  val           3 images           4 boxes         0 images without boxes",
        "  test          3 images           4 boxes         0 images without boxes",
    ]
    assert str(report) == "\n".join(report.lines())


Spoil = Callable[[Disk], None]


def missing_annotations(disk: Disk) -> None:
    data = disk.data
    disk.data = lambda: _without(data(), disk.folder / "val.json")  # type: ignore[method-assign]


def _without(data: DataConfig, path: Path) -> DataConfig:
    path.unlink()
    return data


def missing_folder(disk: Disk) -> None:
    disk.images["test"] = disk.folder / "elsewhere"


def missing_image(disk: Disk) -> None:
    (disk.images["train"] / "train2.png").unlink()


def image_that_links_nowhere(disk: Disk) -> None:
    missing_image(disk)
    (disk.images["train"] / "train2.png").symlink_to(disk.folder / "gone.png")


def no_images_listed(disk: Disk) -> None:
    disk.coco["val"].update(images=[], annotations=[])


def not_coco(disk: Disk) -> None:
    disk.coco["val"]["annotations"][0].pop("bbox")


def duplicated_image_id(disk: Disk) -> None:
    disk.coco["val"]["images"][1]["id"] = 1


def duplicated_annotation_id(disk: Disk) -> None:
    disk.coco["test"]["annotations"][1]["id"] = 1


def unknown_category(disk: Disk) -> None:
    disk.coco["train"]["annotations"][3]["category_id"] = 9


def same_folder_same_name(disk: Disk) -> None:
    disk.images["val"] = disk.images["train"]
    disk.coco["val"] = copy.deepcopy(disk.coco["train"])
    disk.coco["val"]["images"][0]["file_name"] = "other.png"  # 2 of 3 are left to share
    (disk.images["train"] / "other.png").touch()


def same_file_by_another_path(disk: Disk) -> None:
    for image in disk.coco["val"]["images"]:
        image["file_name"] = f"val/{image['file_name']}"
    disk.coco["val"]["images"][0]["file_name"] = "train/./train2.png"
    disk.images["val"] = disk.folder


def image_outside(disk: Disk) -> None:
    disk.coco["val"]["images"][0]["file_name"] = "../train/train2.png"


def image_anywhere(disk: Disk) -> None:
    disk.coco["val"]["images"][0]["file_name"] = "/etc/passwd"


def same_file_by_a_linked_folder(disk: Disk) -> None:
    disk.images["test"] = disk.folder / "link"
    disk.images["test"].symlink_to(disk.images["train"])
    disk.coco["test"] = copy.deepcopy(disk.coco["train"])


def same_file_by_a_link(disk: Disk) -> None:
    (disk.images["test"] / "test3.png").unlink()
    (disk.images["test"] / "test3.png").symlink_to(disk.images["val"] / "val1.png")


def another_class(disk: Disk) -> None:
    disk.classes = ["cat", "cow"]


def classes_in_another_order(disk: Disk) -> None:
    disk.classes = ["dog", "cat"]


def category_that_only_val_has(disk: Disk) -> None:
    disk.coco["val"]["categories"].append({"id": 3, "name": "cow"})


def other_category_ids_in_test(disk: Disk) -> None:
    disk.coco["test"]["categories"][1]["id"] = 3
    disk.coco["test"]["annotations"][-1]["category_id"] = 3


def no_boxes(disk: Disk) -> None:
    disk.coco["train"]["annotations"] = []


def only_unusable_boxes(disk: Disk) -> None:
    unusable = [
        {"bbox": [50, 40, 5, 5]},
        {"bbox": [3, 3, 0, 5], "area": 0},
        {"iscrowd": 1},
        {"ignore": 1},
    ]
    for annotation, change in zip(disk.coco["val"]["annotations"], unusable, strict=True):
        annotation.update(change)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing_annotations, r"cannot read the annotation file .*val\.json"),
        (missing_folder, "test: the image folder .*elsewhere does not exist"),
        (
            missing_image,
            r"train: images of .* missing from .*: 1 of 3, the first is .*'train2\.png'",
        ),
        (
            image_that_links_nowhere,
            r"train: images of .* missing from .*: 1 of 3, the first is .*'train2\.png'",
        ),
        (no_images_listed, r"val: .*val\.json lists no images"),
        (not_coco, r"val\.json is not a COCO instances file: annotations\[0\] has no 'bbox'"),
        (duplicated_image_id, r"val\.json has two images with the id 1"),
        (duplicated_annotation_id, r"test\.json has two annotations with the id 1"),
        (unknown_category, r"annotations\[3\] \(id 4\) has category_id 9, which none of its"),
        (same_folder_same_name, r"val shares images with train: 2, the first is train2\.png"),
        (same_file_by_another_path, r"val shares images with train: 1, the first is train2\.png"),
        (
            image_outside,
            r"val: .* '\.\./train/train2\.png', which leads out of the folder of images",
        ),
        (image_anywhere, "val: .* '/etc/passwd', which leads out of the folder of images"),
        (same_file_by_a_linked_folder, "test shares images with train: 3, the first"),
        (same_file_by_a_link, r"test shares images with val: 1, the first is val1\.png"),
        (another_class, r"train: .*\['dog'\] only in the file and \['cow'\] only in `classes`"),
        (classes_in_another_order, "the same in another order, which would mix up the labels"),
        (category_that_only_val_has, r"val: .*\['cow'\] only in the file\. List"),
        (other_category_ids_in_test, r"test: .* the ids \[1, 3\], but train has \[1, 2\]"),
        (no_boxes, r"train: none of the 3 images .* is left after filtering"),
        (only_unusable_boxes, r"val: none of the 3 images .* is left after filtering"),
    ],
)
def test_each_fault_has_its_own_message(disk: Disk, spoil: Spoil, message: str) -> None:
    spoil(disk)
    with pytest.raises(BadData, match=message):
        check_dataset(disk.data())


def test_the_unspoiled_disk_passes(disk: Disk) -> None:
    check_dataset(disk.data())


def test_the_same_name_in_another_folder_is_another_image(disk: Disk) -> None:
    for image in disk.coco["val"]["images"]:
        image["file_name"] = image["file_name"].replace("val", "train")
        (disk.images["val"] / image["file_name"]).touch()
    assert check_dataset(disk.data()).splits["val"].images == 3


def test_images_may_lie_in_folders_below(disk: Disk) -> None:
    (disk.images["train"] / "deep" / "down").mkdir(parents=True)
    (disk.images["train"] / "train1.png").rename(disk.images["train"] / "deep/down/x.png")
    disk.coco["train"]["images"][0]["file_name"] = "deep/down/x.png"
    check_dataset(disk.data())
    disk.coco["train"]["images"][0]["file_name"] = "deep/up/x.png"
    with pytest.raises(BadData, match=r"'deep/up/x\.png'"):
        check_dataset(disk.data())


def test_small_images_are_filtered_from_train_only(disk: Disk) -> None:
    check_dataset(disk.data(), min_image_size=30)
    with pytest.raises(BadData, match=r"train: none of the 3 .* a side of at least 31 pixels"):
        check_dataset(disk.data(), min_image_size=31)
    for image in disk.coco["train"]["images"]:
        image.update(width=50, height=50)
    check_dataset(disk.data(), min_image_size=31)


@pytest.mark.parametrize(
    ("change", "message", "lost"),
    [
        ({"bbox": [3, 3, 0, 5]}, "train: boxes without area: 1 (", 1),
        (
            {"bbox": [3, 3, 0.5, 5]},
            "train: boxes under 1 pixel wide or high: 1 (",
            1,
        ),
        ({"area": 0}, "train: boxes without area: 1 (", 1),
        ({"bbox": [40, 3, 5, 5]}, "train: boxes outside their image: 1 (", 1),
        ({"bbox": [-9, -9, 9, 9]}, "train: boxes outside their image: 1 (", 1),
        ({"bbox": [36, 3, 5, 5]}, "train: boxes that reach beyond their image: 1 (", 0),
        ({"bbox": [-1, 3, 5, 5]}, "train: boxes that reach beyond their image: 1 (", 0),
        ({"ignore": 1}, "train: boxes with `ignore` and no `iscrowd`: 1 (", 1),
        ({"id": 0}, "train: boxes with the annotation id 0: 1 (", 0),
    ],
)
def test_what_can_be_lived_with_is_a_warning(
    disk: Disk, change: dict[str, Any], message: str, lost: int
) -> None:
    disk.coco["train"]["annotations"][1].update(change)
    report = check_dataset(disk.data())
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith(message)
    assert f"  warning: {report.warnings[0]}" in report.lines()
    assert report.splits["train"].boxes == 4 - lost
    assert report.splits["train"].images_without_boxes == lost


def test_crowds_and_ignored_crowds_need_no_warning(disk: Disk) -> None:
    disk.coco["train"]["annotations"][1].update(iscrowd=1)
    disk.coco["train"]["annotations"][2].update(iscrowd=1, ignore=1)
    report = check_dataset(disk.data())
    assert report.warnings == []
    assert report.splits["train"].boxes == 2


def test_a_class_without_boxes_and_an_image_listed_twice_are_warnings(disk: Disk) -> None:
    disk.coco["test"]["annotations"].pop()
    disk.coco["val"]["images"][1]["file_name"] = "val1.png"
    assert check_dataset(disk.data()).warnings == [
        "val: images listed more than once: 1.",
        "test: no box of dog.",
    ]


def test_all_faults_come_in_one_message(disk: Disk) -> None:
    missing_folder(disk)
    unknown_category(disk)
    same_file_by_another_path(disk)
    with pytest.raises(BadData) as error:
        check_dataset(disk.data())
    lines = str(error.value).splitlines()
    assert len(lines) == 2  # what train's images are is not known
    assert lines[0].startswith("train: ") and "category_id 9" in lines[0]
    assert lines[1].startswith("test: the image folder")


def test_boxes_are_counted_by_coco_s_sizes(disk: Disk) -> None:
    """The areas 32 x 32 and 96 x 96 belong to both sides."""
    areas = {1: 10.0, 2: 1024.0, 3: 5000.0, 4: 9216.0}
    for annotation in disk.coco["val"]["annotations"]:
        annotation["area"] = areas[annotation["id"]]
    sizes = check_dataset(disk.data()).splits["val"].boxes_per_size
    assert sizes == {"APs": 2, "APm": 3, "APl": 1}
