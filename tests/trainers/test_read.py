"""Files that name other files: bases, detectors, data sets, presets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from paploss.configs import find
from paploss.errors import BadConfig
from paploss.files import read_yaml
from paploss.strict import parse
from trainers.config import TaskConfig
from trainers.datasets.coco import DataConfig
from trainers.read import load_detector, read_complete, with_files

Write = Callable[..., Path]
RETINANET = "parameterized_ap_retinanet_coco"
RPN, RCNN = "parameterized_ap_faster_rcnn_rpn_coco", "parameterized_ap_faster_rcnn_rcnn_coco"
ATSS = "mmdet::atss/atss_r50_fpn_1x_coco.py"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("folder/a.yaml", name="a", ...)`: a YAML in this test's folder."""

    def make(where: str, **values: Any) -> Path:
        path = tmp_path / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return make


def read(path: Path, **overrides: Any) -> dict[str, Any]:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return read_complete("search", str(path), dotted)[0]


def preset(name: str) -> dict[str, Any]:
    return read_yaml(find("presets", name))


# --- base over base -----------------------------------------------------------------------------


def test_each_file_is_laid_over_its_base(write: Write) -> None:
    write("a.yaml", name="a", seed=1, schedule={"epochs": 1, "batch_size": 8, "steps": [1, 2]})
    write("b.yaml", base="a.yaml", name="b", schedule={"epochs": 2, "steps": [3]})
    path = write("c.yaml", base="b.yaml", schedule={"epochs": 3})
    values, where = read_complete("search", str(path), {"schedule.batch_size": 4})
    assert where == path
    assert values == {
        "name": "b",
        "seed": 1,
        "schedule": {"epochs": 3, "batch_size": 4, "steps": [3]},
    }


def test_a_base_may_be_a_shipped_file(write: Write) -> None:
    path = write("mine.yaml", base="shapes", name="mine", algorithm={"rounds": 1})
    values = read(path)
    shapes = read_yaml(find("search", "shapes"))
    assert values["algorithm"] == {**shapes["algorithm"], "rounds": 1}
    assert values["schedule"] == shapes["schedule"]
    assert values["detector"]["name"] == shapes["detector"]


@pytest.mark.parametrize("key", ["criterion", "baseline", "warm_start"])
def test_a_criterion_replaces_the_bases_whole(write: Write, key: str) -> None:
    write("a.yaml", **{key: {"type": "focal_giou", "gamma": 1.5, "alpha": 0.5}})
    path = write("b.yaml", base="a.yaml", **{key: {"type": "focal_giou", "alpha": 0.1}})
    assert read(path) == {key: {"type": "focal_giou", "alpha": 0.1}}
    path = write("c.yaml", base="a.yaml", **{key: {"rpn": {"type": "ap"}}})
    assert read(path) == {key: {"rpn": {"type": "ap"}}}
    # An override is into what is there.
    assert read(write("d.yaml", base="a.yaml"), **{f"{key}__alpha": 0.2}) == {
        key: {"type": "focal_giou", "gamma": 1.5, "alpha": 0.2}
    }


def test_a_detector_replaces_the_bases_whole(write: Write) -> None:
    own = {"name": "own", "model": {"type": "FCOS"}}
    write("a.yaml", detector="retinanet_r18_small")
    assert read(write("b.yaml", base="a.yaml", detector=own)) == {"detector": own}


@pytest.mark.parametrize(
    "given",
    [
        {"preset": RETINANET, "spread": 0.1},
        {"criterion": RETINANET, "spread": 0.1},
    ],
    ids=str,
)
def test_a_preset_may_come_with_a_spread(write: Write, given: Any) -> None:
    start = {"criterion": {**preset(RETINANET), "preset": RETINANET}, "spread": 0.1}
    path = write("a.yaml", warm_start=given)
    assert read(path) == {"warm_start": start}
    assert read(path, warm_start__spread=0.2)["warm_start"] == {**start, "spread": 0.2}


