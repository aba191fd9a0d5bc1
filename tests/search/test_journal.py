"""The journal: records that are whole or absent, whatever happened to their files."""

import json

import numpy as np
import pytest

from search.journal import PHASES, Journal, TrialKey
from search.seeds import trial_seed


def a_record(phase="search", round=3, slot=5, repeat=0, **other):
    return {"phase": phase, "round": round, "slot": slot, "repeat": repeat, **other}


def test_a_key_reads_like_its_file():
    assert str(TrialKey("search", 3, 5, 0)) == "search-003-05-0"
    assert str(TrialKey("final", 12, 0, 2)) == "final-012-00-2"
    assert TrialKey.of(a_record(reward=0.5)) == TrialKey("search", 3, 5, 0)


def test_the_journal_and_the_seeds_know_the_same_phases():
    for phase in PHASES:
        assert trial_seed(0, phase, 0, 0, 0) >= 0


def test_a_record_comes_back_to_the_last_digit(tmp_path):
    record = a_record(reward=0.1 + 0.2, theta=[1 / 3, 5e-324, 1.0], error=None)
    Journal(tmp_path).write(record)
    assert list(Journal(tmp_path).records()) == [record]
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["search-003-05-0.json"]


def test_records_come_by_the_names_of_their_files(tmp_path):
    journal = Journal(tmp_path)
    for round, slot in ((1, 0), (0, 10), (0, 2)):
        journal.write(a_record(round=round, slot=slot))
    assert [(r["round"], r["slot"]) for r in journal.records()] == [(0, 2), (0, 10), (1, 0)]


def test_a_second_record_of_a_key_replaces_the_first(tmp_path):
    journal = Journal(tmp_path)
    journal.write(a_record(reward=0.1))
    journal.write(a_record(reward=0.2))
    assert list(journal.records()) == [a_record(reward=0.2)]


def test_an_experiment_without_trials_has_no_records(tmp_path):
    assert list(Journal(tmp_path).records()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        json.dumps(a_record(slot=1)).encode()[:-9],
        b"\x00" * 40,
        b"[]",
        b"null",
        b'{"phase": "search", "round": 0}',
        b'{"phase": "s\xff"}',
    ],
    ids=["empty", "cut", "zeros", "list", "null", "no key", "not UTF-8"],
)
def test_a_damaged_record_is_passed_over(tmp_path, content):
    journal = Journal(tmp_path)
    journal.write(a_record(slot=0))
    journal.write(a_record(slot=2))
    (tmp_path / "journal" / "search-003-01-0.json").write_bytes(content)
    assert [record["slot"] for record in journal.records()] == [0, 2]
    assert journal.damaged == [
        "journal/search-003-01-0.json cannot be read and was left out: its trial runs again"
    ]


def test_a_copy_under_another_name_does_not_count_twice(tmp_path):
    journal = Journal(tmp_path)
    journal.write(a_record(slot=5))
    copy = tmp_path / "journal" / "search-003-05-0 (1).json"
    copy.write_text(json.dumps(a_record(slot=5, reward=1.0)))
    assert list(journal.records()) == [a_record(slot=5)]
    assert journal.damaged == [
        f"journal/{copy.name} holds the trial search-003-05-0 and was left out: it is a copy"
    ]


def test_a_policy_that_cannot_be_written_is_written_with_the_next_record(tmp_path):
    journal = Journal(tmp_path)
    (tmp_path / "policy").write_text("a file where the folder should be")
    journal.write_policy(0, np.array([0.5]), np.array([0.2]))
    (tmp_path / "policy").unlink()
    journal.write(a_record())
    assert json.loads((tmp_path / "policy" / "round-000.json").read_text())["mean"] == [0.5]


def test_what_a_killed_writer_left_is_no_record(tmp_path):
    journal = Journal(tmp_path)
    journal.write(a_record())
    (tmp_path / "journal" / ".search-003-06-0.json.x1y2.tmp").write_text(json.dumps(a_record()))
    assert list(journal.records()) == [a_record()]


def test_forget_takes_back_the_named_records_only(tmp_path):
    journal = Journal(tmp_path)
    for slot in range(3):
        journal.write(a_record(slot=slot))
    never_written = TrialKey("search", 9, 9, 0)
    journal.forget([TrialKey("search", 3, 1, 0), never_written])
    assert [record["slot"] for record in journal.records()] == [0, 2]


def test_a_policy_is_kept_to_the_last_digit(tmp_path):
    mean, std = np.array([0.1, 1 / 3]), np.array([0.2, 0.2])
    Journal(tmp_path).write_policy(7, mean, std)
    policy = json.loads((tmp_path / "policy" / "round-007.json").read_text())
    assert policy == {"round": 7, "mean": mean.tolist(), "std": std.tolist()}


def test_storage_that_refuses_is_an_error_and_not_a_lost_record(tmp_path):
    (tmp_path / "journal").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="journal"):
        Journal(tmp_path).write(a_record())
