"""What a search has drawn for a round, and what its screen has rejected on the way."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from search.screen import Rejection
from search.space import Array, SearchSpace


@dataclass(frozen=True, eq=False)
class Samples:
    """Thetas in the order of their slots.

    Attributes:
        thetas: [n, D] in [0, 1].
        rejections: by slot and attempt.
    """

    thetas: Array
    rejections: tuple[Rejection, ...] = ()

    @staticmethod
    def none(dimension: int) -> "Samples":
        return Samples(np.empty((0, dimension)))

    def __add__(self, later: "Samples") -> "Samples":
        thetas = np.concatenate([self.thetas, later.thetas])
        return Samples(thetas, (*self.rejections, *later.rejections))

    def as_dict(self) -> dict[str, Any]:
        """For `read`, made of JSON's types."""
        rejected = [asdict(rejection) for rejection in self.rejections]
        return {"thetas": self.thetas.tolist(), "rejected": rejected}

    @staticmethod
    def read(values: dict[str, Any], space: SearchSpace) -> "Samples":
        """What `as_dict` gave.

        Raises:
            ValueError: thetas that are no points of `space`.
        """
        thetas = [space.check(theta) for theta in values["thetas"]]
        rejections = tuple(Rejection.read(one) for one in values["rejected"])
        return Samples(np.array(thetas).reshape(-1, space.dimension), rejections)
