"""An experiment's directory, without a cluster: made, refused, written up, exported."""

import fcntl
import json
from pathlib import Path

import numpy as np
import pytest
import ray

from paploss.errors import BadExperiment
from paploss.files import read_json, read_yaml, write_yaml
from search.config import SearchConfig
from search.history import load_history
from search.journal import Journal, TrialKey
from search.plan import Plan
from search.run.experiment import (
    create_experiment,
    export_training,
    open_experiment,
    run_experiment,
    write_results,
)
from search.space import SearchSpace
from trainers.config import TaskConfig, parameterization
from trainers.export import read_training_yaml

CRITERION = {"type": "parameterized_ap", "segments": 3}
SPLIT = {"annotations": "/data/x.json", "images": "/data/x"}
TASK = TaskConfig(
    detector={"name": "tiny", "model": {"type": "RetinaNet"}},
    data={"name": "toy", "classes": ["thing"], "train": SPLIT, "val": SPLIT, "test": SPLIT},
    criterion=CRITERION,
    schedule={"epochs": 1},
    training={"epochs": 12},
)
FAMILY = parameterization(CRITERION)
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


def record_of(assignment, status="ok"):
    """A journal record with every field, of a trial that nobody ran."""
    key, theta = assignment.key, assignment.theta
    settings = FAMILY.settings(theta) if theta else {}
    ap = TEST_AP[key.round][key.repeat] if key.phase == "final" else 0.1
    reward = 0.2 + 0.1 * key.round + 0.01 * key.slot if key.phase == "search" else ap
    metrics = {"AP": reward, "AP50": 0.5, "AP75": 0.1}
    ok = status == "ok"
    return {
        **key._asdict(), "label": assignment.label, "theta": theta and list(theta),
        "control_points": settings.get("control_points"),
        "gradient_scale": settings.get("gradient_scale"), "seed": assignment.seed,
        "status": status, "reward": reward if ok else None, "val": metrics if ok else None,
        "test": {**metrics, "AP": ap} if ok and key.phase != "search" else None,
        "seconds": 2.0, "timing": {"setup": 0.5, "train": 1.0, "evaluate": 0.5},
        "fingerprint": f"{key}", "error": None if ok else "RuntimeError: broken",
        "skipped_images": {}, "iterations": 2, "attempt": 0, "trial_id": "x", "trial_dir": "x",
        "node": "10.0.0.1", "pid": 1, "cpus": 1.0, "gpus": 0.0, "started": 0.0, "finished": 2.0,
    }  # fmt: skip


def plan_of(experiment: Path) -> Plan:
    config, _ = open_experiment(experiment)
    space = SearchSpace(FAMILY.names, FAMILY.start)
    return Plan(space, config, Journal(experiment), "Focal + GIoU")


def run_by_hand(experiment: Path, stop_before: str | None = None) -> None:
    plan = plan_of(experiment)
    while plan.open and plan.open[0].key.phase != stop_before:
        plan.record(record_of(plan.open[0]))


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
    assert files(finished) == once


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
    assert found["test_AP_mean"] == pytest.approx(0.34)  # (0.35 + 0.33) / 2
    assert found["test_AP_std"] == pytest.approx(0.02 / 2**0.5)
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
