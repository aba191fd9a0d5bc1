"""Searches that are killed and interrupted, and end like the one that nobody disturbed."""

import pytest

from paploss.files import read_json

pytestmark = pytest.mark.slow


@pytest.fixture
def expected(reference):
    assert reference.code == 0, reference.output
    return reference.experiment.what_counts()


def cut(path):
    """Leave the first half of a file, as a kill in the middle of writing does."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def newest(experiment, pattern):
    return max(experiment.path.glob(pattern))


def test_a_driver_that_is_killed_again_and_again(search, start, expected):
    """SIGKILL before Tune has a snapshot, then in the middle; then its snapshot is damaged too."""
    driver, experiment = search()
    driver.wait_for(lambda: list(experiment.path.glob("policy/round-*.json")))
    driver.kill()
    assert not list(experiment.path.glob("experiment_state-*"))
    assert driver.left(30, rays=False) == []

    driver = start("resume", experiment.path)
    driver.wait_for(lambda: experiment.count >= 6)
    driver.kill()
    before = experiment.records
    assert 6 <= len(before) < 10
    # What trained without a driver ends by itself, at once: nobody would take its result.
    assert driver.left(30, rays=False) == []
    assert experiment.records == before
    cut(newest(experiment, "search_gen_state-*.json"))

    driver = start("resume", experiment.path)
    assert driver.code() == 0, driver.output
    assert "Traceback" not in driver.output
    assert experiment.what_counts() == expected
    # None is run twice: what was finished is as it was, trial ids and times included.
    after = experiment.records
    assert {key: after[key] for key in before} == before


def test_the_end_of_a_job_and_an_interrupt(search, start, expected):
    """SIGTERM before Tune runs, Ctrl-C in the middle; Tune's snapshot is cut as well."""
    driver, experiment = search()
    driver.wait_for(lambda: list(experiment.path.glob("policy/round-*.json")))
    driver.look()
    driver.process.terminate()
    assert driver.code(30) == 130, driver.output
    assert f"go on with: paploss resume {experiment.path}" in driver.output
    assert "Traceback" not in driver.output
    assert driver.left(30) == []

    driver = start("resume", experiment.path)
    driver.wait_for(driver.look)  # Ray starts
    second = start("resume", experiment.path)
    assert second.code() == 2
    assert "another process is running" in second.output
    assert "Traceback" not in second.output
    driver.wait_for(lambda: experiment.count >= 3)
    driver.interrupt()
    assert driver.code(30) == 130, driver.output
    before = experiment.records
    assert f"go on with: paploss resume {experiment.path}" in driver.output
    assert f"{len(before)} of 10 trials are finished and kept" in driver.output
    assert "Traceback" not in driver.output
    assert driver.left(30) == []
    assert (experiment.path / "history.csv").exists()
    assert not (experiment.path / "best.yaml").exists()
    seconds = read_json(experiment.path / "summary.json")["wall_seconds"]
    cut(newest(experiment, "experiment_state-*.json"))

    driver = start("resume", experiment.path)
    assert driver.code() == 0, driver.output
    assert experiment.what_counts() == expected
    after = experiment.records
    assert {key: after[key] for key in before} == before
    assert read_json(experiment.path / "summary.json")["wall_seconds"] > seconds


def test_no_process_stays_for_ever(drivers):
    """Ray's own processes look for a killed parent only now and then: hence last in this file."""
    assert [name for driver in drivers for name in driver.left(120)] == []
