"""A search YAML, the files it names and the overrides, read into settings."""

from pathlib import Path

import pytest
import yaml

from paploss.configs import config_folder
from paploss.errors import BadConfig, BadExperiment, UserError
from search.run.load import experiment_of, load_search, parse_overrides, split_config
from trainers.datasets.shapes import draw_shapes
from trainers.read import load_detector

SEARCH = {
    "name": "one",
    "detector": "tiny.yaml",
    "data": "data/dataset.yaml",
    "criterion": {"type": "parameterized_ap", "segments": 4},
    "algorithm": {"rounds": 2},
    "schedule": {"image_size": [64, 96]},
}
DETECTOR = {"name": "tiny", "model": {"type": "RetinaNet", "bbox_head": {"type": "RetinaHead"}}}


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """A search YAML with its detector and its data set beside it."""
    draw_shapes(tmp_path / "data", train=2, val=1, test=1, size=32)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(DETECTOR))
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(SEARCH))
    return path


def test_one_file_says_it_all(search):
    config, task = load_search(str(search), {})
    assert (config.name, config.algorithm.rounds, config.algorithm.samples) == ("one", 2, 8)
    assert task.detector.name == "tiny"
    assert task.criterion == {"type": "parameterized_ap", "segments": 4}
    assert task.baseline == {"type": "focal_giou", "giou_weight": 2.0}
    assert task.schedule.image_size == (64, 96)
    assert task.training is None
    assert task.data.classes == ["square", "circle", "triangle"]


def test_paths_do_not_depend_on_where_the_command_is_typed(search, monkeypatch, tmp_path):
    _, task = load_search(str(search), {})
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert load_search(str(search), {})[1] == task
    assert task.data.train.annotations == search.parent / "data" / "train.json"
    monkeypatch.chdir(search.parent)
    assert load_search("search.yaml", {})[1] == task


@pytest.mark.parametrize("name", sorted(p.stem for p in config_folder().glob("search/*.yaml")))
def test_every_shipped_search_is_valid(name):
    # Its own data set may be one that the user has to make first.
    config, task = load_search(name, {"data": "shapes"})
    assert config.name == name
    assert task.training is not None  # best.yaml trains in full


def test_overrides_reach_every_section(search):
    config, task = load_search(
        str(search),
        {
            "algorithm.rounds": 7, "resources.cpus_per_trial": 0.5, "schedule.epochs": 3,
            "criterion.segments": 6, "baseline.gamma": 1.5, "baseline.type": "focal_giou",
            "training.epochs": 9, "storage": "elsewhere",
        },
    )  # fmt: skip
    assert (config.algorithm.rounds, config.resources.cpus_per_trial) == (7, 0.5)
    assert config.storage == Path("elsewhere")
    assert task.schedule.epochs == 3 and task.schedule.image_size == (64, 96)
    assert task.criterion["segments"] == 6
    assert task.baseline == {"type": "focal_giou", "gamma": 1.5}
    assert task.training.epochs == 9


def test_detector_and_data_may_stand_in_the_file_itself(search):
    _, task = load_search(str(search), {})
    values = {**SEARCH, **task.model_dump(mode="json", include={"detector", "data"})}
    search.write_text(yaml.safe_dump(values))
    assert load_search(str(search), {})[1] == task


def test_what_an_experiment_keeps_reads_back_alike(search):
    config, task = load_search(str(search), {"seed": 3})
    kept = {**config.model_dump(mode="json"), **task.model_dump(mode="json")}
    assert split_config(yaml.safe_load(yaml.safe_dump(kept)), "config.yaml") == (config, task)


def test_an_mmdet_config_in_python_is_a_detector(tmp_path):
    path = tmp_path / "net.py"
    path.write_text("depth = 18\nmodel = dict(type='RetinaNet', backbone=dict(depth=depth))\n")
    detector = load_detector(str(path))
    assert detector.name == "net"
    assert detector.model == {"type": "RetinaNet", "backbone": {"depth": 18}}


