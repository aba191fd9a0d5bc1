"""What every search algorithm keeps: one suite for all of ALGORITHMS, and the seeds under it."""

import json
import typing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.algorithms import ALGORITHMS, build_algorithm
from search.config import AlgorithmConfig
from search.seeds import sample_uniforms, trial_seed
from search.space import SearchSpace

SPACE = SearchSpace(("a", "b", "c", "d"), (0.2, 0.25, 1 / 3, 0.5))
ROUNDS = 3


@pytest.fixture(params=sorted(ALGORITHMS))
def kind(request):
    return request.param


def build(kind, seed=11, samples=4, rounds=ROUNDS, space=SPACE, **settings):
    config = AlgorithmConfig(type=kind, rounds=rounds, samples=samples, **settings)
    return build_algorithm(space, config, seed)


def score(thetas):
    """A reward in [0, 1] for each theta."""
    return 1 - thetas.mean(axis=1)


def run(algorithm, rounds):
    """The thetas of the next `rounds` rounds."""
    asked = []
    for _ in range(rounds):
        asked.append(algorithm.ask())
        algorithm.tell(score(asked[-1]))
    return asked


def test_the_configuration_and_the_registry_name_the_same_algorithms():
    types = typing.get_args(AlgorithmConfig.model_fields["type"].annotation)
    assert set(types) == set(ALGORITHMS)


def test_build_makes_the_registered_class(kind):
    assert type(build(kind)) is ALGORITHMS[kind]


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(sorted(ALGORITHMS)),
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(2, 12),
    dimension=st.integers(1, 9),
    sigma=st.floats(0.001, 1),
)
def test_any_number_of_samples_stays_in_the_unit_cube(kind, seed, samples, dimension, sigma):
    space = SearchSpace(tuple(map(str, range(dimension))), (0.3,) * dimension)
    algorithm = build(kind, seed, samples, space=space, sigma=sigma, steps=5)
    for thetas in run(algorithm, ROUNDS):
        assert thetas.shape == (samples, dimension)
        assert thetas.dtype == np.float64
        assert ((thetas >= 0) & (thetas <= 1)).all()
    mean, std = algorithm.policy()
    assert mean.shape == std.shape == algorithm.best_guess().shape == (dimension,)
    assert (std > 0).all()


def test_asking_again_gives_the_same_whatever_else_was_called(kind):
    algorithm = build(kind)
    run(algorithm, 1)
    thetas, state = algorithm.ask(), algorithm.state_dict()
    np.random.seed(0)
    algorithm.ask()[:] = 0.9  # what is handed out is the caller's
    algorithm.policy()[0][:] = 0.9
    algorithm.best_guess()[:] = 0.9
    np.testing.assert_array_equal(algorithm.ask(), thetas)
    assert algorithm.state_dict() == state


def test_equal_searches_ask_alike(kind):
    np.testing.assert_array_equal(run(build(kind), ROUNDS), run(build(kind), ROUNDS))


def test_samples_differ_by_seed_round_and_slot(kind):
    # Two rounds without evidence: the policy's mean stays, yet the samples are new.
    algorithm = build(kind)
    first = algorithm.ask()
    algorithm.tell([np.nan] * 4)
    seen = np.concatenate([first, algorithm.ask(), build(kind, seed=12).ask()])
    for column in seen.T:
        assert len(set(column)) == 12


def test_a_slot_does_not_depend_on_how_many_there_are(kind):
    np.testing.assert_array_equal(build(kind, samples=3).ask(), build(kind, samples=8).ask()[:3])


def test_the_whole_history_told_again_leads_to_the_same_search(kind):
    rewards = [[0.1, 0.4, np.nan, 0.2], [0.0, 0.0, 0.5, 0.3], [1.0, 0.2, 0.2, np.nan]]
    once, again = build(kind), build(kind)
    for values in rewards:
        once.ask()
        once.tell(values)
    for values in rewards:  # as from a journal: nobody asks
        again.tell(values)
    assert again.state_dict() == once.state_dict()
    np.testing.assert_array_equal(again.best_guess(), once.best_guess())


@pytest.mark.parametrize("told", range(ROUNDS))
def test_a_state_through_json_goes_on_alike(kind, told):
    original, restored = build(kind), build(kind)
    run(original, told)
    restored.load_state_dict(json.loads(json.dumps(original.state_dict(), allow_nan=False)))
    assert restored.round == told
    np.testing.assert_array_equal(restored.best_guess(), original.best_guess())
    np.testing.assert_array_equal(restored.policy(), original.policy())
    np.testing.assert_array_equal(run(restored, ROUNDS - told), run(original, ROUNDS - told))
    assert restored.state_dict() == original.state_dict()