def test_presets_of_heads_may_share_a_spread(write: Write) -> None:
    heads = {"rpn": RPN, "rcnn": RCNN}
    named = {head: {**preset(name), "preset": name} for head, name in heads.items()}
    nested = read(write("a.yaml", warm_start={"preset": heads, "spread": 0.1}))
    assert nested == {"warm_start": {"criterion": named, "spread": 0.1}}
    flat = read(write("b.yaml", warm_start={**heads, "spread": 0.1}))
    assert flat == {"warm_start": {**named, "spread": 0.1}}


def test_a_preset_with_a_mistyped_key(write: Write) -> None:
    path = write("a.yaml", warm_start={"preset": RETINANET, "spred": 0.1})
    with pytest.raises(BadConfig, match=r"warm_start\.spred: unknown key; did you mean 'spread'"):
        read(path)


def test_an_experiment_to_start_from_is_left_to_the_search(write: Write) -> None:
    start = {"experiment": "experiments/gone", "trial": "search-000-00-0"}
    assert read(write("a.yaml", warm_start=start)) == {"warm_start": start}


def test_a_warm_start_is_taken_back_with_null(write: Write) -> None:
    write("a.yaml", warm_start=RETINANET)
    assert read(write("b.yaml", base="a.yaml", warm_start=None)) == {"warm_start": None}


def test_what_a_file_replaces_is_not_read_from_its_base(write: Write) -> None:
    """So that a search on COCO is a base for those who do not have it."""
    write("a.yaml", data="gone.yaml", detector="gone.yaml", criterion="gone", seed=3)
    other = {"type": "ap"}
    path = write("b.yaml", base="a.yaml", data="shapes", detector="retinanet_r18_small")
    assert read(path, criterion=other)["criterion"] == other
    with pytest.raises(BadConfig, match="no file 'gone'"):
        read(path)


def test_a_base_over_itself(write: Write, tmp_path: Path) -> None:
    path = write("a.yaml", base="a.yaml")
    with pytest.raises(BadConfig, match=r"a\.yaml is its own base"):
        read(path)
    write("x/b.yaml", base="../x/c.yaml")
    path = write("x/c.yaml", base="../x/b.yaml")
    with pytest.raises(BadConfig, match=r"c\.yaml is its own base, by way of .*c\.yaml, .*b\.yaml"):
        read(path)
    (tmp_path / "link.yaml").symlink_to(tmp_path / "linked.yaml")
    path = write("linked.yaml", base="link.yaml")
    with pytest.raises(BadConfig, match="is its own base"):
        read(path)


def test_two_files_may_have_one_base(write: Write) -> None:
    write("root.yaml", seed=1)
    write("a.yaml", base="root.yaml", name="a")
    assert read(write("b.yaml", base="a.yaml")) == read(write("c.yaml", base="a.yaml"))


@pytest.mark.parametrize("base", [3, ["a.yaml"], {"name": "a"}])
def test_a_base_that_is_no_name(write: Write, base: Any) -> None:
    with pytest.raises(BadConfig, match=r"a\.yaml: base is .*expected the name or path of a file"):
        read(write("a.yaml", base=base))


def test_a_base_that_is_not_there(write: Write) -> None:
    with pytest.raises(BadConfig, match="did you mean 'shapes'"):
        read(write("a.yaml", base="shape"))


# --- where files are looked up ------------------------------------------------------------------


