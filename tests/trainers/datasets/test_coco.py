import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paploss.errors import BadConfig, BadData
from paploss.files import read_yaml, write_yaml
from trainers.datasets.coco import (
    SPLITS,
    DataConfig,
    SplitConfig,
    already_made,
    load_data,
    read_coco,
    split_off,
    write_coco,
    write_dataset_yaml,
)

CONFIGS = Path(__file__).parents[3] / "configs" / "datasets"

COCO: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 30}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3.5, 4], "area": 14, "iscrowd": 0}
    ],
    "categories": [{"id": 3, "name": "cat"}],
}


def settings(**changes: Any) -> dict[str, Any]:
    split = {"annotations": "a.json", "images": "photos"}
    values = {"name": "pets", "classes": ["cat"], "train": split, "val": split, "test": split}
    return {**values, **changes}


def test_relative_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    elsewhere = {"annotations": "../up.json", "images": "/photos"}
    write_yaml(tmp_path / "sets" / "dataset.yaml", settings(test=elsewhere))

    data = load_data(tmp_path / "sets" / "dataset.yaml")

    assert data.train.annotations == tmp_path / "sets" / "a.json"
    assert data.train.images == tmp_path / "sets" / "photos"
    assert data.test.annotations == tmp_path / "up.json"
    assert data.test.images == Path("/photos")


def test_a_relative_file_gives_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(tmp_path / "dataset.yaml", settings())
    monkeypatch.chdir(tmp_path)
    assert load_data(Path("dataset.yaml")).val.annotations == tmp_path / "a.json"


def test_a_written_folder_can_be_moved(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    inside = SplitConfig(annotations=here / "train.json", images=here / "train")
    outside = SplitConfig(annotations=here / "test.json", images=tmp_path / "photos")
    data = DataConfig(name="pets", classes=["cat"], train=inside, val=inside, test=outside)
    write_dataset_yaml(here / "dataset.yaml", data)
    assert load_data(here / "dataset.yaml") == data

    here.rename(there)
    moved = load_data(there / "dataset.yaml")

    assert moved.train == SplitConfig(annotations=there / "train.json", images=there / "train")
    assert moved.test.images == tmp_path / "photos"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clases": ["cat"]}, "did you mean 'classes'"),
        ({"classes": []}, "at least 1 item"),
        ({"classes": ["cat", "cat"]}, "class 'cat' is listed twice"),
        ({"test": {"annotations": "a.json"}}, "test.images: missing"),
    ],
)
def test_a_wrong_dataset_yaml_names_the_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_yaml(tmp_path / "dataset.yaml", settings(**changes))
    with pytest.raises(BadConfig, match=message):
        load_data(tmp_path / "dataset.yaml")


