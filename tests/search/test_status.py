import errno
import json
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import search.status
from search.status import (
    SILENT_SECONDS,
    Event,
    Node,
    Status,
    StatusWriter,
    append_event,
    read_events,
    read_status,
)

QUICK = {"least": 0.0, "beat": 0.01}
NEVER = {"least": 0.0, "beat": 3600.0}


def written(folder):
    return json.loads((folder / "status.json").read_text())


class Writes:
    """Stands before `write_json`: counts what is written, and can be waited for."""

    def __init__(self, monkeypatch):
        self.count, self._more = 0, threading.Condition()
        self._real = search.status.write_json
        monkeypatch.setattr(search.status, "write_json", self)

    def __call__(self, path, value):
        self._real(path, value)
        with self._more:
            self.count += 1
            self._more.notify_all()

    def wait(self, count):
        with self._more:
            assert self._more.wait_for(lambda: self.count >= count, timeout=30)


def test_the_status_is_what_the_search_says(tmp_path, monkeypatch):
    running = [{"phase": "search", "round": 1, "slot": 2, "repeat": 0, "started": 5.0}]
    facts = {"slots": 4, "total_trials": 9, "pending": 3, "left_seconds": 7.5, "running": running}
    writes = Writes(monkeypatch)
    with StatusWriter(tmp_path, lambda: facts, **NEVER) as status:
        writes.wait(1)
        before = writes.count
        status.update(nodes=(Node(address="10.0.0.3", cpus=8, gpus=1, alive=True),))
        writes.wait(before + 1)
        now = read_status(tmp_path)
    assert now.state == "running" and now.pid == os.getpid()
    assert (now.slots, now.total_trials, now.pending, now.left_seconds) == (4, 9, 3, 7.5)
    assert [trial.model_dump() for trial in now.running] == [running[0] | {"folder": None}]
    assert now.nodes[0].address == "10.0.0.3"
    assert now.started <= now.updated


def test_signs_of_life_come_while_nothing_happens(tmp_path, monkeypatch):
    writes = Writes(monkeypatch)
    with StatusWriter(tmp_path, **QUICK):
        writes.wait(1)
        first = read_status(tmp_path).updated
        writes.wait(writes.count + 3)
        assert read_status(tmp_path).updated > first


def test_many_events_are_few_writings(tmp_path, monkeypatch):
    writes = Writes(monkeypatch)
    with StatusWriter(tmp_path, least=3600.0, beat=3600.0) as status:
        writes.wait(1)
        for slots in range(1000):
            status.update(slots=slots)
    assert writes.count == 2  # at the begin and at the end
    assert written(tmp_path)["slots"] == 999


@pytest.mark.parametrize(
    ("error", "state", "problem"),
    [
        (None, "finished", None),
        (KeyboardInterrupt(), "interrupted", None),
        (RuntimeError("no\nroom"), "stopped", "no room"),
        (RuntimeError(), "stopped", "RuntimeError"),
    ],
)
def test_the_end_is_told_by_how_it_ends(tmp_path, error, state, problem):
    facts = {"running": [{"phase": "start", "round": 0, "slot": 0, "repeat": 0, "started": 1}]}

    def session():
        with StatusWriter(tmp_path, lambda: facts):
            if error is not None:
                raise error

    if error is None:
        session()
    else:
        with pytest.raises(type(error)):
            session()
    status = read_status(tmp_path)
    assert (status.state, status.problem, status.running) == (state, problem, ())
    assert read_events(tmp_path)[-1].text.startswith("the search ")


def test_an_end_that_was_told_stands(tmp_path):
    with StatusWriter(tmp_path) as status:
        status.end("stopped", "the cluster keeps failing")
    assert read_status(tmp_path).state == "stopped"
    (event,) = read_events(tmp_path)
    assert event.text == "the search has stopped: the cluster keeps failing"


def test_a_full_disk_never_ends_a_search(tmp_path, monkeypatch):
    tried = threading.Event()

    def full(path, value):
        tried.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(search.status, "write_json", full)
    with StatusWriter(tmp_path, **QUICK):
        assert tried.wait(30)
    assert not (tmp_path / "status.json").exists()


def test_a_fact_that_cannot_be_told_never_ends_a_search(tmp_path):
    with StatusWriter(tmp_path, lambda: {}["gone"], **QUICK):
        pass
    with StatusWriter(tmp_path, lambda: {"left_seconds": float("nan")}, **QUICK):
        pass
    assert read_status(tmp_path) is None


def test_a_folder_that_was_removed_does_not_come_back(tmp_path):
    with StatusWriter(tmp_path / "gone", **QUICK) as status:
        status.end("interrupted")
    assert not (tmp_path / "gone").exists()


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / ".status.json.abc.tmp").write_text("{")
    with StatusWriter(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "status.json"]


def test_no_sign_of_life():
    status = Status(state="running", updated=100.0, started=50.0)
    assert not status.is_lost(100 + SILENT_SECONDS)
    assert status.is_lost(101 + SILENT_SECONDS)
    assert status.silent_seconds(90.0) == 0.0  # a clock behind that of the search
    assert not Status(state="finished", updated=100.0, started=50.0).is_lost(1e9)


def test_events_in_their_order(tmp_path):
    append_event(tmp_path, "first\nof two lines \x1b[31m é", now=1.5)
    append_event(tmp_path, "second", now=2.0)
    assert read_events(tmp_path) == (Event(1.5, "first\nof two lines \x1b[31m é"), (2.0, "second"))


@pytest.mark.parametrize(
    "cut", [b'{"time": 3, "te', b'{"time": 3, "text": "\xc3', b"\x00", b"{}\n"]
)
def test_a_line_that_was_cut_costs_itself_alone(tmp_path, cut):
    append_event(tmp_path, "before", now=1.0)
    with open(tmp_path / "events.jsonl", "ab") as file:
        file.write(cut)
    append_event(tmp_path, "after", now=4.0)
    assert read_events(tmp_path) == ((1.0, "before"), (4.0, "after"))


def test_events_that_cannot_be_written_or_read_are_no_error(tmp_path):
    append_event(tmp_path / "gone", "x")
    assert read_events(tmp_path / "gone") == ()
    (tmp_path / "events.jsonl").mkdir()
    append_event(tmp_path, "x")
    assert read_events(tmp_path) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from([*Status.model_fields, "time", "text"]), JSON)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40) | FIELDS.map(lambda value: json.dumps(value).encode()))
def test_damaged_files_never_raise(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    for name in ("status.json", "events.jsonl"):
        (folder / name).write_bytes(content)
    status = read_status(folder)
    assert status is None or status.state in ("running", "finished", "interrupted", "stopped")
    assert all(isinstance(event, Event) for event in read_events(folder))
