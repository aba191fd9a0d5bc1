"""The searcher under Tune's contract, played by hand: no cluster, no trainings."""

import errno
import inspect
import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import cloudpickle
from ray.tune.search import Searcher

from paploss.errors import SearchStopped
from search.config import SearchConfig
from search.journal import TrialKey
from search.run.progress_callback import ProgressCallback
from search.space import SearchSpace
from search.tune_searcher import PlanSearcher

SPACE = SearchSpace(("a", "b"), (0.2, 0.7))
SLOTS, TOTAL = 4, 2 * 3 + (2 + 2) * 1
CONFIG = SearchConfig(
    name="searcher",
    seed=5,
    algorithm={"rounds": 2, "samples": 3, "steps": 20},
    final={"candidates": 2, "repeats": 1},
)
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


class Listener:
    """Keeps what it is told."""

    def __init__(self):
        self.events = []

    def started(self, key):
        self.events.append(("started", str(TrialKey.of(key))))

    def finished(self, record):
        self.events.append(("finished", str(TrialKey.of(record))))

    def round_done(self, round):
        self.events.append(("round_done", round))

    def note(self, text):
        self.events.append(("note", text))

    def of(self, kind):
        return [what for event, what in self.events if event == kind]


class Tune:
    """Tune's side: asks while it gets trials, and reports their ends."""

    def __init__(self, searcher):
        self.searcher = searcher
        self.count = 0
        self.alive = {}
        self.asked = []

    def fill(self):
        """Ask until the searcher says wait or finished, and return what it said."""
        while True:
            self.count += 1
            config = self.searcher.suggest(f"id{self.count}")
            if not isinstance(config, dict):
                return config
            self.alive[f"id{self.count}"] = config
            self.asked.append(config)

    def end(self, trial_id, status="ok", **outcome):
        config = self.alive.pop(trial_id)
        self.searcher.on_trial_complete(trial_id, result=result_of(config, status, **outcome))

    def lose(self, trial_id):
        self.alive.pop(trial_id)
        self.searcher.on_trial_complete(trial_id, error=True)

    def run(self):
        """To the end; what the searcher said last."""
        while (said := self.fill()) is None:
            assert self.alive, "the searcher waits, and nothing is alive that could end"
            self.end(next(iter(self.alive)))
        return said

    def id_of(self, key):
        (found,) = [i for i, c in self.alive.items() if key_of(c) == key]
        return found


def key_of(config):
    return str(TrialKey.of(config))


def result_of(config, status="ok", **outcome):
    """What the trainable reports at the end, through Tune."""
    reward = sum(config["theta"].values()) / 2 if config["theta"] else 0.5
    record = {
        "status": status,
        "reward": {"ok": reward, "diverged": 0.0}.get(status),
        "error": None if status == "ok" else "RuntimeError: it broke",
        "seconds": 1.0,
        **outcome,
    }
    return {"record": json.dumps(record), "status": status, "done": True, "training_iteration": 1}


def make(folder, listener=None, slots=SLOTS):
    return PlanSearcher(
        Path(folder), SPACE, CONFIG, baseline="Focal + GIoU", slots=slots, listener=listener
    )


def journal(folder):
    """The records by key, without what names one run of a trial."""
    records = {}
    for path in (Path(folder) / "journal").glob("*.json"):
        record = json.loads(path.read_text())
        records[path.stem] = {k: v for k, v in record.items() if k not in ("trial_id", "attempt")}
    return records


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert Tune(make(folder)).run() == Searcher.FINISHED
    return journal(folder)


# --- suggest ------------------------------------------------------------------------------------


def test_a_whole_search(tmp_path, undisturbed):
    listener = Listener()
    tune = Tune(make(tmp_path, listener))
    assert tune.run() == Searcher.FINISHED
    assert tune.searcher.problem is None
    assert len(tune.asked) == len(undisturbed) == TOTAL
    assert sorted(listener.of("finished")) == sorted(undisturbed)
    assert listener.of("round_done") == [0, 1]
    assert listener.of("note") == []


def test_a_config_says_all_that_a_trial_needs(tmp_path):
    tune = Tune(make(tmp_path))
    tune.fill()
    baseline, start, sample, _ = tune.asked
    assert baseline == {
        "experiment": str(tmp_path), "phase": "baseline", "round": 0, "slot": 0, "repeat": 0,
        "seed": baseline["seed"], "theta": {},
    }  # fmt: skip
    assert start["theta"] == {"a": 0.2, "b": 0.7}
    assert start["seed"] == baseline["seed"] != sample["seed"]
    assert list(sample["theta"]) == ["a", "b"]
    json.dumps(tune.asked)  # Tune writes params.json


