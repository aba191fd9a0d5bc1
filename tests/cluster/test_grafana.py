"""The dashboard file draws what is exported, all of it, and has what Grafana's import needs."""

import json
import re
from pathlib import Path

import pytest

from search.run.metrics import COUNTERS, HISTOGRAMS, exported_names

FILE = Path(__file__).parents[2] / "cluster" / "grafana" / "paploss.json"
DOCS = Path(__file__).parents[2] / "docs" / "cluster" / "metrics.md"
DASHBOARD = json.loads(FILE.read_text(encoding="utf-8"))
PANELS = DASHBOARD["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def names_in(text):
    return set(re.findall(r"ray_paploss_\w+", text))


def test_it_draws_what_is_exported_and_all_of_it():
    assert set().union(*map(names_in, QUERIES)) == exported_names()


def test_the_documentation_names_all_of_it():
    text = DOCS.read_text(encoding="utf-8")
    short = {name for name in exported_names() if not re.search("_(bucket|count|sum)$", name)}
    # `ray_paploss_reward_last`, `_best`: the second has the first one's beginning.
    told = names_in(text) | {
        f"{name[: name.rindex('_')]}{end}"
        for line in text.splitlines()
        for name in names_in(line)
        for end in re.findall(r"`(_\w+)`", line)
    }
    assert short <= told


@pytest.mark.parametrize("query", QUERIES)
def test_a_query(query):
    assert query.count("(") == query.count(")")
    selectors = re.findall(r"ray_paploss_\w+(\{[^}]*\})?", query)
    assert set(selectors) == {'{experiment=~"$experiment"}'}
    # Counters and histograms begin at 0 with every session: only their increase says something.
    for name in names_in(query):
        base = re.sub("^ray_|_(total|bucket|count|sum)$", "", name)
        if base in COUNTERS or base in HISTOGRAMS:
            assert re.search(rf"increase\({name}\{{", query)
        else:
            assert "increase" not in query


def test_what_the_import_needs():
    assert DASHBOARD["id"] is None  # Grafana gives one
    assert DASHBOARD["uid"] and DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 39  # Grafana 10.4; older ones are migrated
    [asked] = DASHBOARD["__inputs"]
    assert (asked["type"], asked["pluginId"]) == ("datasource", "prometheus")
    assert all(asked[key] for key in ("name", "label", "pluginName"))
    kinds = {r["id"] for r in DASHBOARD["__requires"] if r["type"] == "panel"}
    assert kinds == {panel["type"] for panel in PANELS}
    assert {"grafana", "datasource"} <= {r["type"] for r in DASHBOARD["__requires"]}
    json.dumps(DASHBOARD, allow_nan=False)


def test_the_data_source_and_the_experiments_are_chosen():
    source, experiment = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource", "datasource", "prometheus"
    )  # fmt: skip
    [asked] = DASHBOARD["__inputs"]
    assert source["current"]["value"] == "${" + asked["name"] + "}"
    assert (experiment["name"], experiment["datasource"]) == ("experiment", SOURCE)
    assert experiment["multi"] and experiment["includeAll"]
    found = re.fullmatch(r"label_values\((\w+), experiment\)", experiment["definition"])
    assert found and found[1] in exported_names()
    for panel in PANELS:
        assert panel["datasource"] == SOURCE
        assert all(target["datasource"] == SOURCE for target in panel["targets"])


def test_panels_have_places_of_their_own():
    taken = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert cells and max(x for x, _ in cells) < 24 and not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["title"] and panel["description"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
