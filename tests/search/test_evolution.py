"""Evolution: what is a gene, who become parents, how children differ, and what that finds.

What every algorithm keeps is in test_algorithms.py.
"""

import numpy as np
import pytest

from search.algorithms import build_algorithm
from search.config import AlgorithmConfig
from search.evolution import genes, reflected
from search.space import SearchSpace

PARTS = ("op", "a", "b")
GENES = 6
NODES = SearchSpace(
    tuple(f"cls.{node}.{part}" for node in range(1, GENES + 1) for part in PARTS),
    (0.5,) * GENES * len(PARTS),
)


def evolution(samples, space=NODES, rounds=4, seed=3, screen=None, **settings):
    config = AlgorithmConfig(type="evolution", rounds=rounds, samples=samples, **settings)
    return build_algorithm(space, config, seed, screen)


def by_gene(thetas):
    return thetas.reshape(len(thetas), GENES, len(PARTS))


def told(thetas, rewards, samples):
    """An algorithm whose parents are `thetas` [n, D], as if they had been samples."""
    state = evolution(samples).state_dict()
    state |= {"round": 1, "learned": {"parents": thetas.tolist(), "rewards": rewards}}
    algorithm = evolution(samples)
    algorithm.load_state_dict(state)
    return algorithm


# --- genes


def test_coordinates_that_agree_up_to_the_last_dot_are_a_gene():
    names = (
        "rpn.cls.1.op",
        "rpn.cls.1.a",
        "rpn.cls.2.op",
        "H1.x1",
        "rpn.cls.1.b",
        "scale",
        "H1.y1",
    )
    assert genes(names).tolist() == [0, 0, 1, 2, 0, 3, 2]


def test_names_without_a_dot_are_genes_of_their_own():
    assert genes(("a", "b", "a.a")).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("x", "expected"), [(0.3, 0.3), (1.2, 0.8), (-0.3, 0.3), (2.25, 0.25), (-1.5, 0.5), (1.0, 1.0)]
)
def test_a_walk_turns_around_at_both_ends(x, expected):
    assert reflected(x) == pytest.approx(expected)


# --- children


def test_the_first_round_are_mutations_of_the_start():
    """How many genes differ has odds of 1 : 2^-1.5 : 3^-1.5 : ... and every gene its turn."""
    count = 4000
    changed = (by_gene(evolution(count).ask()) != 0.5).any(axis=2)  # [M, GENES]
    odds = np.arange(1, GENES + 1) ** -1.5
    expected = odds / odds.sum()
    found = np.bincount(changed.sum(axis=1), minlength=GENES + 1) / count
    assert found[0] == 0  # no child equals its parent
    np.testing.assert_allclose(found[1:], expected, atol=5 * 0.5 / count**0.5)
    share = (expected * np.arange(1, GENES + 1)).sum() / GENES
    np.testing.assert_allclose(changed.mean(axis=0), share, atol=5 * 0.5 / count**0.5)


def test_half_of_the_mutated_genes_are_drawn_anew_the_others_take_one_step():
    thetas = by_gene(evolution(4000, sigma=0.05).ask())
    moved = (thetas != 0.5).sum(axis=2)
    mutated = moved > 0
    assert set(np.unique(moved)) == {0, 1, len(PARTS)}
    assert (moved[mutated] == 1).mean() == pytest.approx(0.5, abs=5 * 0.5 / mutated.sum() ** 0.5)
    steps = thetas[moved == 1] - 0.5
    steps = steps[steps != 0]
    assert steps.std() == pytest.approx(0.05, rel=5 / (2 * len(steps)) ** 0.5)
    anew = thetas[moved == len(PARTS)].ravel()
    assert anew.std() == pytest.approx(12**-0.5, abs=5 * 180**-0.5 / len(anew) ** 0.5)
    assert 0 <= anew.min() < 0.01 < 0.99 < anew.max() <= 1


def test_a_step_has_the_spread_of_its_coordinate():
    spread = (0.001, 0.01, 0.1) * GENES
    space = SearchSpace(NODES.names, NODES.start, spread=spread)
    thetas = by_gene(evolution(4000, space=space).ask())
    stepped = (thetas != 0.5).sum(axis=2, keepdims=True) == 1
    for part, expected in enumerate(spread[:3]):
        steps = thetas[..., part][stepped[..., 0]] - 0.5
        steps = steps[steps != 0]
        assert steps.std() == pytest.approx(expected, rel=5 / (2 * len(steps)) ** 0.5)


def test_children_take_whole_genes_in_one_run_from_a_second_parent():
    values = np.arange(1, 9) / 10
    parents = np.repeat(values[:, None], 18, axis=1)
    children = by_gene(told(parents, [0.5] * 8, 2000).ask())
    origins = np.full(children.shape[:2], -1)
    for number, value in enumerate(values):
        origins[(children == value).all(axis=2)] = number
    crossed = 0
    for row in origins:
        whole = row[row >= 0]  # mutated genes aside
        assert len(set(whole)) <= 2
        assert (np.diff(whole) != 0).sum() <= 2
        crossed += len(set(whole)) == 2
    # Half of the children, less those of equal parents, of an empty run and of many mutations.
    assert 0.15 < crossed / len(origins) < 0.5


