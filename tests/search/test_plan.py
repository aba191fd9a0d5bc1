"""Which trials a search runs, whatever order they end in and wherever it is taken up again."""

import json
import math
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.algorithms import build_algorithm
from search.config import SearchConfig
from search.journal import PHASES, Journal, TrialKey
from search.plan import Plan
from search.seeds import trial_seed
from search.space import SearchSpace

SPACE = SearchSpace(("a", "b", "c"), (0.2, 0.5, 0.7))
ROUNDS, SAMPLES, CANDIDATES, REPEATS = 3, 4, 3, 2
TOTAL = ROUNDS * SAMPLES + (2 + CANDIDATES) * REPEATS
CONFIG = SearchConfig(
    name="plan",
    seed=3,
    algorithm={"rounds": ROUNDS, "samples": SAMPLES, "sigma": 0.3, "steps": 20},
    final={"candidates": CANDIDATES, "repeats": REPEATS},
)
ORDERS = st.lists(st.integers(0, 99), min_size=TOTAL, max_size=TOTAL)
FEW = settings(max_examples=20, deadline=None)
# A record waits until the disk has it; memory has it at once.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def plan_in(folder, config=CONFIG):
    return Plan(SPACE, config, Journal(folder), "Focal + GIoU")


@contextmanager
def new_plan(config=CONFIG):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield plan_in(Path(folder), config)


def reward_of(theta):
    """Smooth, in [0, 1], and different for every theta."""
    return 0.5 if theta is None else 1 / (1 + sum((x - 0.6) ** 2 for x in theta))


def ended(assignment, status="ok", **other):
    """The record of a trial, with the fields that a plan reads."""
    theta = assignment.theta
    rewards = {"ok": reward_of(theta), "diverged": 0.0, "failed": None}
    return {
        **assignment.key._asdict(),
        "label": assignment.label,
        "theta": None if theta is None else list(theta),
        "status": status,
        "reward": rewards[status],
        "error": None if status == "ok" else f"error of {assignment.key}",
        **other,
    }


def run(plan, order=(), statuses=None):
    """Run to the end; of the open trials, the one that `order` says ends next."""
    order = iter(order)
    while plan.open:
        assignment = plan.open[next(order, 0) % len(plan.open)]
        plan.record(ended(assignment, (statuses or {}).get(assignment.key, "ok")))


def run_phase(plan, phase, round=0, statuses=()):
    """Run the open trials of one phase, or of one round of the search."""
    ready = [a for a in plan.open if a.key.phase == phase and a.key.round == round]
    for index, assignment in enumerate(ready):
        plan.record(ended(assignment, statuses[index] if statuses else "ok"))


def outcome(plan):
    """Everything that a search leaves, by key: order of records aside, which is the plan's."""
    folder = plan.journal.experiment
    return {
        "records": {str(TrialKey.of(record)): record for record in plan.records},
        "seeds": {str(key): plan.assignment(key).seed for key in map(TrialKey.of, plan.records)},
        "policies": {p.name: p.read_bytes() for p in (folder / "policy").iterdir()},
        "algorithm": plan.algorithm.state_dict(),
        "problem": plan.problem,
        "open": [a.key for a in plan.open],
    }


@pytest.fixture(scope="module")
def undisturbed():
    with new_plan() as plan:
        run(plan)
        return outcome(plan)


# --- the order of trials ------------------------------------------------------------------------


def test_baseline_and_start_run_beside_the_first_round(tmp_path):
    plan = plan_in(tmp_path)
    assert [str(a.key) for a in plan.open] == [
        "baseline-000-00-0", "baseline-000-00-1", "start-000-00-0", "start-000-00-1",
        "search-000-00-0", "search-000-01-0", "search-000-02-0", "search-000-03-0",
    ]  # fmt: skip
    by_phase = {a.key.phase: a for a in plan.open}
    assert by_phase["baseline"].theta is None
    assert by_phase["baseline"].label == "Focal + GIoU"
    assert by_phase["start"].theta == SPACE.start
    assert by_phase["search"].label == "round 0 slot 3"


