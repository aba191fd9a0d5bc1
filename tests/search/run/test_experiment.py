"""An experiment's directory: made, refused, and where its search starts."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from paploss.configs import find
from paploss.errors import BadExperiment
from paploss.files import read_json, read_yaml, write_yaml
from search.history import load_history
from search.journal import Journal, TrialKey
from search.run.experiment import create_experiment, open_experiment
from search.run.results import write_results
from search.run.session import run_experiment
from tests.search.run.by_hand import (
    FAMILY,
    TASK,
    config_in,
    files,
    open_plan,
    record_of,
    run_by_hand,
)
from trainers.config import TaskConfig
from trainers.export import read_training_yaml
from trainers.read import with_files

CURVES = ("H2", "I2", "I3", "I1", "H1")
RETINANET = "parameterized_ap_retinanet_coco"
RPN, RCNN = "parameterized_ap_faster_rcnn_rpn_coco", "parameterized_ap_faster_rcnn_rcnn_coco"
FIVE = {"type": "parameterized_ap", "segments": 5}
# What a search starts from, by the heads that it searches: the preset of each.
STARTS = {
    "one head": (FIVE, RETINANET, {"": RETINANET}),
    "two heads": ({"rpn": FIVE, "rcnn": FIVE}, {"rpn": RPN, "rcnn": RCNN},
                  {"rpn.": RPN, "rcnn.": RCNN}),
    "two heads from one": ({"rpn": FIVE, "rcnn": FIVE}, RETINANET,
                           {"rpn.": RETINANET, "rcnn.": RETINANET}),
}  # fmt: skip  # fmt: skip


def test_a_new_experiment_holds_what_it_was_made_from(tmp_path):
    config = config_in(tmp_path, seed=7)
    experiment = create_experiment(config, TASK)
    assert experiment == tmp_path / "toy"
    assert open_experiment(experiment) == (config, TASK)
    space = read_json(experiment / "space.json")
    assert space == {"names": list(FAMILY.names), "start": list(FAMILY.start)}


def test_storage_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = create_experiment(config_in(Path("some/where")), TASK)
    assert experiment == tmp_path / "some" / "where" / "toy"


def test_an_experiment_is_never_overwritten(tmp_path):
    experiment = create_experiment(config_in(tmp_path), TASK)
    before = files(tmp_path)
    with pytest.raises(BadExperiment, match="exists already") as error:
        create_experiment(config_in(tmp_path, seed=1), TASK)
    assert f"paploss resume {experiment}" in str(error.value)
    assert "--set name=" in str(error.value)
    assert files(tmp_path) == before


def test_a_folder_with_somebody_elses_files_is_not_taken(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.tex").write_text("precious")
    with pytest.raises(BadExperiment):
        create_experiment(config_in(tmp_path), TASK)
    assert files(tmp_path) == {"toy/thesis.tex": b"precious"}


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "toy").mkdir()
    assert create_experiment(config_in(tmp_path), TASK) == tmp_path / "toy"


@pytest.mark.parametrize("in_the_way", ["toy", "storage"])
def test_storage_with_a_file_in_the_way(tmp_path, in_the_way):
    storage = tmp_path / "storage" if in_the_way == "storage" else tmp_path
    (tmp_path / in_the_way).write_text("a file")
    with pytest.raises(BadExperiment, match="cannot write to") as error:
        create_experiment(config_in(storage), TASK)
    assert str(storage / "toy") in str(error.value)
    assert files(tmp_path) == {in_the_way: b"a file"}


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_that_is_no_experiment(tmp_path, name):
    (tmp_path / "empty").mkdir()
    for use in (open_experiment, run_experiment):
        with pytest.raises(BadExperiment, match=r"no experiment: it has no config\.yaml"):
            use(tmp_path / name)


def warm(criterion, warm_start, **changes) -> TaskConfig:
    named = {"criterion": criterion, "warm_start": warm_start, **changes}
    return TaskConfig(**{**TASK.model_dump(), **with_files(named, None)})


def shares(points):
    """The coordinates of theta by the definition: the share of what is left that a step takes."""
    steps = itertools.pairwise(points[:-1])
    return [(new - old) / (1 - old) for a, b in steps for old, new in zip(a, b, strict=True)]


@pytest.mark.parametrize("case", STARTS)
def test_a_search_starts_where_its_preset_is(tmp_path, case):
    criterion, warm_start, presets = STARTS[case]
    experiment = create_experiment(config_in(tmp_path), warm(criterion, warm_start))
    curves = {
        f"{head}{name}": read_yaml(find("presets", preset))["control_points"][name]
        for head, preset in presets.items()
        for name in CURVES
    }
    scales = [read_yaml(find("presets", preset))["gradient_scale"] for preset in presets.values()]
    theta = [share for points in curves.values() for share in shares(points)]
    theta += [(np.log10(scale) + 1) / 2 for scale in scales]
    # A policy cannot stand on the faces of the cube.
    expected = np.clip(theta, 1e-3, 1 - 1e-3)

    plan = open_plan(experiment)
    np.testing.assert_allclose(plan.algorithm.policy()[0], expected, atol=1e-9)
    policy = read_json(experiment / "policy" / "round-000.json")
    np.testing.assert_allclose(policy["mean"], expected, atol=1e-9)
    np.testing.assert_allclose(read_json(experiment / "space.json")["start"], expected, atol=1e-9)

    starts = [assignment for assignment in plan.open if assignment.key.phase == "start"]
    assert len(starts) == 2
    assert {start.label for start in starts} == {
        f"start: {' and '.join(dict.fromkeys(presets.values()))}"
    }
    record = record_of(starts[0], open_experiment(experiment)[1])
    assert sorted(record["control_points"]) == sorted(curves)
    for name, points in curves.items():
        # One share moved by 1e-3 moves a point by no more.
        np.testing.assert_allclose(record["control_points"][name], points, atol=4e-3)
        inside = (np.array(shares(points)) > 1e-3) & (np.array(shares(points)) < 1 - 1e-3)
        if inside.all():
            np.testing.assert_allclose(record["control_points"][name], points, atol=1e-9)
    found = record["gradient_scale"]
    found = list(found.values()) if isinstance(found, dict) else [found]
    np.testing.assert_allclose(found, scales, rtol=1e-9)


def test_a_search_without_a_preset_starts_at_the_identity(tmp_path):
    plan = open_plan(create_experiment(config_in(tmp_path), TASK))
    (start, _) = [assignment for assignment in plan.open if assignment.key.phase == "start"]
    assert start.label == "start: identity"
    assert start.theta == FAMILY.start


def test_a_warm_start_taken_up_again_asks_for_the_same(tmp_path):
    criterion, warm_start, _ = STARTS["two heads"]
    whole = create_experiment(config_in(tmp_path, name="whole"), warm(criterion, warm_start))
    run_by_hand(whole)
    broken = create_experiment(config_in(tmp_path, name="broken"), warm(criterion, warm_start))
    for phase in ("search", "final"):
        run_by_hand(broken, stop_before=phase)
    run_by_hand(broken)
    for name in ("journal", "policy"):
        assert files(broken / name) == files(whole / name)


def test_a_guided_search_and_its_preflight_taken_up_again(tmp_path):
    """The quick start's way: simulations, a model, samples drawn again. What was drawn is on
    storage; where it is lost, as before the race here, it is drawn again, and is the same."""
    guided = {"type": "guided", "rounds": 2, "samples": 3, "rehearsal": 6, "attempts": 3}
    settings = {"algorithm": guided, "preflight": {"enabled": True}}
    whole, broken = (
        create_experiment(config_in(tmp_path / name, **settings), TASK) for name in ("a", "b")
    )
    run_by_hand(whole)
    run_by_hand(broken, stop_before="search")
    run_by_hand(broken, stop_before="final")
    for path in (broken / "samples").glob("*.json"):
        path.unlink()
    run_by_hand(broken)
    one, other = (list(Journal(path).records()) for path in (whole, broken))
    assert one == other
    assert len([r for r in one if r["phase"] == "search"]) == 6
    for name in ("round-000", "round-001", "final"):
        assert Journal(whole).samples(name) == Journal(broken).samples(name)


def test_a_search_of_two_heads_is_written_up(tmp_path):
    criterion, warm_start, _ = STARTS["two heads"]
    experiment = create_experiment(config_in(tmp_path), warm(criterion, warm_start))
    run_by_hand(experiment)
    write_results(experiment)
    history = load_history(experiment)
    assert history.damaged == ()
    assert (experiment / "report.html").stat().st_size > 10_000
    best = read_training_yaml(experiment / "best.yaml").criterion
    (first,) = [r for r in history.records if TrialKey.of(r) == ("final", 1, 0, 0)]
    assert list(best) == ["rpn", "rcnn"]
    for head, section in best.items():
        assert section["gradient_scale"] == first["gradient_scale"][head]
        for name, points in section["control_points"].items():
            np.testing.assert_array_equal(points, first["control_points"][f"{head}.{name}"])


def test_a_baseline_by_head_is_called_by_both(tmp_path):
    focal = {"type": "focal_giou"}
    task = TASK.model_copy(update={"baseline": {"rpn": focal, "rcnn": focal}})
    first = open_plan(create_experiment(config_in(tmp_path), task)).open[0]
    assert first.key.phase == "baseline"
    assert first.label == "RPN: Focal + GIoU, R-CNN: Focal + GIoU"


# What an experiment of before the preflight drew first: seed 0, five segments, from the identity;
# theta's first coordinates, its gradient scale, and the training seed.
FIRST_ROUND = {
    0: ([0.268550674833265, 0.5208080011713294], 0.7805364743024941, 1015854364),
    1: ([0.18271730754107762, 0.5284491153944952], 0.4260422701302421, 118129889),
}


def test_an_experiment_of_before_the_preflight_goes_on_as_it_began(tmp_path):
    task = TaskConfig(**{**TASK.model_dump(), "criterion": FIVE})
    experiment = create_experiment(config_in(tmp_path, algorithm={"rounds": 8}), task)
    path = experiment / "config.yaml"
    config = read_yaml(path)
    for later in ("preflight", "paired_seeds", "rungs", "early_stop", "fidelity"):
        del config[later]
    config["algorithm"] = {
        "type": "ppo2", "rounds": 8, "samples": 8, "sigma": 0.2, "clip": 0.1,
        "learning_rate": 0.01, "steps": 100, "overlap": 0,
    }  # fmt: skip
    config["final"] = {"candidates": 1, "repeats": 1}
    write_yaml(path, config)
    assert not open_experiment(experiment)[0].preflight.enabled
    plan = open_plan(experiment)
    trials = {a.key.slot: a for a in plan.open if a.key[:2] == ("search", 0)}
    assert len(trials) == 8
    for slot, (first, scale, seed) in FIRST_ROUND.items():
        assert trials[slot].theta[:2] == pytest.approx(first, abs=1e-12)
        assert trials[slot].theta[-1] == pytest.approx(scale, abs=1e-12)
        assert trials[slot].seed == seed and trials[slot].early_stop is None