def test_the_better_ones_of_four_are_parents():
    """Of n, the one of rank r is the best of 4 with ((n - r)^4 - (n - r - 1)^4) / n^4."""
    n, count = 5, 6000
    parents = np.array([np.full(18, (k + 1) / 10) for k in range(n)])
    children = by_gene(told(parents, [0.5, 0.4, 0.3, 0.2, 0.1], count).ask())[:, 0]
    found = np.array([(children == parent[0]).all(axis=1).sum() for parent in parents])
    left = n - np.arange(n)
    expected = (left**4 - (left - 1) ** 4) / n**4
    np.testing.assert_allclose(found / found.sum(), expected, atol=5 * 0.5 / found.sum() ** 0.5)


# --- what is learned


def test_the_best_of_all_that_was_told_are_the_parents():
    algorithm = evolution(4)
    algorithm.tell_start([0.3, 0.5])  # 0.4 in the mean
    first = algorithm.ask()
    algorithm.tell([0.1, 0.6, np.nan, 0.4])
    learned = algorithm.state_dict()["learned"]
    assert learned["rewards"] == [0.6, 0.4, 0.4, 0.1]
    # Of equals the older one stands first.
    expected = [first[1], np.array(NODES.start), first[3], first[0]]
    np.testing.assert_array_equal(learned["parents"], expected)
    second = algorithm.ask()
    algorithm.tell([0.5, 0.0, 0.45, 0.2])
    learned = algorithm.state_dict()["learned"]
    assert learned["rewards"] == [0.6, 0.5, 0.45, 0.4]
    expected = [first[1], second[0], second[2], np.array(NODES.start)]
    np.testing.assert_array_equal(learned["parents"], expected)


def test_the_best_guess_is_the_start_while_it_is_the_best():
    algorithm = evolution(2)
    algorithm.tell_start([0.3, 0.3])
    algorithm.tell([0.1, 0.2])
    np.testing.assert_array_equal(algorithm.best_guess(), NODES.start)
    better = algorithm.ask()[1]
    algorithm.tell([0.1, 0.4])
    np.testing.assert_array_equal(algorithm.best_guess(), better)


def test_a_start_that_was_never_tried_is_the_last_of_the_parents():
    algorithm = evolution(2)
    thetas = algorithm.ask()
    algorithm.tell([0.0, np.nan])
    np.testing.assert_array_equal(algorithm.best_guess(), thetas[0])


def test_the_policy_is_that_of_the_parents():
    algorithm = evolution(2, sigma=0.3)
    np.testing.assert_array_equal(algorithm.policy()[0], NODES.start)
    np.testing.assert_allclose(algorithm.policy()[1], 0.3)
    thetas = algorithm.ask()
    algorithm.tell([0.2, 0.1])
    mean, std = algorithm.policy()
    np.testing.assert_allclose(mean, thetas.mean(axis=0))
    np.testing.assert_allclose(std**2, thetas.var(axis=0) + 0.3**2)


# --- what is found

CHOICES = 5
WANTED = np.array([3, 0, 2, 4, 1, 1, 0, 4, 3, 2, 2, 1])
"""A known expression: the choice that each coordinate of four nodes has to decode to."""


def right_choices(theta):
    return float((np.minimum(theta * CHOICES, CHOICES - 1).astype(int) == WANTED).mean())


class NothingTwice:
    """A screen that rejects what decodes to the choices of something that was tried."""

    def __init__(self):
        self.seen = set()

    def _choices(self, theta):
        return tuple((theta * CHOICES).astype(int))

    def __call__(self, theta):
        return "duplicate: seen" if self._choices(theta) in self.seen else None

    def accepted(self, theta):
        self.seen.add(self._choices(theta))


def best_of(algorithm, score):
    while not algorithm.finished:
        algorithm.tell([score(theta) for theta in algorithm.ask()])
    return score(algorithm.best_guess())


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_an_expression_that_random_search_does_not(seed):
    """One of 5^12, 2.4e8, by 100 rounds of 8."""
    space = SearchSpace(NODES.names[:12], (0.5,) * 12)
    budget = {"rounds": 100, "samples": 8, "attempts": 100}
    random = build_algorithm(space, AlgorithmConfig(type="random", **budget), seed, NothingTwice())
    assert best_of(random, right_choices) < 0.75
    search = evolution(space=space, seed=seed, screen=NothingTwice(), **budget)
    assert best_of(search, right_choices) == 1


def test_curves_get_better_from_a_good_start():
    """exp(-|theta - target|^2) over five curves of 8 coordinates, from 0.32, by 20 rounds of 8."""
    names = tuple(f"{curve}.{k}" for curve in "ABCDE" for k in range(8))
    target = np.random.default_rng(3).uniform(0.2, 0.8, 40)
    target = 0.5 + (target - 0.5) * np.sqrt(-np.log(0.32)) / np.linalg.norm(target - 0.5)

    def score(theta):
        return float(np.exp(-((theta - target) ** 2).sum()))

    space = SearchSpace(names, (0.5,) * 40)
    assert score(np.full(40, 0.5)) == pytest.approx(0.32)
    found = [best_of(evolution(8, space=space, rounds=20, seed=s), score) for s in range(3)]
    assert min(found) > 0.4