def test_it_waits_for_the_round_and_finishes_only_after_the_last_reward(tmp_path):
    tune = Tune(make(tmp_path, slots=20))
    assert tune.fill() is None
    assert len(tune.alive) == 5  # baseline, start and the three of round 0
    for key in ("search-000-00-0", "search-000-01-0"):
        tune.end(tune.id_of(key))
        assert tune.fill() is None
        assert {c["round"] for c in tune.asked} == {0}
    tune.end(tune.id_of("search-000-02-0"))
    assert tune.fill() is None
    while len(tune.asked) < TOTAL:
        tune.end(next(iter(tune.alive)))
        tune.fill()
    while len(tune.alive) > 1:
        tune.end(next(iter(tune.alive)))
        assert tune.fill() is None
    tune.end(next(iter(tune.alive)))
    assert tune.fill() == Searcher.FINISHED


@settings(max_examples=25, deadline=None)
@given(slots=st.integers(1, 6), choices=st.lists(st.integers(0, 99), max_size=40))
def test_never_more_alive_than_slots_whatever_ends_first(undisturbed, slots, choices):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        tune = Tune(make(folder))
        assert tune.searcher.set_max_concurrency(slots) is True
        choices = iter(choices)
        while (said := tune.fill()) is None:
            assert 1 <= len(tune.alive) <= slots
            # Fewer only where nothing else can run before one of these has ended.
            assert len(tune.alive) == slots or not open_beside(tune)
            tune.end(list(tune.alive)[next(choices, 0) % len(tune.alive)])
        assert said == Searcher.FINISHED
        assert journal(folder) == undisturbed


def open_beside(tune):
    alive = {key_of(config) for config in tune.alive.values()}
    return [a for a in tune.searcher.plan.open if str(a.key) not in alive]


def test_no_metric_is_set(tmp_path):
    searcher = make(tmp_path)
    assert searcher.metric is None
    assert searcher.mode is None


# --- on_trial_complete --------------------------------------------------------------------------


def test_the_arguments_are_named_as_tune_names_them():
    given = inspect.signature(PlanSearcher.on_trial_complete).parameters
    assert list(given) == ["self", "trial_id", "result", "error"]
    assert given["result"].default is None
    assert given["error"].default is False


def test_a_record_is_in_the_journal_before_anyone_hears_of_it(tmp_path):
    seen = []

    class Reader(Listener):
        def finished(self, record):
            path = tmp_path / "journal" / f"{TrialKey.of(record)}.json"
            seen.append(json.loads(path.read_text()) == record)

    Tune(make(tmp_path, Reader())).run()
    assert seen == [True] * TOTAL


def test_a_record_joins_what_was_asked_with_what_came_back(tmp_path):
    tune = Tune(make(tmp_path))
    tune.fill()
    trial_id = tune.id_of("search-000-00-0")
    config = tune.alive[trial_id]
    tune.end(trial_id, reward=0.25, seconds=3.5)
    record = json.loads((tmp_path / "journal" / "search-000-00-0.json").read_text())
    assert record == {
        "phase": "search", "round": 0, "slot": 0, "repeat": 0, "label": "round 0 slot 0",
        "theta": list(config["theta"].values()), "seed": config["seed"], "status": "ok",
        "reward": 0.25, "error": None, "seconds": 3.5, "attempt": 0, "trial_id": trial_id,
    }  # fmt: skip


def test_unknown_stale_and_repeated_ids_are_ignored(tmp_path, undisturbed):
    tune = Tune(make(tmp_path))
    tune.fill()
    first, config = next(iter(tune.alive.items()))
    searcher = tune.searcher
    searcher.on_trial_complete("never-asked", result=result_of(config))
    searcher.on_trial_complete("never-asked", error=True)
    assert journal(tmp_path) == {}
    tune.end(first)
    searcher.on_trial_complete(first, result=result_of(config, reward=0.99))
    searcher.on_trial_complete(first, error=True)
    searcher.on_trial_complete(first)
    assert tune.run() == Searcher.FINISHED
    assert searcher.problem is None
    assert journal(tmp_path) == undisturbed


