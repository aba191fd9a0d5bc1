import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from paploss.errors import BadData
from trainers.datasets.check import check_dataset
from trainers.datasets.coco import load_data
from trainers.datasets.voc import convert_voc

BCCD = Path(__file__).parents[4] / "shared" / "data" / "bccd"

Box = tuple[str, tuple[Any, Any, Any, Any]]


def box_xml(name: str, box: tuple[Any, ...], difficult: int = 0) -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
    # VOC2012 has parts with boxes of their own within an object; they are not objects.
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{inner}</bndbox>{part}</object>"
    )


def xml(*objects: str, width: Any = 40, height: Any = 30) -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(objects)}</annotation>"


CELL = box_xml("RBC", (1, 2, 11, 22))


def make_voc(folder: Path, lists: dict[str, list[str]], **special: str) -> Path:
    """A VOC folder of 40 x 30 images, each with CELL, or with the XML that `special` gives."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for split, stems in lists.items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for stem in stems:
            cv2.imwrite(str(folder / "JPEGImages" / f"{stem}.jpg"), np.zeros((30, 40, 3), np.uint8))
            (folder / "Annotations" / f"{stem}.xml").write_text(special.get(stem, xml(CELL)))
    return folder


LISTS = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


def read(out: Path, split: str) -> dict[str, Any]:
    return json.loads((out / f"{split}.json").read_text())


def test_a_voc_folder_becomes_a_valid_data_set(tmp_path: Path) -> None:
    white = box_xml("WBC", (5.5, 6, 20, 29.25))
    voc = make_voc(tmp_path / "voc", LISTS, b=xml(CELL, white), c=xml())

    summary = convert_voc([voc], tmp_path / "out")

    train = read(tmp_path / "out", "train")
    assert train["categories"] == [{"id": 1, "name": "RBC"}, {"id": 2, "name": "WBC"}]
    assert train["images"] == [
        {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 2, "file_name": "b.jpg", "width": 40, "height": 30},
    ]
    boxes = [(a["id"], a["image_id"], a["category_id"], a["bbox"]) for a in train["annotations"]]
    assert boxes == [
        (1, 1, 1, [1, 2, 10, 20]),
        (2, 2, 1, [1, 2, 10, 20]),
        (3, 2, 2, [5.5, 6, 14.5, 23.25]),
    ]
    assert [a["area"] for a in train["annotations"]] == [200, 200, 14.5 * 23.25]
    assert read(tmp_path / "out", "val")["annotations"] == []
    assert summary["splits"] == {
        "train": {"images": 2, "boxes": 3},
        "val": {"images": 1, "boxes": 0},
        "test": {"images": 1, "boxes": 1},
    }
    assert summary["classes"] == ["RBC", "WBC"]
    assert summary["notes"] == []
    data = load_data(tmp_path / "out" / "dataset.yaml")
    assert data.name == "voc"
    assert data.train.images == voc / "JPEGImages"


def test_degenerate_boxes_are_dropped_and_counted(tmp_path: Path) -> None:
    bad = [
        box_xml("RBC", (31, 7, 31, 7)),  # a point, as in BCCD
        box_xml("RBC", (3, 7, 3, 9)),  # no width
        box_xml("RBC", (3, 7, 9, 7)),  # no height
        box_xml("RBC", (9, 7, 3, 9)),  # corners swapped
        box_xml("WBC", (50, 40, 60, 45)),  # outside the image: nothing is left of it
    ]
    voc = make_voc(tmp_path / "voc", LISTS, a=xml(CELL, *bad))

    summary = convert_voc([voc], tmp_path / "out")

    assert summary["degenerate"] == 5
    assert summary["clipped"] == 0
    assert summary["splits"]["train"]["boxes"] == 2
    assert summary["classes"] == ["RBC"]  # no usable box of WBC is left
    assert check_dataset(load_data(tmp_path / "out" / "dataset.yaml")).warnings == []


def test_boxes_beyond_the_image_are_clipped_and_counted(tmp_path: Path) -> None:
    voc = make_voc(
        tmp_path / "voc",
        LISTS,
        a=xml(box_xml("RBC", (-5, 3, 45, 33)), box_xml("RBC", (0, 0, 40, 30))),
    )
    summary = convert_voc([voc], tmp_path / "out")
    boxes = [a["bbox"] for a in read(tmp_path / "out", "train")["annotations"]]
    assert boxes[:2] == [[0, 3, 40, 27], [0, 0, 40, 30]]
    assert summary["clipped"] == 1
    assert summary["degenerate"] == 0


def test_an_image_in_two_lists_is_counted_once(tmp_path: Path) -> None:
    lists = {**LISTS, "trainval": ["a", "b", "c"]}
    voc = make_voc(tmp_path / "voc", lists, a=xml(CELL, box_xml("RBC", (3, 3, 3, 3))))
    summary = convert_voc([voc], tmp_path / "out")
    assert summary["degenerate"] == 1
    assert summary["splits"]["trainval"] == {"images": 3, "boxes": 3}
    assert "trainval" not in (tmp_path / "out" / "dataset.yaml").read_text()


@pytest.mark.parametrize("package", ["pycocotools", "faster_coco_eval"])
@pytest.mark.parametrize("detected", [False, True])
def test_difficult_objects_are_neither_found_nor_missed(
    tmp_path: Path, package: str, detected: bool
) -> None:
    """An easy object is detected; the difficult one beside it is not, or with a higher score."""
    hard = box_xml("RBC", (20, 5, 38, 28), difficult=1)
    voc = make_voc(tmp_path / "voc", LISTS, c=xml(CELL, hard))
    assert convert_voc([voc], tmp_path / "out")["difficult"] == 1

    evaluator = pytest.importorskip(package)
    if package == "pycocotools":
        coco = pytest.importorskip("pycocotools.coco").COCO
        evaluate = pytest.importorskip("pycocotools.cocoeval").COCOeval
    else:
        coco, evaluate = evaluator.COCO, evaluator.COCOeval_faster
    found = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20], "score": 0.5}]
    if detected:
        found.append({**found[0], "bbox": [20, 5, 18, 23], "score": 0.9})
    truth = coco(str(tmp_path / "out" / "val.json"))
    evaluation = evaluate(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    # One object, found. Missed: the recall ends at 1/2. False: the precision starts at 1/2.
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_difficult_objects_are_not_trained_on(tmp_path: Path) -> None:
    hard = box_xml("RBC", (20, 5, 38, 28), difficult=1)
    convert_voc([make_voc(tmp_path / "voc", LISTS, a=xml(CELL, hard))], tmp_path / "out")
    flags = [a["ignore"] for a in read(tmp_path / "out", "train")["annotations"]]
    assert flags == [0, 1, 0]  # mmdet's CocoDataset.parse_data_info skips by this flag
    report = check_dataset(load_data(tmp_path / "out" / "dataset.yaml"))
    assert report.splits["train"].boxes == 2
    assert report.warnings == []


@pytest.mark.parametrize(("present", "missing"), [("val", "test"), ("test", "val")])
def test_a_missing_split_is_half_of_the_other(tmp_path: Path, present: str, missing: str) -> None:
    stems = [f"x{number}" for number in range(9)]
    voc = make_voc(tmp_path / "voc", {"train": ["a", "b"], present: stems})

    summary = convert_voc([voc], tmp_path / "out")
    convert_voc([voc], tmp_path / "again")

    def names(out: str, split: str) -> set[str]:
        return {image["file_name"] for image in read(tmp_path / out, split)["images"]}

    assert summary["splits"][present]["images"] == 5
    assert summary["splits"][missing]["images"] == 4
    assert names("out", present) | names("out", missing) == {f"{stem}.jpg" for stem in stems}
    assert names("out", missing) == names("again", missing)
    assert f"there is no {missing}.txt: the 9 images of {present}.txt" in summary["notes"][0]
    check_dataset(load_data(tmp_path / "out" / "dataset.yaml"))


@pytest.mark.parametrize("size", [{"width": 0, "height": 0}, {"width": "", "height": "?"}])
def test_a_size_that_the_xml_lacks_is_read_from_the_image(
    tmp_path: Path, size: dict[str, Any]
) -> None:
    voc = make_voc(tmp_path / "voc", LISTS, a=xml(CELL, **size))
    convert_voc([voc], tmp_path / "out")
    image = read(tmp_path / "out", "train")["images"][0]
    assert (image["width"], image["height"]) == (40, 30)


def test_a_size_too_small_for_the_boxes_is_read_from_the_image(tmp_path: Path) -> None:
    sideways = xml(box_xml("RBC", (30, 2, 39, 12)), width=30, height=40)
    voc = make_voc(tmp_path / "voc", LISTS, a=sideways)
    summary = convert_voc([voc], tmp_path / "out")
    train = read(tmp_path / "out", "train")
    assert (train["images"][0]["width"], train["images"][0]["height"]) == (40, 30)
    assert train["annotations"][0]["bbox"] == [30, 2, 9, 10]
    assert summary["clipped"] == summary["degenerate"] == 0


def test_blank_and_repeated_lines_do_not_count(tmp_path: Path) -> None:
    voc = make_voc(tmp_path / "voc", LISTS)
    (voc / "ImageSets" / "Main" / "train.txt").write_text("a\r\n\r\n b \na\n")
    assert convert_voc([voc], tmp_path / "out")["splits"]["train"]["images"] == 2


def test_another_data_set_is_not_overwritten(tmp_path: Path) -> None:
    convert_voc([make_voc(tmp_path / "one", LISTS)], tmp_path / "out")
    before = (tmp_path / "out" / "train.json").read_bytes()
    convert_voc([tmp_path / "one"], tmp_path / "out")  # the same again is fine
    with pytest.raises(BadData, match="already holds another data set"):
        convert_voc([make_voc(tmp_path / "two", LISTS, a=xml())], tmp_path / "out")
    assert (tmp_path / "out" / "train.json").read_bytes() == before


BOMB = (
    '<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    "<annotation><object><name>&b;</name></object></annotation>"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<annotation><object>", "cannot be read as a VOC annotation"),
        (b"", "cannot be read as a VOC annotation"),
        (b"<html></html>", "its root is <html>, not <annotation>"),
        (BOMB.encode(), "declares a document type"),
        (BOMB.encode("utf-16"), "declares a document type"),
        (b'<?xml version="1.0" encoding="no-such"?><annotation/>', "cannot be read as a VOC"),
        (xml(box_xml("", (1, 2, 3, 4))).encode(), "has an object ''"),
        (xml(box_xml("RBC", (1, 2, "x", 4))).encode(), r"'RBC' with the box \['1', '2', 'x'"),
        (xml(box_xml("RBC", (1, 2, "nan", 4))).encode(), r"the box \['1', '2', 'nan', '4'\]"),
        (xml("<object><name>RBC</name></object>").encode(), r"the box \[None, None, None, None"),
    ],
)
def test_a_bad_xml_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    voc = make_voc(tmp_path / "voc", LISTS)
    (voc / "Annotations" / "b.xml").write_bytes(content)
    with pytest.raises(BadData, match=message) as error:
        convert_voc([voc], tmp_path / "out")
    assert "b.xml" in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("Annotations/a.xml", "a.xml: No such file.*needs its XML file"),
        ("JPEGImages/a.jpg", "lists 'a', but .*JPEGImages has no such image"),
        ("ImageSets/Main/train.txt", "has no train.txt"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, damage: str, message: str) -> None:
    voc = make_voc(tmp_path / "voc", LISTS)
    (voc / damage).unlink()
    with pytest.raises(BadData, match=message):
        convert_voc([voc], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": ["a"]}, "neither val.txt nor test.txt"),
        ({"train": ["a"], "val": ["b"]}, "val.txt has only one image, too few to divide"),
        ({"train": [], "val": ["b"], "test": ["c"]}, "train.txt lists no image"),
        ({"val": ["b"], "test": ["c"]}, "has no train.txt"),
    ],
)
def test_lists_that_cannot_make_three_splits(
    tmp_path: Path, lists: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(BadData, match=message):
        convert_voc([make_voc(tmp_path / "voc", lists)], tmp_path / "out")


def test_a_folder_that_is_not_voc(tmp_path: Path) -> None:
    voc = make_voc(tmp_path / "VOCdevkit" / "VOC2012", LISTS)
    with pytest.raises(BadData, match=r"has no JPEGImages.*VOCdevkit/VOC2012, say"):
        convert_voc([voc.parent], tmp_path / "out")


def test_no_box_at_all(tmp_path: Path) -> None:
    special = dict.fromkeys("abcd", xml())
    with pytest.raises(BadData, match=r"no image of .* has a usable box"):
        convert_voc([make_voc(tmp_path / "voc", LISTS, **special)], tmp_path / "out")


def test_an_image_that_cannot_be_measured(tmp_path: Path) -> None:
    voc = make_voc(tmp_path / "voc", LISTS, a=xml(CELL, width=0))
    (voc / "JPEGImages" / "a.jpg").write_bytes(b"")
    with pytest.raises(BadData, match=r"a\.jpg cannot be read as an image"):
        convert_voc([voc], tmp_path / "out")


def test_names_in_a_list_cannot_leave_the_folder(tmp_path: Path) -> None:
    voc = make_voc(tmp_path / "voc", LISTS)
    (tmp_path / "secret.xml").write_text(xml(CELL))
    (voc / "ImageSets" / "Main" / "train.txt").write_text("../../secret\n")
    with pytest.raises(BadData, match=r"lists '\.\./\.\./secret', which leads out"):
        convert_voc([voc], tmp_path / "out")


def test_a_relative_folder_works_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_voc(tmp_path / "voc", LISTS)
    monkeypatch.chdir(tmp_path)
    convert_voc([Path("voc")], Path("out"))
    monkeypatch.chdir(os.sep)
    check_dataset(load_data(tmp_path / "out" / "dataset.yaml"))


@pytest.mark.skipif(not BCCD.exists(), reason="BCCD is not beside the repository")
def test_real_photographs(tmp_path: Path) -> None:
    summary = convert_voc([BCCD], tmp_path)
    assert summary["classes"] == ["Platelets", "RBC", "WBC"]
    assert (summary["degenerate"], summary["clipped"]) == (2, 0)
    splits = {name: split["images"] for name, split in summary["splits"].items()}
    assert splits == {"train": 205, "val": 87, "test": 72, "trainval": 292}
    report = check_dataset(load_data(tmp_path / "dataset.yaml"))
    assert sum(split.boxes for split in report.splits.values()) == 4888 - 2
    assert report.warnings == []


def make_devkit(folder: Path) -> list[Path]:
    """VOC2007 with all lists, VOC2012 without a test list that has annotations."""
    seven = {
        "train": ["a", "b"], "val": ["c"], "trainval": ["a", "b", "c"], "test": ["d", "e"]
    }  # fmt: skip
    twelve = {"train": ["a2"], "val": ["b2", "c2"], "trainval": ["a2", "b2", "c2"], "test": ["x"]}
    devkit = [
        make_voc(folder / "VOC2007", seven, a=xml(CELL, CELL)),
        make_voc(folder / "VOC2012", twelve, c2=xml(box_xml("WBC", (2, 2, 9, 9)))),
    ]
    (folder / "VOC2012" / "Annotations" / "x.xml").unlink()
    return devkit


def test_several_folders_are_merged_as_07_12(tmp_path: Path) -> None:
    summary = convert_voc(make_devkit(tmp_path), tmp_path / "out", val_images=2, seed=3)

    names = {
        split: [image["file_name"] for image in read(tmp_path / "out", split)["images"]]
        for split in ("train", "val", "test", "trainval")
    }
    assert names["trainval"] == [
        *(f"VOC2007/JPEGImages/{stem}.jpg" for stem in "abc"),
        *(f"VOC2012/JPEGImages/{stem}2.jpg" for stem in "abc"),
    ]
    assert (len(names["train"]), len(names["val"])) == (4, 2)
    assert sorted(names["train"] + names["val"]) == names["trainval"]
    assert names["test"] == ["VOC2007/JPEGImages/d.jpg", "VOC2007/JPEGImages/e.jpg"]
    assert summary["splits"]["trainval"] == {"images": 6, "boxes": 7}
    assert summary["classes"] == ["RBC", "WBC"]
    data = load_data(tmp_path / "out" / "dataset.yaml")
    assert data.train.images == data.test.images == tmp_path
    assert check_dataset(data).splits["val"].images == 2
    notes = " ".join(summary["notes"])
    assert "VOC2012: its test list has no annotations and was left out." in notes
    assert "trainval lists of VOC2007, VOC2012 together, 6 images, of which 2 were drawn" in notes
    assert "test: the test list of VOC2007." in notes


def test_the_seed_draws_the_val_split_of_several_folders(tmp_path: Path) -> None:
    devkit = make_devkit(tmp_path)
    drawn = set()
    for seed in range(8):
        convert_voc(devkit, tmp_path / f"{seed}", val_images=2, seed=seed)
        drawn.add(tuple(i["file_name"] for i in read(tmp_path / f"{seed}", "val")["images"]))
    assert len(drawn) > 2
    with pytest.raises(BadData, match="already holds another data set"):
        convert_voc(devkit, tmp_path / "0", val_images=2, seed=1)


@pytest.mark.parametrize("count", [0, 6, 2000])
def test_too_many_images_for_val(tmp_path: Path, count: int) -> None:
    message = f"val_images: got {count}, but the trainval lists have 6 images"
    with pytest.raises(BadData, match=message):
        convert_voc(make_devkit(tmp_path), tmp_path / "out", val_images=count)


def test_several_folders_need_a_test_list_and_a_training_list(tmp_path: Path) -> None:
    seven, twelve = make_devkit(tmp_path)
    (seven / "ImageSets" / "Main" / "test.txt").unlink()
    with pytest.raises(BadData, match=r"none of .*VOC2007, .*VOC2012 has a test\.txt"):
        convert_voc([seven, twelve], tmp_path / "out", val_images=2)
    for name in ("train", "val", "trainval"):
        (twelve / "ImageSets" / "Main" / f"{name}.txt").unlink()
    with pytest.raises(BadData, match=r"VOC2012.* has neither trainval\.txt nor train\.txt"):
        convert_voc([seven, twelve], tmp_path / "out", val_images=2)


def test_train_and_val_lists_stand_in_for_trainval(tmp_path: Path) -> None:
    devkit = make_devkit(tmp_path)
    for folder in devkit:
        (folder / "ImageSets" / "Main" / "trainval.txt").unlink()
    summary = convert_voc(devkit, tmp_path / "out", val_images=1)
    assert summary["splits"]["trainval"]["images"] == 6
