"""An experiment's directory, without a cluster: made, refused, written up, exported."""

import fcntl
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import ray

from loss.by_head import family_of
from paploss.configs import find
from paploss.errors import BadExperiment
from paploss.files import read_json, read_yaml, write_yaml
from search.config import SearchConfig
from search.history import load_history
from search.journal import TrialKey
from search.plan import Plan
from search.run.experiment import (
    create_experiment,
    export_training,
    open_experiment,
    plan_of,
    run_experiment,
    write_results,
)
from trainers.config import TaskConfig
from trainers.export import read_training_yaml
from trainers.read import with_files
from trainers.trainable import parameters
from trainers.trial import TrialSpec

CRITERION = {"type": "parameterized_ap", "segments": 3}
SPLIT = {"annotations": "/data/x.json", "images": "/data/x"}
TASK = TaskConfig(
    detector={"name": "tiny", "model": {"type": "RetinaNet"}},
    data={"name": "toy", "classes": ["thing"], "train": SPLIT, "val": SPLIT, "test": SPLIT},
    criterion=CRITERION,
    schedule={"epochs": 1},
    training={"epochs": 12},
)
FAMILY = family_of(CRITERION)
# AP on test by candidate and repeat: the second candidate is best on the mean, not at its best.
TEST_AP = [[0.30, 0.30], [0.35, 0.33], [0.37, 0.20]]


def config_in(folder: Path, **changes) -> SearchConfig:
    values = {
        "name": "toy",
        "storage": folder,
        "algorithm": {"rounds": 2, "samples": 3, "steps": 20},
        "final": {"candidates": 3, "repeats": 2},
    }
    return SearchConfig(**{**values, **changes})


def record_of(assignment, task=TASK, status="ok"):
    """A journal record with every field, of a trial that nobody ran."""
    key, theta = assignment.key, assignment.theta
    spec = TrialSpec(
        detector=task.detector, data=task.data, schedule=task.schedule, seed=assignment.seed,
        criterion=task.criterion if theta else task.baseline, theta=theta,
    )  # fmt: skip
    ap = TEST_AP[key.round][key.repeat] if key.phase == "final" else 0.1
    reward = 0.2 + 0.1 * key.round + 0.01 * key.slot if key.phase == "search" else ap
    metrics = {"AP": reward, "AP50": 0.5, "AP75": 0.1}
    ok = status == "ok"
    return {
        **key._asdict(), "label": assignment.label, "theta": theta and list(theta),
        **parameters(spec), "seed": assignment.seed,
        "status": status, "reward": reward if ok else None, "val": metrics if ok else None,
        "test": {**metrics, "AP": ap} if ok and key.phase != "search" else None,
        "seconds": 2.0, "timing": {"setup": 0.5, "train": 1.0, "evaluate": 0.5},
        "fingerprint": f"{key}", "error": None if ok else "RuntimeError: broken",
        "skipped_images": {}, "iterations": 2, "attempt": 0, "trial_id": "x", "trial_dir": "x",
        "node": "10.0.0.1", "pid": 1, "cpus": 1.0, "gpus": 0.0, "started": 0.0, "finished": 2.0,
    }  # fmt: skip


def open_plan(experiment: Path) -> Plan:
    return plan_of(experiment, *open_experiment(experiment))


def run_by_hand(experiment: Path, stop_before: str | None = None) -> None:
    plan, (_, task) = open_plan(experiment), open_experiment(experiment)
    while plan.open and plan.open[0].key.phase != stop_before:
        plan.record(record_of(plan.open[0], task))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    experiment = create_experiment(config_in(tmp_path), TASK)
    run_by_hand(experiment)
    return experiment


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- made and refused ---------------------------------------------------------------------------


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


def test_two_drivers_do_not_run_one_experiment(tmp_path):
    experiment = create_experiment(config_in(tmp_path), TASK)
    before = files(tmp_path)
    with (experiment / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BadExperiment, match="another process is running"):
            run_experiment(experiment)
    assert files(tmp_path) == before | {"toy/.lock": b""}


# --- at the end ---------------------------------------------------------------------------------


def test_a_finished_experiment_needs_no_cluster(finished):
    assert run_experiment(finished) == finished / "best.yaml"
    assert not ray.is_initialized()
    once = files(finished)
    run_experiment(finished)
    again = files(finished)
    for time_of_writing in ("report.html", ".lock"):
        assert once.pop(time_of_writing)
        assert again.pop(time_of_writing)
    assert again == once


def test_results_of_a_finished_experiment(finished):
    write_results(finished)
    assert (finished / "report.html").stat().st_size > 10_000
    assert len((finished / "history.csv").read_text().splitlines()) == 1 + 2 * 3 + 5 * 2
    assert (finished / "best.yaml").is_file()