def test_a_lost_trial_is_issued_again_once(tmp_path, undisturbed):
    listener = Listener()
    tune = Tune(make(tmp_path, listener))
    tune.fill()
    lost = tune.id_of("search-000-00-0")
    before = tune.alive[lost]
    tune.lose(lost)
    tune.fill()
    again = tune.id_of("search-000-00-0")
    assert again != lost
    assert tune.alive[again] == before
    assert "search-000-00-0" in listener.of("note")[0]
    tune.searcher.on_trial_complete(lost, result=result_of(before, reward=0.99))  # too late
    assert tune.run() == Searcher.FINISHED
    assert journal(tmp_path) == undisturbed
    records = [json.loads(p.read_text()) for p in (tmp_path / "journal").iterdir()]
    assert [str(TrialKey.of(r)) for r in records if r["attempt"]] == ["search-000-00-0"]


@pytest.mark.parametrize("result", [None, {}, {"done": True, "training_iteration": 0}])
def test_an_end_without_a_record_is_a_loss(tmp_path, result):
    tune = Tune(make(tmp_path))
    tune.fill()
    lost = tune.id_of("start-000-00-0")
    tune.alive.pop(lost)
    tune.searcher.on_trial_complete(lost, result=result)
    tune.fill()
    assert tune.id_of("start-000-00-0") != lost
    assert tune.searcher.problem is None


def test_a_second_loss_stops_the_search_and_what_still_runs_is_kept(tmp_path):
    listener = Listener()
    tune = Tune(make(tmp_path, listener))
    for _ in range(2):
        tune.fill()
        tune.lose(tune.id_of("search-000-00-0"))
    problem = tune.searcher.problem
    assert "search-000-00-0 was lost 2 times" in problem
    assert listener.of("note")[-1] == problem
    assert tune.fill() == Searcher.FINISHED
    left = {key_of(config) for config in tune.alive.values()}
    assert len(left) == SLOTS - 1
    for trial_id in list(tune.alive):
        tune.end(trial_id)
    assert set(journal(tmp_path)) == left
    # Somebody resumes: the count starts afresh, and the search can come to its end.
    assert make(tmp_path).problem is None
    assert Tune(make(tmp_path)).run() == Searcher.FINISHED


def test_one_loss_of_many_trials_is_no_problem(tmp_path, undisturbed):
    tune = Tune(make(tmp_path))
    lost = set()
    while (said := tune.fill()) is None:
        trial_id, config = next(iter(tune.alive.items()))
        if key_of(config) in lost:
            tune.end(trial_id)
        else:
            lost.add(key_of(config))
            tune.lose(trial_id)
    assert said == Searcher.FINISHED
    assert journal(tmp_path) == undisturbed


def test_a_failed_trial_is_tried_once_more(tmp_path, undisturbed):
    listener = Listener()
    tune = Tune(make(tmp_path, listener))
    tune.fill()
    tune.end(tune.id_of("search-000-01-0"), "failed", error="ValueError: bad luck")
    assert "ValueError: bad luck" in listener.of("note")[0]
    assert journal(tmp_path) == {}
    assert tune.run() == Searcher.FINISHED
    assert journal(tmp_path) == undisturbed


def test_the_second_failure_of_a_sample_is_its_record(tmp_path):
    tune = Tune(make(tmp_path))
    for _ in range(2):
        tune.fill()
        tune.end(tune.id_of("search-000-01-0"), "failed")
    record = json.loads((tmp_path / "journal" / "search-000-01-0.json").read_text())
    assert (record["status"], record["reward"], record["attempt"]) == ("failed", None, 1)
    assert record["error"] == "RuntimeError: it broke"
    assert tune.run() == Searcher.FINISHED
    assert tune.searcher.problem is None


def test_a_loss_is_no_failure(tmp_path, undisturbed):
    """One of each: neither has happened twice."""
    tune = Tune(make(tmp_path))
    tune.fill()
    tune.end(tune.id_of("search-000-01-0"), "failed")
    tune.fill()
    tune.lose(tune.id_of("search-000-01-0"))
    assert tune.run() == Searcher.FINISHED
    assert tune.searcher.problem is None
    assert journal(tmp_path) == undisturbed