def test_a_finished_state_stays_finished(kind):
    original, restored = build(kind), build(kind)
    run(original, ROUNDS)
    restored.load_state_dict(original.state_dict())
    assert restored.finished
    np.testing.assert_array_equal(restored.best_guess(), original.best_guess())


def test_a_state_taken_is_not_changed_by_what_follows(kind):
    algorithm = build(kind)
    state = algorithm.state_dict()
    before = json.dumps(state)
    run(algorithm, 1)
    assert json.dumps(state) == before


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 12}, "its seed is 12, expected 11"),
        ({"samples": 5}, "its config"),
        ({"space": SearchSpace(("a", "b"), (0.5, 0.5))}, "its names"),
        ({"space": SearchSpace(SPACE.names, (0.5,) * 4)}, "its start"),
    ],
)
def test_a_state_of_another_search_is_refused(kind, other, message):
    algorithm = build(kind)
    before = algorithm.state_dict()
    with pytest.raises(ValueError, match=message):
        algorithm.load_state_dict(build(kind, **other).state_dict())
    assert algorithm.state_dict() == before


@pytest.mark.parametrize("round", [-1, ROUNDS + 1])
def test_a_state_of_no_round_is_refused(kind, round):
    state = build(kind).state_dict() | {"round": round}
    with pytest.raises(ValueError, match=f"round is {round}; expected 0 to {ROUNDS}"):
        build(kind).load_state_dict(state)


def test_samples_ahead_are_the_first_of_the_next_round(kind):
    algorithm = build(kind, overlap=2)
    ahead = None
    for _ in range(ROUNDS):
        thetas = algorithm.ask()
        assert thetas.shape == (4, 4)
        if ahead is not None:
            np.testing.assert_array_equal(thetas[:2], ahead)
        ahead = algorithm.ask_ahead()
        algorithm.tell(score(thetas))
    assert ahead.shape == (0, 4)  # after the last round there is none


def test_samples_ahead_are_drawn_with_the_policy_as_it_is(kind):
    """So they do not depend on the rewards of the round that is not over; the others do."""
    good, bad = build(kind, overlap=2), build(kind, overlap=2)
    np.testing.assert_array_equal(good.ask_ahead(), bad.ask_ahead())
    good.tell([0.1, 0.2, 0.3, 0.9])
    bad.tell([0.9, 0.3, 0.2, 0.1])
    np.testing.assert_array_equal(good.ask()[:2], bad.ask()[:2])
    if kind == "ppo2":  # random search has no policy that learns
        assert (good.ask()[2:] != bad.ask()[2:]).any(axis=1).all()


def test_without_overlap_nothing_is_ahead(kind):
    assert build(kind).ask_ahead().shape == (0, 4)


@pytest.mark.parametrize("told", range(ROUNDS))
def test_a_state_with_samples_ahead_goes_on_alike(kind, told):
    original, restored = build(kind, overlap=3), build(kind, overlap=3)
    run(original, told)
    restored.load_state_dict(json.loads(json.dumps(original.state_dict(), allow_nan=False)))
    np.testing.assert_array_equal(run(restored, ROUNDS - told), run(original, ROUNDS - told))
    assert restored.state_dict() == original.state_dict()


def test_failed_samples_are_no_evidence(kind):
    """A sample that failed teaches nothing: neither as good nor as bad."""
    failed, worst, best = build(kind), build(kind), build(kind)
    failed.tell([0.5, np.nan, 0.3, 0.4])
    worst.tell([0.5, 0.0, 0.3, 0.4])
    best.tell([0.5, 1.0, 0.3, 0.4])
    assert failed.round == 1
    assert failed.state_dict() != best.state_dict()
    if kind == "ppo2":  # random search learns from the best alone
        assert failed.state_dict() != worst.state_dict()


def test_a_round_of_failures_teaches_nothing(kind):
    algorithm = build(kind)
    before = algorithm.best_guess()
    algorithm.tell([np.nan] * 4)
    assert algorithm.round == 1
    np.testing.assert_array_equal(algorithm.best_guess(), before)


def test_the_best_guess_is_the_start_before_the_first_reward(kind):
    np.testing.assert_array_equal(build(kind).best_guess(), SPACE.start)


