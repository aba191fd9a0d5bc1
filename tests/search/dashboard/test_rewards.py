import math

import pytest

from search.dashboard.rewards import best_so_far, device_hours, levels, round_rows


def test_rounds_by_hand(record):
    records = [record("search", 0, 0, ap=0.2), record("search", 0, 1, ap=0.4),
               record("search", 1, 0, ap=0.1), record("search", 1, 1, status="diverged", ap=None),
               record("search", 2, 0, status="failed", ap=None),
               record("final", 7, ap=0.9)]  # fmt: skip
    keys = ("round", "n", "mean", "best", "best_so_far")
    assert [tuple(row[key] for key in keys) for row in round_rows(records)] == [
        (0, 2, 0.3, 0.4, 0.4),
        (1, 2, 0.05, 0.1, 0.4),  # one that diverged has the reward 0
        (2, 0, None, None, 0.4),
    ]


def test_levels_by_hand(record):
    records = [record("baseline", repeat=k, ap=ap) for k, ap in enumerate((0.2, 0.4))]
    records += [record("start", ap=0.1), record("start", repeat=1, status="failed", ap=None)]
    found = levels(records)
    assert found["baseline"]["mean"] == 0.3 and found["baseline"]["n"] == 2
    assert found["baseline"]["std"] == pytest.approx(0.2 / math.sqrt(2), abs=1e-5)
    assert (found["start"]["mean"], found["start"]["std"], found["start"]["n"]) == (0.1, 0.0, 1)


def test_the_best_so_far_goes_by_the_clock(record):
    def trial(slot, ap, finished, **other):
        return record("search", 0, slot, ap=ap, finished=finished, seconds=3600.0, **other)

    records = [trial(0, 0.3, 40.0), trial(1, 0.2, 10.0), trial(2, 0.1, 20.0),
               trial(3, None, 30.0, status="failed"), trial(4, 0.1, 50.0)]  # fmt: skip
    # trial 1 first, then 2 and 3 (no better), then 0; 4 is the last. 1 CPU and 1 hour each.
    assert best_so_far(records) == [[1, 1.0, 0.2], [4, 4.0, 0.3], [5, 5.0, 0.3]]
    for one in records:
        one["gpus"] = 0.5
    assert best_so_far(records)[-1] == [5, 2.5, 0.3]
    assert device_hours(records) == {"unit": "GPU", "hours": 2.5}
    assert device_hours([record("search", cpus=2.0, seconds=900.0)]) == {
        "unit": "CPU",
        "hours": 0.5,
    }
