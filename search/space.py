"""The points that a search chooses from: theta, a point of the unit cube with named axes."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class SearchSpace:
    """The unit cube [0, 1]^D with a name for each coordinate and a point to start from.

    Attributes:
        names: D unique names, in the order of theta's coordinates.
        start: D numbers strictly between 0 and 1: the mean of the first round's policy. The ends
            are excluded because a policy that works in log-odds cannot stand on them.
        start_label: what tables call the start.
        spread: D standard deviations to search the start's surroundings with, by coordinate, in
            place of the algorithm's own; None where nothing is known of them.
        features: thetas [N, D] -> [N, F]: what a model of the reward should see of them, where that
            is not theta itself. No part of what makes two spaces equal, nor is `hint`.
        hint: theta [D] -> a number that rises with the reward, at a small part of a trial's cost
            (a simulated training); a pure function. None: there is none.

    Raises:
        ValueError: a name twice, no name, another number of starts or spreads, a start on the
            boundary, or a spread that is not above 0.
    """

    names: tuple[str, ...]
    start: tuple[float, ...]
    start_label: str = "start"
    spread: tuple[float, ...] | None = None
    features: Callable[[Array], Array] | None = field(default=None, compare=False)
    hint: Callable[[Array], float] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        # A frozen dataclass is hashable only if its fields are: lists become tuples here.
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "start", tuple(float(value) for value in self.start))
        if not self.names:
            raise ValueError("a search space needs at least one coordinate, got none.")
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise ValueError(f"coordinate names have to be unique, got twice: {', '.join(twice)}.")
        if len(self.start) != len(self.names):
            raise ValueError(
                f"got {len(self.names)} names and {len(self.start)} start values; "
                "each coordinate needs one of both."
            )
        for name, value in zip(self.names, self.start, strict=True):
            if not 0 < value < 1:  # written so that NaN fails too
                raise ValueError(f"the start of {name} is {value}; expected 0 < start < 1.")
        if self.spread is not None:
            object.__setattr__(self, "spread", tuple(float(value) for value in self.spread))
            self._check_spread(self.spread)

    def _check_spread(self, spread: tuple[float, ...]) -> None:
        if len(spread) != len(self.names):
            raise ValueError(
                f"got {len(self.names)} names and {len(spread)} spreads; each coordinate needs one "
                "of both."
            )
        for name, value in zip(self.names, spread, strict=True):
            if not 0 < value <= 1:  # written so that NaN fails too
                raise ValueError(f"the spread of {name} is {value}; expected 0 < spread <= 1.")

    @property
    def dimension(self) -> int:
        """D, the number of coordinates."""
        return len(self.names)

    def features_of(self, thetas: Array) -> Array:
        """`features` of `thetas` [N, D], [N, F]: theta itself where there are none."""
        if self.features is None:
            return thetas
        return self.features(thetas)

    def check(self, theta: ArrayLike) -> Array:
        """`theta` [D] as a new float64 array.

        Raises:
            ValueError: another shape, or a coordinate outside [0, 1] or NaN.
        """
        point = np.array(theta, dtype=np.float64)
        if point.shape != (self.dimension,):
            raise ValueError(
                f"theta has shape {point.shape}; expected ({self.dimension},), one value for each "
                "coordinate of the search space."
            )
        outside = ~((point >= 0) & (point <= 1))
        if outside.any():
            index = int(np.argmax(outside))
            raise ValueError(f"theta's {self.names[index]} is {point[index]}; expected 0 to 1.")
        return point

    def as_dict(self, theta: ArrayLike | Sequence[float]) -> dict[str, float]:
        """`theta` [D] by coordinate name, in order, as Python floats; checked like `check`."""
        return dict(zip(self.names, self.check(theta).tolist(), strict=True))