@pytest.mark.parametrize("phase", ["baseline", "search", "final"])
def test_an_unfinished_experiment_has_a_report_and_no_best(tmp_path, phase):
    experiment = create_experiment(config_in(tmp_path), TASK)
    run_by_hand(experiment, stop_before=phase)
    write_results(experiment)
    assert (experiment / "report.html").is_file()
    assert (experiment / "history.csv").is_file()
    assert not (experiment / "best.yaml").exists()


# --- export -------------------------------------------------------------------------------------


def test_the_winner_is_the_best_mean_on_test_and_not_the_luckiest(finished, tmp_path):
    export_training(finished, tmp_path / "best.yaml")
    best = read_training_yaml(tmp_path / "best.yaml")
    (second,) = [r for r in load_history(finished).records if TrialKey.of(r) == ("final", 1, 0, 0)]
    np.testing.assert_array_equal(
        [best.criterion["control_points"][c] for c in ("H2", "I2", "I3", "I1", "H1")],
        [second["control_points"][c] for c in ("H2", "I2", "I3", "I1", "H1")],
    )
    assert best.criterion["gradient_scale"] == second["gradient_scale"]
    found = best.found_by
    # The best reward of the search was that of the last slot: 0.2 + 0.1 + 0.02.
    assert (found["candidate"], found["round"], found["slot"]) == ("round 1 slot 2", 1, 2)
    assert found["reward"] == pytest.approx(0.32)
    assert found["test_mean"] == pytest.approx(0.34)  # (0.35 + 0.33) / 2
    assert found["test_std"] == pytest.approx(0.02 / 2**0.5)
    assert len(found["seeds"]) == 2
    assert found["fingerprint"] == "final-001-00-0"


def test_a_training_yaml_says_everything(finished, tmp_path):
    export_training(finished, tmp_path / "best.yaml")
    best = read_training_yaml(tmp_path / "best.yaml")
    assert best.detector == TASK.detector
    assert best.data == TASK.data
    assert best.schedule == TASK.training  # the full one, not a trial's
    assert best.seed == best.found_by["seeds"][0]
    assert best.found_by["experiment"] == "toy"
    assert set(best.found_by["versions"]) >= {"python", "torch", "ray", "numpy"}
    assert len(best.found_by["configuration_hash"]) == 12
    assert "paploss train best.yaml" in (tmp_path / "best.yaml").read_text()


def test_without_a_full_schedule_the_trials_is_taken(tmp_path):
    experiment = create_experiment(config_in(tmp_path), TASK.model_copy(update={"training": None}))
    run_by_hand(experiment)
    export_training(experiment, tmp_path / "best.yaml")
    assert read_training_yaml(tmp_path / "best.yaml").schedule == TASK.schedule


def test_the_policy_mean_has_no_round_and_slot(finished, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "TEST_AP", [[0.9, 0.9], [0.1, 0.1], [0.1, 0.1]])
    experiment = create_experiment(config_in(tmp_path, name="mean"), TASK)
    run_by_hand(experiment)
    export_training(experiment, tmp_path / "best.yaml")
    found = read_yaml(tmp_path / "best.yaml")["found_by"]
    assert found["candidate"] == "policy mean"
    assert (found["round"], found["slot"], found["reward"]) == (None, None, None)


@pytest.mark.parametrize("trial", ["search-001-02-0", "start-000-00-1", "final-002-00-1"])
def test_any_trial_with_a_theta_can_be_exported(finished, tmp_path, trial):
    export_training(finished, tmp_path / "one.yaml", trial)
    one = read_training_yaml(tmp_path / "one.yaml")
    record = json.loads((finished / "journal" / f"{trial}.json").read_text())
    assert one.criterion == FAMILY.settings(record["theta"])
    assert one.seed == record["seed"]
    assert one.found_by["candidate"] == record["label"]


@pytest.mark.parametrize("trial", ["search-009-00-0", "baseline-000-00-0", "nonsense", ""])
def test_a_trial_that_cannot_be_exported(finished, tmp_path, trial):
    with pytest.raises(BadExperiment, match="search-000-00-0"):
        export_training(finished, tmp_path / "one.yaml", trial)
    assert not (tmp_path / "one.yaml").exists()


def test_no_winner_before_the_final_race(tmp_path):
    experiment = create_experiment(config_in(tmp_path), TASK)
    run_by_hand(experiment, stop_before="final")
    with pytest.raises(BadExperiment, match=f"no winner yet.*paploss resume {experiment}"):
        export_training(experiment, tmp_path / "best.yaml")


def test_the_configuration_hash_tells_configurations_apart(tmp_path):
    hashes = []
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        experiment = create_experiment(config_in(tmp_path / name, seed=seed), TASK)
        config = read_yaml(experiment / "config.yaml")
        write_yaml(experiment / "config.yaml", {**config, "storage": "here"})
        run_by_hand(experiment)
        export_training(experiment, tmp_path / "best.yaml")
        hashes.append(read_yaml(tmp_path / "best.yaml")["found_by"]["configuration_hash"])
    assert hashes[0] == hashes[2] != hashes[1]


# --- where it starts ----------------------------------------------------------------------------

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
}  # fmt: skip


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
