"""A machine looks at itself: the storage, the data set, the versions."""

import json

import pytest

from trainers import machine
from trainers.machine import data_files, expect, late_problems, machine_problems


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / "experiments" / "toy"
    folder.mkdir(parents=True)
    return folder


def test_the_drivers_own_machine_is_fit(experiment, tmp_path):
    (tmp_path / "train.json").touch()
    token = expect(experiment, [tmp_path / "train.json", tmp_path])
    assert machine_problems(experiment, token) == []
    assert machine_problems(experiment) == []


def test_storage_that_is_not_shared(experiment):
    [problem] = machine_problems(experiment, "any")
    assert problem.startswith(f"does not see {experiment}: No such file or directory; put exper")
    assert "docs/cluster/storage.md" in problem


def test_a_folder_of_that_name_is_not_that_folder(experiment):
    first = expect(experiment, [])
    expect(experiment, [])  # the folder of another machine, with what its driver left there
    [problem] = machine_problems(experiment, first)
    assert f"sees another {experiment}" in problem
    assert machine_problems(experiment) == []


def test_an_actor_does_not_insist_on_what_the_driver_could_not_write(experiment):
    (experiment / "config.yaml").touch()
    assert machine_problems(experiment) == []
    assert len(machine_problems(experiment, "any")) == 1


def test_a_file_that_is_cut(experiment):
    expect(experiment, [])
    (experiment / ".machines.json").write_text('{"token": ')
    [problem] = machine_problems(experiment)
    assert "it cannot be read" in problem


def test_missing_files_of_the_data_set(experiment, tmp_path):
    files = [tmp_path / name for name in ("a.json", "b.json", "images")]
    token = expect(experiment, files)
    [problem] = machine_problems(experiment, token)
    assert f"does not see the data set: {files[0]} and 2 more; copy it" in problem
    for file in files:
        file.touch()
    assert machine_problems(experiment, token) == []


def test_another_version(experiment):
    token = expect(experiment, [])
    path = experiment / ".machines.json"
    expected = json.loads(path.read_text())
    assert set(expected["versions"]) == {"Python", "paploss", "torch", "ray"}
    expected["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(expected))
    [problem] = machine_problems(experiment, token)
    assert problem.startswith("has torch ") and "but the driver has 1.0; install" in problem


@pytest.mark.parametrize("build", ["2.4.1+cpu", "2.4.1+cu126", "2.4.1"])
def test_builds_of_a_version_may_differ(monkeypatch, build):
    monkeypatch.setattr(machine.metadata, "version", lambda name: build)
    assert machine.versions()["torch"] == "2.4.1"


def test_what_is_not_installed_is_missing(monkeypatch):
    def version(name):
        raise machine.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine.metadata, "version", version)
    assert machine.versions()["torch"] == "missing"


def test_files_of_a_data_set():
    data = {
        "name": "toy",
        "train": {"annotations": "/d/train.json", "images": "/d/train"},
        "val": {"annotations": "relative.json", "images": "/d/val"},
    }
    assert [str(path) for path in data_files(data)] == ["/d/train.json", "/d/train", "/d/val"]
    assert data_files({}) == []


def test_a_machine_that_joins_late_looks_at_itself_and_the_drivers_need_not(
    experiment, tmp_path, monkeypatch
):
    assert "does not see" in late_problems(experiment)[0]
    expect(experiment, [tmp_path / "gone.json"])
    assert late_problems(experiment) == []
    monkeypatch.setattr(machine.socket, "gethostname", lambda: "another")
    [problem] = late_problems(experiment)
    assert f"does not see the data set: {tmp_path / 'gone.json'}" in problem
