"""Addresses in settings hold no secrets: settings are copied, shown, and written into logs."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from paploss.errors import BadConfig

_USER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]*@")
_KEY = re.compile(
    r"://\S*[?&][^=&\s]*(token|secret|passw|signature|credential|api_?key|access_?key|\bsig)[^=&\s]*=",
    re.IGNORECASE,
)


def check_addresses(values: Any, where: str) -> None:
    """See that no text in nested `values` is an address with a user, a password, a key or a token.

    Raises:
        BadConfig: one is. What was given is not repeated.
    """
    for path, text in _texts(values, ()):
        if _USER.search(text) or _KEY.search(text):
            raise BadConfig(
                f"{where}: {'.'.join(path)} is an address with a password or a key in it, and "
                "settings end in experiments and logs. Fetch the file and give its path, or leave "
                "the secret to the tool that needs it (~/.netrc, the environment)."
            )


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, str(index)))
