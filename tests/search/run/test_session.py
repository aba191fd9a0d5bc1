"""An experiment that is run, without a cluster: refused, or only written up again."""

import fcntl

import pytest
import ray

from paploss.errors import BadExperiment
from search.run.experiment import create_experiment
from search.run.session import run_experiment
from tests.search.run.by_hand import (
    TASK,
    config_in,
    files,
)


def test_two_drivers_do_not_run_one_experiment(tmp_path):
    experiment = create_experiment(config_in(tmp_path), TASK)
    before = files(tmp_path)
    with (experiment / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BadExperiment, match="another process is running"):
            run_experiment(experiment)
    assert files(tmp_path) == before | {"toy/.lock": b""}


def test_a_finished_experiment_needs_no_cluster(finished):
    assert run_experiment(finished) == finished / "best.yaml"
    assert not ray.is_initialized()
    once = files(finished)
    run_experiment(finished)
    again = files(finished)
    for time_of_writing in ("report.html", ".lock"):
        assert once.pop(time_of_writing)
        assert again.pop(time_of_writing)
    assert again == once
