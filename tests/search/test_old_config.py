"""Experiments of before a setting existed go on as they began."""

from paploss.strict import parse
from search.config import AlgorithmConfig, SearchConfig
from search.old_config import as_it_was

OLD = {
    "name": "old",
    "algorithm": {"type": "ppo2", "rounds": 4, "samples": 8, "sigma": 0.2, "clip": 0.1},
    "final": {"candidates": 4, "repeats": 3},
}


def test_what_was_not_there_was_off():
    config = parse(SearchConfig, as_it_was(OLD), "config.yaml")
    assert not config.preflight.enabled
    assert (config.rungs, config.early_stop, config.paired_seeds) == (None, None, False)
    assert (config.algorithm.type, config.algorithm.sigma) == ("ppo2", 0.2)
    assert config.algorithm.attempts == 1 and config.algorithm.overlap == 0
    # All candidates ran all repeats: nobody leaves before the third.
    assert config.final.first == config.final.repeats == 3


def test_what_is_said_stays():
    today = SearchConfig(
        name="new",
        algorithm=AlgorithmConfig(type="cem", sigma=None, attempts=5, overlap=2),
        rungs={"factor": 2},
        early_stop={"at": 0.3},
        paired_seeds=True,
    ).model_dump(mode="json")
    assert as_it_was(today) == today


def test_the_values_that_were_read_are_left_alone():
    before = {**OLD, "algorithm": {**OLD["algorithm"]}}
    as_it_was(before)
    assert before == OLD
