"""Rejected samples, read back and counted."""

import json

import pytest

from search.history import load_history
from search.rejections import rejections


def rejected(slot, stage="simulation", attempt=0, waived=False, dimension=41):
    theta = [0.25] * dimension
    reason = f"{stage} says no"
    return {
        "slot": slot, "attempt": attempt, "theta": theta, "stage": stage, "reason": reason,
        "waived": waived,
    }  # fmt: skip


def write_round(path, round, *rows, samples=8):
    folder = path / "samples"
    folder.mkdir(exist_ok=True)
    drawn = {"thetas": [[0.5] * 41] * samples, "rejected": list(rows)}
    ahead = {"thetas": [[0.5] * 41], "rejected": [rejected(0)]}
    whole = {"round": round, "evidence": "", **drawn, "ahead": ahead}
    (folder / f"round-{round:03d}.json").write_text(json.dumps(whole))


@pytest.fixture
def screened(experiment, searched):
    path = experiment(searched, preflight={"enabled": True})
    write_round(path, 1, rejected(2, "gradient"), rejected(5, waived=True, attempt=1))
    write_round(path, 0, rejected(0), rejected(0, attempt=1), rejected(4))
    # Candidates of the race are kept there too, and are no round's samples.
    (path / "samples" / "final.json").write_text('{"candidates": []}')
    return path


def test_a_row_a_rejected_sample(screened):
    history = load_history(screened)
    assert history.damaged == ()
    table = history.rejected
    assert table[["round", "slot", "attempt"]].to_numpy().tolist() == [
        [0, 0, 0], [0, 0, 1], [0, 4, 0], [1, 2, 0], [1, 5, 1],
    ]  # fmt: skip
    assert table["stage"].tolist() == ["simulation"] * 3 + ["gradient", "simulation"]
    assert table["waived"].tolist() == [False] * 4 + [True]
    assert table["theta.H2.x1"].tolist() == [0.25] * 5 and len(table.columns) == 6 + 41
    assert table["reason"][3] == "gradient says no"


def test_what_the_screen_has_done_and_saved(screened):
    found = rejections(load_history(screened))
    # 2 rounds of 8, and 4 that were drawn again; the fifth was tried. What was drawn ahead counts
    # with its own round.
    assert (found.drawn, found.rejected, found.waived) == (20, 5, 1)
    assert found.stages == {"simulation": 4, "gradient": 1}
    assert found.saved_seconds == 4 * 12
    assert found.line() == (
        "5 of 20 samples rejected before a trial (simulation 4, gradient 1); 1 tried all the same"
    )


def test_a_rejected_sample_saves_the_trial_of_its_rung(screened, record):
    for slot, seconds in enumerate((2.0, 4.0)):
        made = record("rung", 0, slot, seconds=seconds)
        (screened / "journal" / f"rung-000-{slot:02d}-0.json").write_text(json.dumps(made))
    assert rejections(load_history(screened)).saved_seconds == 4 * 3


def test_a_screen_that_rejected_nothing_says_so(experiment, searched):
    path = experiment(searched, preflight={"enabled": True})
    write_round(path, 0)
    found = rejections(load_history(path))
    assert found.line() == "none of 8 samples rejected before a trial"


def test_a_search_without_a_screen_has_nothing_to_tell(experiment, searched):
    path = experiment(searched, preflight={"enabled": False})
    write_round(path, 0)
    history = load_history(path)
    assert rejections(history) is None
    assert list(history.rejected.columns)[:3] == ["round", "slot", "attempt"]
    assert len(history.rejected) == 0


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"round": 0}', '{"round": 0, "thetas": [[2]], "rejected": []}']
)
def test_a_damaged_file_is_named_and_the_rest_is_read(screened, text):
    (screened / "samples" / "round-000.json").write_text(text)
    history = load_history(screened)
    (reason,) = history.damaged
    assert reason.startswith("samples/round-000.json: not the samples of a round (")
    assert history.rejected["round"].tolist() == [1, 1]
