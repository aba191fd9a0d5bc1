"""All chance in a search, as pure functions of its seed.

Nothing here has state, so a search that is resumed draws exactly what it would have drawn.
"""

from dataclasses import dataclass

import numpy as np

from search.space import Array

_PHASES = ("baseline", "start", "rung", "search", "final")
_HALF = 2**30


@dataclass(frozen=True)
class Draw:
    """All the chance in one sample of a search.

    Attributes:
        seed: the search's seed, >= 0.
        round, slot: the sample's place.
        attempt: 0, or how many draws of this place the screen has rejected before.
    """

    seed: int
    round: int
    slot: int
    attempt: int = 0

    def uniforms(self, dimension: int) -> Array:
        """[dimension] in [0, 1)."""
        attempt = (self.attempt,) if self.attempt else ()
        return _generator(self.seed, self.round, self.slot, *attempt).random(dimension)

    def generator(self) -> np.random.Generator:
        """For algorithms that need more than one number a coordinate; apart from `uniforms`."""
        return _generator(self.seed, self.round, self.slot, self.attempt, 0, 0)

    def integer(self) -> int:
        """In [0, 2^31): a seed for libraries that draw by themselves."""
        return int(self.generator().integers(2**31))


def _generator(seed: int, *key: int) -> np.random.Generator:
    # PCG64 by name: NumPy may change what default_rng stands for.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def trial_seed(seed: int, phase: str, round: int, slot: int, repeat: int) -> int:
    """The seed that a trial trains with, in [0, 2^31).

    In the phases baseline, start and final it depends on the repeat alone, so that all candidates
    of the final race, and what they are compared with, meet the same luck. A trial of a search, or
    of its rungs, has its own. Their seeds lie below 2^30, the others above, so no reward was
    earned with a seed of the final race.

    Args:
        seed: the search's seed, >= 0.
        phase: baseline, start, rung, search or final.
        round, slot, repeat: the rest of the trial's key, >= 0.

    Raises:
        ValueError: an unknown phase.
    """
    if phase not in _PHASES:
        raise ValueError(f"the phase of a trial is one of {', '.join(_PHASES)}, got {phase!r}.")
    # Keys of another length than any of Draw's, hence other streams than theirs.
    kinds = {"search": (0, round, slot, repeat), "rung": (2, round, slot, repeat)}
    key = kinds.get(phase, (1, 0, 0, repeat))
    (word,) = np.random.SeedSequence(seed, spawn_key=key).generate_state(1)
    return int(word) % _HALF + (0 if phase in kinds else _HALF)
