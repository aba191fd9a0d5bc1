"""Searches taken as they were after fewer trials, and the races of what they had found."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import benchmarks.race_trials
from benchmarks.race_trials import CHOOSING, SCORING, Loss, Runs, run_missing
from benchmarks.replay import Experiment
from benchmarks.search_real import Race, races_of, results
from benchmarks.short_trials import result_of
from paploss.errors import UserError
from paploss.files import write_json
from search.algorithms import build_algorithm
from search.journal import Journal
from search.run.load import load_search
from search.space import SearchSpace
from trainers.worker import WorkerLost


class Process:
    """A training process in which trials take no time, and the first good one is lost."""

    started = 0

    def __init__(self, trials):
        type(self).started += 1

    def run(self, spec, folder, stall_seconds):
        if type(self).started == 1 and spec.theta[0] == 0.6:
            raise WorkerLost("gone")
        return result_of(spec)

    def close(self):
        """Nothing to end."""


def reward_of(theta: np.ndarray) -> float:
    return 0.3 * math.exp(-float(np.mean((theta - 0.4) ** 2)))


@pytest.fixture
def experiment(tmp_path) -> Path:
    """A search of 3 rounds of 4 by PPO2, whose journal lacks its last trial."""
    path = tmp_path / "ppo2_s5"
    settings = {"name": path.name, "algorithm": {"type": "ppo2", "rounds": 3, "samples": 4}}
    config, task = load_search("shapes", {**settings, "seed": 5})
    values = {**config.model_dump(mode="json"), **task.model_dump(mode="json")}
    write_json(path / "config.yaml", values)
    algorithm, journal = algorithm_of(config, task), Journal(path)
    for repeat in range(3):
        journal.write(record("start", 0, 0, repeat, task.start, 0.1))
    algorithm.tell_start([0.1] * 3)
    for round in range(3):
        thetas = algorithm.ask()
        for slot, theta in enumerate(thetas):
            if (round, slot) != (2, 3):
                journal.write(record("search", round, slot, 0, theta, reward_of(theta)))
        algorithm.tell([reward_of(theta) for theta in thetas])
    return path


def algorithm_of(config, task):
    return build_algorithm(SearchSpace(names(), task.start), config.algorithm, config.seed)


def names() -> tuple[str, ...]:
    from loss.by_head import family_of

    return family_of({"type": "parameterized_ap", "segments": 5}).names


def record(phase, round, slot, repeat, theta, reward) -> dict:
    return {
        "phase": phase, "round": round, "slot": slot, "repeat": repeat, "theta": list(theta),
        "seed": 1, "label": "", "status": "ok", "reward": reward, "test_reward": None,
        "seconds": 6.0,
    }  # fmt: skip


def test_a_search_is_as_it_was(experiment):
    found = Experiment.open(experiment)
    assert [found.rounds_within(budget) for budget in (3, 4, 8, 12)] == [0, 1, 2, 0]
    algorithm = algorithm_of(found.config, found.task)
    algorithm.tell_start([0.1] * 3)
    for rounds in (1, 2):
        algorithm.tell([reward_of(theta) for theta in algorithm.ask()])
        np.testing.assert_array_equal(found.best_guess(rounds), algorithm.best_guess())
    assert found.minutes(2) == pytest.approx(8 * 0.1)


def test_trials_that_were_stopped_early_cost_their_share(experiment):
    for path in sorted((experiment / "journal").glob("search-001-*")):
        values = json.loads(path.read_text())
        write_json(path, {**values, "status": "stopped", "seconds": 3.0})
    found = Experiment.open(experiment)
    assert found.rounds_within(6) == 2  # 4 full ones and 4 halves
    assert {r["round"] for r in found.best_samples(2, 8)} == {0}


def test_candidates_are_the_guess_and_the_best_samples_so_far(experiment):
    found = Experiment.open(experiment)
    early, late = races_of(found, (4, 8, 12), 3)
    assert (early.group, early.budget, late.rounds) == ("ppo2", 4, 2)
    assert early.candidates[0].theta == tuple(found.best_guess(1))
    first = sorted((r for r in found.search if r["round"] == 0), key=lambda r: -r["reward"])
    assert [c.theta for c in early.candidates[1:]] == [tuple(r["theta"]) for r in first[:2]]


def test_races_run_once_and_are_chosen_on_val(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks.race_trials, "TrialProcess", Process)
    task = Experiment.open(experiment).task
    good, bad = (Loss(task.criterion, (x,) * 41, f"e at {x}") for x in (0.6, 0.1))
    race = Race("e", "e", 16, 2, 1.0, (bad, good))
    runs, said = Runs(tmp_path / "runs.jsonl"), []
    wanted = [(loss, repeat) for loss in race.candidates for repeat in CHOOSING]
    run_missing([*wanted, *wanted], runs, task, 1, said.append)
    assert len(said) == 4 and Process.started == 2
    chosen, _ = race.choose(runs)
    assert chosen is good
    with runs.path.open("a") as file:
        file.write('{"cut short by a kill')
    runs = Runs(runs.path)  # as the next session finds it
    scoring = [(good, repeat) for repeat in SCORING]
    run_missing([*wanted, *scoring], runs, task, 1, said.append)
    assert len(said) == 7
    assert len(Runs(runs.path).path.read_text().splitlines()) == 7
    (row,) = results([race], runs).to_dict("records")
    # A run that diverged was not scored, and counts as 0.
    scores = [runs.get(good, repeat)["test_reward"] or 0.0 for repeat in SCORING]
    assert max(scores) > 0
    assert row["test"] == pytest.approx(np.mean(scores))
    assert row["race"] == 7
    assert runs.get(good, CHOOSING[0])["test_reward"] is None


def test_a_folder_that_is_no_experiment_is_named(tmp_path):
    with pytest.raises(UserError, match="is no experiment"):
        Experiment.open(tmp_path)
