"""One reader of what others wrote, and how it is fed."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from paploss.errors import UserError


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        inputs: makes the strategy, once, as originals take a moment to be made.
        read: is given the input and an empty folder.
        share: of the inputs that a session has; a slow reader has fewer.
    """

    name: str
    inputs: Callable[[], st.SearchStrategy[Any]]
    read: Callable[[Any, Path], Any]
    share: float = 1.0

    def feed(self, given: Any) -> str | None:
        """The message of the UserError, or None; anything else that is raised is a defect."""
        with empty_folder() as folder:
            try:
                self.read(given, folder)
            except UserError as error:
                if not str(error).strip():
                    raise AssertionError(f"{type(error).__name__} without a message") from error
                return str(error)
        return None


@contextmanager
def empty_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
