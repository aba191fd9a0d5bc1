"""Simulated trainings as hints: each computed once, kept on storage, and by head."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from loss.by_head import family_of
from loss.preflight import simulated
from search.run.hint import FILE, SimulatedReward, Simulations

PAP = {"type": "parameterized_ap", "segments": 2, "gradient_scale": 1.0}
FAMILY = family_of(PAP)
START = np.array(FAMILY.start)


@pytest.fixture(scope="module")
def at_start():
    return simulated(FAMILY.settings(FAMILY.start)).ap


def test_a_hint_is_the_ap_of_a_simulated_training(at_start):
    hint = SimulatedReward(FAMILY, PAP, Simulations())
    threads = torch.get_num_threads()
    assert hint(START) == at_start > 0
    assert torch.get_num_threads() == threads


def test_each_is_computed_once_and_found_again_by_the_next_session(tmp_path, at_start, monkeypatch):
    first = SimulatedReward(FAMILY, PAP, Simulations(tmp_path))
    first(START)
    lines = (tmp_path / FILE).read_text().splitlines()
    assert [json.loads(line)[1] for line in lines] == [at_start]
    monkeypatch.setattr("search.run.hint.simulated", lambda settings: pytest.fail("again"))
    assert first(START) == at_start
    assert SimulatedReward(FAMILY, PAP, Simulations(tmp_path))(START) == at_start


def test_a_file_that_was_cut_short_costs_what_was_cut(tmp_path, at_start):
    SimulatedReward(FAMILY, PAP, Simulations(tmp_path))(START)
    path = tmp_path / FILE
    path.write_text(path.read_text()[:-4] + "\nnonsense\n[1]\n")
    assert SimulatedReward(FAMILY, PAP, Simulations(tmp_path))(START) == at_start


def test_storage_that_is_read_only_costs_nothing(tmp_path, at_start):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert SimulatedReward(FAMILY, PAP, Simulations(blocked / "below"))(START) == at_start


def test_of_several_heads_it_is_the_mean_of_those_that_are_searched(monkeypatch):
    monkeypatch.setattr(
        "search.run.hint.simulated",
        lambda settings: SimpleNamespace(ap=0.3 if settings["gradient_scale"] == 1 else 0.5),
    )
    fixed = {"type": "standard", "classification": "cross_entropy"}
    both = {"rpn": PAP, "rcnn": {**PAP, "gradient_scale": 2.0}}
    family = family_of(both)
    assert SimulatedReward(family, both, Simulations())(np.array(family.start)) == 0.4
    one = {"rpn": PAP, "rcnn": fixed}
    family = family_of(one)
    assert SimulatedReward(family, one, Simulations())(np.array(family.start)) == 0.3


def test_it_says_when_there_are_many(monkeypatch):
    monkeypatch.setattr("search.run.hint.simulated", lambda settings: SimpleNamespace(ap=0.1))
    lines = []
    simulations = Simulations(say=lines.append)
    for number in range(205):
        simulations({"type": "made up", "number": number})
    assert lines[0].startswith("trying losses out in simulated trainings")
    assert lines[1:] == ["  100 simulated trainings", "  200 simulated trainings"]
