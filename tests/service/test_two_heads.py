"""A search over two heads at once, started from presets, by the command that a user types."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from paploss.configs import find
from paploss.files import read_json, read_yaml
from tests.service.conftest import Driver, Experiment
from trainers.export import read_training_yaml
from trainers.read import load_detector

pytestmark = pytest.mark.slow

RPN, RCNN = "parameterized_ap_faster_rcnn_rpn_coco", "parameterized_ap_faster_rcnn_rcnn_coco"
CURVES = ("H2", "I2", "I3", "I1", "H1")


@pytest.fixture(scope="module")
def tiny(data: Path) -> dict[str, Any]:
    """7 trials on 16 images, with the shipped small Faster R-CNN at half its width."""
    model = copy.deepcopy(load_detector("faster_rcnn_r18_small").model)
    model["backbone"]["base_channels"] = 8
    model["neck"] |= {"in_channels": [8, 16, 32], "out_channels": 16}
    model["rpn_head"] |= {"in_channels": 16, "feat_channels": 16}
    roi = model["roi_head"]
    roi["bbox_roi_extractor"]["out_channels"] = roi["bbox_head"]["in_channels"] = 16
    roi["bbox_head"]["fc_out_channels"] = 32
    return {
        "base": "shapes_faster_rcnn",
        "name": "two",
        "detector": {"name": "tiny", "model": model},
        "data": str(data),
        "warm_start": {"rpn": RPN, "rcnn": RCNN},
        # The algorithm of its base: with a rehearsal, and a screen before each trial.
        "algorithm": {"rounds": 2, "samples": 2, "rehearsal": 2, "attempts": 2},
        "final": {"candidates": 1, "repeats": 1},
        "schedule": {"epochs": 1, "image_size": [64, 64], "warmup_iterations": 0},
        "training": {"epochs": 1, "image_size": [64, 64], "warmup_iterations": 0},
    }


@pytest.fixture(scope="module")
def path(
    start: Callable[..., Driver],
    tiny: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The experiment of a search that was run to its end."""
    folder = tmp_path_factory.mktemp("two_heads")
    (folder / "search.yaml").write_text(yaml.safe_dump(tiny, sort_keys=False))
    driver = start("search", folder / "search.yaml", f"--set=storage={folder}")
    assert driver.code() == 0, driver.output
    assert "Traceback" not in driver.output
    return folder / "two"


def test_every_trial_trains_both_heads_on_their_own_theta(path: Path) -> None:
    records = Experiment(path).records
    assert len(records) == 2 * 2 + 3  # baseline, start, policy mean
    assert {r["status"] for r in records.values()} == {"ok"}, [r["error"] for r in records.values()]
    searched = [r for key, r in records.items() if key.startswith("search")]
    assert len({r["fingerprint"] for r in searched}) == 4
    assert {len(r["theta"]) for r in searched} == {82}
    for record in searched:
        assert list(record["gradient_scale"]) == ["rpn", "rcnn"]
        # All gradient scales are at theta's end.
        expected = [10 ** (2 * share - 1) for share in record["theta"][-2:]]
        np.testing.assert_allclose(list(record["gradient_scale"].values()), expected)
        assert len(record["control_points"]) == 2 * 5


def test_it_starts_at_the_presets(path: Path) -> None:
    record = Experiment(path).records["start-000-00-0"]
    assert record["label"] == f"start: {RPN} and {RCNN}"
    for head, preset in (("rpn", RPN), ("rcnn", RCNN)):
        published = read_yaml(find("presets", preset))
        assert record["gradient_scale"][head] == pytest.approx(published["gradient_scale"])
        for name in CURVES:
            points = record["control_points"][f"{head}.{name}"]
            np.testing.assert_allclose(points, published["control_points"][name], atol=4e-3)
    policy = read_json(path / "policy" / "round-000.json")
    np.testing.assert_allclose(policy["mean"], record["theta"], rtol=1e-9)


def test_what_it_left(path: Path) -> None:
    assert (path / "report.html").stat().st_size > 10_000
    assert "gradient_scale.rcnn" in (path / "history.csv").read_text().splitlines()[0]
    best = read_training_yaml(path / "best.yaml")
    assert list(best.criterion) == ["rpn", "rcnn"]
    finals = [r for key, r in Experiment(path).records.items() if key.startswith("final")]
    winner = next(r for r in finals if r["fingerprint"] == best.found_by["fingerprint"])
    for head, section in best.criterion.items():
        assert section["gradient_scale"] == winner["gradient_scale"][head]
        assert section["control_points"] == {
            name: winner["control_points"][f"{head}.{name}"] for name in CURVES
        }


def test_best_yaml_trains(path: Path, start: Callable[..., Driver], tmp_path: Path) -> None:
    best = tmp_path / "best.yaml"
    best.write_bytes((path / "best.yaml").read_bytes())
    driver = start("train", best, "--device", "cpu")
    assert driver.code() == 0, driver.output
    results = read_json(tmp_path / "training" / "results.json")
    assert results["fingerprint"] == read_yaml(best)["found_by"]["fingerprint"]
