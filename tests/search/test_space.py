"""SearchSpace: names, start and checks of theta."""

import json

import numpy as np
import pytest

from search.space import SearchSpace

SPACE = SearchSpace(("H2.x1", "H2.y1", "gradient_scale"), (0.2, 0.25, 0.5))


def test_dimension_and_dict_follow_the_order_of_the_names():
    assert SPACE.dimension == 3
    named = SPACE.as_dict(np.array([0.0, 1.0, 0.1]))
    assert list(named.items()) == [("H2.x1", 0.0), ("H2.y1", 1.0), ("gradient_scale", 0.1)]
    json.dumps(named)  # Python floats, not NumPy's


def test_lists_make_the_same_hashable_space():
    other = SearchSpace(list(SPACE.names), list(SPACE.start))
    assert other == SPACE
    assert hash(other) == hash(SPACE)


def test_check_copies_so_that_callers_cannot_reach_in():
    theta = np.array([0.1, 0.2, 0.3])
    checked = SPACE.check(theta)
    checked[0] = 0.9
    assert theta[0] == 0.1


@pytest.mark.parametrize(
    ("names", "start", "message"),
    [
        ((), (), "at least one"),
        (("a", "b", "a"), (0.5, 0.5, 0.5), "got twice: a"),
        (("a", "b"), (0.5,), "2 names and 1 start"),
        (("a", "b"), (0.5, 0.0), "start of b is 0.0"),
        (("a", "b"), (1.0, 0.5), "start of a is 1.0"),
        (("a",), (float("nan"),), "start of a is nan"),
    ],
)
def test_a_bad_space_is_refused(names, start, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace(names, start)


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ([0.1, 0.2], r"shape \(2,\); expected \(3,\)"),
        ([[0.1, 0.2, 0.3]], r"shape \(1, 3\)"),
        ([0.1, -0.01, 0.3], "H2.y1 is -0.01"),
        ([0.1, 0.2, 1.01], "gradient_scale is 1.01"),
        ([float("nan"), 0.2, 0.3], "H2.x1 is nan"),
    ],
)
def test_a_bad_theta_is_refused(theta, message):
    with pytest.raises(ValueError, match=message):
        SPACE.check(theta)
    with pytest.raises(ValueError, match=message):
        SPACE.as_dict(theta)
