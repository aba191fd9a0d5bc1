"""A search that begins on a cluster without a machine for it: it asks for them, waits, and runs.

One search, and everything that is to be seen of it: the demand, what the user is told, which actors
ran its trials, the metrics that Prometheus would scrape, and the machines' checks of themselves.
"""

import json
import subprocess
import sys

import pytest

from search.run.metrics import exported_names
from tests.service.autoscaling_cluster import autoscaling_cluster

pytestmark = pytest.mark.slow

TRIALS = 7  # baseline, start, 2 rounds of 2, one candidate


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("on_demand")
    command = [sys.executable, "-m", "tests.service.on_demand", str(folder)]
    with autoscaling_cluster(most=2) as env:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_search_has_run_on_machines_that_were_not_there(seen):
    assert seen["at_first"] == 0
    assert seen["problem"] is None
    assert len(seen["pids"]) == TRIALS
    assert seen["slots"][0] == 0 and seen["slots"][-1] == 2


def test_room_for_a_round_was_asked_for_early_and_given_back(seen):
    # Before Tune starts, for 2 samples; by the watch; and 0 once, at the latest after a trial.
    assert seen["asked"][0] == 2
    assert set(seen["asked"]) == {0, 2}
    assert seen["asked"][-1] == 0


def test_the_user_is_told_what_is_waited_for(seen):
    first, *others = seen["notes"]
    assert first.startswith("waiting for machines: the cluster was asked for room for 2 trials, ")
    assert "none fits so far" in first
    changes = [text for text in others if "side by side now" in text]
    # Where starting a machine takes long, Ray may replace it: one more joins, and one is lost.
    assert changes and "joined" in changes[0], seen["notes"]
    assert "2 trials side by side now" in changes[-1]


def test_a_trial_whose_actor_is_starting_waits_for_it(seen):
    # The first two trials are open from the beginning, and each has its own machine.
    pids = seen["pids"]
    assert pids["baseline-000-00-0"] != pids["start-000-00-0"]
    assert len(set(pids.values())) == 2  # both are kept from round to round


def test_prometheus_finds_the_search(seen):
    metrics = seen["metrics"]
    trials = {name: value for name, value in metrics.items() if "trials_total" in name}
    assert trials == {
        f"ray_paploss_trials_total{{experiment=toy,phase={phase},status=ok}}": count
        for phase, count in (("baseline", 1), ("start", 1), ("search", 4), ("final", 1))
    }
    gauges = {
        "trials_finished": TRIALS, "trials_planned": TRIALS, "slots": 2, "nodes": 3, "round": 2,
        "reward_last": 0.25, "reward_best": 0.25, "reward_round_mean": 0.25,
        "reward_baseline": 0.25,
    }  # fmt: skip
    for name, value in gauges.items():
        assert metrics[f"ray_paploss_{name}{{experiment=toy}}"] == value, name
    # 7 trials of 2 seconds with half a GPU each.
    assert metrics["ray_paploss_gpu_seconds_total{experiment=toy}"] == 7.0
    assert metrics["ray_paploss_trial_seconds_count{experiment=toy,phase=search}"] == 4
    assert metrics["ray_paploss_trial_seconds_bucket{experiment=toy,le=10.0,phase=search}"] == 4


def test_nothing_else_is_exported_and_retries_aside_all_of_it(seen):
    # Of the kinds that a search without a fault has.
    found = {name.partition("{")[0] for name in seen["metrics"]}
    assert found <= exported_names()
    assert exported_names() - found <= {"ray_paploss_retries_total"}


def test_machines_look_at_themselves(seen):
    fit, unfit = seen["unfit"]
    assert fit == ""
    title, *lines = unfit.splitlines()
    assert title == "the search cannot run on this cluster:"
    assert lines
    for line in lines:
        assert line.startswith("  node ")
        assert "does not see the data set: /nowhere/train.json; copy it to the same path" in line
