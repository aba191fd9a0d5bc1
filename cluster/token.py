"""Ray's authentication token, looked for where Ray looks."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import NoCluster

_VARIABLE = "RAY_AUTH_TOKEN"


@dataclass(frozen=True)
class Token:
    """Ray's authentication token and the place it is from; only the place is ever shown."""

    value: str = field(repr=False)
    place: str

    @property
    def file(self) -> Path | None:
        """The file that holds it, if one does."""
        return None if self.place == _VARIABLE else Path(self.place)


def find_token() -> Token | None:
    """Ray's token: RAY_AUTH_TOKEN, else the file RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token.

    Raises:
        NoCluster: a file that is named and cannot be read.
    """
    if value := os.environ.get(_VARIABLE, "").strip():
        return Token(value, _VARIABLE)
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named or Path.home() / ".ray" / "auth_token")
    try:
        value = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if named:
            reason = getattr(error, "strerror", None) or error
            raise NoCluster(f"RAY_AUTH_TOKEN_PATH: cannot read {path}: {reason}.") from error
        return None
    return Token(value, str(path)) if value else None
