"""Readers of data sets: COCO's, PASCAL VOC's and BDD100K's files."""

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.safety.inputs import spoilt_bytes, spoilt_json, spoilt_yaml
from tests.safety.reader import Reader
from tests.safety.settings_readers import shipped, some_data


def coco(split: str = "train", images: int = 3) -> dict[str, Any]:
    return {
        "images": [
            {"id": i, "file_name": f"{split}{i}.png", "width": 32, "height": 24}
            for i in range(images)
        ],
        "annotations": [
            {"id": i + 1, "image_id": i % images, "category_id": 1 + i % 2, "iscrowd": 0,
             "bbox": [2, 3, 10.5, 12], "area": 126, "segmentation": [[2, 3, 12, 3, 12, 15]]}
            for i in range(2 * images)
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }  # fmt: skip


def _instances(content: bytes, folder: Path) -> None:
    from trainers.datasets.check import check_dataset
    from trainers.datasets.coco import DataConfig

    for split in ("train", "val", "test"):
        (folder / f"{split}.json").write_bytes(
            content if split == "train" else json.dumps(coco(split)).encode()
        )
        for number in range(3):
            (folder / f"{split}{number}.png").touch()
    check_dataset(DataConfig(**some_data(str(folder))))


def _dataset(content: bytes, folder: Path) -> None:
    from trainers.datasets.coco import load_data
    from trainers.datasets.findings import find_all

    for split in ("train", "val", "test"):
        (folder / f"{split}.json").write_text(json.dumps(coco(split)))
    (folder / "dataset.yaml").write_bytes(content)
    find_all(load_data(folder / "dataset.yaml"), images=1).lines()


def _coco_split(content: bytes, folder: Path) -> None:
    from trainers.datasets.coco_split import split_coco

    (folder / "all.json").write_bytes(content)
    split_coco(folder / "all.json", folder / "out", val_images=1)


VOC = b"""<annotation><size><width>32</width><height>24</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax>
<ymax>9.5</ymax></bndbox></object></annotation>"""
BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">
<!ENTITY z "&y;&y;&y;&y;&y;&y;">]><annotation><object><name>&z;</name></object></annotation>"""
STEALS = b"""<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>"""


def _voc(content: tuple[bytes, bytes], folder: Path) -> None:
    from trainers.datasets.voc import convert_voc

    annotation, names = content
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for stem in ("1", "2", "3"):
        (folder / f"JPEGImages/{stem}.jpg").write_bytes(b"")
        (folder / f"Annotations/{stem}.xml").write_bytes(annotation if stem == "1" else VOC)
    (folder / "ImageSets/Main/train.txt").write_bytes(names)
    (folder / "ImageSets/Main/val.txt").write_text("2\n")
    (folder / "ImageSets/Main/test.txt").write_text("3\n")
    convert_voc([folder], folder / "out")


BDD = json.dumps(
    [
        {"name": f"{k}.jpg", "labels": [
            {"id": "1", "category": "car", "attributes": {"crowd": False},
             "box2d": {"x1": 1, "y1": 2, "x2": 30.5, "y2": 40}}]}
        for k in range(3)
    ]
).encode()  # fmt: skip


def _bdd(content: bytes, folder: Path) -> None:
    from trainers.datasets.bdd100k import convert_bdd100k

    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
    (folder / "train.json").write_bytes(content)
    (folder / "val.json").write_bytes(BDD)
    convert_bdd100k(
        folder / "train.json", folder / "val.json", folder / "images", folder / "out", val_images=1
    )


READERS = (
    Reader("dataset", lambda: spoilt_yaml(shipped("datasets")), _dataset),
    Reader("instances", lambda: spoilt_json([json.dumps(coco()).encode()]), _instances),
    Reader("coco split", lambda: spoilt_json([json.dumps(coco()).encode()]), _coco_split),
    Reader(
        "voc",
        lambda: st.one_of(
            st.tuples(spoilt_bytes([VOC, BOMB, STEALS]), st.just(b"1\n")),
            st.tuples(st.just(VOC), spoilt_bytes([b"1\n2\n../../x\n"])),
        ),
        _voc,
    ),
    Reader("bdd100k", lambda: spoilt_json([BDD]), _bdd),
)
