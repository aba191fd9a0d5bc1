"""What follows a search: the files that it leaves for whoever watches."""

import json
import time

import pytest

from paploss.files import read_json
from search.config import SearchConfig
from search.live import look
from search.run.follower import Follower
from search.space import SearchSpace
from search.status import Node, read_events, read_status

SPACE = SearchSpace(("a", "b"), (0.5, 0.5))
CONFIG = SearchConfig(
    name="shapes",
    algorithm={"rounds": 1, "samples": 2},
    final={"candidates": 1, "repeats": 1},
)
KEY = {"phase": "search", "round": 0, "slot": 1, "repeat": 0}


def texts(path):
    return [event.text for event in read_events(path)]


@pytest.fixture
def records(record):
    return [record("baseline", theta=None), record("search", 0, 0, theta=[0.1, 0.2])]


@pytest.fixture
def path(experiment, records):
    """An experiment of which two trials have finished in an earlier session."""
    path = experiment(records, names=list(SPACE.names))
    for one in records:
        (path / one["trial_dir"]).mkdir()
    return path


def test_a_session_from_its_begin_to_its_end(path, records, record, capsys):
    last = record("search", 0, 1, theta=[0.3, 0.4], ap=0.25)
    (path / last["trial_dir"]).mkdir()
    with Follower(path, SPACE, CONFIG) as follower:
        follower.begin(records, slots=3)
        follower.nodes([Node(address="10.0.0.3", cpus=4, gpus=0, alive=True)], slots=4)
        follower.started(KEY | {"folder": "search-000-01-0-id", "seed": 5})
        follower.note("search-000-01-0 lost its process; Ray starts it again.")
        (path / "journal" / "search-000-01-0.json").write_text(json.dumps(last))
        follower.finished(last)
        follower.round_done(0)
    status = read_status(path)
    assert (status.state, status.slots, status.total_trials, status.pending) == (
        "finished",
        4,
        5,
        2,
    )
    assert status.nodes[0].address == "10.0.0.3"
    resumed, lost, end = texts(path)
    assert resumed.startswith("resumed on ") and resumed.endswith(" with 2 finished trials")
    assert (lost, end) == (
        "search-000-01-0 lost its process; Ray starts it again.",
        "the search has finished",
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("] ")[2][:30] for line in lines] == [
        "resumed with 2 finished trials",
        "search-000-01-0 lost its proce",
        "round 0 slot 1: ok, reward 0.2",
        "round 0 done: mean 0.1750, bes",
    ]
    # the trials of the earlier session too: it had no time for them
    folders = [one["trial_dir"] for one in (*records, last)]
    assert all(len(list((path / folder).glob("events*.trial"))) == 1 for folder in folders)
    kinds = {file.suffix for file in (path / "tensorboard").iterdir()}
    assert kinds == {".hparams", ".round-000", ".rewards"}
    assert (path / "history.csv").read_text().count("\n") == 4
    assert look(path).state == "finished"


def test_what_runs_can_be_seen_from_elsewhere(path, records):
    with Follower(path, SPACE, CONFIG) as follower:
        follower.begin(records, slots=1)
        follower.started(KEY | {"folder": "search-000-01-0-id"})
        while not (status := read_status(path)) or not status.running:
            time.sleep(0.02)  # it is written from a thread, once a second at most
        view, (trial,) = look(path), status.running
    assert view.state == "running" and list(view.progress.running) == [("search", 0, 1, 0)]
    assert (trial.folder, trial.slot) == ("search-000-01-0-id", 1)


def test_a_problem_before_the_first_trial(path):
    def session():
        with Follower(path, SPACE, CONFIG):
            raise RuntimeError("no machine has a GPU")

    with pytest.raises(RuntimeError):
        session()
    assert read_status(path).problem == "no machine has a GPU"
    assert texts(path) == ["the search has stopped: no machine has a GPU"]


def test_files_that_cannot_be_written_end_nothing(path, records, record):
    (path / "tensorboard").write_text("in the way")
    (path / "history.csv").mkdir()
    (path / "events.jsonl").mkdir()
    (path / "status.json").mkdir()
    with Follower(path, SPACE, CONFIG) as follower:
        follower.begin(records, slots=1)
        follower.finished(record("search", 0, 1))
        follower.round_done(0)
        follower.note("still here")
        follower.end("interrupted")
    assert read_status(path) is None
    assert read_json(path / "journal" / "search-000-00-0.json")["slot"] == 0