def test_names_in_a_file_are_looked_up_beside_it(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("low/net.yaml", name="low", model={"type": "RetinaNet"})
    write("low/loss.yaml", type="ap")
    write("low/base.yaml", detector="net.yaml", criterion="loss.yaml")
    path = write("high/search.yaml", base="../low/base.yaml", baseline="mine/loss.yaml")
    write("high/mine/loss.yaml", type="alrp")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read(path) == {
        "detector": {"name": "low", "model": {"type": "RetinaNet"}},
        "criterion": {"type": "ap"},
        "baseline": {"type": "alrp"},
    }


def test_data_keeps_its_paths(write: Write, shapes: DataConfig) -> None:
    folder = shapes.train.images.parent
    path = write("a.yaml", data=str(folder / "dataset.yaml"))
    assert DataConfig(**read(path)["data"]) == shapes
    assert DataConfig(**read(write("b.yaml", base="a.yaml"))["data"]) == shapes


# --- presets ------------------------------------------------------------------------------------


def test_a_criterion_may_be_a_preset(write: Write) -> None:
    values = read(write("a.yaml", criterion=RETINANET, baseline=RPN))
    assert values == {"criterion": preset(RETINANET), "baseline": preset(RPN)}


def test_each_head_may_have_a_preset(write: Write) -> None:
    searched = {"type": "parameterized_ap"}
    values = read(write("a.yaml", criterion={"rpn": RPN, "rcnn": searched}))
    assert values == {"criterion": {"rpn": preset(RPN), "rcnn": searched}}


def test_a_part_of_a_preset_can_be_overridden(write: Write) -> None:
    path = write("a.yaml", criterion={"rpn": RPN, "rcnn": RCNN}, baseline=RETINANET)
    changes = {"criterion__rpn__gradient_scale": 1, "baseline__num_topk": 9}
    values = read(path, **changes, criterion__rcnn=RETINANET)
    assert values["criterion"]["rpn"] == {**preset(RPN), "gradient_scale": 1}
    assert values["criterion"]["rcnn"] == preset(RETINANET)
    assert values["baseline"] == {**preset(RETINANET), "num_topk": 9}


def test_a_warm_start_remembers_its_name(write: Write) -> None:
    flat = read(write("a.yaml", warm_start=RETINANET))["warm_start"]
    assert flat == {**preset(RETINANET), "preset": RETINANET}
    two = read(write("b.yaml", warm_start={"rpn": RPN, "rcnn": RCNN}))["warm_start"]
    assert {head: section["preset"] for head, section in two.items()} == {"rpn": RPN, "rcnn": RCNN}
    # A file of one's own, which says it by head itself.
    write("mine.yaml", rpn=preset(RPN), rcnn=preset(RCNN))
    mine = read(write("c.yaml", warm_start="mine.yaml"))["warm_start"]
    assert mine["rcnn"] == {**preset(RCNN), "preset": "mine"}
    # What is read is not read again.
    assert with_files({"warm_start": two}, None) == {"warm_start": two}


@pytest.mark.parametrize(
    ("warm_start", "label"),
    [
        (None, "start: identity"),
        (RETINANET, f"start: {RETINANET}"),
        ({"rpn": RPN, "rcnn": RCNN}, f"start: {RPN} and {RCNN}"),
        ({"rpn": RPN, "rcnn": RPN}, f"start: {RPN}"),
        (preset(RETINANET), "start: given"),
        ({"rpn": RPN, "rcnn": preset(RCNN)}, f"start: {RPN} and given"),
    ],
    ids=str,
)
def test_what_the_start_is_called(
    write: Write, task: TaskConfig, warm_start: Any, label: str
) -> None:
    searched = {"type": "parameterized_ap"}
    criterion = {"rpn": searched, "rcnn": searched}
    values = read(write("a.yaml", warm_start=warm_start, criterion=criterion))
    assert TaskConfig(**{**task.model_dump(), **values}).start_label == label


def test_a_preset_that_is_not_there(write: Write) -> None:
    with pytest.raises(BadConfig, match=f"did you mean '{RETINANET}'"):
        read(write("a.yaml", criterion={"rpn": "parameterized_ap_retinanet", "rcnn": RCNN}))


# --- detectors ----------------------------------------------------------------------------------


def test_a_detector_is_laid_over_another(write: Write) -> None:
    path = write(
        "net.yaml",
        name="mine",
        base="retinanet_r18_small",
        model={"test_cfg": {"score_thr": 0.5}, "neck": {"_delete_": True, "type": "None"}},
    )
    below, found = load_detector("retinanet_r18_small").model, load_detector(str(path))
    assert found.name == "mine"
    assert found.model["test_cfg"] == {**below["test_cfg"], "score_thr": 0.5}
    assert found.model["neck"] == {"type": "None"}
    assert found.model["bbox_head"] == below["bbox_head"]


def test_a_detector_without_a_model_is_its_base_by_another_name(write: Write) -> None:
    found = load_detector(str(write("net.yaml", name="mine", base="retinanet_r18_small")))
    assert found.model == load_detector("retinanet_r18_small").model
    assert found.name == "mine"


def test_a_detector_that_deletes_all_of_its_base(write: Write) -> None:
    own = {"_delete_": True, "type": "FCOS"}
    path = write("net.yaml", name="mine", base="retinanet_r18_small", model=own)
    assert load_detector(str(path)).model == {"type": "FCOS"}


def test_a_detector_over_a_config_of_mmdet(write: Write) -> None:
    found = load_detector(ATSS)
    assert found.name == "atss_r50_fpn_1x_coco"
    assert found.model["type"] == "ATSS" and found.model["bbox_head"]["num_classes"] == 80
    path = write("net.yaml", name="mine", base=ATSS, model={"bbox_head": {"stacked_convs": 1}})
    mine = load_detector(str(path)).model
    assert mine["bbox_head"] == {**found.model["bbox_head"], "stacked_convs": 1}
    assert mine["backbone"] == found.model["backbone"]


def test_an_entry_of_a_list_is_named_by_its_number(write: Write) -> None:
    stages = [{"type": "Head", "std": 1}, {"type": "Head", "std": 2}]
    write("low.yaml", name="low", model={"bbox_head": stages})
    path = write("net.yaml", name="mine", base="low.yaml", model={"bbox_head": {1: {"std": 9}}})
    assert load_detector(str(path)).model == {
        "bbox_head": [{"type": "Head", "std": 1}, {"type": "Head", "std": 9}]
    }
    path = write("net.yaml", name="mine", base="low.yaml", model={"bbox_head": {2: {"std": 9}}})
    with pytest.raises(BadConfig, match="2 is no entry of a list of 2"):
        load_detector(str(path))


def test_an_override_reaches_into_a_detector_that_is_named(write: Write) -> None:
    path = write("a.yaml", detector="retinanet_r18_small")
    below = load_detector("retinanet_r18_small").model
    found = read(path, detector__model__test_cfg__score_thr=0.1)["detector"]["model"]
    assert found["test_cfg"] == {**below["test_cfg"], "score_thr": 0.1}
    # And into one that an override names.
    path = write("b.yaml", detector="gone")
    found = read(path, detector="retinanet_r18_small", detector__name="x")["detector"]
    assert found == {"name": "x", "model": below}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"base": "net.yaml", "name": "a"}, "is its own base"),
        ({"base": "../net.yaml/../net.yaml", "name": "a"}, "no file|its own base"),
        ({"base": 3, "name": "a"}, "base is 3; expected the name or path of a file"),
        ({"base": "retinanet_r18_smal", "name": "a"}, "did you mean 'retinanet_r18_small'"),
        ({"base": "mmdet::atss/gone.py", "name": "a"}, r"cannot read mmdet::atss/gone\.py"),
        ({"base": "retinanet_r18_small"}, r"net\.yaml:\n  name: missing"),
        ({"base": "retinanet_r18_small", "name": "a", "model": None}, "model is None; expected"),
        ({"base": "retinanet_r18_small", "name": "a", "modle": {}}, "did you mean 'model'"),
        ({"name": "a"}, r"net\.yaml:\n  model: missing"),
    ],
    ids=str,
)
def test_what_is_no_detector(write: Write, values: dict[str, Any], said: str) -> None:
    path = write("net.yaml", **values)
    with pytest.raises(BadConfig, match=said):
        load_detector(str(path))
    search = write("search.yaml", detector="net.yaml")
    with pytest.raises(BadConfig, match=said):
        read(search)


def test_an_error_names_the_file_that_was_asked_for(write: Write) -> None:
    path = write("search.yaml", detector="gone.yaml")
    with pytest.raises(BadConfig) as error:
        read(path)
    assert str(path) in str(error.value) and "gone.yaml" in str(error.value)


def test_what_is_read_is_a_task(write: Write, shapes: DataConfig) -> None:
    path = write(
        "search.yaml",
        detector="retinanet_r18_small",
        data=str(shapes.train.images.parent / "dataset.yaml"),
        criterion={"type": "parameterized_ap"},
        baseline=RETINANET,
        warm_start=RETINANET,
    )
    task = parse(TaskConfig, read(path), str(path))
    assert task.baseline == preset(RETINANET)
    assert task.start != parse(TaskConfig, read(path, warm_start=None), str(path)).start
