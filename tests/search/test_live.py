import io
import json
import re

import pytest
from rich.console import Console

from paploss.errors import BadConfig, BadExperiment
from search.live import age_text, look, news, overview, panel_of, state_text
from search.status import append_event

NOW = 1.7e9 + 1000


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    monkeypatch.setattr("search.live.time.time", lambda: NOW)


def say(path, state="running", **fields):
    """Write a status as a search would; `updated` is 3 s ago."""
    status = {
        "state": state, "problem": None, "updated": NOW - 3, "started": NOW - 600, "host": "box",
        "pid": 77, "slots": 2, "nodes": [], "total_trials": 36, "running": [], "pending": 30,
        "left_seconds": None,
    }  # fmt: skip
    (path / "status.json").write_text(json.dumps(status | fields))
    return path


def running(slot, ago, phase="search"):
    key = {"phase": phase, "round": 0, "slot": slot, "repeat": 0}
    return key | {"started": NOW - ago, "folder": f"search-000-{slot:02d}-0-id"}


def text(renderable, width=110):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return re.sub(r"[ │]+", " ", console.file.getvalue())


def test_a_search_that_runs(experiment, record):
    records = [record("baseline", ap=0.13), record("start", ap=0.1), record("search", ap=0.2)]
    path = say(experiment(records), running=[running(1, 65), running(2, 5)], pending=31)
    node = {"address": "10.0.0.3", "cpus": 8, "gpus": 2, "alive": True}
    say(path, running=[running(1, 65), running(2, 5)], nodes=[node, node | {"alive": False}])
    view = look(path)
    assert view.state == "running" and not view.ended
    shown = text(panel_of(view))
    assert "running on box, process 77; last sign of life 3 s ago" in shown
    assert "round 0, 1 of 8 slots (0 of 3 rounds done)" in shown and "3/36 trials" in shown
    assert "running round 0 slot 1 01:05, round 0 slot 2 00:05" in shown
    assert "baseline 0.1300 mean of 1 Focal + GIoU" in shown
    assert "slots 2 side by side, 30 to come" in shown
    assert "machines 1 of 2 alive, 8 CPUs, 2 GPUs" in shown
    # 31 of 12 s not begun, 7 s of the one that began 5 s ago; one is overdue: 379 s / 2
    assert "10:00 elapsed, about 03:09 left" in shown


def test_a_trial_that_has_just_ended_runs_no_more(experiment, record):
    path = say(experiment([record("search", 0, 1)]), running=[running(1, 65)])
    assert look(path).progress.running == {}


def test_a_search_without_a_sign_of_life_shows_nothing_as_running(experiment, record):
    path = say(experiment([record("search")]), updated=NOW - 600, running=[running(1, 700)])
    view = look(path)
    said = state_text(view).plain
    assert view.state == "lost" and not view.ended
    assert said.startswith("no sign of life since 10 min") and f"paploss resume {path}" in said
    assert view.progress.running == {} and "elapsed" not in text(panel_of(view))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"state": "finished"}, "finished 3 s ago"),
        ({"state": "interrupted", "updated": NOW - 7300}, "interrupted 2 h ago; go on with: "),
        ({"state": "stopped", "problem": "no\x1b[2J room."}, "stopped 3 s ago: no [2J room; go "),
    ],
)
def test_how_a_search_has_ended(experiment, record, fields, said):
    view = look(say(experiment([record("search")]), **fields))
    assert view.ended
    assert state_text(view).plain.startswith(said)


@pytest.mark.parametrize("damage", [None, "", "[]", '{"state": "running"}'])
def test_without_a_status_the_results_say_it(experiment, searched, damage):
    path = experiment(searched)
    if damage is not None:
        (path / "status.json").write_text(damage)
    assert look(path).state == "finished"
    (path / "journal").rename(path / "elsewhere")
    view = look(path)
    assert view.state == "unknown" and "paploss resume" in state_text(view).plain


def test_notes_are_events_and_trials_that_went_wrong_by_time(experiment, record):
    failed = record("search", 0, 1, status="failed", ap=None, error="out of\nmemory")
    path = experiment([failed | {"finished": 20.0}, record("search", 0, 0)])
    append_event(path, "later", now=30.0)
    append_event(path, "earlier", now=10.0)
    assert [note.text for note in look(path).notes] == [
        "earlier", "round 0 slot 1: failed (out of memory)", "later",
    ]  # fmt: skip


def test_news_are_the_lines_of_the_search_itself(experiment, record):
    done = [record("baseline", ap=0.13), record("start", ap=0.1)]
    done += [record("search", 0, slot, ap=0.1) for slot in range(7)]
    path = say(experiment(done, final={"candidates": 1, "repeats": 1}))
    before = look(path)
    assert news(before, look(path)) == []
    last = record("search", 0, 7, ap=0.3) | {"finished": NOW - 540.0}
    (path / "journal" / "search-000-07-0.json").write_text(json.dumps(last))
    append_event(path, "machine 10.0.0.7 lost\n\x1b[2J", now=NOW - 580)
    say(path, updated=NOW - 60)
    lines = news(before, look(path))
    assert lines[:2] == [
        "[00:20] machine 10.0.0.7 lost  [2J",
        "[01:00] round 0 slot 7: ok, reward 0.3000, 12.0 s, 10/27 trials",
    ]
    # (7 * .1 + .3) / 8
    assert lines[2].startswith("[01:00] round 0 done: mean 0.1250, best 0.3000, best so far 0.3000")
    assert lines[3].startswith("[10:00] no sign of life since 60 s")
    assert len(lines) == 4


def test_several_experiments_have_a_row_each(experiment, searched, tmp_path):
    other = say(experiment(searched).rename(tmp_path / "other"))
    path = say(experiment(searched[:7], name="a-name-that-is-long-for-a-column"), state="stopped")
    lines = text(overview([look(path), look(other)]), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    # .131, .133, .135 and .100, .102, .104; the fixture's best search trial in the middle
    assert re.search(r"stopped 7/36 0/3 0\.\d{4} 0\.1330 0\.1020 -", " ".join(lines))
    assert re.search(r"shapes running 36/36 3/3 0\.\d{4} 0\.1330 0\.1020 00:00", lines[-1])


def test_damaged_files_are_named(experiment, record):
    path = say(experiment([record("search")]))
    (path / "journal" / "search-000-01-0.json").write_text("{")
    assert "left out journal/search-000-01-0.json: not readable" in text(panel_of(look(path)), 150)


def test_what_is_no_experiment(tmp_path, experiment):
    with pytest.raises(BadExperiment, match="not an experiment"):
        look(tmp_path)
    with pytest.raises(BadConfig, match="rounds"):
        look(experiment([], algorithm={"rounds": "many"}))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s ago"),
        (119, "119 s ago"),
        (120, "2 min ago"),
        (7200, "2 h ago"),
        (2e5, "2 days ago"),
    ],
)
def test_ages(seconds, said):
    assert age_text(seconds) == said
