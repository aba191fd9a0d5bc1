"""`paploss show` as a user runs it: a process of its own, over files alone."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import pytest

from search.status import StatusWriter, append_event

PAPLOSS = [sys.executable, "-m", "search.cli", "show"]


def start(*arguments, **streams):
    return subprocess.Popen(
        [*PAPLOSS, *map(str, arguments)],
        env=os.environ | {"COLUMNS": "100", "LINES": "40", "TERM": "xterm"},
        **streams,
    )


def shown(*arguments):
    process = start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def add(path, record):
    key = "{phase}-{round:03d}-{slot:02d}-{repeat}".format(**record)
    temporary = path / "journal" / f".{key}.tmp"
    temporary.write_text(json.dumps(record))
    temporary.rename(path / "journal" / f"{key}.json")


def test_a_search_that_is_interrupted(experiment, searched, tmp_path):
    path = experiment([one for one in searched if one["phase"] != "final"])
    with StatusWriter(path) as status:
        append_event(path, "search-000-01-0 lost its process; Ray starts it again.")
        status.end("interrupted")
    code, out, err = shown(path)
    assert (code, err) == (0, "")
    assert out.startswith("shapes: 30 finished trials of 36\ninterrupted ")
    for part in ("lost its process", "round 1 slot 2: diverged", "baseline", "paploss resume"):
        assert part in out
    # several, of which one is damaged, and one given twice
    other = shutil.copytree(path, tmp_path / "other")
    (other / "journal" / "search-000-01-0.json").write_text("{")
    code, out, err = shown(path, other, path)
    assert (code, err) == (0, "")
    assert out.count("interrupted") == 2 and "30/36" in out and "29/36" in out
    assert "left out journal/search-000-01-0.json" in out


@pytest.mark.slow
def test_following_into_a_pipe(experiment, record):
    path = experiment([record("baseline", ap=0.13)])
    with StatusWriter(path) as status:
        process = start(path, "--follow", stdout=subprocess.PIPE, text=True)
        head = [process.stdout.readline(), process.stdout.readline()]
        assert head[0] == "shapes: 1 finished trials of 36\n"
        assert head[1].startswith("running on ")
        add(path, record("start", ap=0.1) | {"finished": time.time()})
        assert "start repeat 0: ok, reward 0.1000, 12.0 s, 2/36" in process.stdout.readline()
        append_event(path, "machine 10.0.0.7 lost")
        assert process.stdout.readline().endswith("] machine 10.0.0.7 lost\n")
        status.end("stopped", "the cluster keeps failing")
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 3  # as the search itself
    assert "stopped" in rest and "the cluster keeps failing" in rest and "paploss resume" in rest
    assert "\x1b" not in "".join(head) + rest


@pytest.mark.slow
def test_following_on_a_terminal_until_ctrl_c(experiment, record):
    path = experiment([record("baseline", ap=0.13)])
    ours, theirs = pty.openpty()
    with StatusWriter(path) as status:
        process = start(path, "--follow", stdout=theirs, stderr=theirs, stdin=theirs)
        os.close(theirs)
        screen = _read_until(ours, b"1/36 trials")
        assert "running on" in screen and "╭" in screen
        add(path, record("search", ap=0.25))
        status.update(slots=3)
        assert "0.2500 (round 0 slot 0)" in _read_until(ours, b"2/36 trials")
        process.send_signal(signal.SIGINT)
        assert "nothing was stopped" in _read_until(ours, b"stopped.")
        assert process.wait(60) == 0
    os.close(ours)


def _read_until(terminal, what):
    """What a terminal shows, up to where it says `what`; the test's timeout ends a wait in vain."""
    seen = b""
    while what not in seen:
        seen += os.read(terminal, 4096)
    return seen.decode(errors="replace")
