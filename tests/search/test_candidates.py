"""Candidates: inside the cube, around their centers, with whole genes of two parents."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from search.candidates import candidates, genes_of


def test_genes_are_what_is_before_the_last_dot():
    names = ("H1.x1", "H1.y1", "rpn.I2.x1", "rpn.I2.y1", "gradient_scale", "rpn.gradient_scale")
    # "rpn.gradient_scale" is of a gene "rpn" that has nothing else.
    assert genes_of(names).tolist() == [0, 0, 1, 1, 2, 3]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), centers=st.integers(1, 5), dimension=st.integers(1, 6))
def test_candidates_are_in_the_cube_and_the_same_for_the_same_seed(seed, centers, dimension):
    points = np.random.default_rng(seed).random((centers, dimension))
    spread, genes = np.full(dimension, 0.2), np.arange(dimension) // 2
    made = [candidates(points, spread, genes, 7, np.random.default_rng(seed)) for _ in range(2)]
    np.testing.assert_array_equal(*made)
    assert made[0].shape == (7, dimension)
    assert ((made[0] >= 0) & (made[0] <= 1)).all()


def test_they_lie_around_their_centers_as_far_as_the_spread():
    generator = np.random.default_rng(0)
    center = np.full((1, 4), 0.5)
    spread = np.array([0.3, 0.3, 0.01, 0.01])
    made = candidates(center, spread, np.arange(4), 4000, generator)
    np.testing.assert_allclose(made.mean(0), 0.5, atol=0.01)
    wide, narrow = made[:, :2].std(), made[:, 2:].std()
    assert 20 < wide / narrow < 40  # as the spreads, but for the cut


def test_the_best_center_has_most_of_them():
    centers = np.array([[0.2], [0.5], [0.8]])
    made = candidates(centers, np.array([0.01]), np.array([0]), 6000, np.random.default_rng(1))
    nearest = np.abs(made - centers.T).argmin(1)
    share = np.bincount(nearest) / 6000
    # 1 : 1/2 : 1/3, also of the other parent.
    np.testing.assert_allclose(share, np.array([6, 3, 2]) / 11, atol=0.03)


def test_a_cross_takes_whole_genes():
    centers = np.array([[0.2] * 4, [0.8] * 4])
    genes = np.array([0, 0, 1, 1])
    made = candidates(centers, np.full(4, 1e-3), genes, 2000, np.random.default_rng(2))
    parent = made > 0.5
    assert (parent[:, 0] == parent[:, 1]).all() and (parent[:, 2] == parent[:, 3]).all()
    assert (parent[:, 0] != parent[:, 2]).any()
