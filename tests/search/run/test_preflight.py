"""What can be known before a trial is spent."""

import copy
import json
import shutil

import pytest

from paploss.configs import find
from paploss.errors import BadConfig, BadData
from paploss.files import read_yaml
from search.config import SearchConfig
from search.run.load import split_config
from search.run.preflight import check_before_trials
from trainers.datasets.coco import load_data
from trainers.datasets.shapes import draw_shapes

CONFIG = SearchConfig(name="one", algorithm={"rounds": 2, "samples": 3})


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(folder, train=4, val=2, test=2, size=64)
    return folder


@pytest.fixture
def check(drawn):
    """Checks a task with some of its sections replaced; the lines that a user sees."""

    def run(**sections):
        values = {
            "name": "one",
            "detector": read_yaml(find("detectors", "retinanet_r18_small")),
            "data": load_data(drawn / "dataset.yaml").model_dump(mode="json"),
            "criterion": {"type": "parameterized_ap", "segments": 4},
            "schedule": {"image_size": [64, 64]},
        }
        _, task = split_config({**values, **sections}, "test")
        return list(check_before_trials(CONFIG, task))

    return run


def detector_with(change):
    values = copy.deepcopy(read_yaml(find("detectors", "retinanet_r18_small")))
    change(values["model"])
    return values


def test_a_sound_task_is_described(check):
    lines = check()
    assert lines[0].startswith("shapes: 3 classes")
    # 5 curves of 3 inner points with x and y, and the gradient scale.
    assert lines[-1].endswith("31 coordinates, 2 rounds of 3 trials")


def test_an_algorithm_without_its_package_is_said_before_the_data_are_read(monkeypatch):
    monkeypatch.setattr("search.algorithms.find_spec", lambda name: None)
    turbo = SearchConfig(name="one", algorithm={"type": "turbo"})
    lines = check_before_trials(turbo, None)  # nothing of the task is looked at
    with pytest.raises(BadConfig, match=r"needs botorch.*pip install 'paploss\[turbo\]'"):
        next(lines)


def test_a_batch_that_one_device_cannot_take_is_announced(check):
    schedule = {"image_size": [64, 64], "batch_size": 64, "batch_per_device": 8}
    lines = check(schedule={**schedule, "learning_rate": 0.016})
    said = "batches of 8 images on 1 device in place of 64: learning rate 0.002 in place of 0.016"
    assert f"{said} (linear rule)" in lines
    assert "batches of 8 images on 1 device, learning rate 0.01" in check()


def test_checking_leaves_nothing_behind(check, drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(drawn.rglob("*"))
    check()
    assert list(tmp_path.iterdir()) == []
    assert sorted(drawn.rglob("*")) == before


def test_data_are_checked_first(check, drawn):
    data = load_data(drawn / "dataset.yaml").model_dump(mode="json")
    data["val"]["annotations"] = str(drawn / "nothing.json")
    broken = detector_with(lambda model: model["neck"].update(type="NoNeck"))
    with pytest.raises(BadData, match=r"nothing\.json"):
        check(data=data, detector=broken)


@pytest.mark.parametrize("reward", ["APl", {"AP": 1, "APl": 1}])
def test_a_reward_that_nothing_can_be_measured_for(check, reward):
    """The shapes are smaller than 96 x 96."""
    with pytest.raises(BadData, match="the reward needs APl, but val has no object of that size"):
        check(reward=reward)


@pytest.mark.parametrize("reward", ["oLRP", {"AP50": 1, "APs": 2}])
def test_another_reward(check, reward):
    check(reward=reward)


def test_images_are_opened(check, drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "shapes")
    data = load_data(tmp_path / "shapes" / "dataset.yaml").model_dump(mode="json")
    (tmp_path / "shapes" / "train" / "000000.png").write_bytes(b"?")
    assert any("train: images that cannot be read: 1 of 4" in line for line in check(data=data))
    image = tmp_path / "shapes" / "val" / "000001.png"
    image.write_bytes((find("datasets", "shapes").parents[2] / "docs/dashboard.png").read_bytes())
    with pytest.raises(BadData, match="val: images of another size than annotated: 1 of 2"):
        check(data=data)


def test_images_in_two_splits(check, drawn):
    data = load_data(drawn / "dataset.yaml").model_dump(mode="json")
    with pytest.raises(BadData, match="val shares images with train"):
        check(data={**data, "val": data["train"]})


def test_classes_of_another_data_set(check, drawn):
    data = load_data(drawn / "dataset.yaml").model_dump(mode="json")
    with pytest.raises(BadData, match=r"'star'.* only in `classes`"):
        check(data={**data, "classes": ["square", "circle", "star"]})


def test_no_image_left_to_train_on(check, drawn, tmp_path):
    coco = json.loads((drawn / "train.json").read_text())
    for annotation in coco["annotations"]:
        annotation["iscrowd"] = 1
    (tmp_path / "train.json").write_text(json.dumps(coco))
    data = load_data(drawn / "dataset.yaml").model_dump(mode="json")
    data["train"]["annotations"] = str(tmp_path / "train.json")
    with pytest.raises(BadData, match=r"none of the 4 images of .* is left after filtering"):
        check(data=data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: model["backbone"].update(type="ResNot"), "ResNot"),
        (lambda model: model["backbone"].update(deptt=18), "deptt"),
        (lambda model: model["bbox_head"].update(type="YOLOHead"), "YOLOHead"),
        (lambda model: model.pop("bbox_head"), "bbox_head"),
    ],
    ids=["unknown part", "unknown argument", "unknown head", "no head"],
)
def test_a_detector_that_cannot_be_built(check, change, said):
    with pytest.raises(BadConfig, match=rf"^detector retinanet_r18_small.*{said}") as error:
        check(detector=detector_with(change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("baseline", "said"),
    [({"type": "focal"}, "unknown criterion 'focal'"), ({"type": "focal_giou", "gama": 2}, "gama")],
)
def test_a_baseline_that_cannot_be_built(check, baseline, said):
    with pytest.raises(BadConfig, match=said) as error:
        check(baseline=baseline)
    # It is not the detector that has to be mended.
    assert "Check the `model` section of the detector's file" not in str(error.value)


def test_a_head_that_ignores_its_criterion_is_found_before_a_trial(check, monkeypatch):
    from trainers.mmdet.heads.anchor import CriterionRetinaHead

    def loss_by_feat(self, cls_scores, bbox_preds, *rest):
        losses = original(self, cls_scores, bbox_preds, *rest)
        return {name: 0.5 * value for name, value in losses.items()}

    original = CriterionRetinaHead.loss_by_feat
    monkeypatch.setattr(CriterionRetinaHead, "loss_by_feat", loss_by_feat)
    with pytest.raises(BadConfig, match="trains on something else than its theta"):
        check()