def test_a_round_that_fails_stops_the_search(tmp_path):
    listener = Listener()
    tune = Tune(make(tmp_path, listener))
    while (said := tune.fill()) is None:
        trial_id, config = next(iter(tune.alive.items()))
        tune.end(trial_id, "failed" if config["phase"] == "search" else "ok")
    assert said == Searcher.FINISHED
    assert "3 of 3 samples of round 0 failed" in tune.searcher.problem
    assert listener.of("note")[-1] == tune.searcher.problem
    assert make(tmp_path).problem == tune.searcher.problem


def test_a_journal_that_cannot_be_written_stops_the_search(tmp_path, undisturbed):
    listener = Listener()
    tune = Tune(make(tmp_path, listener))
    tune.fill()
    (tmp_path / "journal").write_text("a file where the folder should be")
    key = key_of(next(iter(tune.alive.values())))
    tune.end(next(iter(tune.alive)))
    assert f"the result of {key} could not be kept" in tune.searcher.problem
    assert listener.of("note") == [tune.searcher.problem]
    assert tune.fill() == Searcher.FINISHED
    tune.end(next(iter(tune.alive)))  # nor does the next one raise
    assert not tune.searcher.plan.records
    (tmp_path / "journal").unlink()
    assert Tune(make(tmp_path)).run() == Searcher.FINISHED
    assert journal(tmp_path) == undisturbed


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"pickled_error_file": RuntimeError("it broke\nat a line")}, "RuntimeError: it broke"),
        (
            {"error_file": "Failure # 1 (at 1)\nold\nFailure # 2 (at 2)\nlow on memory.\nMore\n"},
            "low on memory.",
        ),
        ({}, "for an unknown reason"),
    ],
)
def test_why_a_trial_is_started_again_is_told(tmp_path, files, why):
    kept = {"pickled_error_file": None, "error_file": None}
    for name, what in files.items():
        kept[name] = str(tmp_path / name)
        content = what.encode() if isinstance(what, str) else cloudpickle.dumps(what)
        Path(kept[name]).write_bytes(content)
    listener = Listener()
    tune = Tune(make(tmp_path, listener))
    callback = ProgressCallback(listener, 60, tune.searcher)
    tune.fill()
    trial_id = tune.id_of("search-000-01-0")
    callback.on_trial_recover(1, [], SimpleNamespace(config=tune.alive[trial_id], **kept))
    assert listener.of("note") == [
        f"search-000-01-0 lost its process; Ray starts it again. ({why})"
    ]
    tune.lose(trial_id)
    tune.fill()
    tune.lose(tune.id_of("search-000-01-0"))
    assert tune.searcher.problem.endswith(f"The last time: {why}")


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_waited_for(tmp_path, undisturbed, monkeypatch):
    """What was received stays in its order; nothing is issued until it is written."""
    listener = Listener()
    tune = Tune(make(tmp_path, listener))
    tune.fill()
    monkeypatch.setattr("search.storage._RETRY_SECONDS", 0)
    ended = [key_of(config) for config in list(tune.alive.values())[:2]]
    with monkeypatch.context() as patch:
        patch.setattr("search.journal.write_json", full_disk)
        for trial_id in list(tune.alive)[:2]:
            tune.end(trial_id)
        assert tune.fill() is None
        assert journal(tmp_path) == {} and tune.searcher.unwritten == 2
        assert not tune.searcher.gave_up and tune.searcher.problem is None
    assert listener.of("note") == [
        f"cannot write {tmp_path}: No space left on device; trying again for 10 minutes"
    ]
    asked = len(tune.asked)
    tune.searcher.keep()
    assert listener.of("finished") == ended
    assert "storage can be written again" in listener.of("note")[-1]
    assert tune.run() == Searcher.FINISHED
    assert journal(tmp_path) == undisturbed
    assert not {key_of(config) for config in tune.asked[asked:]} & set(ended)


def test_a_disk_that_stays_full_stops_the_search(tmp_path, undisturbed, monkeypatch):
    settings = CONFIG.model_dump() | {"resources": {"storage_minutes": 0}}
    config = SearchConfig.model_validate(settings)
    listener = Listener()
    searcher = PlanSearcher(
        tmp_path, SPACE, config, baseline="Focal + GIoU", slots=SLOTS, listener=listener
    )
    tune = Tune(searcher)
    tune.fill()
    with monkeypatch.context() as patch:
        patch.setattr("search.journal.write_json", full_disk)
        tune.end(next(iter(tune.alive)))
    assert searcher.gave_up and searcher.unwritten == 1
    assert "No space left on device" in searcher.problem
    assert tune.fill() == Searcher.FINISHED
    with pytest.raises(SearchStopped, match="storage_minutes"):
        ProgressCallback(listener, 60, searcher).on_step_end(1, [])
    assert Tune(make(tmp_path)).run() == Searcher.FINISHED
    assert journal(tmp_path) == undisturbed


