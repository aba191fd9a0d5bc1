"""A look at a trial part of the way, which may end it there."""

from pydantic import Field

from paploss.strict import StrictModel


class EarlyStop(StrictModel):
    """When to look at a trial, at how many images, and what ends it.

    What is trained does not depend on the look: without a threshold, or above it, a trial ends as
    it would have without.
    """

    at: float = Field(gt=0, lt=1, description="part of the iterations that are behind it")
    images: int = Field(ge=1, description="of val that are scored, the same in every trial")
    below: float | None = Field(
        None, ge=0, le=1, description="a smaller score ends the trial; None: only look"
    )
    reward: float = Field(0.0, ge=0, le=1, description="what a trial that was ended is worth")

    def iteration(self, iterations: int) -> int | None:
        """After how many of a trial's `iterations` to look; None where there is no such place."""
        if iterations < 2:
            return None
        return min(max(1, round(self.at * iterations)), iterations - 1)
