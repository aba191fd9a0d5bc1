"""All chance in a search, as pure functions of its seed.

Nothing here has state, so a search that is resumed draws exactly what it would have drawn.
"""

import numpy as np

from search.space import Array

_PHASES = ("baseline", "start", "search", "final")
_HALF = 2**30


def sample_uniforms(seed: int, round: int, slot: int, dimension: int) -> Array:
    """The uniforms in [0, 1), [dimension], that one sample of one round is made from."""
    sequence = np.random.SeedSequence(seed, spawn_key=(round, slot))
    # PCG64 by name: NumPy may change what default_rng stands for.
    return np.random.Generator(np.random.PCG64(sequence)).random(dimension)


def trial_seed(seed: int, phase: str, round: int, slot: int, repeat: int) -> int:
    """The seed that a trial trains with, in [0, 2^31).

    In the phases baseline, start and final it depends on the repeat alone, so that all candidates
    of the final race, and what they are compared with, meet the same luck. A search trial has its
    own. Search seeds lie below 2^30, the others above, so no reward was earned with a seed of the
    final race.

    Args:
        seed: the search's seed, >= 0.
        phase: baseline, start, search or final.
        round, slot, repeat: the rest of the trial's key, >= 0.

    Raises:
        ValueError: an unknown phase.
    """
    if phase not in _PHASES:
        raise ValueError(f"the phase of a trial is one of {', '.join(_PHASES)}, got {phase!r}.")
    # Longer keys than those of sample_uniforms, hence other streams than theirs.
    key = (0, round, slot, repeat) if phase == "search" else (1, 0, 0, repeat)
    (word,) = np.random.SeedSequence(seed, spawn_key=key).generate_state(1)
    return int(word) % _HALF + (0 if phase == "search" else _HALF)
