"""What is settled with Ray before and around a session, as far as no cluster is needed."""

import contextlib
import json
import logging
import os
import pickle
import stat
import sys

import pytest
from ray import tune

from paploss.errors import NotEnoughResources
from search.config import ResourcesConfig
from search.run.cluster import _make_token, check_resources, one_line
from search.run.tune import _resume_config


def node(cpus, gpus=0.0):
    """As ray.nodes() describes one; resources that a node lacks are absent."""
    resources = {"CPU": float(cpus), "memory": 1e9, "node:10.0.0.1": 1.0}
    return resources | ({"GPU": float(gpus)} if gpus else {})


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "slots"),
    [
        (1, 0, [node(2)], 2),
        (2, 0, [node(7)], 3),
        (0.5, 0, [node(2)], 4),
        (1, 0, [node(2), node(3)], 5),
        (3, 0, [node(4), node(4)], 2),  # 8 CPUs are two trials, as none spans nodes
        (1, 1, [node(16, 2)], 2),
        (8, 1, [node(16, 4)], 2),
        (1, 0.5, [node(16, 1)], 2),
        (1, 1, [node(16), node(4, 1)], 1),  # the head node of a cluster has no GPU
        (4, 2, [node(2, 8), node(8, 2)], 1),
    ],
)
def test_slots_are_counted_node_by_node(cpus, gpus, nodes, slots):
    resources = ResourcesConfig(cpus_per_trial=cpus, gpus_per_trial=gpus)
    assert check_resources(resources, nodes) == slots


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes"),
    [
        (64, 0, [node(2)]),
        (1, 1, [node(64)]),
        (3, 0, [node(2), node(2)]),  # 4 CPUs in all, but none of them has 3
        (1, 4, [node(8, 2), node(8, 2)]),
        (4, 1, [node(8), node(2, 1)]),  # each is enough in one thing
        (1, 0, []),
    ],
)
def test_what_no_node_can_ever_give(cpus, gpus, nodes):
    resources = ResourcesConfig(cpus_per_trial=cpus, gpus_per_trial=gpus)
    with pytest.raises(NotEnoughResources, match=f"asks for {cpus} CPUs and {gpus} GPUs") as error:
        check_resources(resources, nodes)
    assert f"largest of the cluster's {len(nodes)} nodes" in str(error.value)
    assert "resources.cpus_per_trial" in str(error.value)


def test_the_message_has_the_most_of_each():
    resources = ResourcesConfig(cpus_per_trial=4, gpus_per_trial=1)
    with pytest.raises(NotEnoughResources, match="has 8 CPUs and 1 GPUs"):
        check_resources(resources, [node(8), node(2, 1)])


# --- taking up Tune's own state -----------------------------------------------------------------


def tunes_state(folder, session, *, trials=1, finished=False):
    """What a session of Tune leaves, by its names and as far as it is read again."""
    run = {"trial_data": [["a", "b"]] * trials, "runner_data": {"_iteration": 3}}
    (folder / f"experiment_state-{session}.json").write_text(json.dumps(run))
    generator = {"counter": trials, "finished": finished}
    (folder / f"search_gen_state-{session}.json").write_bytes(pickle.dumps(generator))
    (folder / f"searcher-state-{session}.pkl").write_text('{"finished": 1}')


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


class Notes:
    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


def test_a_new_experiment_has_nothing_to_take_up(tmp_path):
    notes = Notes()
    assert _resume_config(tmp_path, notes) is None
    assert notes.texts == []


def test_tune_keeps_its_trials_and_runs_none_by_itself(tmp_path):
    tunes_state(tmp_path, "1")
    cut(tmp_path / "experiment_state-1.json")  # an older session's no longer counts
    tunes_state(tmp_path, "2")
    before = sorted(tmp_path.iterdir())
    notes = Notes()
    config = _resume_config(tmp_path, notes)
    skip = tune.ResumeConfig.ResumeType.SKIP
    assert (config.finished, config.unfinished, config.errored) == (skip, skip, skip)
    assert sorted(tmp_path.iterdir()) == before
    assert notes.texts == []


SPOILT = {
    "cut": lambda folder: cut(folder / "experiment_state-2.json"),
    "searcher's cut": lambda folder: cut(folder / "search_gen_state-2.json"),
    "searcher's gone": lambda folder: [p.unlink() for p in folder.glob("search_gen_state-*")],
    "empty": lambda folder: (folder / "experiment_state-2.json").write_text(""),
    "nothing in it": lambda folder: (folder / "experiment_state-2.json").write_text("{}"),
    # Tune would restore it, find nothing to do, and end at once.
    "no trial": lambda folder: tunes_state(folder, "2", trials=0),
    # The search had ended with a problem, which has been mended since.
    "finished": lambda folder: tunes_state(folder, "2", finished=True),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_state_that_tune_cannot_use_is_put_aside(tmp_path, spoil):
    tunes_state(tmp_path, "1")
    tunes_state(tmp_path, "2")
    spoil(tmp_path)
    (tmp_path / "config.yaml").write_text("kept")
    count = len(list(tmp_path.iterdir()))
    notes = Notes()
    assert _resume_config(tmp_path, notes) is None
    assert len(notes.texts) == 1
    assert not [
        p for p in tmp_path.iterdir() if "state" in p.name and p.suffix in (".json", ".pkl")
    ]
    assert len(list(tmp_path.iterdir())) == count  # put aside, and not deleted
    assert (tmp_path / "config.yaml").read_text() == "kept"


# --- Ray's token --------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path


@contextlib.contextmanager
def umask(mask):
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_token_is_for_its_owner_alone(home, mask):
    with umask(mask):
        _make_token()
    token = home / ".ray" / "auth_token"
    assert mode(token) == 0o600
    assert mode(token.parent) == 0o700
    assert len(token.read_text()) == 64  # 32 random bytes, as hexadecimal digits
    assert int(token.read_text(), 16)


def test_two_users_have_two_tokens(tmp_path, home, monkeypatch):
    _make_token()
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    _make_token()
    one, other = (h / ".ray" / "auth_token" for h in (tmp_path, tmp_path / "other"))
    assert one.read_text() != other.read_text()


def test_a_token_that_is_there_is_kept(home):
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("mine")
    _make_token()
    assert (home / ".ray" / "auth_token").read_text() == "mine"


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_from_elsewhere_is_enough(home, monkeypatch, name):
    monkeypatch.setenv(name, "somewhere")
    _make_token()
    assert list(home.iterdir()) == []


def test_every_cluster_is_asked_for_a_token():
    # Set when search.run was imported, before Ray read it.
    assert os.environ["RAY_AUTH_MODE"] in ("token", "disabled")


def test_a_snapshot_of_tunes_that_fails_takes_one_line(capsys):
    logger = logging.getLogger("test_a_snapshot")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.addFilter(one_line)
    logger.propagate = False
    try:
        raise FileNotFoundError("gone")
    except FileNotFoundError:
        logger.error("Saving to '%s' failed: ", "here", exc_info=True)
    logger.error("plain %d", 1)
    said = capsys.readouterr().out
    assert said == "Saving to 'here' failed: FileNotFoundError('gone')\nplain 1\n"
