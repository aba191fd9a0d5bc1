import json

import pytest

from paploss.files import write_json
from search.confirmation import confirmation
from search.history import load_history
from search.report import render_html
from search.result import print_result

GOOD = {
    "by": "pycocotools",
    "trial": "final-1",
    "found": {"AP": 0.22291, "AP50": 0.5},
    "reported": {"AP": 0.22291, "AP50": 0.5},
    "agrees": True,
}
BAD = {**GOOD, "reported": {"AP": 0.3, "AP50": 0.5}, "agrees": False}


def test_nothing_is_said_where_nothing_was_tried(tmp_path):
    assert confirmation(tmp_path) is None
    write_json(tmp_path / "summary.json", {"wall_seconds": 3})
    assert confirmation(tmp_path) is None
    (tmp_path / "summary.json").write_text("[")
    assert confirmation(tmp_path) is None


@pytest.mark.parametrize(
    ("told", "line", "agrees"),
    [
        (GOOD, "AP 0.2229 confirmed by pycocotools", True),
        (BAD, "WARNING: pycocotools does not confirm", False),
        (BAD, "reported AP 0.3 but 0.22291. The", False),
        ({**GOOD, "error": "FileNotFoundError: gone"}, "could not be scored by pycocotools", False),
    ],
)
def test_what_was_found_is_one_line(tmp_path, told, line, agrees):
    told = {k: v for k, v in told.items() if "error" not in told or k != "agrees"}
    write_json(tmp_path / "summary.json", {"confirmation": told})
    said, confirmed = confirmation(tmp_path)
    assert line in said and "\n" not in said
    assert confirmed is agrees


@pytest.mark.parametrize("told", [GOOD, BAD])
def test_result_and_report_show_it(experiment, searched, told, capsys):
    path = experiment(searched)
    write_json(path / "summary.json", {"confirmation": told})
    line, agrees = confirmation(path)
    history = load_history(path)
    print_result(history)
    assert line in " ".join(capsys.readouterr().out.split())
    # In the report as JSON, whose page makes a line that does not agree stand out.
    assert json.dumps([line, agrees], separators=(",", ":")) in render_html(history)
