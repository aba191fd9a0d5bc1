"""Trackers: real Weights & Biases (offline) and MLflow (its file store), without a network."""

import json
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray import tune

from paploss.errors import BadConfig
from search.config import SearchConfig
from search.run import trackers
from search.run.cluster import _make_token
from search.run.trackers import (
    TrackedTrial,
    Tracker,
    check_trackers,
    results_of,
    tracker_callbacks,
)

KEY = "0123456789abcdef0123456789abcdef01234567"
RESULT = {
    "record": '{"theta": [0.5]}', "status": "ok", "reward": 0.25, "fingerprint": "abc",
    "iterations": 7, "val_AP": 0.25, "val_APs": -1.0, "test_AP": None, "done": True,
    "training_iteration": 1, "time_total_s": 3.5, "pid": 5, "hostname": "box",
}  # fmt: skip


@dataclass
class Trial:
    """As much of Tune's as is asked for."""

    name: str = "search-000-01-0-id"
    status: str = "ok"

    def __post_init__(self):
        self.trial_id = self.name[-2:]
        self.config = {"experiment": "/home/x", "phase": "search", "theta": {"H2.x1": 0.3}}
        self.last_result = RESULT | {"status": self.status}

    def __str__(self):
        return self.name


class Stub(tune.Trainable):
    """A trial of which slot 0 is scored and the others fail."""

    def step(self):
        failed = self.config["slot"] > 0
        return RESULT | ({"status": "failed", "reward": None} if failed else {})


class Inner:
    """One of Ray's logger callbacks, that keeps what it is told."""

    experiment = Path("/x/shapes")

    def __init__(self, broken=()):
        self.told, self._broken = [], broken

    def __getattr__(self, name):
        def call(*arguments, **_):
            if name in self._broken:
                raise ConnectionError(f"no route\nto https://me:pw@host with {KEY}")
            self.told.append((name, *arguments))

        return call


def through(inner, say=print):
    tracker = Tracker("MLflow", inner, say)
    tracker.setup()
    tracker.on_trial_start(0, [], Trial())
    tracker.on_trial_result(1, [], Trial(), RESULT)
    tracker.on_trial_complete(1, [], Trial())
    tracker.on_trial_error(1, [], Trial())
    tracker.on_experiment_end([])
    return inner.told


def test_what_a_tracker_is_told():
    _, start, result, complete, error, end = through(Inner())
    told = start[1]
    assert told.config == {"phase": "search", "theta": {"H2.x1": 0.3}}  # and no path
    assert told.experiment_dir_name == "shapes"
    assert result[3] == {
        "reward": 0.25, "status": "ok", "fingerprint": "abc", "iterations": 7,
        "training_iteration": 1, "val_AP": 0.25, "seconds": 3.5,
    }  # fmt: skip
    assert [complete[2], error[2]] == [False, True]
    assert end == ("on_experiment_end",)
    assert told == result[2] and hash(told) == hash(result[2])  # Ray's callbacks keep it as a key


def test_a_trial_that_failed_has_failed_there_too():
    tracker = Tracker("MLflow", inner := Inner(), print)
    tracker.setup()
    tracker.on_trial_complete(1, [], Trial(status="failed"))
    tracker.on_experiment_end([])
    assert inner.told[1][0] == "log_trial_end" and inner.told[1][2] is True


def test_what_fails_is_said_in_one_line_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    said = []
    told = through(Inner(broken=("setup", "log_trial_result")), said.append)
    line = "MLflow lacks trials: no route to https://host with ***; the search goes on"
    assert said == [line]  # an event: it goes into a file
    assert [name for name, *_ in told] == [
        "log_trial_start", "log_trial_end", "log_trial_end", "on_experiment_end",
    ]  # fmt: skip


def test_a_tracker_that_hangs_does_not_hold_the_end(monkeypatch):
    monkeypatch.setattr(trackers, "PATIENCE", 0.1)
    monkeypatch.setattr(trackers, "_SOON", 0.1)
    go_on, said = threading.Event(), []
    inner = Inner()
    inner.log_trial_start = lambda trial: go_on.wait()
    try:
        through(inner, said.append)
    finally:
        go_on.set()
    assert said[0] == "waiting for MLflow, for 0 s at most"
    assert len(said) == 2 and said[1].startswith("MLflow has not taken all")


def test_no_value_is_invented():
    assert results_of({"reward": None, "status": "failed"}) == {"status": "failed"}


