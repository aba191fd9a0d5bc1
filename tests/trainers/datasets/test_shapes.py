import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from paploss.errors import BadData
from trainers.datasets import shapes
from trainers.datasets.check import check_dataset
from trainers.datasets.coco import load_data
from trainers.datasets.shapes import CLASSES, draw_image, draw_shapes


def corners(box: list[float]) -> np.ndarray:
    """COCO's x, y, w, h as x1, y1, x2, y2."""
    x, y, w, h = box
    return np.array([x, y, x + w, y + h])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_drawn_set_is_a_valid_data_set(tmp_path: Path) -> None:
    summary = draw_shapes(tmp_path, train=12, val=4, test=3, size=96)

    report = check_dataset(load_data(tmp_path / "dataset.yaml"))

    assert report.classes == ["square", "circle", "triangle"]
    assert {name: split.images for name, split in report.splits.items()} == {
        "train": 12, "val": 4, "test": 3,
    }  # fmt: skip
    assert report.smallest == report.largest == (96, 96)
    assert report.warnings == [] or all("no box of" in line for line in report.warnings)
    assert summary["splits"]["train"]["boxes"] == report.splits["train"].boxes
    assert summary["drawn"] is True
    assert summary["dataset"] == str(tmp_path / "dataset.yaml")
    assert cv2.imread(str(tmp_path / "train" / "000011.png")).shape == (96, 96, 3)


def test_the_same_parameters_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw_shapes(tmp_path / name, train=3, val=2, test=2, size=64, seed=5)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_an_image_does_not_depend_on_the_counts(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "few", train=2, val=1, test=1, size=64)
    draw_shapes(tmp_path / "many", train=5, val=3, test=2, size=64)
    few, many = files(tmp_path / "few"), files(tmp_path / "many")
    pictures = [name for name in few if name.endswith(".png")]
    assert len(pictures) == 4
    assert all(few[name] == many[name] for name in pictures)
    boxes = [json.loads(each["train.json"])["annotations"] for each in (few, many)]
    assert boxes[0] == boxes[1][: len(boxes[0])]


def test_seeds_splits_and_indices_differ() -> None:
    pictures = [
        draw_image(split, index, seed=seed)[0].tobytes()
        for split in ("train", "val", "test")
        for index in range(3)
        for seed in range(2)
    ]
    assert len(set(pictures)) == 18


