import io
import re

import pytest
from rich.console import Console

from search.history import load_history
from search.result import print_result, render_rounds, render_table
from search.standings import standings


def terminal(width=80):
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def printed(renderable, width=80) -> list[str]:
    console = terminal(width)
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def cells(line: str) -> list[str]:
    """The cells of a row: a label holds single spaces, columns are two apart."""
    return re.split(r"\s{2,}", line.strip())


def result(path, width=80) -> str:
    console = terminal(width)
    print_result(load_history(path), console)
    return console.file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_table_marks_the_winner(experiment, searched):
    title, head, _, *rows = printed(render_table(standings(load_history(experiment(searched)))))
    assert title.startswith("Third split (test)")
    assert cells(head) == ["loss", "role", "n", "AP test", "std", "AP val", "best"]
    # The fixture's repeats: .131, .133, .135 and so on, so the spread is .002.
    assert cells(rows[0]) == ["Focal + GIoU", "baseline", "3", "0.1330", "0.0020", "0.1330", "-"]
    assert [row.startswith("*") for row in rows] == [False, False, False, True]
    # .01 apart with a spread of .002 over the same three seeds: there is no doubt.
    assert cells(rows[3])[4] == "0.1520" and cells(rows[3])[-1] == ">99%"


def test_lost_repeats_have_columns_only_where_there_are_any(record):
    diverged = record("baseline", repeat=1, status="diverged", ap=None)
    failed = record("baseline", repeat=2, status="failed", ap=None)
    both = printed(render_table(standings([record("baseline", ap=0.2), diverged, failed])))
    assert cells(both[1])[-3:] == ["AP val", "diverged", "failed"]
    # The mean of .2 and, for the one that diverged, 0; the failed one does not count.
    assert cells(both[3])[2:4] == ["2", "0.1000"]
    assert cells(both[3])[-2:] == ["1", "1"]
    one = printed(render_table(standings([record("baseline"), failed])))
    assert cells(one[1])[-2:] == ["AP val", "failed"]


@pytest.mark.parametrize("lost", [False, True])
def test_labels_are_not_folded_at_80_columns(experiment, searched, lost):
    for one in searched:
        if one["phase"] == "final" and one["round"] == 1:
            one["label"] = "round 99 slot 99"
    if lost:
        searched[0] |= {"status": "diverged", "reward": 0.0}
        searched[1] |= {"status": "failed", "reward": None}
    table = standings(load_history(experiment(searched)))
    rows = printed(render_table(table))
    assert len(rows) == 3 + len(table)  # title, head and rule; each loss on one line
    assert max(map(len, rows)) <= 80
    for one, row in zip(table, rows[3:], strict=True):
        assert one.label in row


def test_a_narrow_terminal_costs_no_number_its_digits(experiment, searched):
    rows = printed(render_table(standings(load_history(experiment(searched)))), width=50)
    assert max(map(len, rows)) <= 50
    assert sum(row.count("0.1520") for row in rows) == 2  # test and val of the winner


def test_rounds_by_hand(experiment, record):
    records = [record("search", 0, slot, ap=ap) for slot, ap in enumerate((0.1, 0.2))]
    records.append(record("search", 0, 2, status="diverged", ap=None))
    records.append(record("search", 0, 3, status="failed", ap=None))
    records.append(record("search", 1, 0, status="failed", ap=None))
    records += [record("baseline", ap=0.9), record("baseline", repeat=1, ap=0.8)]
    records.append(record("start", ap=0.3))
    _, head, _, *rows = printed(render_rounds(load_history(experiment(records))))
    assert cells(head) == ["round", "n", "mean", "best"]
    # (.1 + .2 + 0) / 3: what diverged counts as 0, what failed is left out.
    assert [cells(row) for row in rows] == [
        ["0", "3", "0.1000", "0.2000"],
        ["1", "0", "-", "-"],
        ["baseline", "2", "0.8500", "0.9000"],
        ["start", "1", "0.3000", "0.3000"],
    ]


def test_a_search_that_is_not_done_shows_its_rounds_and_how_to_go_on(experiment, searched):
    path = experiment([one for one in searched if one["phase"] != "final"])
    text = result(path)
    assert text.index("Reward (AP on val)") < text.index("Third split")
    assert "no result yet" in words(text)
    assert f"  paploss resume {path}\n" in text
    assert "paploss train" not in text
    assert "paploss show" not in text


def test_the_result_says_what_to_do_next(experiment, searched):
    path = experiment(searched)
    text = result(path)
    assert "clearly beats the baseline Focal + GIoU" in words(text)
    assert "Reward (AP on val)" not in text
    assert "Next:" not in text  # nothing has been written yet
    (path / "best.yaml").write_text("{}")
    (path / "report.html").write_text("")
    (path / "tensorboard").mkdir()
    steps = [line.strip() for line in result(path).split("Next:\n")[1].splitlines()]
    assert steps == [
        f"paploss train {path / 'best.yaml'}",
        f"open {path / 'report.html'}",
        f"tensorboard --logdir {path}",
    ]


def test_commands_name_the_folder_from_where_the_user_stands(experiment, record, monkeypatch):
    path = experiment([record("search")])
    monkeypatch.chdir(path.parent)
    assert "  paploss resume shapes\n" in result(path)


def test_an_experiment_without_a_trial_is_no_error(experiment):
    text = result(experiment([]))
    assert "paploss resume" in text
    assert "Reward (AP on val)" not in text
    assert "Third split" not in text


def test_damaged_files_are_named(experiment, record):
    path = experiment([record("search")])
    (path / "journal" / "search-000-01-0.json").write_text("[/x] {")
    (line,) = [one for one in result(path).splitlines() if one.startswith("left out")]
    assert line.startswith("left out journal/search-000-01-0.json: not readable as JSON")


def test_no_control_character_comes_through(experiment, searched):
    for one in searched:
        one["label"] = f"\x1b[2J{one['label']}\x07"
    text = result(experiment(searched))
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "[2JFocal + GIoU" in text


@pytest.mark.parametrize("phases", [("search",), ("baseline", "start", "search", "final")])
def test_the_result_can_be_written_where_only_ascii_goes(experiment, searched, phases):
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=80)
    path = experiment([one for one in searched if one["phase"] in phases])
    print_result(load_history(path), console)
    console.file.flush()
    assert b"AP" in raw.getvalue()


def test_a_long_label_loses_no_letter(record):
    label = (
        "start: parameterized_ap_faster_rcnn_rpn_coco and parameterized_ap_faster_rcnn_rcnn_coco"
    )
    table = render_table(standings([record("start", ap=0.25, label=label)]))
    _, head, _, *rows = printed(table, width=60)
    assert "0.2500" in rows[0]
    told = "".join(row[: head.index("role")].strip() for row in rows)
    assert told.replace(" ", "") == label.replace(" ", "")


@pytest.mark.parametrize(
    ("reward", "column", "name"),
    [
        ("AP50", "AP50", "AP50"),
        ("oLRP", "1 - oLRP", "1 - oLRP"),
        ({"AP": 1, "APs": 1}, "reward", "0.5 AP + 0.5 APs"),
    ],
)
def test_the_reward_has_its_name(experiment, searched, reward, column, name):
    for one in searched:
        one["test_reward"] = None if one["test"] is None else 0.5
    text = words(result(experiment(searched, reward=reward)))
    assert f"n {column} test std {column} val" in text
    assert f"reaches {name} 0.5000 on the third split" in text


def test_the_reward_has_its_name_before_the_race(experiment, record):
    assert "Reward (1 - oLRP on val)" in result(experiment([record("search")], reward="oLRP"))