def test_a_trial_that_could_not_write_runs_again(tmp_path, undisturbed, monkeypatch):
    """It is neither failed nor lost, however often."""
    monkeypatch.setattr("search.storage._RETRY_SECONDS", 0)
    tune = Tune(make(tmp_path))
    for _ in range(5):
        tune.fill()
        tune.end(tune.id_of("search-000-01-0"), "lost", error="cannot write x: Read-only")
    assert tune.run() == Searcher.FINISHED
    assert journal(tmp_path) == undisturbed


def test_an_interrupt_ends_the_waiting_for_storage(tmp_path, monkeypatch):
    interrupted = []
    searcher = PlanSearcher(
        tmp_path, SPACE, CONFIG, baseline="Focal + GIoU", slots=SLOTS, listener=None,
        interrupted=lambda: bool(interrupted),
    )  # fmt: skip
    tune = Tune(searcher)
    tune.fill()
    monkeypatch.setattr("search.journal.write_json", full_disk)
    tune.end(next(iter(tune.alive)))
    assert tune.fill() is None
    interrupted.append(True)
    assert tune.fill() == Searcher.FINISHED
    assert searcher.problem is None


def test_the_records_after_a_lost_one_are_used_again(tmp_path, undisturbed):
    """A file of the first round is cut: one trial runs, and the rest of the search is there."""
    whole = Tune(make(tmp_path))
    assert whole.run() == Searcher.FINISHED
    (tmp_path / "journal" / "search-000-01-0.json").write_text("{")
    listener = Listener()
    tune = Tune(make(tmp_path, listener))
    assert tune.run() == Searcher.FINISHED
    assert [key_of(config) for config in tune.asked] == ["search-000-01-0"]
    assert listener.of("round_done") == [0, 1]
    assert len(set(listener.of("finished"))) == len(listener.of("finished")) == 1 + 3 + 2
    assert journal(tmp_path) == undisturbed


@pytest.mark.parametrize(
    "record", ["", "not JSON", "[]", "null", "{}", '{"reward": 1.0}', 7, None, {"status": "ok"}]
)
def test_nonsense_from_a_trial_never_raises(tmp_path, undisturbed, record):
    tune = Tune(make(tmp_path))
    tune.fill()
    trial_id = tune.id_of("search-000-00-0")
    tune.alive.pop(trial_id)
    tune.searcher.on_trial_complete(trial_id, result={"record": record})
    assert "search-000-00-0 could not be kept" in tune.searcher.problem
    assert tune.fill() == Searcher.FINISHED
    assert Tune(make(tmp_path)).run() == Searcher.FINISHED
    assert journal(tmp_path) == undisturbed


def test_a_listener_that_raises_costs_no_result(tmp_path, undisturbed):
    """A full disk under the event files, say: the journal has the record, so the search goes on."""

    class Broken(Listener):
        def finished(self, record):
            raise OSError(28, "No space left on device")

        round_done = note = finished

    tune = Tune(make(tmp_path, Broken()))
    assert tune.run() == Searcher.FINISHED
    assert tune.searcher.problem is None
    assert journal(tmp_path) == undisturbed


# --- state --------------------------------------------------------------------------------------


def snapshot(folder, ended):
    """A searcher with `ended` records, and its snapshot as bytes."""
    tune = Tune(make(folder))
    for _ in range(ended):
        tune.fill()
        tune.end(next(iter(tune.alive)))
    tune.fill()
    path = folder / "searcher-state.pkl"
    tune.searcher.save(str(path))
    return tune, path.read_bytes()


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
@pytest.mark.parametrize("ended", [0, 4, TOTAL])
def test_a_pickled_searcher_goes_on_from_the_journal(tmp_path, undisturbed, pickler, ended):
    tune, _ = snapshot(tmp_path, ended)
    packed = pickler.dumps(tune.searcher)
    # The journal has grown since the snapshot, or lost nothing: it is what counts.
    for trial_id in list(tune.alive):
        tune.end(trial_id)
    again = pickle.loads(packed)
    assert [str(a.key) for a in again.plan.open] == [str(a.key) for a in tune.searcher.plan.open]
    assert Tune(again).run() == Searcher.FINISHED
    assert journal(tmp_path) == undisturbed