def test_boxes_are_tight_around_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shape is drawn alone and without noise; where it changes the ground is its mask."""
    draw_shapes(tmp_path, train=20, val=1, test=1)
    coco = json.loads((tmp_path / "train.json").read_text())
    monkeypatch.setattr(shapes, "NOISE", (0.0, 0.0))
    errors = []
    for image in coco["images"]:
        index = image["id"] - 1
        placed = draw_image("train", index)[1]
        annotations = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        assert len(placed) == len(annotations)
        for shape, annotation in zip(placed, annotations, strict=True):
            alone = _drawn_with(monkeypatch, index, [shape])
            empty = _drawn_with(monkeypatch, index, [])
            rows, columns = np.nonzero(abs(alone - empty).max(2) > 3)
            mask = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            errors.append(corners(annotation["bbox"]) - mask)
            # The area is that of the shape: no less than half of a box holds a triangle.
            assert annotation["area"] <= annotation["bbox"][2] * annotation["bbox"][3]
            assert annotation["area"] == pytest.approx(len(rows), rel=0.35)
    assert len(errors) > 40
    # A whole pixel is what rounding to the grid can cost; tips of triangles fade a little more.
    assert np.abs(errors).max() < 1.5
    assert np.abs(errors).mean() < 0.6


def _drawn_with(monkeypatch: pytest.MonkeyPatch, index: int, placed: list[Any]) -> np.ndarray:
    with monkeypatch.context() as patch:
        # The colour is the next thing drawn, so the generator has to be as it is after placing.
        place = shapes._place_shapes
        patch.setattr(shapes, "_place_shapes", lambda rng, size: (place(rng, size), placed)[1])
        return draw_image("train", index)[0].astype(float)


def test_shapes_are_what_their_class_says() -> None:
    seen = dict.fromkeys(CLASSES, 0)
    for index in range(60):
        for shape in draw_image("val", index)[1]:
            kind = CLASSES[shape.category]
            seen[kind] += 1
            x1, y1, x2, y2 = shape.box()
            edges = np.roll(shape.outline, -1, axis=0) - shape.outline
            lengths = np.linalg.norm(edges, axis=1)
            if kind == "square":
                assert len(edges) == 4
                np.testing.assert_allclose(lengths, lengths[0])
                assert edges[0] @ edges[1] == pytest.approx(0, abs=1e-6)
                assert shape.area() == pytest.approx(lengths[0] ** 2)
            elif kind == "circle":
                assert x2 - x1 == pytest.approx(y2 - y1)
                assert shape.area() == pytest.approx(np.pi / 4 * (x2 - x1) ** 2, rel=0.002)
            else:
                a, b, c = lengths
                half = (a + b + c) / 2  # Heron
                assert shape.area() == pytest.approx(
                    np.sqrt(half * (half - a) * (half - b) * (half - c))
                )
    assert min(seen.values()) > 30


def test_numbers_sizes_and_overlap_keep_their_limits() -> None:
    counts, extents = [], []
    for index in range(200):
        boxes = np.array([shape.box() for shape in draw_image("train", index)[1]])
        counts.append(len(boxes))
        assert boxes.min() >= 0
        assert boxes.max() <= 128
        sides = boxes[:, 2:] - boxes[:, :2]
        extents += sides.max(1).tolist()
        for i in range(len(boxes)):
            for j in range(i):
                shared = np.minimum(boxes[i, 2:], boxes[j, 2:])
                shared = (shared - np.maximum(boxes[i, :2], boxes[j, :2])).clip(0).prod()
                assert shared <= 0.25 * min(sides[i].prod(), sides[j].prod()) + 1e-9
    assert set(counts) == {1, 2, 3, 4}
    assert min(extents) >= 20 - 1e-9
    assert max(extents) <= 64 + 1e-9
    assert np.quantile(extents, 0.1) < 25  # log-uniform: 20 * 3.2^.1 = 22.5
    assert np.quantile(extents, 0.9) > 52  # 20 * 3.2^.9 = 57


def test_no_ground_swallows_a_shape() -> None:
    distances = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        colours = shapes._ground_colours(rng)
        paint = shapes._paint(rng, colours)
        mixtures = colours[0] + np.linspace(0, 1, 50)[:, None] * (colours[1] - colours[0])
        distances.append(np.linalg.norm(paint - mixtures, axis=1).min())
    assert min(distances) > 40  # over three standard deviations of the noise
    assert min(distances) < 70  # some shapes are hard to see
    assert max(distances) > 120


def test_a_finished_folder_is_left_alone(tmp_path: Path) -> None:
    first = draw_shapes(tmp_path, train=3, val=2, test=2, size=64)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    second = draw_shapes(tmp_path, train=3, val=2, test=2, size=64)

    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    assert second["drawn"] is False
    assert "nothing was drawn" in second["notes"][0]
    assert second["splits"] == first["splits"]


def test_another_set_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    draw_shapes(tmp_path, train=2, val=1, test=1, size=64)
    before = files(tmp_path)
    with pytest.raises(BadData, match=r"already holds another data set.*delete"):
        draw_shapes(tmp_path, train=2, val=1, test=1, size=64, seed=1)
    assert files(tmp_path) == before


def test_a_half_drawn_folder_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    draw_shapes(whole, train=3, val=2, test=2, size=64)

    def interrupted(split: str, index: int, **options: int) -> Any:
        if (split, index) == ("val", 1):
            raise KeyboardInterrupt
        return draw_image(split, index, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "draw_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            draw_shapes(half, train=3, val=2, test=2, size=64)
    assert (half / "train.json").exists()
    assert not (half / "dataset.yaml").exists()

    assert draw_shapes(half, train=3, val=2, test=2, size=64)["drawn"] is True
    assert files(half) == files(whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "train: got 0, expected at least 1"),
        ({"test": -1}, "test: got -1, expected at least 1"),
        ({"size": 31}, "size: got 31, expected at least 32"),
        ({"seed": -1}, "seed: got -1, expected 0 or more"),
    ],
)
def test_values_out_of_range(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(BadData, match=message):
        draw_shapes(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadData, match=r"cannot write to .*file"):
        draw_shapes(tmp_path / "file", train=1, val=1, test=1)


def test_drawing_takes_milliseconds_an_image() -> None:
    start = time.process_time()
    for index in range(50):
        draw_image("train", index)
    # 1,200 images within 10 s of one core are 8 ms each; twice that leaves room for slow ones.
    assert (time.process_time() - start) / 50 < 0.016