def test_rounds_count_up_to_the_end(kind):
    algorithm = build(kind)
    for number in range(ROUNDS):
        assert (algorithm.round, algorithm.finished) == (number, False)
        algorithm.tell([0.1, 0.2, 0.3, 0.4])
    assert (algorithm.round, algorithm.finished) == (ROUNDS, True)
    with pytest.raises(ValueError, match="finished: all 3 rounds"):
        algorithm.ask()
    with pytest.raises(ValueError, match="finished: all 3 rounds"):
        algorithm.tell([0.1, 0.2, 0.3, 0.4])
    mean, std = algorithm.policy()  # the policy after the last round can still be read
    assert np.isfinite(mean).all()
    assert (std > 0).all()


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([0.1, 0.2, 0.3], r"shape \(3,\) for round 0; expected \(4,\)"),
        ([[0.1, 0.2, 0.3, 0.4]], r"shape \(1, 4\)"),
        (0.1, r"shape \(\)"),
        ([0.1, 0.2, -0.01, 0.3], "round 0, slot 2 is -0.01"),
        ([0.1, 38.4, 0.2, 0.3], "slot 1 is 38.4"),
        ([0.1, 0.2, 0.3, np.inf], "slot 3 is inf"),
    ],
)
def test_bad_rewards_are_refused_and_change_nothing(kind, rewards, message):
    algorithm = build(kind)
    before = algorithm.state_dict()
    with pytest.raises(ValueError, match=message):
        algorithm.tell(rewards)
    assert algorithm.state_dict() == before


def test_a_negative_seed_is_refused(kind):
    with pytest.raises(ValueError, match="seed of a search is -1"):
        build(kind, seed=-1)


def test_random_search_keeps_the_first_of_the_best():
    algorithm = build("random")
    first = algorithm.ask()
    algorithm.tell([0.1, 0.4, 0.4, np.nan])
    np.testing.assert_array_equal(algorithm.best_guess(), first[1])
    algorithm.tell([0.4, 0.2, 0.3, 0.1])
    np.testing.assert_array_equal(algorithm.best_guess(), first[1])
    third = algorithm.ask()
    algorithm.tell([0.0, 0.0, 0.0, 0.41])
    np.testing.assert_array_equal(algorithm.best_guess(), third[3])


def test_random_search_is_uniform():
    """1000 samples of 4 coordinates: mean 1/2 and deviation 1/sqrt(12) within 5 standard errors."""
    algorithm = build("random", samples=1000)
    thetas, (mean, std) = algorithm.ask(), algorithm.policy()
    np.testing.assert_allclose(thetas.mean(0), mean, atol=5 * 12**-0.5 / 1000**0.5)
    # The variance of (x - 1/2)^2 is 1/80 - 1/144 = 1/180.
    np.testing.assert_allclose(thetas.var(0), std**2, atol=5 * 180**-0.5 / 1000**0.5)


# --- seeds


def test_uniforms_are_those_of_numpys_seed_sequence():
    sequence = np.random.SeedSequence(7, spawn_key=(3, 5))
    expected = np.random.Generator(np.random.PCG64(sequence)).random(6)
    np.testing.assert_array_equal(sample_uniforms(7, 3, 5, 6), expected)


def test_finals_baseline_and_start_share_the_seeds_of_the_race():
    for repeat in range(4):
        race = trial_seed(3, "final", 0, 0, repeat)
        assert trial_seed(3, "final", 2, 0, repeat) == race
        assert trial_seed(3, "baseline", 0, 0, repeat) == race
        assert trial_seed(3, "start", 0, 0, repeat) == race
    assert len({trial_seed(3, "final", 0, 0, repeat) for repeat in range(10)}) == 10
    assert trial_seed(4, "final", 0, 0, 0) != trial_seed(3, "final", 0, 0, 0)


def test_search_trials_have_their_own_seeds():
    keys = [(s, r, i, k) for s in (0, 1) for r in range(10) for i in range(8) for k in range(2)]
    seeds = {trial_seed(seed, "search", *key) for seed, *key in keys}
    assert len(seeds) == len(keys)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(0, 100), st.integers(0, 20))
def test_seeds_of_the_search_and_of_the_race_never_meet(seed, round, slot, repeat):
    assert 0 <= trial_seed(seed, "search", round, slot, repeat) < 2**30
    assert 2**30 <= trial_seed(seed, "final", round, slot, repeat) < 2**31


def test_seeds_stay_what_they_were():
    """Written down once: other values would change what a search that is resumed runs."""
    assert trial_seed(0, "search", 3, 5, 0) == 702547071
    assert trial_seed(0, "final", 0, 0, 0) == 1936085090
    assert sample_uniforms(0, 0, 0, 2).tolist() == [0.5651317655614634, 0.935433136976671]


def test_an_unknown_phase_is_refused():
    with pytest.raises(ValueError, match="baseline, start, search, final, got 'finals'"):
        trial_seed(0, "finals", 0, 0, 0)
