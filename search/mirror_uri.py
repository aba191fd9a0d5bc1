"""Where an experiment is copied to: s3://, gs:// and file:// addresses that hold no secret."""

from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator

from paploss.errors import BadConfig

OPTIONS = ("region", "scheme", "endpoint_override")
"""What may follow a ?: where the storage is, never who asks."""

_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account",
}


def check_mirror_uri(uri: str) -> str:
    """`uri`, without a slash at its end.

    Raises:
        BadConfig: it is none of these addresses, or holds what could be a secret. What was given is
            not repeated then: messages end in logs.
    """
    try:
        parts = urlsplit(uri)
        options = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:
        raise _not_an_address() from None
    if parts.scheme not in ("s3", "gs", "file"):
        raise _not_an_address()
    if "@" in parts.netloc:
        raise BadConfig(
            "the address of the mirror holds a user or a password, which would be copied with the "
            f"experiment. Leave them out; they are taken from {_credentials(parts.scheme)}."
        )
    unknown = sorted(set(options) - (set() if parts.scheme == "file" else set(OPTIONS)))
    if unknown:
        raise BadConfig(
            f"the address of the mirror has the options {', '.join(unknown)}; expected none but "
            f"{', '.join(OPTIONS)} for s3 and gs. Keys and tokens are taken from "
            f"{_credentials(parts.scheme)}, never from the address."
        )
    if parts.fragment or (bool(parts.netloc) == (parts.scheme == "file")) or not _clean(parts.path):
        raise _not_an_address()
    return parts._replace(path=parts.path.rstrip("/")).geturl()


MirrorURI = Annotated[str, AfterValidator(check_mirror_uri)]


def under(uri: str, name: str) -> str:
    """The address of `name` in the folder `uri`."""
    parts = urlsplit(uri)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()


def last_name(uri: str) -> str:
    """The last folder of an address; empty for a bucket."""
    return urlsplit(uri).path.rstrip("/").rpartition("/")[2]


def _clean(path: str) -> bool:
    return not any(part in (".", "..") for part in path.split("/"))


def _credentials(scheme: str) -> str:
    return f"the environment ({_CREDENTIALS[scheme]})" if scheme in _CREDENTIALS else "nowhere"


def _not_an_address() -> BadConfig:
    return BadConfig(
        "the mirror is not an address that can be used; expected s3://bucket/folder, "
        "gs://bucket/folder or file:///folder, without .. in it."
    )
