"""A search's settings checked for a cluster that is elsewhere."""

from pathlib import Path

import pytest
import yaml

from paploss.errors import BadConfig, BadData, BadExperiment
from search.run.submission import check_data_travels, check_for_cluster, entry_of
from trainers.datasets.coco import load_data
from trainers.datasets.shapes import draw_shapes

STORAGE = "storage=/shared/experiments"


def test_a_shipped_search_is_checked_without_its_data() -> None:
    checked = check_for_cluster(
        "shapes", [STORAGE, "data=/shared/shapes/dataset.yaml", "name=mine"]
    )
    assert (checked.name, checked.storage) == ("mine", Path("/shared/experiments"))
    assert checked.data is None
    assert "/shared/shapes/dataset.yaml" in checked.notes[0]


def test_an_experiment_that_only_the_cluster_has_is_not_looked_at(tmp_path: Path) -> None:
    named = ["data=/shared/shapes/dataset.yaml", STORAGE]
    start = "warm_start.experiment=/shared/experiments/shapes"
    checked = check_for_cluster("shapes", [*named, start, "warm_start.spread=0.1"])
    assert checked.notes[1] == (
        "not checked: the experiment /shared/experiments/shapes is not on this machine."
    )
    (tmp_path / "mine.yaml").write_text(
        "base: shapes\nwarm_start: {experiment: /shared/experiments/shapes}\n"
    )
    assert len(check_for_cluster(str(tmp_path / "mine.yaml"), named).notes) == 2
    with pytest.raises(BadExperiment, match="experiments/gone is not a directory"):
        check_for_cluster("shapes", [*named, "warm_start.experiment=experiments/gone"])


def test_data_that_only_the_cluster_has_may_be_named_in_a_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("base: shapes\ndata: /shared/x/dataset.yaml\n")
    (tmp_path / "mine.yaml").write_text(f"base: base.yaml\n{STORAGE.replace('=', ': ')}\n")
    assert check_for_cluster(str(tmp_path / "mine.yaml"), []).data is None


def test_data_that_is_here_is_read(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "shapes", train=2, val=1, test=1, size=32)
    named = f"data={tmp_path / 'shapes' / 'dataset.yaml'}"
    checked = check_for_cluster("shapes", [STORAGE, named])
    assert checked.data == load_data(tmp_path / "shapes" / "dataset.yaml")
    assert checked.notes == ()


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "--storage /shared/experiments"),
        (["storage=~/experiments"], "--storage"),
        ([STORAGE, "algorithm.round=4"], "rounds"),
        ([STORAGE, "algorithm.rounds=0", "data=/shared/x.yaml"], "rounds"),
        ([STORAGE, "data=no_such_data"], "no_such_data"),
        (["name"], "key=value"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(items: list[str], said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        check_for_cluster("shapes", items)
    assert said in str(caught.value)


def test_the_driver_names_a_config_by_its_path_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "mine.yaml"
    file.write_text(yaml.safe_dump({"base": "shapes"}))
    assert entry_of(str(file), tmp_path) == ("deep/mine.yaml", file)
    assert entry_of("shapes", tmp_path) == ("shapes", None)
    with pytest.raises(BadConfig, match="outside of"):
        entry_of(str(file), tmp_path / "other")


def test_data_in_the_folder_has_to_travel_with_it(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "data", train=2, val=1, test=1, size=32)
    data = load_data(tmp_path / "data" / "dataset.yaml")
    check_data_travels(data, lambda path: True, tmp_path)
    check_data_travels(data, lambda path: False, tmp_path / "elsewhere")
    with pytest.raises(BadData, match="not uploaded"):
        check_data_travels(data, lambda path: False, tmp_path)
