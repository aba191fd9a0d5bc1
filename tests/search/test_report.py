"""The report as a file. What it says is tested in dashboard/test_data.py, how it looks and works in
dashboard/test_browser.py."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from paploss.errors import BadExperiment
from search.report import write_report

VOID = {"meta", "br", "img", "link", "hr", "input"}
ATTACK = "</script><script>alert('x')</script>\"><img src=x onerror=y> <!-- \u2028 {{title}}"


class Page(HTMLParser):
    """Collects what a page holds, and insists that its tags are nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack, self.tags, self.ids, self.urls, self.scripts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.urls += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(part.split(" ", 1) for part in attributes["content"].split("; "))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "script":
            self.scripts.append([attributes.get("type"), ""])

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "script":
            self.scripts[-1][1] += data

    @property
    def setup(self):
        return json.loads(next(text for kind, text in self.scripts if kind == "application/json"))


def read(experiment: Path) -> tuple[str, Page]:
    path = write_report(experiment)
    assert path == experiment / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_it_needs_nothing_else_and_runs_nothing_else(experiment, searched):
    text, page = read(experiment(searched))
    assert not {"iframe", "object", "img", "form"} & set(page.tags)
    assert all(url.startswith(("#", "data:image/svg+xml,")) for url in page.urls)
    assert len(page.ids) == len(set(page.ids))
    # Its policy allows what stands in it, by hash, and nothing else.
    assert page.policy["default-src"] == "'none'" and "connect-src" not in page.policy
    scripts = [text for kind, text in page.scripts if kind is None]
    assert len(scripts) == 2
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    assert page.policy["script-src"] == " ".join(f"'sha256-{one}'" for one in hashes)
    assert "unsafe" not in str(page.policy)
    assert len(text.encode()) < 6_000_000


def test_it_holds_the_data_of_its_experiment(experiment, searched):
    _, page = read(experiment(searched))
    (one,) = page.setup["experiments"]
    assert one["name"] == "shapes" and len(one["history"]["trials"]["rows"]) == 36
    assert not page.setup["live"]


def test_what_comes_from_files_is_data_and_nothing_else(experiment, searched):
    for one in searched:
        one["label"] = ATTACK + one["label"]
        one["error"] = one["fingerprint"] = ATTACK
        one["skipped_images"] = {ATTACK: ATTACK}
        if one["control_points"]:
            one["control_points"][ATTACK] = one["control_points"].pop("H1")
    name = ATTACK + "\ud800"  # half a pair, which no UTF-8 can hold
    path = experiment(searched, name=name)
    (path / "events.jsonl").write_text(json.dumps({"time": 1, "text": ATTACK}))
    text, page = read(path)
    assert page.tags.count("script") == 3 and "img" not in page.tags
    assert "alert('x')" not in re.sub(
        r"<script.*?</script>|<title>.*?</title>", "", text, flags=re.S
    )
    (one,) = page.setup["experiments"]
    assert one["name"] == name and one["status"]["events"] == [[1, ATTACK]]


def test_it_names_no_path_of_the_machine(experiment, searched):
    path = experiment(searched)
    (path / "journal" / "search-000-00-0.json").write_text("{")
    text, page = read(path)
    (reason,) = page.setup["experiments"][0]["history"]["damaged"]
    assert reason.startswith("journal/search-000-00-0.json: not readable")
    assert str(path) not in text


@pytest.mark.parametrize("summary", ["{", "[]", "{}", '{"wall_seconds": "x", "slots": 2}'])
def test_a_summary_that_cannot_be_used_is_passed_over(experiment, record, summary):
    path = experiment([record("baseline")])
    for file in (path / "policy").iterdir():
        file.unlink()
    (path / "summary.json").write_text(summary)
    _, page = read(path)
    assert page.setup["experiments"][0]["history"]["time"]["overhead"] is None


def test_no_experiment_no_report(tmp_path):
    with pytest.raises(BadExperiment):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
