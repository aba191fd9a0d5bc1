"""Processes that are killed and trials that fail, while the search goes on or stops well."""

import itertools

import psutil
import pytest
import yaml

pytestmark = pytest.mark.slow


def trials_of(driver):
    """(actor, training) of the trials that train now: a training is its server's only child."""
    for process in driver.look():
        try:
            if "trainers.worker" in process.cmdline():
                yield from ((process.parent(), training) for training in process.children())
        except psutil.Error:
            continue


def kill_training(driver):
    """SIGKILL one training's own process; whether there was one."""
    for _, training in trials_of(driver):
        training.kill()
        return True
    return False


def kill_actor(driver):
    """SIGKILL one trial's actor, with a training under it; whether there was one."""
    for actor, _ in trials_of(driver):
        actor.kill()
        return True
    return False


def test_a_training_and_an_actor_that_are_killed(search, reference):
    assert reference.code == 0, reference.output
    driver, experiment = search()
    driver.wait_for(lambda: kill_training(driver))
    driver.wait_for(lambda: experiment.count >= 4)
    driver.wait_for(lambda: kill_actor(driver))
    assert driver.code() == 0, driver.output
    assert experiment.what_counts() == reference.experiment.what_counts()
    # The training's death is the trial's own; that of the actor is Ray's to mend, unseen by us.
    assert sorted(r["attempt"] for r in experiment.records.values()) == [0] * 9 + [1]
    assert "trying once more: the trial's process was killed (signal 9)" in driver.output
    assert "lost its process; Ray starts it again" in driver.output
    assert driver.left(30) == []


def test_a_search_whose_trials_all_fail_stops_and_goes_on(start, settings, data, tmp_path):
    """The annotations of val go away after the checks, and come back."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    for name in ("train", "val", "test"):
        (folder / name).symlink_to(data.parent / name)
        (folder / f"{name}.json").write_bytes((data.parent / f"{name}.json").read_bytes())
    (folder / data.name).write_bytes(data.read_bytes())
    small = {"algorithm": {"rounds": 1, "samples": 2}, "final": {"candidates": 1, "repeats": 1}}
    path = tmp_path / "search.yaml"
    changed = {**settings, **small, "data": str(folder / data.name), "storage": str(tmp_path)}
    path.write_text(yaml.safe_dump(changed))
    experiment = tmp_path / "one"

    driver = start("search", path)
    driver.wait_for(lambda: (experiment / "config.yaml").exists())
    (folder / "val.json").rename(folder / "away.json")
    assert driver.code() == 3, driver.output
    *_, last = driver.output.split("error: ")
    assert "2 of 2 samples of round 0 failed" in last
    assert "val.json" in last and "FileNotFoundError" in last
    assert f"paploss resume {experiment}" in last
    assert "Traceback" not in driver.output
    assert not (experiment / "best.yaml").exists()
    assert driver.left(30) == []

    (folder / "away.json").rename(folder / "val.json")
    driver = start("resume", experiment)
    assert driver.code() == 0, driver.output
    records = [yaml.safe_load(p.read_text()) for p in (experiment / "journal").iterdir()]
    assert {(r["phase"], r["status"]) for r in records} == {
        *itertools.product(("baseline", "start", "search", "final"), ["ok"])
    }
    assert (experiment / "best.yaml").exists()
