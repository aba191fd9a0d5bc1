"""A reader fed with many inputs by hypothesis."""

import warnings
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisWarning

from tests.safety.reader import Reader


def fuzz(reader: Reader, examples: int, start: int | None = None) -> Counter[str]:
    """Feed `reader`; how many inputs were "read" and how many "refused".

    Args:
        start: seeds the inputs; None: always the same ones.

    Raises:
        Exception: whatever the reader raised that is no UserError, for the smallest such input.
    """
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        derandomize=start is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(reader.inputs())
    def feed(given: object) -> None:
        seen["read" if reader.feed(given) is None else "refused"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)  # an experiment is long to print
        warnings.simplefilter("ignore", UserWarning)  # of torch, about odd checkpoints
        (feed if start is None else seed(start)(feed))()
    return seen
