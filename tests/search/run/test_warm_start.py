"""A search that starts from an earlier one, in its own coordinates."""

import shutil

import numpy as np
import pytest

from loss.by_head import family_of
from paploss.errors import BadConfig, BadExperiment
from paploss.files import read_json
from search.config import PreflightConfig
from search.run.experiment import create_experiment, open_experiment
from search.run.load import split_config
from search.run.warm_start import start_from, start_line
from search.warm_start import CEILING, FLOOR
from tests.search.run.by_hand import TASK, config_in, files, open_plan, run_by_hand
from trainers.config import TaskConfig

OFF = PreflightConfig(enabled=False)
THREE = {"type": "parameterized_ap", "segments": 3}
CURVES = ("H2", "I2", "I3", "I1", "H1")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A finished search over three segments, of 2 rounds of 8; its second candidate is best."""
    config = config_in(
        tmp_path_factory.mktemp("searches"),
        name="earlier",
        algorithm={"rounds": 2, "samples": 8, "steps": 2},
        preflight={"enabled": False},
    )
    experiment = create_experiment(config, TASK)
    run_by_hand(experiment)
    return experiment


def best_theta(experiment):
    finals = [r for r in open_plan(experiment).records if r["phase"] == "final"]
    means = {c: np.mean([r["reward"] for r in finals if r["round"] == c]) for c in range(3)}
    best = max(means, key=means.get)
    return next(tuple(r["theta"]) for r in finals if r["round"] == best)


def new_search(tmp_path, warm_start, criterion=THREE, **changes):
    """(config, task) as `paploss search` reads them."""
    config = config_in(tmp_path, name="new", **changes)
    values = {**config.model_dump(mode="json"), **TASK.model_dump(mode="json")}
    values |= {"criterion": criterion, "warm_start": warm_start}
    return split_config(values, "search.yaml")


def test_a_search_goes_on_from_an_earlier_ones_winner(tmp_path, earlier):
    before = files(earlier)
    config, task = new_search(tmp_path, {"experiment": str(earlier)})
    assert files(earlier) == before  # it is only read
    np.testing.assert_allclose(task.start, best_theta(earlier), atol=1e-12)
    assert task.start_label.startswith("start: earlier, ")
    # As the definition has it: of the best 4 of 16, about the winner.
    search = [r for r in open_plan(earlier).records if r["phase"] == "search"]
    good = sorted(search, key=lambda r: -r["reward"])[:4]
    off = np.array([r["theta"] for r in good]) - best_theta(earlier)
    expected = np.sqrt((off**2).mean(axis=0)).clip(FLOOR, CEILING)
    np.testing.assert_allclose(task.spread, expected, atol=1e-4)
    line = start_line(config, task)
    assert line.startswith("starts from earlier, ") and "tiny on toy" in line
    assert f"spread {min(task.spread):.2f} to {max(task.spread):.2f} by coordinate" in line


def test_what_it_started_from_is_never_needed_again(tmp_path, earlier):
    copy = shutil.copytree(earlier, tmp_path / "copy")
    config, task = new_search(tmp_path, {"experiment": str(copy)})
    experiment = create_experiment(config, task)
    shutil.rmtree(copy)
    assert open_experiment(experiment) == (config, task)
    space = read_json(experiment / "space.json")
    assert tuple(space["start"]) == task.start and tuple(space["spread"]) == task.spread
    plan = open_plan(experiment)
    mean, std = plan.algorithm.policy()
    np.testing.assert_allclose(mean, task.start)
    np.testing.assert_allclose(std, task.spread)


def test_a_trial_and_a_spread_of_ones_own(tmp_path, earlier):
    record = read_json(earlier / "journal" / "search-001-02-0.json")
    asked = {"experiment": str(earlier), "trial": "search-001-02-0", "spread": 0.07}
    config, task = new_search(tmp_path, asked)
    np.testing.assert_allclose(task.start, record["theta"], atol=1e-12)
    assert task.spread == (0.07,) * len(task.start)
    assert "; spread 0.07 in every coordinate" in start_line(config, task)


def curves_of(criterion, theta):
    return family_of(criterion).settings(theta)["control_points"]


def test_more_segments_hold_the_same_curves(tmp_path, earlier):
    finer = {**THREE, "segments": 6}
    config, task = new_search(tmp_path, {"experiment": str(earlier)}, finer)
    old, new = curves_of(THREE, best_theta(earlier)), curves_of(finer, task.start)
    x = np.linspace(0, 1, 101)
    for name in CURVES:
        np.testing.assert_allclose(
            np.interp(x, *np.array(new[name]).T), np.interp(x, *np.array(old[name]).T), atol=1e-6
        )
    assert task.start[-1] == pytest.approx(best_theta(earlier)[-1])  # the gradient scale
    assert "3 segments as 6, the curves unchanged" in start_line(config, task)


def test_fewer_segments_come_as_near_as_they_can_and_say_how_near(tmp_path, earlier):
    config, task = new_search(tmp_path, {"experiment": str(earlier)}, {**THREE, "segments": 2})
    old = curves_of(THREE, best_theta(earlier))
    new = curves_of({**THREE, "segments": 2}, task.start)
    x, worst = np.linspace(0, 1, 1001), 0.0
    for name in CURVES:
        assert min(np.abs(np.array(old[name]) - new[name][1]).max(axis=1)) < 1e-9  # one of its own
        off = np.interp(x, *np.array(new[name]).T) - np.interp(x, *np.array(old[name]).T)
        worst = max(worst, np.abs(off).max())
    assert f"3 segments as 2, the curves at most {worst:.2f} off" in start_line(config, task)


def test_curves_that_were_one_may_part(tmp_path, earlier):
    shared = {**THREE, "shared": "kind"}
    task = TaskConfig(**{**TASK.model_dump(), "criterion": shared})
    narrow = create_experiment(config_in(tmp_path, preflight={"enabled": False}), task)
    run_by_hand(narrow, stop_before="final")
    _, task = new_search(tmp_path, {"experiment": str(narrow)})
    found = curves_of(THREE, task.start)
    assert found["H1"] == found["H2"] and found["I1"] == found["I2"] == found["I3"]
    # The other way, five curves cannot be two.
    with pytest.raises(BadConfig, match=r"cannot start from .*is another curve than those"):
        new_search(tmp_path, {"experiment": str(earlier)}, shared)


def test_every_head_starts_from_what_one_has_found(tmp_path, earlier):
    two = {"rpn": THREE, "rcnn": {**THREE, "segments": 4}}
    config, task = new_search(tmp_path, {"experiment": str(earlier)}, two)
    found = family_of(two).settings(task.start)
    np.testing.assert_allclose(
        found["rpn"]["control_points"]["H1"], curves_of(THREE, best_theta(earlier))["H1"]
    )
    assert len(task.spread) == len(task.start) == 21 + 31
    assert "rcnn: 3 segments as 4, the curves unchanged" in start_line(config, task)
    # And what two heads have found, for two heads again, but not for one.
    both = create_experiment(config.model_copy(update={"preflight": OFF}), task)
    run_by_hand(both, stop_before="final")
    again = start_from({"experiment": str(both)}, two, "search.yaml")
    assert sorted(again["criterion"]) == ["rcnn", "rpn"]
    with pytest.raises(BadConfig, match="a criterion for rpn and rcnn, this one for all heads"):
        start_from({"experiment": str(both)}, THREE, "search.yaml")
    with pytest.raises(BadConfig, match="a criterion for rpn and rcnn, this one for head and rpn"):
        start_from({"experiment": str(both)}, {"head": THREE, "rpn": THREE}, "search.yaml")


def test_a_baseline_that_is_of_the_family_is_a_start_too(tmp_path, earlier):
    baseline = family_of(THREE).settings([0.3] * 21)
    task = TaskConfig(**{**TASK.model_dump(), "baseline": baseline})
    made = create_experiment(config_in(tmp_path, preflight={"enabled": False}), task)
    run_by_hand(made, stop_before="search")
    asked = {"experiment": str(made), "trial": "baseline-000-00-0"}
    np.testing.assert_allclose(new_search(tmp_path, asked)[1].start, [0.3] * 21, atol=1e-9)
    with pytest.raises(BadConfig, match="its criterion is 'focal_giou', this one's 'parameteriz"):
        new_search(tmp_path, {**asked, "experiment": str(earlier)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"experiment": "no/where"}, "no/where is not a directory"),
        ({"trial": "search-077-00-0"}, "has no trial 'search-077-00-0'"),
        ({"tril": "x"}, "search.yaml, warm_start:\n  tril: unknown key; did you mean 'trial'?"),
        ({"spread": 2}, "warm_start.spread: got 2.0; expected a number above 0 and at most 1"),
        ({"spread": "x"}, "spread: got 'x'; input should be a valid number"),
    ],
    ids=str,
)
def test_what_cannot_be_started_from(tmp_path, earlier, change, said):
    with pytest.raises((BadConfig, BadExperiment)) as error:
        new_search(tmp_path, {"experiment": str(earlier), **change})
    assert said in str(error.value)


def test_a_fixed_gradient_scale_is_kept_and_said(tmp_path, earlier):
    fixed = {**THREE, "gradient_scale": 2.0}
    config, task = new_search(tmp_path, {"experiment": str(earlier)}, fixed)
    assert len(task.start) == 20
    scale = 10 ** (2 * best_theta(earlier)[-1] - 1)
    assert f"gradient scale {scale:.3g} left out: it is 2" in start_line(config, task)


def test_how_wide_a_search_begins(tmp_path):
    config = config_in(tmp_path)
    wide = "starts from identity; as wide as its algorithm begins"
    assert start_line(config, TASK) == wide
    algorithm = config.algorithm.model_copy(update={"sigma": 0.3})
    line = start_line(config.model_copy(update={"algorithm": algorithm}), TASK)
    assert line == "starts from identity; spread 0.3 in every coordinate"
    algorithm = config.algorithm.model_copy(update={"type": "random"})
    line = start_line(config.model_copy(update={"algorithm": algorithm}), TASK)
    assert line == "starts from identity; samples come from everywhere all the same"
