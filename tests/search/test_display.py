import io
import re

import pytest
from rich.console import Console

from search.config import FinalConfig
from search.display import Display
from search.progress import Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def plain(**settings):
    return Console(file=io.StringIO(), width=100, force_terminal=False, **settings)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(file):
    return Console(file=file, width=100, height=40, force_terminal=True, force_interactive=True)


def key(phase, round=0, slot=0, repeat=0):
    return {"phase": phase, "round": round, "slot": slot, "repeat": repeat}


def panel(display) -> str:
    """The panel as text without colours, spaces run together."""
    console = Console(file=io.StringIO(), width=110, record=True)
    console.print(display.render())
    return re.sub(r"[ │]+", " ", console.export_text())


def display_for(console, clock, **settings):
    sizes = {"rounds": 2, "samples": 4, "slots": 2, "candidates": 2, "repeats": 1} | settings
    return Display(Progress("shapes", begun=clock.now, **sizes), console=console, clock=clock)


def test_a_log_file_gets_a_line_a_trial_and_a_line_a_round(clock, record):
    console = plain()
    display = display_for(console, clock)
    display.started(key("baseline"))
    clock.now = 12
    display.finished(record("baseline", ap=0.131))
    display.finished(record("start", ap=0.1))
    for slot, ap in enumerate((0.1, 0.2, 0.12, 0.14)):
        display.started(key("search", 0, slot))
        clock.now += 6
        display.finished(record("search", 0, slot, ap=ap))
    display.round_done(0)
    display.note("lost machine 10.0.0.7, trying again")
    display.stop()
    # 12 trials: 2 x 4, baseline, start and 2 candidates; after 6 of them of 12 s each, 6 are
    # left, two at a time: 36 s. The mean of the round is .56 / 4.
    assert console.file.getvalue().splitlines() == [
        "[00:12] baseline repeat 0: ok, reward 0.1310, 12.0 s, 1/12 trials",
        "[00:12] start repeat 0: ok, reward 0.1000, 12.0 s, 2/12 trials",
        "[00:18] round 0 slot 0: ok, reward 0.1000, 12.0 s, 3/12 trials",
        "[00:24] round 0 slot 1: ok, reward 0.2000, 12.0 s, 4/12 trials",
        "[00:30] round 0 slot 2: ok, reward 0.1200, 12.0 s, 5/12 trials",
        "[00:36] round 0 slot 3: ok, reward 0.1400, 12.0 s, 6/12 trials",
        "[00:36] round 0 done: mean 0.1400, best 0.2000, best so far 0.2000 (round 0 slot 1), "
        "baseline 0.1310, start 0.1000; about 00:36 left",
        "[00:36] lost machine 10.0.0.7, trying again",
    ]


@pytest.mark.parametrize("make", [plain, lambda: terminal(io.StringIO())])
def test_a_log_file_never_sees_a_control_character(clock, record, make):
    """Not even one that FORCE_COLOR makes pass for a terminal."""
    console = make()
    display = display_for(console, clock)
    error = "\x1b[31mCUDA\x07 out\nof memory\r[bold]x[/bold] :warning:"
    display.finished(record("search", 0, 0, status="failed", ap=None, error=error))
    display.note("\x1b[2Jgone " + "x" * 300)
    text = console.file.getvalue()
    assert len(text.splitlines()) == 2  # long lines are not folded either
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "failed" in text and "[bold]x[/bold] :warning:" in text


def test_the_panel_shows_the_state_of_the_search(clock, record):
    display = display_for(plain(), clock)
    for repeat, ap in enumerate((0.13, 0.14)):
        display.finished(record("baseline", repeat=repeat, ap=ap))
    display.finished(record("start", ap=0.1))
    for slot, ap in enumerate((0.1, 0.2, 0.12, 0.14)):
        display.finished(record("search", 0, slot, ap=ap))
    display.round_done(0)
    display.started(key("search", 1, 0))
    clock.now = 5
    display.started(key("search", 1, 1))
    display.finished(record("search", 1, 2, status="diverged", ap=None, error="stuck at 1"))
    clock.now = 65
    text = panel(display)
    assert "round 1, 1 of 4 slots (1 of 2 rounds done)" in text
    assert "8/12 trials" in text
    assert "best so far 0.2000 (round 0 slot 1)" in text
    assert "baseline 0.1350 mean of 2" in text
    assert "start 0.1000 mean of 1" in text
    assert "this round 0.0000 mean of 1" in text
    assert re.search(r"last rounds 0\.1400\s+running", text)  # only rounds that are whole
    assert "running round 1 slot 0 01:05, round 1 slot 1 01:00" in text
    assert "7 ok, 1 diverged, 0 failed" in text
    assert "round 1 slot 2: diverged, reward 0.0000 (stuck at 1)" in text
    # 2 of the 4 left are running and overdue: 2 x 12 s over 2 slots
    assert "01:05 elapsed, about 00:12 left" in text


def test_time_left_takes_off_what_running_trials_have_behind_them(clock, record):
    display = display_for(plain(), clock, rounds=3)  # 16 trials
    display.finished(record("search", 0, 0, seconds=10.0))
    display.finished(record("search", 0, 1, seconds=30.0))
    display.started(key("search", 0, 2))
    clock.now = 5
    # mean 20 s: 13 not begun and 15 s of the one running, over 2 slots
    assert "about 02:17 left" in panel(display)  # (13 * 20 + 15) / 2 = 137.5
    display.progress.slots = 64  # no more than a round's samples run together: 275 s / 4
    assert "about 01:08 left" in panel(display)