@pytest.mark.parametrize(
    ("text", "said"), [("model = dict(", "cannot read"), ("x = 1", "no `model`")]
)
def test_python_that_is_no_detector(tmp_path, text, said):
    path = tmp_path / "net.py"
    path.write_text(text)
    with pytest.raises(BadConfig, match=said):
        load_detector(str(path))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"algoritm.rounds": 3}, "algoritm: unknown key; did you mean 'algorithm'?"),
        ({"detectr": "x"}, "detectr: unknown key; did you mean 'detector'?"),
        ({"colour": "red"}, "colour: unknown key; known here: algorithm, baseline, criterion"),
        ({"algorithm.round": 3}, "algorithm.round: unknown key; did you mean 'rounds'?"),
        ({"schedule.epoch": 3}, "schedule.epoch: unknown key; did you mean 'epochs'?"),
        ({"detector": {"name": "a", "modle": {}}}, "did you mean 'model'?"),
        ({"detector": "tinny.yaml"}, "no file 'tinny.yaml'"),
        ({"detector": "retinanet_r18_smal"}, "did you mean 'retinanet_r18_small'?"),
        ({"data": "shape"}, "did you mean 'shapes'?"),
        ({"criterion": {}}, "expected a criterion with its `type`"),
    ],
)
def test_what_is_wrong_is_said_with_what_was_meant(search, overrides, said):
    with pytest.raises(UserError) as error:
        load_search(str(search), overrides)
    assert said in str(error.value)


def test_all_that_is_wrong_in_a_section_is_said_at_once(search):
    with pytest.raises(BadConfig) as error:
        load_search(str(search), {"algorithm.rounds": 0, "algorithm.sample": 3, "seed": "x"})
    lines = str(error.value).splitlines()
    assert lines[0] == f"{search} with --set algorithm.rounds algorithm.sample seed:"
    assert len(lines) == 4


# --- overrides ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("a.b=4", 4), ("a.b=0.5", 0.5), ("a.b=1e-3", "1e-3"), ("a.b=[64, 96]", [64, 96]),
        ("a.b=true", True), ("a.b=", None), ("a.b=x=y", "x=y"), ("a.b={c: 1}", {"c": 1}),
        ("a.b='4'", "4"),
    ],
)  # fmt: skip
def test_values_are_yaml(item, value):
    assert parse_overrides([item]) == {"a.b": value}


def test_the_last_override_of_a_key_counts():
    assert parse_overrides(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}


@pytest.mark.parametrize("item", ["algorithm.rounds", "=4", "", "a=[1", "a={b: }}"])
def test_overrides_that_cannot_be(item):
    with pytest.raises(BadConfig, match="--set"):
        parse_overrides([item])


def test_yamls_numbers_are_numbers(search):
    # YAML 1.1 reads 1e-3 as text; the settings take it for the number that was meant.
    _, task = load_search(str(search), parse_overrides(["schedule.learning_rate=1e-3"]))
    assert task.schedule.learning_rate == 0.001


# --- an algorithm by its name -------------------------------------------------------------------


def algorithm_of(search, *items):
    return load_search(str(search), parse_overrides(list(items)))[0].algorithm


def test_another_algorithm_is_one_word_and_keeps_the_budget(search):
    text = {**SEARCH, "algorithm": {"rounds": 3, "samples": 4, "sigma": 0.3, "clip": 0.2}}
    search.write_text(yaml.safe_dump(text))
    found = algorithm_of(search, "algorithm=turbo")
    assert (found.type, found.rounds, found.samples) == ("turbo", 3, 4)
    assert found.sigma is None and found.clip == 0.1  # of the other one's
    for items in (["algorithm=cem", "algorithm.rounds=8"], ["algorithm.rounds=8", "algorithm=cem"]):
        found = algorithm_of(search, *items, "algorithm.sigma=0.1")
        assert (found.type, found.rounds, found.samples, found.sigma) == ("cem", 8, 4, 0.1)


def test_the_same_algorithm_by_its_name_keeps_its_settings(search):
    text = {**SEARCH, "algorithm": {"type": "cem", "rounds": 3, "sigma": 0.3}}
    search.write_text(yaml.safe_dump(text))
    found = algorithm_of(search, "algorithm=cem")
    assert (found.type, found.rounds, found.sigma) == ("cem", 3, 0.3)