def test_the_final_race_has_the_seeds_of_baseline_and_start(tmp_path):
    plan = plan_in(tmp_path)
    first = {a.key: a.seed for a in plan.open}
    run(plan)
    finals = [plan.assignment(TrialKey("final", c, 0, r)) for c in range(3) for r in range(2)]
    race = [trial_seed(CONFIG.seed, "final", 0, 0, repeat) for repeat in range(REPEATS)]
    assert len(set(race)) == REPEATS
    assert [a.seed for a in finals] == race * CANDIDATES
    for phase in ("baseline", "start"):
        assert [first[TrialKey(phase, 0, 0, repeat)] for repeat in range(REPEATS)] == race
    searched = {trial_seed(CONFIG.seed, "search", r, s, 0) for r in range(3) for s in range(4)}
    assert not searched & set(race)


def test_the_thetas_of_a_round_are_the_algorithms(tmp_path):
    plan = plan_in(tmp_path)
    algorithm = build_algorithm(SPACE, CONFIG.algorithm, CONFIG.seed)
    for round in range(ROUNDS):
        thetas = algorithm.ask()
        asked = [plan.assignment(TrialKey("search", round, slot, 0)).theta for slot in range(4)]
        np.testing.assert_array_equal(asked, thetas)
        run_phase(plan, "search", round)
        algorithm.tell([reward_of(theta) for theta in thetas.tolist()])
    np.testing.assert_array_equal(
        plan.assignment(TrialKey("final", 0, 0, 0)).theta, algorithm.best_guess()
    )


def test_a_round_waits_for_the_last_reward_of_the_one_before(tmp_path):
    plan = plan_in(tmp_path)
    *others, last = [a for a in plan.open if a.key.phase == "search"]
    for assignment in others:
        plan.record(ended(assignment))
    assert {a.key.round for a in plan.open if a.key.phase == "search"} == {0}
    assert plan.assignment(TrialKey("search", 1, 0, 0)) is None
    plan.record(ended(last))
    assert {a.key.round for a in plan.open if a.key.phase == "search"} == {1}


def test_baseline_and_start_hold_up_no_round_but_the_end(tmp_path):
    plan = plan_in(tmp_path)
    for round in range(ROUNDS):
        run_phase(plan, "search", round)
    for candidate in range(CANDIDATES):
        run_phase(plan, "final", candidate)
    assert [a.key.phase for a in plan.open] == ["baseline"] * 2 + ["start"] * 2
    assert not plan.finished
    run(plan)
    assert plan.finished


def test_it_counts_its_trials_before_it_has_them(tmp_path):
    plan = plan_in(tmp_path)
    assert plan.total_trials == TOTAL == 22
    run(plan)
    assert len(plan.records) == TOTAL
    assert len(list((tmp_path / "journal").iterdir())) == TOTAL
    assert sorted(p.name for p in (tmp_path / "policy").iterdir()) == [
        f"round-00{round}.json" for round in range(ROUNDS + 1)
    ]


def test_a_search_of_one_round_has_a_final_race(tmp_path):
    config = CONFIG.model_copy(
        update={
            "algorithm": CONFIG.algorithm.model_copy(update={"rounds": 1}),
            "final": CONFIG.final.model_copy(update={"candidates": 1, "repeats": 1}),
        }
    )
    plan = plan_in(tmp_path, config)
    run(plan)
    assert plan.finished
    assert [str(TrialKey.of(r)) for r in plan.records if r["phase"] == "final"] == [
        "final-000-00-0"
    ]


# --- the order of arrival -----------------------------------------------------------------------


@FEW
@given(order=ORDERS)
def test_the_order_of_arrival_changes_nothing(undisturbed, order):
    with new_plan() as plan:
        run(plan, order)
        assert outcome(plan) == undisturbed