def test_the_panel_before_anything_has_happened(clock):
    text = panel(display_for(plain(), clock))
    assert "baseline and start" in text and "0/12 trials" in text and "unknown time left" in text
    assert "best so far -" in text and "running -" in text


def test_the_search_keeps_the_stage_while_baselines_run_beside_it(clock, record):
    display = display_for(plain(), clock)
    display.started(key("search", 1, 0))
    display.finished(record("baseline"))
    assert "round 1, 0 of 4" in panel(display)
    display.started(key("final", 1))
    text = panel(display)
    assert "final race" in text and "candidate 1 repeat 0" in text and "this round" not in text


def test_a_resumed_search_shows_what_was_done_before(clock, searched, record):
    whole, resumed = plain(), plain()
    first = display_for(whole, clock, rounds=3, samples=8, repeats=3)
    for one in searched:
        first.finished(one)
    second = display_for(resumed, clock, rounds=3, samples=8, repeats=3)
    second.replay(searched)
    assert resumed.file.getvalue() == ""  # no line for each of what is done
    second.round_done(2)
    first.round_done(2)
    assert resumed.file.getvalue().splitlines() == whole.file.getvalue().splitlines()[-1:]


def test_a_trial_issued_again_counts_once(clock, record):
    display = display_for(plain(), clock)
    display.finished(record("search", 0, 0, ap=0.1))
    display.finished(record("search", 0, 0, ap=0.1, attempt=1))
    assert "1/12 trials" in panel(display)


def test_only_the_last_notes_stay_and_markup_in_them_is_text(clock):
    display = display_for(plain(), clock)
    for number in range(6):
        display.note(f"note {number} [red]!")
    text = panel(display)
    assert "note 1" not in text and "note 2 [red]!" in text and "note 5 [red]!" in text


def test_a_terminal_gets_one_live_panel_and_no_lines(clock, record):
    console = terminal(Screen())
    display = display_for(console, clock)
    display.started(key("search", 0, 0))
    display.finished(record("search", 0, 0, ap=0.2))
    display.round_done(0)
    display.stop()
    display.stop()
    text = console.file.getvalue()
    assert "\x1b[?25l" in text and text.count("\x1b[?25h") == 1  # the cursor comes back, once
    assert "╭" in text and "best so far" in text and "0.2000 (round 0 slot 0)" in text
    assert "round 0 done" not in text
    display.note("after the end")  # falls back to a line instead of being lost
    assert console.file.getvalue().endswith("after the end\n")


def test_a_narrow_terminal_is_no_error(clock, searched):
    display = display_for(plain(), clock)
    display.replay(searched)
    console = Console(file=io.StringIO(), width=30)
    console.print(display.render())
    assert max(map(len, console.file.getvalue().splitlines())) <= 30


def test_a_log_can_be_written_where_only_ascii_goes(clock, searched):
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=100)
    display = display_for(console, clock)
    display.replay(searched)
    display.round_done(0)
    console.file.flush()
    assert b"round 0 done" in raw.getvalue()


def test_the_panel_says_what_baseline_and_start_are(clock, record):
    display = display_for(plain(), clock)
    display.finished(record("baseline", ap=0.131, label="Focal [bold] GIoU"))
    display.finished(record("start", ap=0.1, label="start: a_preset"))
    text = panel(display)
    assert "baseline 0.1310 mean of 1 Focal [bold] GIoU" in text
    assert "start 0.1000 mean of 1 a_preset" in text


def test_rungs_come_before_the_whole_trials_of_their_round(clock, record):
    console = plain()
    display = display_for(console, clock, samples=2, rung=4)
    for slot in range(4):
        display.finished(record("rung", 0, slot, ap=0.01 * slot, seconds=3.0))
    text = panel(display)
    assert "rung of round 0, 4 of 4 slots (0 of 2 rounds done)" in text
    assert "this rung 0.0150 mean of 4" in text
    # 2 rounds of 4 and 2, and baseline, start and 2 candidates once each.
    assert "4/16 trials" in text
    display.finished(record("search", 0, 3, ap=0.2))
    display.finished(record("search", 0, 2, ap=0.1, status="stopped", error="0.01 half way"))
    text = panel(display)
    assert "round 0, 2 of 2 slots (1 of 2 rounds done)" in text
    assert "best so far 0.2000 (round 0 slot 3)" in text  # a rung's rewards are others
    assert "5 ok, 0 diverged, 1 stopped early, 0 failed" in text
    assert "notes" not in text  # nobody has to look after a trial that was stopped
    display.finished(record("rung", 1, 0, ap=0.3))
    assert "rung of round 1, 1 of 4 slots" in panel(display)
    assert console.file.getvalue().splitlines()[0] == (
        "[00:00] round 0 rung slot 0: ok, reward 0.0000, 3.0 s, 1/16 trials"
    )


def test_a_race_that_ends_early_leaves_nothing_to_come(clock, record):
    final = FinalConfig(candidates=2, repeats=4, first=2)
    progress = Progress("shapes", 0, 8, candidates=2, repeats=4)
    assert progress.total == 16
    for repeat in range(4):
        for candidate, ap in enumerate((0.1, 0.3)):
            if candidate or repeat < 2:
                progress.take(record("final", candidate, repeat=repeat, ap=ap + 0.001 * repeat))
                progress.end_race(final)
                over = (candidate, repeat) == (1, 3)
                assert progress.total == (8 + 6 if over else 16)
    assert progress.facts()["pending"] == 8  # baseline and start, which have no record here
