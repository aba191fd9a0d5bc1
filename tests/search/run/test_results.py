"""What a search leaves: written up, exported."""

import json

import numpy as np
import pytest

from loss.formula_text import formulas_of
from paploss.errors import BadExperiment
from paploss.files import read_yaml, write_yaml
from search.history import load_history
from search.journal import TrialKey
from search.run.experiment import create_experiment
from search.run.results import export_training, write_results
from tests.search.run import by_hand
from tests.search.run.by_hand import (
    FAMILY,
    TASK,
    config_in,
    run_by_hand,
)
from trainers.export import read_training_yaml


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
    monkeypatch.setattr(by_hand, "TEST_AP", [[0.9, 0.9], [0.1, 0.1], [0.1, 0.1]])
    experiment = create_experiment(config_in(tmp_path, name="mean"), TASK)
    run_by_hand(experiment)
    export_training(experiment, tmp_path / "best.yaml")
    found = read_yaml(tmp_path / "best.yaml")["found_by"]
    assert found["candidate"] == "policy mean"
    assert (found["round"], found["slot"], found["reward"]) == (None, None, None)


def test_a_best_guess_that_is_a_formula_of_some_sample_says_so(tmp_path):
    """The reward of slot 2 of the last round is the highest: 0.2 + 0.1 + 0.02."""
    task = TASK.model_copy(update={"criterion": {"type": "formula", "nodes": 9}})
    algorithm = {"type": "evolution", "rounds": 2, "samples": 3}
    config = config_in(tmp_path, algorithm=algorithm, final={"candidates": 1, "repeats": 1})
    experiment = create_experiment(config, task)
    run_by_hand(experiment)
    export_training(experiment, tmp_path / "best.yaml")
    best = read_training_yaml(tmp_path / "best.yaml")
    found = best.found_by
    assert (found["candidate"], found["round"], found["slot"]) == ("best guess", 1, 2)
    assert found["reward"] == pytest.approx(0.32)
    assert found["formulas"] == formulas_of(best.criterion)


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
