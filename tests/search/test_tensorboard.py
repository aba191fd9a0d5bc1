import io
import json
import re
import urllib.request

import pytest
from PIL import Image
from tensorboard import program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from search.history import load_history
from search.hparams import hparams_of
from search.tensorboard import mean_curves, write_columns, write_round, write_trial


def read(folder):
    """What TensorBoard itself reads from a folder."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def points(folder):
    """All scalars: {tag: [(step, value), ...]}."""
    events = read(folder)
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def age(folder):
    """Give the event files there names as of long ago; within a second they would coincide."""
    for path in list(folder.glob("events*")):
        path.rename(folder / re.sub(r"tfevents\.\d+", "tfevents.1700000000", path.name))


def near(pairs):
    return [(step, pytest.approx(value, rel=1e-6, abs=1e-7)) for step, value in pairs]


@pytest.fixture
def small(experiment, record):
    """Two rounds of two, one of them with a trial that failed and one that diverged."""
    records = [record("baseline", repeat=k, ap=0.13 + 0.02 * k) for k in range(2)]
    records += [record("start", ap=0.1), record("search", 0, 0, ap=0.1)]
    records += [record("search", 0, 1, ap=0.3, seconds=20.0), record("search", 1, 0, ap=0.2)]
    records += [record("search", 1, 1, status="diverged", ap=None)]
    records += [record("search", 1, 2, status="failed", ap=None)]
    return load_history(experiment(records))


def test_a_round_shows_its_rewards_and_its_policy(small, tmp_path):
    for number in (0, 1):
        write_round(tmp_path / "tb", small, number)
    found = points(tmp_path / "tb")
    policy = {tag: found.pop(tag) for tag in [*found] if tag.startswith("policy")}
    assert found == {
        "reward/mean": near([(0, 0.2), (1, 0.1)]),  # .1, .3; then .2 and 0
        "reward/best": near([(0, 0.3), (1, 0.2)]),
        "reward/best_so_far": near([(0, 0.3), (1, 0.3)]),
        "reward/std": near([(0, 0.1), (1, 0.1)]),
        "reward/baseline": near([(0, 0.14), (1, 0.14)]),
        "reward/start": near([(0, 0.1), (1, 0.1)]),
        "trials/seconds": near([(0, 16), (1, 12)]),
        "trials/diverged": near([(0, 0), (1, 1)]),
        "trials/stopped": near([(0, 0), (1, 0)]),
        "trials/failed": near([(0, 0), (1, 1)]),
    }
    # 41 coordinates, by curve, and one sigma: it is the same for all. The fixture's policy drifts
    # from the identity by .03 cos(k) a round, and its std falls from .2 in four steps.
    assert len(policy) == 42
    assert policy["policy_H2/x1"] == near([(0, 0.2), (1, 0.23)])
    assert policy["policy/gradient_scale"][0] == near([(0, 0.5)])[0]
    assert policy["policy/sigma"] == near([(0, 0.2), (1, 0.15)])


def test_figures_follow_the_search(small, tmp_path):
    for number in (0, 1):
        write_round(tmp_path, small, number)
    events = read(tmp_path)
    assert sorted(events.Tags()["images"]) == ["figures/policy_curves", "figures/rewards"]
    assert [image.step for image in events.Images("figures/policy_curves")] == [0, 1]
    (rewards,) = events.Images("figures/rewards")  # the last one holds all
    assert rewards.step == 1
    for image in (rewards, *events.Images("figures/policy_curves")):
        picture = Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB")
        assert picture.size == (image.width, image.height)
        assert picture.getpixel((2, picture.height - 2)) == (255, 255, 255)
        assert len(set(picture.getdata())) > 50  # something is drawn


def test_curves_of_the_mean():
    theta = {"H2.x1": 0.5, "H2.y1": 0.25, "H2.x2": 0.5, "H2.y2": 0.0, "gradient_scale": 0.5}
    # c_k = c_{k-1} + theta_k (1 - c_{k-1})
    assert mean_curves(theta) == {"H2": [[0, 0], [0.5, 0.25], [0.75, 0.25], [1, 1]]}
    assert mean_curves({"a": 0.5}) == {}


def test_a_round_written_again_replaces_its_points(small, tmp_path):
    for _ in range(2):  # the second time as a resumed search would
        write_round(tmp_path, small, 0)
        age(tmp_path)
    assert points(tmp_path)["reward/mean"] == near([(0, 0.2)])
    assert len(list(tmp_path.glob("events*"))) == 2


def test_round_1_does_not_take_round_1001_with_it(experiment, tmp_path):
    path = experiment([], names=["a"])
    (path / "policy" / "round-1001.json").write_text('{"round": 1001, "mean": [0.5], "std": [0.1]}')
    history = load_history(path)
    for number in (1, 1001, 1):
        write_round(tmp_path / "tb", history, number)
    assert [step for step, _ in points(tmp_path / "tb")["policy/a"]] == [1, 1001]


def test_a_trial_shows_its_scores_and_its_curves_over_percent(tmp_path, record):
    curves = {"H1": [[0, 0], [0.5, 0.2], [1, 1]], "rpn.I1": [[0, 0], [1, 1]]}
    one = record("final", ap=0.25, control_points=curves)
    other = tmp_path / "events.out.tfevents.1700000000.host"
    other.write_bytes(b"")
    for _ in range(2):  # a trial that was tried again
        write_trial(tmp_path, one, [])
        age(tmp_path)
    found = points(tmp_path)
    expected = [0.4 * k / 100 if k <= 50 else 0.2 + 1.6 * (k - 50) / 100 for k in range(101)]
    assert found["curves/H1"] == near(list(enumerate(expected)))
    assert found["curves/rpn.I1"] == near([(k, k / 100) for k in range(101)])
    assert found["trial/reward"] == found["val/AP"] == found["test/AP"] == near([(0, 0.25)])
    assert found["trial/seconds"] == near([(0, 12)])
    assert "val/APs" not in found  # -1: there are no small objects
    assert other.exists()


def test_hparams_are_what_was_trained_with(record, of_two):
    found = hparams_of(record("search", 3, 2), [])
    # the identity: c_k = k / 5, and a gradient scale of 10^0
    assert found["H2.x1"] == pytest.approx(0.2) and found["H1.y4"] == pytest.approx(0.8)
    assert {k: found[k] for k in ("phase", "status", "round", "slot", "gradient_scale")} == {
        "phase": "search", "status": "ok", "round": 3, "slot": 2, "gradient_scale": 1.0,
    }  # fmt: skip
    assert len(found) == 45
    assert hparams_of(record("baseline"), []) == {"phase": "baseline", "status": "ok"}
    two = hparams_of(of_two(record("start")), [])
    assert two["rcnn.gradient_scale"] == pytest.approx(10 ** (2 * 0.25 - 1))
    plain = record("search", theta=[0.3, 0.4], control_points=None, gradient_scale=None)
    assert hparams_of(plain, ["a", "b"])["b"] == 0.4


@pytest.mark.slow
def test_the_hparams_page_of_a_real_server(experiment, searched, record):
    path = experiment(searched)
    names = json.loads((path / "space.json").read_text())["names"]
    write_columns(path / "tensorboard", names)
    for one in searched:
        write_trial(path / one["trial_dir"], one, names)
    board = program.TensorBoard()
    arguments = ["--logdir", str(path), "--port", "0", "--load_fast", "false"]
    board.configure(["tensorboard", *arguments])
    url = board.launch()

    def ask(what, **body):
        body = json.dumps({"experimentName": "", **body}).encode()
        request = urllib.request.Request(f"{url}data/plugin/hparams/{what}", data=body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def asked():
        columns = ask("experiment", hparamsLimit=0)
        wanted = [{"metric": info["name"]} for info in columns["metricInfos"]]
        wanted += [{"hparam": info["name"]} for info in columns["hparamInfos"]]
        page = {"startIndex": 0, "sliceSize": 99, "colParams": wanted}
        statuses = [f"STATUS_{s}" for s in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
        found = ask("session_groups", allowedStatuses=statuses, **page)["sessionGroups"]
        return columns, {group["name"]: group for group in found}

    columns, groups = asked()
    while len(groups) < 28:  # it reads the folders one by one, in a thread
        columns, groups = asked()
    # 24 search trials, and a group each for baseline, start and the two candidates
    assert len(groups) == 28
    assert {info["name"] for info in columns["hparamInfos"]} == {
        "phase", "status", "round", "slot", *names,
    }  # fmt: skip
    baseline = groups["baseline 0: Focal + GIoU"]
    assert len(baseline["sessions"]) == 3
    reward = {m["name"]["tag"]: m["value"] for m in baseline["metricValues"]}["trial/reward"]
    assert reward == pytest.approx(0.133)  # .131, .133, .135
    (failed,) = (g for g in groups.values() if g["hparams"]["status"] == "failed")
    assert failed["sessions"][0]["status"] == "STATUS_FAILURE"