def test_a_file_may_name_another_algorithm_than_its_base(search):
    over = search.parent / "over.yaml"
    over.write_text(yaml.safe_dump({"base": "search.yaml", "algorithm": "random"}))
    found = algorithm_of(over)
    assert (found.type, found.rounds) == ("random", 2)
    search.write_text(yaml.safe_dump({**SEARCH, "algorithm": "tpe"}))
    assert algorithm_of(search).type == "tpe"
    assert algorithm_of(over).type == "random"


def test_an_algorithm_that_is_none(search):
    with pytest.raises(BadConfig, match=r"algorithm\.type: got 'turob'; input should be 'ppo2', "):
        algorithm_of(search, "algorithm=turob")


def test_the_settings_that_were_set_are_named(search):
    with pytest.raises(BadConfig, match=r"search\.yaml with --set algorithm\.rounds:\n"):
        load_search(str(search), {"algorithm.rounds": 0})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rungs": {}}, "rungs: given without fidelity"),
        ({"fidelity": {"images": 0.5}}, "fidelity: given without rungs"),
    ],
)
def test_rungs_and_fidelity_need_each_other(search, given, message):
    whole = {**SEARCH, "algorithm": {"rounds": 2, "samples": 4}}
    search.write_text(yaml.safe_dump({**whole, **given}))
    with pytest.raises(BadConfig, match=message):
        load_search(str(search), {})
    both = {"rungs": {}, "fidelity": {"images": 0.5}}
    search.write_text(yaml.safe_dump({**whole, **both}))
    assert load_search(str(search), {})[0].full_samples == 1


@pytest.mark.parametrize("own", ["clip=0.2", "learning_rate=0.1", "steps=5", "rehearsal=5"])
def test_a_setting_of_another_algorithm_would_do_nothing(search, own):
    key, _, value = own.partition("=")
    whose = "guided" if key == "rehearsal" else "ppo2"
    for kind in ("ppo2", "guided", "cem"):
        settings = {"type": kind, "rounds": 2, "samples": 4, key: yaml.safe_load(value)}
        search.write_text(yaml.safe_dump({**SEARCH, "algorithm": settings}))
        if kind == whose:
            assert load_search(str(search), {})[0].algorithm.type == kind
            continue
        message = rf"algorithm\.{key}: a setting of {whose}, which {kind} does not have"
        with pytest.raises(BadConfig, match=message):
            load_search(str(search), {})


def test_the_config_of_an_experiment_is_a_search_too(search):
    config, task = load_search(str(search), {"algorithm": "guided"})
    whole = {**config.model_dump(mode="json"), **task.model_dump(mode="json")}
    search.write_text(yaml.safe_dump(whole))
    assert load_search(str(search), {}) == (config, task)


def test_a_warm_start_from_nothing(search):
    search.write_text(yaml.safe_dump({**SEARCH, "warm_start": {"spread": 0.1}}))
    with pytest.raises(
        BadConfig, match=r"warm_start: got {'spread': 0\.1}; expected what to start"
    ):
        load_search(str(search), {})


def test_the_published_searches_say_their_algorithm_in_full():
    for name in ("retinanet_r50_coco_as_published", "faster_rcnn_r50_coco_as_published"):
        config, _ = load_search(name, {"data": "shapes"})
        said = config.algorithm.model_dump()
        assert {key: said[key] for key in ("type", "rounds", "samples", "sigma", "clip")} == {
            "type": "ppo2", "rounds": 40, "samples": 8, "sigma": 0.2, "clip": 0.1,
        }  # fmt: skip
        assert not config.preflight.enabled and config.rungs is config.early_stop is None


def test_where_a_search_goes_is_known_without_what_it_starts_from(search):
    asked = {"name": "b", "storage": "there", "warm_start": {"experiment": "gone"}}
    assert experiment_of(str(search), asked) == Path("there/b")
    with pytest.raises(BadExperiment, match="gone is not a directory"):
        load_search(str(search), asked)