def test_tracked_trials_differ_by_their_ids():
    one, other = (TrackedTrial.of(Trial(name), Path("/x")) for name in ("a-01", "a-02"))
    assert one != other and one == TrackedTrial.of(Trial("b-01"), Path("/x"))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_missing(monkeypatch, name):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BadConfig, match=rf"pip install 'paploss\[{name}\]'"):
        check_trackers((name,))


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """An environment without settings or logins of trackers."""
    for variable in [*os.environ]:
        if variable.startswith(("WANDB_", "MLFLOW_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return monkeypatch


def test_wandb_without_a_login_is_an_error_not_a_question(nobody):
    with pytest.raises(BadConfig, match=r"no login.*WANDB_API_KEY.*WANDB_MODE=offline"):
        check_trackers(("wandb",))
    nobody.setenv("WANDB_MODE", "offline")
    check_trackers(("wandb",))


def test_mlflow_without_an_address(nobody):
    with pytest.raises(BadConfig, match="MLFLOW_TRACKING_URI"):
        check_trackers(("mlflow",))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("nowhere://user:secret@host/x", "unsupported URI 'nowhere://host/x'"),
        ("http://user:secret@127.0.0.1:9", "no answer for"),
        ("file:./mlruns", "maintenance mode"),
    ],
)
def test_mlflow_that_cannot_be_used(nobody, tmp_path, uri, said):
    from search.run import tracker_mlflow

    nobody.setattr(tracker_mlflow, "PATIENCE", 1.0)  # its client would try for minutes
    nobody.chdir(tmp_path)
    nobody.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(BadConfig) as error:
        check_trackers(("mlflow",))
    assert said in str(error.value) and "secret" not in str(error.value)


def wandb_run(folder):
    """What an offline run holds: blocks of 32 KiB with records in the format of LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    data, at, part = path.read_bytes(), 7, b""
    told = {"config": {}, "summary": {}}
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no room for a header: the next block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record, part = Record.FromString(part), b""
            if record.HasField("run"):
                told["run"] = record.run
            for name, updates in (("config", record.config), ("summary", record.summary)):
                updates = [*updates.update, *(record.run.config.update if name == "config" else ())]
                told[name] |= {
                    u.key or ".".join(u.nested_key): json.loads(u.value_json) for u in updates
                }
            told["summary"] |= {
                i.key or ".".join(i.nested_key): json.loads(i.value_json)
                for i in record.history.item
            }
    return told


@pytest.fixture
def token():
    """Of Ray, from the user's own home: a process reads it once, for every Ray that it starts."""
    _make_token()
    return Path.home() / ".ray" / "auth_token"


@pytest.mark.slow
def test_a_search_reports_to_both(token, nobody, tmp_path):
    from mlflow.tracking import MlflowClient

    store = f"file:{tmp_path / 'mlruns'}"
    settings = {
        "WANDB_MODE": "offline", "WANDB_API_KEY": KEY, "MLFLOW_TRACKING_URI": store,
        "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_PASSWORD": KEY,
        "RAY_AUTH_TOKEN_PATH": str(token),
    }  # fmt: skip
    for name, value in settings.items():
        nobody.setenv(name, value)
    experiment = tmp_path / "storage" / "tiny"
    experiment.mkdir(parents=True)
    config = SearchConfig(name="tiny", trackers=("wandb", "mlflow"))
    said = []

    try:
        context = ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False
        )
        logs = Path(context.address_info["session_dir"]) / "logs"
        tune.run(
            Stub,
            name="tiny",
            storage_path=str(experiment.parent),
            config={
                "experiment": str(experiment), "phase": "search", "round": 0,
                "slot": tune.grid_search([0, 1]), "seed": 3, "theta": {"H2.x1": 0.25},
            },
            callbacks=tracker_callbacks(config, experiment, said.append),
            trial_name_creator=lambda trial: f"search-000-0{trial.config['slot']}-0-id",
            verbose=0,
        )  # fmt: skip
    finally:
        ray.shutdown()
    assert [line for line in said if not line.startswith("waiting for")] == []

    client = MlflowClient(tracking_uri=store)
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    good, bad = sorted(runs, key=lambda run: run.info.run_name)
    assert [good.info.run_name, good.info.status] == ["search-000-00-0-id", "FINISHED"]
    assert bad.info.status == "FAILED" and bad.data.tags["status"] == "failed"
    assert good.data.params == {
        "phase": "search", "round": "0", "slot": "0", "seed": "3", "theta/H2.x1": "0.25",
    }  # fmt: skip
    assert good.data.metrics["reward"] == good.data.metrics["val_AP"] == 0.25
    assert "val_APs" not in good.data.metrics

    first, second = (
        next((experiment / "wandb").glob(f"offline-run-*-tiny-search-000-0{slot}-0-id"))
        for slot in (0, 1)
    )
    told = wandb_run(first)
    assert told["run"].display_name == "search-000-00-0-id"
    assert told["config"]["theta"] == {"H2.x1": 0.25} and told["config"]["status"] == "ok"
    assert "experiment" not in told["config"]
    assert told["summary"]["reward"] == 0.25 and "record" not in told["summary"]
    assert (told["run"].project, told["run"].run_group) == ("paploss", "tiny")
    assert wandb_run(second)["config"]["status"] == "failed"

    # No key in the experiment or the store, nor in what Ray has logged; no TensorBoard of Ray's.
    for folder in (experiment, tmp_path / "mlruns", logs):
        holding = [
            path
            for path in folder.rglob("*")
            if path.is_file() and KEY.encode() in path.read_bytes()
        ]
        assert holding == []
    assert not list(experiment.rglob("events.out.tfevents*"))
