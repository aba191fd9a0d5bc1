"""Formulas as text, wherever a search is shown."""

import io

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from search.dashboard.data import history_data
from search.dashboard.formulas import formulas_data
from search.formulas import ROWS, best_formulas, formula_rows
from search.headline import figure_png
from search.history import load_history
from search.hparams import hparams_of
from search.result import print_result

CE = {"classification": "softplus(x) - x * y", "regression": "1 - i / u"}
OTHER = {"classification": "-(w * log(sigmoid(x)))", "regression": "1 - i / u"}
THIRD = {"classification": "relu(x) - x * y", "regression": "2 - (i / u + u / e)"}
BEFORE = {"control_points": None, "gradient_scale": None}


@pytest.fixture
def found(record):
    """A record of a trial with formulas."""

    def found(*key, formulas, **other):
        return record(*key, formulas=formulas, **BEFORE, **other)

    return found


@pytest.fixture
def on_the_way(found, record):
    """Baseline and start, then a round of three of which one failed."""
    return [
        record("baseline", ap=0.2, **BEFORE),
        found("start", formulas=CE, ap=0.19),
        found("search", 0, 0, formulas=THIRD, ap=0.1),
        found("search", 0, 1, formulas=OTHER, ap=0.3),
        found("search", 0, 2, formulas=CE, status="failed", ap=None),
    ]


def test_rows_are_the_race_then_the_other_samples_by_reward(experiment, on_the_way, found):
    race = [
        found("final", 0, formulas=OTHER, ap=0.25),
        found("final", 1, formulas=CE, ap=0.35),
    ]
    rows = formula_rows(load_history(experiment([*on_the_way, *race])))
    assert [(row.label, row.val, row.test, row.formulas, row.best) for row in rows] == [
        ("start", 0.19, 0.19, CE, False),
        ("candidate 0", 0.25, 0.25, OTHER, False),
        ("candidate 1", 0.35, 0.35, CE, True),
        # "round 0 slot 1" is candidate 0.
        ("round 0 slot 0", 0.1, None, THIRD, False),
    ]


def test_there_are_no_more_rows_than_a_page_has_room_for(experiment, found):
    many = [
        found("search", k, 0, formulas={"classification": f"x * {k}"}, ap=k / 100)
        for k in range(ROWS + 9)
    ]
    rows = formula_rows(load_history(experiment(many)))
    assert [row.val for row in rows] == [k / 100 for k in range(ROWS + 8, 8, -1)]


def test_the_best_so_far_then_the_winner(experiment, on_the_way, found):
    assert best_formulas(load_history(experiment(on_the_way))) == (
        OTHER, "the best so far, round 0 slot 1"
    )  # fmt: skip
    race = [found("final", 0, formulas=CE, ap=0.2)]
    assert best_formulas(load_history(experiment([*on_the_way, *race]))) == (
        CE, "the winner, candidate 0"
    )  # fmt: skip


def test_a_search_of_curves_has_none(experiment, searched, tmp_path):
    history = load_history(experiment(searched))
    assert formula_rows(history) == []
    assert best_formulas(history) == ({}, "")
    assert formulas_data(history) is None
    assert not [column for column in history.trials if column.startswith("formula")]


def test_the_page_has_them_by_branch(experiment, on_the_way):
    data = history_data(load_history(experiment(on_the_way)))["formulas"]
    assert data["names"] == ["classification", "regression"]
    start, first, second = data["rows"]
    assert start == {
        "label": "start", "winner": False, "val": 0.19, "test": 0.19,
        "formulas": [CE["classification"], CE["regression"]],
    }  # fmt: skip
    assert first["formulas"] == [OTHER["classification"], OTHER["regression"]]
    assert (second["val"], second["test"]) == (0.1, None)


def test_by_head_a_branch_that_one_loss_lacks_is_empty(experiment, found):
    both = {"rpn.classification": "x", "rcnn.classification": "-x"}
    records = [
        found("search", 0, 0, formulas=both, ap=0.2),
        found("search", 0, 1, formulas={"rcnn.classification": "x * x"}, ap=0.1),
    ]
    data = formulas_data(load_history(experiment(records)))
    assert data["names"] == ["rpn.classification", "rcnn.classification"]
    assert [row["formulas"] for row in data["rows"]] == [["x", "-x"], ["", "x * x"]]


def test_the_terminal_says_those_of_the_best(experiment, on_the_way):
    console = Console(file=io.StringIO(), width=200)
    print_result(load_history(experiment(on_the_way)), console)
    said = console.file.getvalue()
    assert (
        "classification of the best so far, round 0 slot 1: -(w * log(sigmoid(x)))\n"
        "regression of the best so far, round 0 slot 1: 1 - i / u\n"
    ) in said


def test_the_table_of_trials_has_a_column_a_branch(experiment, on_the_way):
    trials = load_history(experiment(on_the_way)).trials
    assert trials["formula.classification"].tolist()[1:3] == [
        CE["classification"],
        THIRD["classification"],
    ]
    assert trials["formula.classification"].isna().tolist() == [True, *[False] * 4]


def test_the_picture_has_them_where_others_have_curves(experiment, on_the_way, tmp_path):
    path = figure_png(experiment(on_the_way), tmp_path / "headline.png")
    right = matplotlib.image.imread(path)[:, 900:, :3]
    assert np.ptp(right) > 0.5


def test_hparams_are_formulas_in_place_of_coordinates(found):
    params = hparams_of(found("search", 0, 0, formulas=CE), [str(k) for k in range(41)])
    assert params == {"phase": "search", "status": "ok", "round": 0, "slot": 0, **CE}