def test_all_three_splits_have_to_be_named(tmp_path: Path) -> None:
    values = settings()
    del values["test"]
    write_yaml(tmp_path / "dataset.yaml", values)
    with pytest.raises(BadConfig, match="test: missing"):
        load_data(tmp_path / "dataset.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_data_set_is_valid_and_portable(path: Path) -> None:
    data = load_data(path)
    assert data.name == path.stem
    for name in SPLITS:
        assert read_yaml(path)[name]["annotations"].startswith("../../data/")
        assert getattr(data, name).annotations.is_relative_to(CONFIGS.parents[1] / "data")
        assert getattr(data, name).images.is_relative_to(CONFIGS.parents[1] / "data")
    assert "Made by:  paploss data " in path.read_text()


def test_three_data_sets_are_shipped() -> None:
    counts = {path.stem: len(load_data(path).classes) for path in CONFIGS.glob("*.yaml")}
    assert counts == {"shapes": 3, "coco": 80, "voc": 20}


def test_what_made_a_folder_is_remembered(tmp_path: Path) -> None:
    assert not already_made(tmp_path, {"made_by": "shapes", "seed": 0})
    write_yaml(tmp_path / "dataset.yaml", settings(source={"made_by": "shapes", "seed": 0}))
    assert already_made(tmp_path, {"made_by": "shapes", "seed": 0})
    with pytest.raises(BadData, match="Give another folder, or delete"):
        already_made(tmp_path, {"made_by": "shapes", "seed": 1})


def test_a_valid_file_is_read_as_it_is(tmp_path: Path) -> None:
    write_coco(tmp_path / "a.json", COCO)
    assert read_coco(tmp_path / "a.json") == COCO


def broken(path: str, value: Any) -> dict[str, Any]:
    """COCO with `value` at `path` ("annotations.0.bbox"); None deletes it."""
    coco = copy.deepcopy(COCO)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = coco
    for part in parents:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return coco


@pytest.mark.parametrize(
    ("coco", "message"),
    [
        ([], "not a COCO instances file: it holds a list"),
        (broken("images", None), "it has no list 'images'"),
        (broken("annotations", {}), "it has no list 'annotations'"),
        (broken("categories.0", "cat"), r"categories\[0\] is a str"),
        (broken("images.0.file_name", None), r"images\[0\] has no 'file_name'"),
        (broken("annotations.0.bbox", None), r"annotations\[0\] has no 'bbox'"),
        (broken("annotations.0.iscrowd", None), r"annotations\[0\] has no 'iscrowd'"),
        (broken("images.0.file_name", ""), r"images\[0\] has file_name ''"),
        (broken("images.0.width", 0), r"images\[0\] has width 0"),
        (broken("images.0.height", float("nan")), r"images\[0\] has height nan"),
        (broken("images.0.id", "7"), r"images\[0\] has id '7', not a whole number"),
        (broken("annotations.0.bbox", [1, 2, 3]), r"bbox \[1, 2, 3\], not four finite numbers"),
        (broken("annotations.0.bbox", ["1", "2", "3", "4"]), "not four finite numbers"),
        (broken("annotations.0.bbox", [1, 2, 3, float("inf")]), "not four finite numbers"),
        (broken("annotations.0.area", "14"), r"annotations\[0\] has area '14'"),
        (broken("annotations.0.category_id", 4), "category_id 4, which none of its categories"),
        (broken("annotations.0.image_id", 8), "image_id 8, which none of its images has"),
        (broken("annotations", COCO["annotations"] * 2), "two annotations with the id 1"),
        (broken("images", COCO["images"] * 2), "two images with the id 7"),
        (broken("categories", COCO["categories"] * 2), "two categories with the id 3"),
        (
            broken("categories", [{"id": 3, "name": "cat"}, {"id": 4, "name": "cat"}]),
            r"category names are \['cat', 'cat'\]",
        ),
    ],
)
def test_a_wrong_annotation_file_says_what_is_wrong(
    tmp_path: Path, coco: Any, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco))
    with pytest.raises(BadData, match=message) as error:
        read_coco(path)
    assert str(path) in str(error.value)


def test_the_broken_box_among_many_is_named(tmp_path: Path) -> None:
    good = COCO["annotations"][0]
    boxes = [{**good, "id": number} for number in range(1, 6)]
    boxes[3]["bbox"] = [1, 2, None, 4]
    write_coco(tmp_path / "a.json", {**COCO, "annotations": boxes})
    with pytest.raises(BadData, match=r"annotations\[3\] has bbox \[1, 2, None, 4\]"):
        read_coco(tmp_path / "a.json")


def test_a_missing_and_a_cut_file(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="cannot read the annotation file"):
        read_coco(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps(COCO)[:-10])
    with pytest.raises(BadData, match="is not valid JSON"):
        read_coco(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xd8\xff\xe0 a photograph")
    with pytest.raises(BadData, match="is not valid JSON"):
        read_coco(tmp_path / "a.json")


@given(st.lists(st.integers(), unique=True, max_size=60), st.data(), st.integers(0, 2**31))
def test_split_off_divides_and_keeps_the_order(
    items: list[int], data: st.DataObject, seed: int
) -> None:
    count = data.draw(st.integers(0, len(items)))
    drawn, rest = split_off(items, count, seed)
    assert len(drawn) == count
    assert sorted(drawn + rest) == sorted(items)
    for part in (drawn, rest):
        assert part == [item for item in items if item in part]
    assert (drawn, rest) == split_off(items, count, seed)


def test_split_off_draws_by_seed_and_not_by_position() -> None:
    draws = {tuple(split_off(range(100), 10, seed)[0]) for seed in range(20)}
    assert len(draws) == 20
    assert len(set().union(*draws)) > 70  # 100 (1 - .9^20) = 88 expected
