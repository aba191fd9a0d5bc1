"""What did not have to run, and the race, as the page gets them."""

import json

import pytest

from search.dashboard.data import history_data
from search.history import load_history
from tests.search.test_rejections import rejected, write_round


def data_of(path):
    return json.loads(json.dumps(history_data(load_history(path)), allow_nan=False))


@pytest.fixture
def saving(experiment, record):
    """Two rounds of 8 in the rung and 4 in full; one is stopped, four are rejected."""
    records = [record("start", repeat=k, ap=0.1 + 0.02 * k) for k in range(2)]
    for number in range(2):
        records += [record("rung", number, slot, ap=0.05, seconds=3.0) for slot in range(8)]
        records += [record("search", number, slot, ap=0.1) for slot in range(4)]
    records[-1] |= {"status": "stopped", "early": 0.01}
    path = experiment(
        records, rounds=2, preflight={"enabled": True}, rungs={"factor": 2},
        early_stop={"at": 0.5, "images": 8}, final={"candidates": 3, "repeats": 2},
    )  # fmt: skip
    write_round(path, 0, rejected(0), rejected(1), rejected(1, "gradient", attempt=1))
    write_round(path, 1, rejected(3, waived=True))
    return path


def test_a_round_tells_what_it_spared(saving):
    spared = data_of(saving)["spared"]
    assert spared["stages"] == ["simulation", "gradient"]
    # Drawn, rejected by stage, trials of the rung, whole trials, stopped ones.
    assert spared["rounds"] == [[0, 11, [2, 1], 8, 4, 0], [1, 8, [1, 0], 8, 4, 1]]
    assert spared["rungs"] and spared["stopped"]
    assert spared["lines"] == [
        "4 of 19 samples rejected before a trial (simulation 3, gradient 1); 1 tried all the same; "
        "about 00:09 of trials saved",
        "1 of 8 samples stopped part of the way; their rewards are estimates",
        "16 cheaper trials chose the 8 that were whole",
    ]
    assert spared["rejected"][2] == [0, 1, 1, "gradient", "gradient says no", False]
    assert spared["in_all"] == 4


def test_a_search_that_saves_nothing_has_no_such_part(experiment, searched):
    data = data_of(experiment(searched))
    assert data["spared"] is None and data["settings"]["saving"] == []


def test_what_was_asked_for(saving):
    settings = data_of(saving)["settings"]
    # 2 rounds of 8 in the rung and 4 in full (of the fixture's 8); baseline, start and 3
    # candidates, 2 repeats each.
    assert settings["total"] == 2 * (8 + 4) + (2 + 3) * 2
    assert settings["saving"] == ["preflight", "rungs: 4 of a round in full", "early stop"]


def test_the_race_and_its_noise(experiment, record):
    records = [
        record("final", candidate, repeat=repeat, ap=ap + 0.002 * repeat, label=f"c{candidate}")
        for candidate, ap, repeats in ((0, 0.10, 2), (1, 0.20, 4), (2, 0.15, 2))
        for repeat in range(repeats)
    ]
    final = {"candidates": 3, "repeats": 4, "first": 2, "drop": 0.05}
    data = data_of(experiment(records, final=final))
    race = data["race"]
    assert race["rows"][0]["label"] == "c1" and race["rows"][0]["winner"]
    assert {row["label"]: row["dropped"] for row in race["rows"]} == {"c1": None, "c0": 2, "c2": 2}
    # 3 x 4 were planned; when one is left it runs as often as baseline and start.
    assert race["over"] and race["saved"] == 12 - 8
    assert data["settings"]["total"] == 3 * 8 + (2 + 3) * 4 - 4
    # Repeats .002 apart: squares about their means 2e-6, 20e-6 and 2e-6, of 8 trials of 3 losses.
    assert data["noise"] == {"sd": pytest.approx((24e-6 / 5) ** 0.5, abs=1e-5), "n": 8}
    roles = {row["label"]: row["role"] for row in data["standings"]}
    assert roles == {"c0": "out after 2", "c1": "candidate", "c2": "out after 2"}


def test_before_the_race_there_is_none(saving):
    data = data_of(saving)
    assert data["race"] is None
    assert data["noise"] == {"sd": pytest.approx(0.01 * 2**0.5, abs=1e-5), "n": 2}
