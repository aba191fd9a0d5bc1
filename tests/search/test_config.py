"""The search's settings: the paper's by default, and nothing out of range."""

import pytest

from paploss.errors import BadConfig
from paploss.strict import parse
from search.config import AlgorithmConfig, ResourcesConfig, SearchConfig


def test_the_defaults_are_the_papers():
    config = SearchConfig(name="x")
    algorithm = config.algorithm
    assert (algorithm.type, algorithm.rounds, algorithm.samples) == ("ppo2", 40, 8)
    assert (algorithm.sigma, algorithm.clip) == (None, 0.1)  # PPO2's own spread: .2
    assert (algorithm.learning_rate, algorithm.steps) == (0.01, 100)


def test_settings_do_not_change_once_made():
    config = SearchConfig(name="x")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


def test_a_search_survives_its_own_file():
    config = SearchConfig(name="x", seed=2**32 - 1, algorithm={"sigma": 1}, final={"repeats": 1})
    assert SearchConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("name", ["a", "Shapes-2.1_b", "0", "x" * 80])
def test_names_that_make_a_folder(name):
    assert SearchConfig(name=name).name == name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ""), ("name", "a/b"), ("name", ".."), ("name", "-x"), ("name", "x" * 81),
        ("name", "a b"), ("seed", -1), ("seed", 2**32), ("seed", 1.5), ("seed", "one"),
        ("algorithm.rounds", 0), ("algorithm.samples", 1), ("algorithm.sigma", 0),
        ("algorithm.sigma", 1.01), ("algorithm.sigma", float("nan")), ("algorithm.clip", 0),
        ("algorithm.clip", 1), ("algorithm.learning_rate", 0), ("algorithm.steps", 0),
        ("algorithm.type", "sgd"), ("final.candidates", 0), ("final.repeats", 0),
        ("resources.cpus_per_trial", 0), ("resources.gpus_per_trial", -1),
        ("resources.cpus_per_trial", float("inf")), ("resources.stall_minutes", 0),
        ("resources.pending_minutes", 0), ("resources.reuse_actors", "perhaps"),
    ],
)  # fmt: skip
def test_out_of_range(key, value):
    values = {"name": "x"}
    section, _, field = key.rpartition(".")
    if section:
        values[section] = {field: value}
    else:
        values[field] = value
    with pytest.raises(BadConfig, match=rf"^search\.yaml:\n  {key}: got ") as error:
        parse(SearchConfig, values, "search.yaml")
    assert str(error.value).count("\n") == 1


@pytest.mark.parametrize(
    ("given", "there_are", "gpus", "workers"),
    [
        ({}, True, 1, 1),
        ({}, False, 0, 1),
        ({"gpus_per_trial": 0}, True, 0, 1),
        ({"gpus_per_trial": 0.5}, True, 0.5, 1),
        ({"gpus_per_trial": 4}, False, 4, 4),
        ({"workers_per_trial": 2}, True, 2, 2),
        ({"workers_per_trial": 2}, False, 0, 2),
        ({"gpus_per_trial": 4, "workers_per_trial": 2}, True, 4, 2),
    ],
)
def test_a_trial_has_a_gpu_for_each_worker_where_there_are_any(given, there_are, gpus, workers):
    resources = ResourcesConfig(**given).where(there_are)
    assert (resources.gpus_per_trial, resources.workers) == (gpus, workers)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gpus_per_trial": 1.5}, "1.5 for 1 workers; expected a fraction of one GPU, or a whole"),
        ({"gpus_per_trial": 3, "workers_per_trial": 2}, "3 for 2 workers"),
        ({"gpus_per_trial": 1, "workers_per_trial": 2}, "no two workers can share a GPU"),
        ({"autoscaling": True}, "expected gpus_per_trial to say what a trial trains on"),
    ],
)
def test_gpus_that_cannot_be_shared_out(given, message):
    with pytest.raises(ValueError, match=message):
        ResourcesConfig(**given)


def test_a_round_needs_samples_of_its_own():
    assert AlgorithmConfig(samples=4, overlap=3).overlap == 3
    with pytest.raises(ValueError, match="overlap is 4 of 4 samples; expected fewer"):
        AlgorithmConfig(samples=4, overlap=4)