@pytest.mark.parametrize("content", ["older", "newer", b"", b"\x80garbage", None])
def test_restoring_replays_the_journal_whatever_the_snapshot_holds(tmp_path, undisturbed, content):
    tune, _ = snapshot(tmp_path, 4)
    other = tmp_path / "other"
    other.mkdir()
    if content in ("older", "newer"):
        content = snapshot(other, 1 if content == "older" else 8)[1]
    path = tmp_path / "state.pkl"
    if content is not None:
        path.write_bytes(content)
    again = make(tmp_path)
    again.restore(str(path))
    assert again.plan.records == tune.searcher.plan.records
    assert Tune(again).run() == Searcher.FINISHED
    assert journal(tmp_path) == undisturbed


def test_restoring_forgets_what_was_alive(tmp_path, undisturbed):
    """Tune never reports the trials of a dead session to the searcher that takes over."""
    tune, _ = snapshot(tmp_path, 1)
    tune.searcher.restore("nowhere")
    # Nor would one count that is reported all the same.
    assert len(tune.alive) == SLOTS
    for trial_id, config in tune.alive.items():
        tune.searcher.on_trial_complete(trial_id, result=result_of(config, reward=0.99))
    fresh = Tune(tune.searcher)
    fresh.fill()
    assert len(fresh.alive) == SLOTS
    assert fresh.run() == Searcher.FINISHED
    assert journal(tmp_path) == undisturbed


def test_a_search_that_is_over_stays_over(tmp_path):
    Tune(make(tmp_path)).run()
    assert make(tmp_path).suggest("x") == Searcher.FINISHED


# --- ProgressCallback ---------------------------------------------------------------------------


def trials(*statuses):
    return [SimpleNamespace(status=status) for status in statuses]


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when it is told to."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr("time.monotonic", lambda: now.seconds)
    return now


def test_trials_that_wait_too_long_stop_the_search(clock):
    callback = ProgressCallback(Listener(), pending_seconds=60)
    clock.seconds += 60
    callback.on_step_end(1, trials("PENDING", "PENDING", "TERMINATED"))
    clock.seconds += 1
    with pytest.raises(SearchStopped, match=r"^2 trials have waited .*paploss resume"):
        callback.on_step_end(2, trials("PENDING", "PENDING", "TERMINATED"))


@pytest.mark.parametrize("between", [("RUNNING", "PENDING"), ("TERMINATED",), ()])
def test_time_counts_from_when_something_ran_last(clock, between):
    callback = ProgressCallback(Listener(), pending_seconds=60)
    clock.seconds += 59
    callback.on_step_end(1, trials(*between))
    clock.seconds += 59
    callback.on_step_end(2, trials("PENDING"))
    clock.seconds += 2
    with pytest.raises(SearchStopped):
        callback.on_step_end(3, trials("PENDING"))


def test_a_search_that_runs_is_never_stopped(clock):
    callback = ProgressCallback(Listener(), pending_seconds=60)
    for step in range(10):
        clock.seconds += 3600
        callback.on_step_end(step, trials("RUNNING", "PENDING", "ERROR"))


def test_tunes_events_reach_the_listener():
    listener = Listener()
    callback = ProgressCallback(listener, pending_seconds=60)
    config = {**TrialKey("search", 1, 2, 0)._asdict(), "seed": 1, "theta": {}}
    trial = SimpleNamespace(config=config, status="RUNNING")
    callback.on_trial_start(iteration=1, trials=[trial], trial=trial)
    callback.on_trial_recover(iteration=1, trials=[trial], trial=trial)
    assert listener.of("started") == ["search-001-02-0"]
    assert "search-001-02-0 lost its process" in listener.of("note")[0]


def test_an_experiment_can_be_moved(tmp_path):
    tune, _ = snapshot(tmp_path / "here", 4)
    shutil.move(tmp_path / "here", tmp_path / "there")
    again = Tune(make(tmp_path / "there"))
    again.fill()
    assert {config["experiment"] for config in again.asked} == {str(tmp_path / "there")}
    assert [str(a.key) for a in again.searcher.plan.open] == [
        str(a.key) for a in tune.searcher.plan.open
    ]
