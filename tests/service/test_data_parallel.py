"""A search whose trials train on two workers each, while one process after another is killed.

It is one of formulas, so that those go all the way too: drawn, filtered, trained and exported.
"""

import contextlib
import json

import psutil
import pytest

from loss import build_criterion
from loss.formula_text import formulas_of
from paploss.files import read_json, read_yaml
from trainers.export import read_training_yaml
from trainers.search_trial import trial_spec
from trainers.team import run_together
from trainers.worker import TrialProcess

pytestmark = pytest.mark.slow


class Worker(TrialProcess):
    """One without Ray around it."""

    host = "127.0.0.1"


def training(driver):
    """(actor, server, training) of the first and of the second worker, once both train."""
    found = {}
    for server in driver.look():
        with contextlib.suppress(psutil.Error):
            # Asked once: a training may end between two looks.
            if "trainers.worker" in server.cmdline() and (under := server.children()):
                second = "WorkerActor" in server.parent().cmdline()[0]
                found[second] = server.parent(), server, under[0]
    return (found[False], found[True]) if len(found) == 2 else None


def test_two_workers_a_trial_one_after_the_other_killed(search, tmp_path):
    changes = {"algorithm.rounds": 1, "algorithm.samples": 2, "final.candidates": 1}
    changes |= {"resources.workers_per_trial": 2, "resources.cpus_per_trial": 2}
    changes |= {"criterion": "{type: formula, nodes: 8}", "algorithm.type": "evolution"}
    changes |= {"algorithm.attempts": 500, "preflight.enabled": "true"}
    driver, experiment = search(**changes)

    # The second worker's training, as the kernel does where memory is short: the trial's own.
    _, (_, _, process) = driver.wait_for(lambda: training(driver))
    process.kill()
    driver.wait_for(lambda: experiment.count >= 1)
    # The second worker's actor: the cluster's, so Ray starts the trial again.
    _, (actor, *under) = driver.wait_for(lambda: training(driver))
    actor.kill()
    _, alive = psutil.wait_procs(under, timeout=15)
    assert not alive, "its server and its training end with it"
    driver.wait_for(lambda: experiment.count >= 2)
    # Tune's own actor, in which the first worker is: the other one ends with its owner.
    (actor, *under), other = driver.wait_for(lambda: training(driver))
    actor.kill()
    _, alive = psutil.wait_procs([*under, *other], timeout=15)
    assert not alive, "nobody trains on without the first worker"

    assert driver.code() == 0, driver.output
    assert driver.left(30) == []
    said = driver.output
    assert "batches of 8 images on 2 devices" in said
    assert "trying once more: worker 1 of 2 (" in said
    assert "the trial's process was killed (signal 9)" in said
    assert said.count("lost its process; Ray starts it again") == 2
    records = experiment.records
    assert len(records) == 5
    assert sorted(record["attempt"] for record in records.values()) == [0, 0, 0, 0, 1]
    for record in records.values():
        assert (record["status"], record["workers"], record["iterations"]) == ("ok", 2, 2)
    for folder in experiment.path.glob("*-000-0*"):
        reports = [json.loads(line) for line in (folder / "result.json").open()]
        assert len(reports) <= 1, "a trial reports once, and one that was lost not at all"

    # Rewards are those of trials that nobody has disturbed.
    members = [Worker(), Worker()]
    settings = read_yaml(experiment.path / "config.yaml")
    for key in ("baseline-000-00-0", "start-000-00-0", "search-000-00-0"):
        record = records[key]
        given = {**record, "theta": dict(enumerate(record["theta"] or ()))}
        result = run_together(members, trial_spec(settings, given, 2), tmp_path / key, 60)
        for name in ("status", "reward", "val", "test", "fingerprint", "error"):
            assert getattr(result, name) == record[name], (key, name)
    for member in members:
        member.close()
    check_formulas(experiment, said)


def check_formulas(experiment, said):
    """Those that were trained are new ones, what was rejected is kept, and the winner is data."""
    records = experiment.records
    tried = [records[f"search-000-0{slot}-0"]["formulas"] for slot in range(2)]
    start = records["start-000-00-0"]["formulas"]
    assert start == {"classification": "softplus(x) - x * y", "regression": "2 - (i / u + u / e)"}
    assert len({str(record["fingerprint"]) for record in records.values()}) >= 4
    samples = read_json(experiment.path / "samples" / "round-000.json")
    assert len(samples["thetas"]) == 2
    stages = {one["stage"] for one in samples["rejected"]}
    assert {"duplicate", "values"} <= stages
    assert stages <= {"duplicate", "values", "convergence", "simulation"}
    rejected = len(samples["rejected"])
    assert f"{rejected} of {rejected + 2} samples rejected before a trial" in said
    best = read_training_yaml(experiment.path / "best.yaml")
    build_criterion(best.criterion)
    found = best.found_by["formulas"]
    assert found == formulas_of(best.criterion)
    assert found in [start, *tried]
    assert f"classification of the winner, {best.found_by['candidate']}: " in said
