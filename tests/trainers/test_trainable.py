"""The Ray actor: what trial a Tune config asks for, and the record that it gives."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from loss.by_head import family_of
from paploss.files import write_yaml
from trainers.config import TaskConfig
from trainers.early_stop import EarlyStop
from trainers.fidelity import Fidelity
from trainers.search_trial import parameters, trial_spec
from trainers.trainable import TrialTrainable
from trainers.trial import TrialResult, TrialSpec
from trainers.worker import WorkerLost

NAMES = family_of({"type": "parameterized_ap"}).names

# The fields of a journal record that the actor knows; the searcher adds the rest.
FIELDS = {
    "status", "reward", "test_reward", "val", "test", "fingerprint", "iterations", "timing",
    "early", "skipped_images", "error", "seconds", "started", "finished", "trial_dir", "node",
    "pid", "cpus", "gpus", "workers", "control_points", "gradient_scale",
}  # fmt: skip


def as_search(task: TaskConfig) -> dict[str, Any]:
    """A search as its config.yaml holds it."""
    resources = {"cpus_per_trial": 1.0, "gpus_per_trial": 0.0, "stall_minutes": 1.0}
    return {**task.model_dump(mode="json"), "resources": resources}


@pytest.fixture
def search(task: TaskConfig) -> dict[str, Any]:
    return as_search(task)


def config(theta: Any = (), **changes: Any) -> dict[str, Any]:
    """A trial as Tune asks for it."""
    key = {"phase": "search", "round": 2, "slot": 5, "repeat": 0}
    return {**key, "seed": 11, "theta": dict(zip(NAMES, theta, strict=bool(theta))), **changes}


def test_a_theta_is_trained_with_the_searched_family(
    search: dict[str, Any], theta: tuple[float, ...]
) -> None:
    spec = trial_spec(search, config(theta))
    assert spec.theta == theta
    assert spec.criterion == search["criterion"]
    assert spec.seed == 11
    assert spec.schedule.model_dump(mode="json") == search["schedule"]


def test_no_theta_is_the_baseline(search: dict[str, Any]) -> None:
    spec = trial_spec(search, config(phase="baseline"))
    assert spec.theta is None
    assert spec.criterion_settings == search["baseline"]


def test_only_search_trials_never_see_the_test_split(
    search: dict[str, Any], theta: tuple[float, ...]
) -> None:
    splits = {
        phase: trial_spec(search, config(theta, phase=phase)).evaluate
        for phase in ("baseline", "start", "rung", "search", "final")
    }
    assert splits.pop("search") == splits.pop("rung") == ("val",)
    assert set(splits.values()) == {("val", "test")}


def test_a_trial_of_a_rung_is_cheaper_and_no_other_is(
    search: dict[str, Any], theta: tuple[float, ...]
) -> None:
    search["fidelity"] = {"images": 0.25}
    phases = ("rung", "search", "start", "final")
    specs = {phase: trial_spec(search, config(theta, phase=phase)) for phase in phases}
    assert specs.pop("rung").fidelity == Fidelity(images=0.25)
    assert {spec.fidelity for spec in specs.values()} == {None}


def test_a_look_part_of_the_way_where_it_is_asked_for(
    search: dict[str, Any], theta: tuple[float, ...]
) -> None:
    look = {"at": 0.5, "images": 40, "below": None, "reward": 0.0}
    assert trial_spec(search, config(theta, early_stop=look)).early_stop == EarlyStop(**look)
    assert trial_spec(search, config(theta, early_stop=None)).early_stop is None
    assert trial_spec(search, config(theta)).early_stop is None


def test_the_reward_is_the_searchs_and_candidates_keep_their_detections_once(
    search: dict[str, Any], theta: tuple[float, ...]
) -> None:
    search["reward"] = {"AP": 1.0, "oLRP": 2.0}
    kept = []
    for phase in ("baseline", "start", "search", "final"):
        for repeat in (0, 1):
            spec = trial_spec(search, {**config(theta, phase=phase), "repeat": repeat})
            assert spec.reward == {"AP": 1.0, "oLRP": 2.0}
            kept += [(phase, repeat)] if spec.keep_detections else []
    assert kept == [("final", 0)]
    del search["reward"]  # an experiment from before there was a choice
    assert trial_spec(search, config(theta)).reward == "AP"


@pytest.mark.parametrize(
    ("resources", "workers", "device", "threads"),
    [
        ({"cpus_per_trial": 1.0, "gpus_per_trial": 0.0}, 1, "cpu", 1),
        ({"cpus_per_trial": 0.5, "gpus_per_trial": 0.0}, 1, "cpu", 1),
        ({"cpus_per_trial": 4.0, "gpus_per_trial": 0.0}, 1, "cpu", 4),
        ({"cpus_per_trial": 2.0, "gpus_per_trial": 0.25}, 1, "cuda", 2),
        # Several workers share the CPUs.
        ({"cpus_per_trial": 8.0, "gpus_per_trial": 2.0}, 2, "cuda", 4),
        ({"cpus_per_trial": 1.0, "gpus_per_trial": 0.0}, 2, "cpu", 1),
    ],
)
def test_a_trial_uses_what_it_holds(
    search: dict[str, Any], resources: dict[str, float], workers: int, device: str, threads: int
) -> None:
    search["resources"].update(resources)
    spec = trial_spec(search, config(), workers)
    assert (spec.device, spec.threads) == (device, threads)


SEARCHED = {"type": "parameterized_ap", "segments": 2}
POINTS = {name: [[0, 0], [0.25, 0.75], [1, 1]] for name in ("H2", "I2", "I3", "I1", "H1")}
FIXED = {"type": "parameterized_ap", "control_points": POINTS, "gradient_scale": 3.0}


def test_a_record_has_the_curves_and_the_scale_of_the_only_criterion(
    make_spec: Callable[..., TrialSpec],
) -> None:
    spec = make_spec(criterion=SEARCHED, theta=(0.25, 0.75) * 5 + (1.0,))
    assert parameters(spec) == {"control_points": POINTS, "gradient_scale": pytest.approx(10)}


def test_a_record_of_two_heads_has_those_of_each(make_spec: Callable[..., TrialSpec]) -> None:
    criterion = {"rpn": SEARCHED, "rcnn": SEARCHED}
    theta = (0.25, 0.75) * 5 + (0.5, 0.5) * 5 + (0.0, 1.0)
    found = parameters(make_spec(criterion=criterion, theta=theta))
    assert list(found["control_points"]) == [
        f"{head}.{name}" for head in ("rpn", "rcnn") for name in POINTS
    ]
    assert found["control_points"]["rpn.I3"] == [[0, 0], [0.25, 0.75], [1, 1]]
    assert found["control_points"]["rcnn.I3"] == [[0, 0], [0.5, 0.5], [1, 1]]
    assert found["gradient_scale"] == {"rpn": pytest.approx(0.1), "rcnn": pytest.approx(10)}


@pytest.mark.parametrize("fixed", [FIXED, {"type": "focal_giou"}])
def test_a_head_that_is_not_searched_is_not_told(
    make_spec: Callable[..., TrialSpec], fixed: dict[str, Any]
) -> None:
    criterion = {"rpn": fixed, "rcnn": SEARCHED}
    found = parameters(make_spec(criterion=criterion, theta=(0.5,) * 11))
    assert {name.split(".")[0] for name in found["control_points"]} == {"rcnn"}
    assert list(found["gradient_scale"]) == ["rcnn"]


@pytest.mark.parametrize(
    ("baseline", "curves", "scale"),
    [
        ({"type": "focal_giou"}, None, None),
        (FIXED, POINTS, 3.0),
        # A form has a name and no control points that a table could show.
        ({"type": "parameterized_ap", "control_points": "square"}, None, None),
        ({"rpn": {"type": "focal_giou"}, "rcnn": {"type": "ap"}}, None, None),
        (
            {"rpn": {"type": "focal_giou"}, "rcnn": FIXED},
            {f"rcnn.{name}": points for name, points in POINTS.items()},
            {"rcnn": 3.0},
        ),
    ],
)
def test_the_record_of_a_baseline(
    make_spec: Callable[..., TrialSpec], baseline: dict[str, Any], curves: Any, scale: Any
) -> None:
    found = parameters(make_spec(criterion=baseline, theta=None))
    assert found == {"control_points": curves, "gradient_scale": scale}


def test_a_record_has_formulas_as_people_write_them(make_spec: Callable[..., TrialSpec]) -> None:
    formula = {"type": "formula", "nodes": 5}
    (start, both) = (
        parameters(make_spec(criterion=criterion, theta=family_of(criterion).start))
        for criterion in (formula, {"rpn": FIXED, "rcnn": formula})
    )
    expected = {"classification": "softplus(x) - x * y", "regression": "2 - (i / u + u / e)"}
    assert start == {"control_points": None, "gradient_scale": None, "formulas": expected}
    # As with curves, a head that is not searched is not told.
    assert both["formulas"] == {f"rcnn.{name}": text for name, text in expected.items()}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, task: TaskConfig) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    write_yaml(folder / "config.yaml", as_search(task))
    return folder


@pytest.fixture(scope="module")
def actor(experiment: Path) -> Iterator[Callable[..., TrialTrainable]]:
    """`actor("trial-name", config)`: the actor as Ray sets it up, or reset to the next trial."""
    actors: list[TrialTrainable] = []

    def make(name: str, config: dict[str, Any]) -> TrialTrainable:
        settings = config | {
            "experiment": str(experiment),
            "__trial_info__": SimpleNamespace(trial_name=name, trial_id=name),
        }
        if actors:
            assert actors[0].reset(settings)
        else:
            actors.append(TrialTrainable(settings))
        return actors[0]

    yield make
    for each in actors:
        each.stop()


@pytest.mark.slow
def test_a_record_says_all_of_a_trial(
    actor: Callable[..., TrialTrainable], experiment: Path, theta: tuple[float, ...]
) -> None:
    before = time.time()
    reported = actor("search-002-05-0", config(theta)).train()
    record = json.loads(reported["record"])

    assert set(record) == FIELDS
    assert reported["done"] is True
    assert (
        TrialResult.model_validate({name: record[name] for name in TrialResult.model_fields}).status
        == "ok"
    )
    assert record["error"] is None
    assert record["test"] is None
    assert list(record["control_points"]) == ["H2", "I2", "I3", "I1", "H1"]
    assert all(len(points) == 6 for points in record["control_points"].values())
    assert record["gradient_scale"] == pytest.approx(10 ** (2 * theta[-1] - 1))
    assert record["trial_dir"] == "search-002-05-0"
    assert "Epoch(train)" in (experiment / "search-002-05-0" / "train.log").read_text()
    assert before <= record["started"] < record["finished"] <= time.time()
    assert record["seconds"] == pytest.approx(record["finished"] - record["started"])
    assert sum(record["timing"].values()) < record["seconds"]
    assert (record["cpus"], record["gpus"], record["workers"]) == (1.0, 0.0, 1)
    # What Tune and TensorBoard show beside it.
    assert reported["val_AP"] == record["val"]["AP"] == reported["reward"]
    assert not any(name.startswith("test_") for name in reported)

    # The same actor again, for the baseline.
    reported = actor("baseline-000-00-1", config(phase="baseline", repeat=1)).train()
    baseline = json.loads(reported["record"])
    assert baseline["status"] == "ok"
    assert baseline["trial_dir"] == "baseline-000-00-1"
    assert baseline["control_points"] is baseline["gradient_scale"] is None
    assert baseline["fingerprint"] != record["fingerprint"]
    assert reported["test_AP"] == baseline["test"]["AP"]
    assert baseline["pid"] == record["pid"]


@pytest.mark.slow
def test_a_machine_that_cannot_run_trials_says_why(
    actor: Callable[..., TrialTrainable], experiment: Path, theta: tuple[float, ...]
) -> None:
    """As on one that has joined after the driver looked at all of them."""
    trainable = actor("search-002-05-0", config(theta))
    left = {"token": "", "driver": "another", "versions": {}, "files": ["/nowhere/train.json"]}
    (experiment / ".machines.json").write_text(json.dumps(left))
    with pytest.raises(WorkerLost, match="does not see the data set: /nowhere/train"):
        trainable.train()
    (experiment / ".machines.json").unlink()


@pytest.mark.slow
def test_a_lost_process_is_an_error_for_ray(
    actor: Callable[..., TrialTrainable],
    capsys: pytest.CaptureFixture[str],
    theta: tuple[float, ...],
) -> None:
    """The last test: its actor has no server after it."""
    trainable = actor("search-002-05-0", config(theta))
    psutil.Process(trainable._process.pid).kill()
    with pytest.raises(WorkerLost):
        trainable.train()
    assert "trial search-002-05-0: WorkerLost: the training server" in capsys.readouterr().out
