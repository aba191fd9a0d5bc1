"""Drawing: a screen is heard on every sample, in order, and the last attempt is taken as it is."""

import numpy as np

from search.drawing import draw_screened
from search.seeds import Draw

DRAWS = [Draw(7, 2, slot) for slot in range(3)]


def propose(draws):
    """Tells by theta which draw it came from."""
    return np.array([[draw.slot / 10, draw.attempt / 10] for draw in draws])


class UpTo:
    """Lets a sample pass from its attempt number `least[slot]` on, and keeps what it heard."""

    def __init__(self, *least):
        self.least, self.heard = least, []

    def __call__(self, theta):
        slot, attempt = (round(10 * value) for value in theta)
        self.heard.append(("asked", slot, attempt))
        return None if attempt >= self.least[slot] else "stage: too early"

    def accepted(self, theta):
        slot, attempt = (round(10 * value) for value in theta)
        self.heard.append(("told", slot, attempt))


def test_without_a_screen_the_first_attempts_are_taken():
    found = draw_screened(DRAWS, propose, None, attempts=5)
    np.testing.assert_array_equal(found.thetas, [[0, 0], [0.1, 0], [0.2, 0]])
    assert found.rejections == ()


def test_one_that_is_rejected_is_drawn_again_until_it_passes():
    screen = UpTo(0, 2, 1)
    found = draw_screened(DRAWS, propose, screen, attempts=5)
    np.testing.assert_array_equal(found.thetas, [[0, 0], [0.1, 0.2], [0.2, 0.1]])
    assert [(one.slot, one.attempt, one.waived) for one in found.rejections] == [
        (1, 0, False), (1, 1, False), (2, 0, False),
    ]  # fmt: skip
    assert {(one.stage, one.reason) for one in found.rejections} == {("stage", "too early")}


def test_a_sample_is_accepted_before_the_next_is_looked_at():
    screen = UpTo(1, 0, 0)
    draw_screened(DRAWS, propose, screen, attempts=5)
    assert screen.heard == [
        ("asked", 0, 0), ("asked", 0, 1), ("told", 0, 1),
        ("asked", 1, 0), ("told", 1, 0), ("asked", 2, 0), ("told", 2, 0),
    ]  # fmt: skip


def test_the_last_attempt_is_taken_as_it_is():
    screen = UpTo(9, 0, 0)
    found = draw_screened(DRAWS, propose, screen, attempts=3)
    np.testing.assert_array_equal(found.thetas[0], [0, 0.2])
    assert [one.waived for one in found.rejections] == [False, False, True]
    assert screen.heard[3] == ("told", 0, 2)
