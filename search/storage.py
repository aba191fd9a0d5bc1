"""Storage that cannot be written for a while: for how long it is tried again, and what is told."""

import time
from collections.abc import Callable

_RETRY_SECONDS = 2.0
_PERIODS = 3
"""So many periods of trouble, with nothing written between them, are one that does not end."""


class StorageTrouble:
    """Keeps count of failed writes, until one succeeds or they have gone on for too long.

    Args:
        minutes: how long storage may fail.
        tell: takes a line for the user.
        clock: seconds; replaced in tests.

    Attributes:
        problem: why it is tried no longer, or None.
    """

    def __init__(
        self,
        minutes: float,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._minutes = minutes
        self._tell = tell
        self._clock = clock
        self._periods = 0
        self._since = self._last = self._next = 0.0
        self.problem: str | None = None

    @property
    def waits(self) -> bool:
        """Whether the last write has failed, and it is too early for another."""
        return self._periods > 0 and self._clock() < self._next

    def failed(self, reason: str) -> None:
        """A write has failed; told once a period, in which no two fail far from each other."""
        now = self._clock()
        patience = 60 * self._minutes
        if not self._periods or now - self._last > max(patience, 60.0):
            self._periods += 1
            self._since = now
            self._tell(f"{reason}; trying again for {self._minutes:g} minutes")
        self._last, self._next = now, now + _RETRY_SECONDS
        if now - self._since >= patience or self._periods > _PERIODS:
            self.problem = (
                f"{reason}, for {self._minutes:g} minutes (resources.storage_minutes). Make room "
                "there, or make it writable."
            )

    def works(self) -> None:
        """Something has been written."""
        if self._periods:
            self._tell(f"storage can be written again, after {self._clock() - self._since:.0f} s")
        self._periods = 0
        self.problem = None