@FEW
@given(order=ORDERS, data=st.data())
def test_the_order_of_arrival_changes_nothing_where_trials_go_wrong(order, data):
    # At most half of a round fails; each of the others may diverge.
    keys = [TrialKey("search", r, s, 0) for r in range(ROUNDS) for s in range(SAMPLES)]
    statuses = {k: data.draw(st.sampled_from(["ok", "diverged"]), str(k)) for k in keys}
    for round in range(ROUNDS):
        for slot in data.draw(st.sets(st.integers(0, SAMPLES - 1), max_size=SAMPLES // 2)):
            statuses[TrialKey("search", round, slot, 0)] = "failed"
    with new_plan() as one, new_plan() as other:
        run(one, statuses=statuses)
        run(other, order, statuses)
        assert one.finished
        assert outcome(one) == outcome(other)


OVERLAP = CONFIG.model_copy(
    update={"algorithm": CONFIG.algorithm.model_copy(update={"overlap": 2})}
)


def test_samples_ahead_are_open_after_everything_else(tmp_path):
    plan = plan_in(tmp_path, OVERLAP)
    last = [str(a.key) for a in plan.open][-3:]
    assert last == ["search-000-03-0", "search-001-00-0", "search-001-01-0"]
    early = {a.key: a for a in plan.open[-2:]}
    run_phase(plan, "search", 0)
    assert plan.algorithm.round == 1
    for key, assignment in early.items():  # as they were issued, whatever was learnt since
        assert plan.assignment(key) == assignment
    thetas = [plan.assignment(TrialKey("search", 1, slot, 0)).theta for slot in range(4)]
    np.testing.assert_array_equal(thetas, plan.algorithm.ask())


def test_a_round_that_is_begun_ahead_waits_for_the_one_before(tmp_path):
    plan = plan_in(tmp_path, OVERLAP)
    run_phase(plan, "search", 1)  # both of its samples that can run
    assert plan.algorithm.round == 0
    run_phase(plan, "search", 0)
    assert plan.algorithm.round == 1
    ready = [a.key for a in plan.open if a.key.phase == "search"]
    assert ready == [TrialKey("search", r, s, 0) for r, s in ((1, 2), (1, 3), (2, 0), (2, 1))]


@FEW
@given(ORDERS)
def test_with_overlap_too_the_order_of_arrival_changes_nothing(order):
    with new_plan(OVERLAP) as calm, new_plan(OVERLAP) as mixed:
        run(calm)
        run(mixed, order)
        assert outcome(mixed) == outcome(calm)
        assert len(calm.records) == TOTAL


@FEW
@given(ORDERS, st.integers(0, TOTAL))
def test_with_overlap_too_any_prefix_of_a_journal_goes_on_alike(order, done):
    with new_plan(OVERLAP) as calm, new_plan(OVERLAP) as broken:
        run(calm)
        places = iter(order)
        for _ in range(done):
            assignment = broken.open[next(places) % len(broken.open)]
            broken.record(ended(assignment))
        resumed = plan_in(broken.journal.experiment, OVERLAP)
        assert outcome(resumed) == outcome(broken)
        run(resumed)
        assert outcome(resumed) == outcome(calm)


def test_duplicates_and_unknown_trials_are_ignored(tmp_path, undisturbed):
    plan = plan_in(tmp_path)
    first = plan.open[0]
    plan.record(ended(first))
    plan.record(ended(first, reward=0.9, status="diverged"))
    for key in (("search", 2, 0, 0), ("search", 0, 4, 0), ("final", 0, 0, 0), ("start", 0, 0, 2)):
        plan.record({**ended(first), **TrialKey(*key)._asdict()})
    assert [TrialKey.of(r) for r in plan.records] == [first.key]
    assert len(list((tmp_path / "journal").iterdir())) == 1
    run(plan)
    assert outcome(plan) == undisturbed


# --- taking a search up again -------------------------------------------------------------------


@FEW
@given(order=ORDERS, done=st.integers(0, TOTAL))
def test_a_journal_after_any_prefix_gives_the_same_state(undisturbed, order, done):
    with new_plan() as plan:
        for choice in order[:done]:
            plan.record(ended(plan.open[choice % len(plan.open)]))
        again = plan_in(plan.journal.experiment)
        assert outcome(again) == outcome(plan)
        assert again.records == plan.records
        assert again.finished == (done == TOTAL)
        run(again, order[done:])
        assert outcome(again) == undisturbed


@FEW
@given(lost=st.sets(st.integers(0, TOTAL - 1)))
def test_records_that_were_lost_are_run_again(undisturbed, lost):
    with new_plan() as plan:
        run(plan)
        folder = plan.journal.experiment
        files = sorted((folder / "journal").iterdir())
        for index in lost:
            text = files[index].read_text()
            files[index].write_text(text[: len(text) // 2])
        again = plan_in(folder)
        assert again.finished == (not lost)
        run(again)
        assert outcome(again) == undisturbed


def test_a_cut_record_is_issued_again_with_its_theta_and_seed(tmp_path, undisturbed):
    plan = plan_in(tmp_path)
    run_phase(plan, "search", 0)
    run_phase(plan, "search", 1)
    key = TrialKey("search", 0, 2, 0)
    cut = tmp_path / "journal" / f"{key}.json"
    cut.write_text(cut.read_text()[:-20])
    again = plan_in(tmp_path)
    assert key in [a.key for a in again.open]
    assert again.assignment(key) == plan.assignment(key)
    # Round 1 was drawn from what the cut record had taught: it has to wait.
    assert again.algorithm.round == 0
    run(again)
    assert outcome(again) == undisturbed


def test_a_record_of_another_theta_is_not_this_trials(tmp_path, undisturbed):
    """A lost record that came out otherwise changes the rounds after it: these run again."""
    plan = plan_in(tmp_path)
    run(plan)
    path = tmp_path / "journal" / "search-000-01-0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "reward": 0.01}))
    again = plan_in(tmp_path)
    assert again.algorithm.round == 1
    assert {a.key.round for a in again.open if a.key.phase == "search"} == {1}
    run(again)
    assert outcome(again)["algorithm"] != undisturbed["algorithm"]
    assert outcome(plan_in(tmp_path)) == outcome(again)


def test_foreign_files_in_the_journal_do_no_harm(tmp_path):
    plan = plan_in(tmp_path)
    run_phase(plan, "baseline")
    for name, key in (("x", ("search", 7, 0, 0)), ("y", ("warmup", 0, 0, 0))):
        foreign = {**ended(plan.open[0]), **TrialKey(*key)._asdict()}
        (tmp_path / "journal" / f"{name}.json").write_text(json.dumps(foreign))
    assert outcome(plan_in(tmp_path)) == outcome(plan)


# --- trials that go wrong -----------------------------------------------------------------------


@pytest.mark.parametrize("failed", [0, 1, 2])
def test_up_to_half_of_a_round_may_fail(tmp_path, failed):
    plan = plan_in(tmp_path)
    told = build_algorithm(SPACE, CONFIG.algorithm, CONFIG.seed)
    thetas = told.ask().tolist()
    run_phase(plan, "search", 0, ["failed"] * failed + ["ok"] * (SAMPLES - failed))
    told.tell([math.nan] * failed + [reward_of(theta) for theta in thetas[failed:]])
    assert plan.problem is None
    assert plan.algorithm.state_dict() == told.state_dict()


@pytest.mark.parametrize("failed", [3, 4])
def test_more_than_half_of_a_round_stop_the_search(tmp_path, failed):
    plan = plan_in(tmp_path)
    before = plan.algorithm.state_dict()
    run_phase(plan, "search", 0, ["failed"] * failed + ["ok"] * (SAMPLES - failed))
    assert f"{failed} of 4 samples of round 0 failed" in plan.problem
    assert "error of search-000-00-0" in plan.problem
    assert plan.algorithm.state_dict() == before
    assert not plan.finished
    assert {a.key.phase for a in plan.open} == {"baseline", "start"}


def test_a_round_of_an_odd_number_needs_more_than_half(tmp_path):
    samples = CONFIG.algorithm.model_copy(update={"samples": 3})
    config = CONFIG.model_copy(update={"algorithm": samples})
    plan = plan_in(tmp_path / "one", config)
    run_phase(plan, "search", 0, ["failed", "ok", "ok"])
    assert plan.problem is None
    plan = plan_in(tmp_path / "two", config)
    run_phase(plan, "search", 0, ["failed", "ok", "failed"])
    assert plan.problem is not None


def test_diverged_is_evidence_of_reward_zero(tmp_path):
    plan = plan_in(tmp_path)
    told = build_algorithm(SPACE, CONFIG.algorithm, CONFIG.seed)
    rewards = [0.0, *(reward_of(theta) for theta in told.ask().tolist()[1:])]
    run_phase(plan, "search", 0, ["diverged", "ok", "ok", "ok"])
    told.tell(rewards)
    assert plan.algorithm.state_dict() == told.state_dict()
    # And that is something else than no evidence.
    other = plan_in(tmp_path / "failed")
    run_phase(other, "search", 0, ["failed", "ok", "ok", "ok"])
    assert other.algorithm.state_dict() != told.state_dict()


def test_a_round_that_diverged_as_a_whole_goes_on(tmp_path):
    plan = plan_in(tmp_path)
    mean = plan.algorithm.policy()[0]
    run_phase(plan, "search", 0, ["diverged"] * SAMPLES)
    assert plan.problem is None
    assert plan.algorithm.round == 1
    np.testing.assert_array_equal(plan.algorithm.policy()[0], mean)


def test_a_stopped_search_is_stopped_for_whoever_reads_its_journal(tmp_path):
    plan = plan_in(tmp_path)
    run_phase(plan, "search", 0)
    run_phase(plan, "search", 1, ["failed", "failed", "failed", "ok"])
    assert outcome(plan_in(tmp_path)) == outcome(plan)


def test_failures_of_a_stopped_round_can_be_tried_again(tmp_path, undisturbed):
    plan = plan_in(tmp_path)
    run_phase(plan, "search", 0)
    run_phase(plan, "search", 1, ["failed", "failed", "failed", "ok"])
    plan.retry_failed_round()
    assert plan.problem is None
    assert [a.key.slot for a in plan.open if a.key.phase == "search"] == [0, 1, 2]
    assert not (tmp_path / "journal" / "search-001-00-0.json").exists()
    assert (tmp_path / "journal" / "search-001-03-0.json").exists()
    run(plan)
    assert outcome(plan) == undisturbed


def test_failures_that_were_learned_from_are_kept(tmp_path):
    plan = plan_in(tmp_path)
    run_phase(plan, "search", 0, ["failed", "ok", "ok", "ok"])
    run_phase(plan, "search", 1, ["failed"] * SAMPLES)
    plan.retry_failed_round()
    assert (tmp_path / "journal" / "search-000-00-0.json").exists()
    assert plan.algorithm.round == 1
    assert {a.key.round for a in plan.open if a.key.phase == "search"} == {1}


def test_retrying_a_sound_search_changes_nothing(tmp_path):
    plan = plan_in(tmp_path)
    run_phase(plan, "search", 0, ["failed", "ok", "ok", "ok"])
    before = outcome(plan)
    plan.retry_failed_round()
    assert outcome(plan) == before


def test_a_baseline_that_failed_is_tried_again_with_what_stopped_the_search(tmp_path, undisturbed):
    """What made a whole round fail made the baseline fail too; it stands in every table."""
    plan = plan_in(tmp_path)
    run_phase(plan, "baseline", 0, ["failed"] * REPEATS)
    run_phase(plan, "start", 0, ["failed"] * REPEATS)
    run_phase(plan, "search", 0, ["failed"] * SAMPLES)
    plan = plan_in(tmp_path)
    plan.retry_failed_round()
    run(plan)
    assert outcome(plan) == undisturbed


def test_a_final_race_without_a_single_score_is_no_end(tmp_path, undisturbed):
    plan = plan_in(tmp_path)
    race = [TrialKey("final", c, 0, r) for c in range(CANDIDATES) for r in range(REPEATS)]
    run(plan, statuses=dict.fromkeys(race, "failed"))
    assert not plan.finished
    assert "error of final-000-00-0" in plan.problem
    plan = plan_in(tmp_path)
    plan.retry_failed_round()
    run(plan)
    assert plan.finished
    assert outcome(plan) == undisturbed


# --- the final race -----------------------------------------------------------------------------


def finals_of(plan):
    return [
        (plan.assignment(TrialKey("final", c, 0, 0)), plan.assignment(TrialKey("final", c, 0, 1)))
        for c in range(CANDIDATES)
    ]


def run_search_with(plan, rewards):
    """Run the three rounds with rewards by key, 0.1 for the others."""
    for _ in range(ROUNDS * SAMPLES):
        a = next(a for a in plan.open if a.key.phase == "search")
        status, reward = rewards.get(a.key[1:3], ("ok", 0.1))
        plan.record(ended(a, status, reward=reward))


def test_the_best_guess_meets_the_best_samples(tmp_path):
    plan = plan_in(tmp_path)
    run_search_with(plan, {(1, 2): ("ok", 0.9), (0, 3): ("ok", 0.8), (2, 0): ("ok", 0.7)})
    firsts, seconds = zip(*finals_of(plan), strict=True)
    assert [a.label for a in firsts] == ["policy mean", "round 1 slot 2", "round 0 slot 3"]
    assert firsts[0].theta == tuple(plan.algorithm.best_guess())
    assert firsts[1].theta == plan.assignment(TrialKey("search", 1, 2, 0)).theta
    assert [a.theta for a in firsts] == [a.theta for a in seconds]
    # Repeats outermost: after any number of trials the candidates have had equal chances.
    order = [a.key[1:] for a in plan.open if a.key.phase == "final"]
    assert order == [(c, 0, r) for r in range(REPEATS) for c in range(CANDIDATES)]


def test_of_equal_samples_the_earliest_runs(tmp_path):
    plan = plan_in(tmp_path)
    run_search_with(plan, {(2, 1): ("ok", 0.9), (0, 3): ("ok", 0.9), (0, 1): ("ok", 0.9)})
    labels = [first.label for first, _ in finals_of(plan)]
    assert labels == ["policy mean", "round 0 slot 1", "round 0 slot 3"]


def test_a_sample_that_did_not_end_well_is_no_candidate(tmp_path):
    plan = plan_in(tmp_path)
    everything = {(r, s): ("diverged", 0.0) for r in range(ROUNDS) for s in range(SAMPLES)}
    everything |= {(0, 0): ("failed", None), (2, 3): ("ok", 0.05)}
    run_search_with(plan, everything)
    labels = [a.label for a in plan.open if a.key.phase == "final" and a.key.repeat == 0]
    assert labels == ["policy mean", "round 2 slot 3"]


def test_candidates_are_distinct(tmp_path):
    # Random search's best guess is its best sample.
    random = CONFIG.algorithm.model_copy(update={"type": "random"})
    plan = plan_in(tmp_path, CONFIG.model_copy(update={"algorithm": random}))
    run_search_with(plan, {(1, 2): ("ok", 0.9), (0, 3): ("ok", 0.8), (2, 0): ("ok", 0.7)})
    firsts = [first for first, _ in finals_of(plan)]
    assert [a.label for a in firsts] == ["best guess", "round 0 slot 3", "round 2 slot 0"]
    assert firsts[0].theta == plan.assignment(TrialKey("search", 1, 2, 0)).theta
    assert len({a.theta for a in firsts}) == CANDIDATES


def test_the_start_is_called_what_the_space_calls_it(tmp_path):
    space = SearchSpace(SPACE.names, SPACE.start, "start: of somebody")
    plan = Plan(space, CONFIG, Journal(tmp_path), "Focal + GIoU")
    labels = {a.key.phase: a.label for a in plan.open if a.key.phase != "search"}
    assert labels == {"baseline": "Focal + GIoU", "start": "start: of somebody"}


# --- screens, samples on storage, rungs, early stops, the race in waves --------------------------


class Below:
    """A screen that lets pass what has a small first coordinate, and counts."""

    def __init__(self, most=0.2):
        self.most, self.asked, self.told = most, 0, []

    def __call__(self, theta):
        self.asked += 1
        return None if theta[0] <= self.most else f"first: {theta[0]:.3f} is above {self.most}"

    def accepted(self, theta):
        self.told.append(theta.tolist())


def screened(folder, screen, draw=True, **settings):
    config = SearchConfig(name="x", **{"algorithm": {"rounds": 2, "samples": 4}, **settings})
    return Plan(SPACE, config, Journal(folder), "Focal + GIoU", screen, draw=draw)


def earned(assignment, reward, **fields):
    """A record of `assignment`, of a trial that ended well."""
    theta = None if assignment.theta is None else list(assignment.theta)
    record = {**assignment.key._asdict(), "label": assignment.label, "theta": theta}
    return {**record, "seed": assignment.seed, "status": "ok", "reward": reward, **fields}


def go_through(plan, reward=lambda theta: float(np.mean(theta)), phases=PHASES, **fields):
    """Run what is open, of `phases`, until nothing is; the assignments in their order."""
    done = []
    while ready := [a for a in plan.open if a.key.phase in phases]:
        for assignment in ready:
            value = 0.1 if assignment.theta is None else reward(assignment.theta)
            plan.record(earned(assignment, value, **fields))
            done.append(assignment)
    return done


def test_rejected_samples_are_drawn_again_and_kept_on_storage(tmp_path):
    screen = Below()
    plan = screened(tmp_path, screen)
    thetas = [a.theta for a in plan.open if a.key.phase == "search"]
    assert all(theta[0] <= 0.2 for theta in thetas)
    assert screen.told == [list(SPACE.start), *map(list, thetas)]
    kept = json.loads((tmp_path / "samples" / "round-000.json").read_text())
    assert kept["thetas"] == [list(theta) for theta in thetas]
    assert kept["rejected"]
    for rejection in kept["rejected"]:
        assert rejection["theta"][0] > 0.2 and rejection["stage"] == "first"
    drawn = 4 + len(kept["rejected"])
    (note,) = plan.notes
    assert note == (
        f"round 0: {drawn - 4} of {drawn} samples rejected before a trial (first {drawn - 4})"
    )


def test_a_sample_that_no_screen_wants_is_tried_in_the_end(tmp_path):
    plan = screened(tmp_path, Below(-1), algorithm={"rounds": 1, "samples": 2, "attempts": 3})
    rejected = json.loads((tmp_path / "samples" / "round-000.json").read_text())["rejected"]
    assert [(r["slot"], r["attempt"], r["waived"]) for r in rejected] == [
        *[(0, 0, False), (0, 1, False), (0, 2, True)],
        *[(1, 0, False), (1, 1, False), (1, 2, True)],
    ]
    assert len([a for a in plan.open if a.key.phase == "search"]) == 2
    assert plan.notes[0].endswith("; 2 tried all the same")


def test_what_is_on_storage_is_not_drawn_or_screened_again(tmp_path):
    first = screened(tmp_path, Below())
    go_through(first, phases=("baseline", "start"))
    screen = Below()
    again = screened(tmp_path, screen)
    assert [a.theta for a in again.open] == [a.theta for a in first.open]
    assert screen.asked == 0 and len(screen.told) == 1 + 4
    assert again.notes == []


def test_who_only_looks_draws_nothing(tmp_path):
    plan = screened(tmp_path, Below())
    go_through(plan, phases=("baseline", "start"))
    ahead = tmp_path / "samples" / "round-000.json"
    kept = ahead.read_bytes()
    ahead.unlink()
    screen = Below()
    look = screened(tmp_path, screen, draw=False)
    assert screen.asked == 0 and not ahead.exists() and look.notes == []
    assert look.open == [] and len(look.records) == len(plan.records)
    assert look.total_trials == plan.total_trials and not look.finished
    # With its samples it is the same plan.
    ahead.write_bytes(kept)
    look = screened(tmp_path, screen, draw=False)
    assert [a.theta for a in look.open] == [a.theta for a in plan.open]
    go_through(plan)
    assert screened(tmp_path, screen, draw=False).finished


def test_samples_of_other_rewards_are_drawn_anew(tmp_path):
    plan = screened(tmp_path, None)
    go_through(plan)
    record = next(iter(plan.journal.records()))
    key = TrialKey("search", 0, 2, 0)
    record = json.loads((tmp_path / "journal" / f"{key}.json").read_text())
    plan.journal.write({**record, "reward": 0.9})
    again = screened(tmp_path, None)
    before = [a.theta for a in go_through(plan)]
    assert [a.key.round for a in again.open if a.key.phase == "search"] == [1] * 4
    assert before == []


def test_samples_that_cannot_be_read_are_drawn_again(tmp_path):
    first = screened(tmp_path, Below())
    (tmp_path / "samples" / "round-000.json").write_text('{"round": 0, "thet')
    again = screened(tmp_path, Below())
    assert [a.theta for a in again.open] == [a.theta for a in first.open]


RUNGS = {"algorithm": {"rounds": 2, "samples": 6}, "rungs": {"factor": 3}}


def test_the_best_of_a_rung_are_trained_in_full(tmp_path):
    plan = screened(tmp_path, None, **RUNGS)
    values = {0: 0.1, 1: 0.5, 2: 0.3, 3: 0.2, 4: 0.6, 5: 0.4}
    for assignment in [a for a in plan.open if a.key.phase == "rung"]:
        plan.record(earned(assignment, values[assignment.key.slot]))
    assert [a.key for a in plan.open if a.key.phase == "search"] == [
        TrialKey("search", 0, 1, 0), TrialKey("search", 0, 4, 0)
    ]  # fmt: skip
    assert plan.algorithm.round == 0
    go_through(plan, phases=("search",))
    assert plan.algorithm.round == 1
    rung = [a for a in plan.open if a.key.phase == "rung"]
    assert [a.key.slot for a in rung] == list(range(6)) and {a.key.round for a in rung} == {1}


def test_rung_and_full_trial_of_a_sample_have_seeds_of_their_own(tmp_path):
    plan = screened(tmp_path, None, **RUNGS)
    done = go_through(plan, phases=("rung", "search"))
    seeds = {a.key: a.seed for a in done}
    assert len(set(seeds.values())) == len(seeds) == 2 * (6 + 2)
    assert max(seeds.values()) < 2**30


def test_a_search_with_rungs_is_the_same_after_a_resume(tmp_path):
    plan = screened(tmp_path, None, **RUNGS)
    go_through(plan)
    assert plan.finished
    again = screened(tmp_path, None, **RUNGS)
    assert again.finished
    assert again.algorithm.state_dict() == plan.algorithm.state_dict()


def test_more_than_half_of_a_rung_stop_the_search(tmp_path):
    plan = screened(tmp_path, None, **RUNGS)
    for assignment in [a for a in plan.open if a.key.phase == "rung"]:
        bad = assignment.key.slot < 4
        record = earned(assignment, 0.1)
        plan.record({**record, "status": "failed", "reward": None, "error": "E"} if bad else record)
    assert plan.problem and plan.problem.startswith("4 of 6 samples of round 0 failed")
    plan.retry_failed_round()
    assert len([a for a in plan.open if a.key.phase == "rung"]) == 4


def test_paired_samples_of_a_round_share_a_seed(tmp_path):
    plan = screened(tmp_path, None, paired_seeds=True)
    done = [a for a in go_through(plan) if a.key.phase == "search"]
    by_round = {r: {a.seed for a in done if a.key.round == r} for r in (0, 1)}
    assert len(by_round[0]) == len(by_round[1]) == 1
    assert by_round[0] != by_round[1]


def test_paired_samples_of_a_rung_share_a_seed_too(tmp_path):
    plan = screened(tmp_path, None, paired_seeds=True, **RUNGS)
    done = [a for a in go_through(plan) if a.key.phase in ("rung", "search")]
    seeds = {(a.key.phase, a.key.round, a.seed) for a in done}
    assert len(done) == 2 * (6 + 2)
    assert len(seeds) == len({seed for _, _, seed in seeds}) == 4


def test_trials_are_told_of_early_stops_once_they_have_proof(tmp_path):
    settings = {"algorithm": {"rounds": 9, "samples": 8}, "early_stop": {"at": 0.4, "images": 7}}
    plan = screened(tmp_path, None, **settings)
    assert all(a.early_stop is None for a in plan.open if a.key.phase != "search")
    first = next(a for a in plan.open if a.key.phase == "search").early_stop
    assert (first["at"], first["images"], first["below"]) == (0.4, 7, None)
    rules = []
    while not plan.algorithm.finished:
        for assignment in plan.open:
            value = 0.1 if assignment.theta is None else float(np.mean(assignment.theta))
            # A score on the way that is half of the reward: it tells all.
            plan.record(earned(assignment, value, early=value / 2))
            if assignment.key.phase == "search":
                rules.append((assignment.key.round, assignment.early_stop["below"]))
    without = {round for round, below in rules if below is not None}
    assert without and min(without) == 6  # 48 trials are the first to be 44 or more


def test_a_race_goes_on_in_waves_and_drops_who_cannot_win(tmp_path):
    settings = {"final": {"candidates": 3, "repeats": 4}}
    plan = screened(tmp_path, None, **settings)
    go_through(plan, phases=("baseline", "start", "search"))
    first = [a.key for a in plan.open]
    assert [(key.round, key.repeat) for key in first] == [
        (candidate, repeat) for repeat in range(2) for candidate in range(3)
    ]
    luck = iter(np.random.default_rng(0).normal(0, 0.002, 100))
    levels = {0: 0.1, 1: 0.3, 2: 0.12}
    repeats = []
    while plan.open:
        for assignment in plan.open:
            level = levels[assignment.key.round] + next(luck)
            plan.record(earned(assignment, level, test_reward=level))
            repeats.append(assignment.key.round)
    assert plan.finished
    assert repeats.count(0) == repeats.count(2) == 2 and repeats.count(1) == 4
    assert screened(tmp_path, None, **settings).finished
