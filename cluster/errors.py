"""What can go wrong between this machine and a cluster, in one line that says what to do."""

import contextlib
from collections.abc import Iterator

from paploss.errors import UserError


class NoCluster(UserError):
    """The jobs server cannot be reached, is none, or refuses to answer."""


class NoJob(UserError):
    """The cluster knows no job of that id, or can no longer do with it what was asked."""


@contextlib.contextmanager
def explained(url: str, job: str | None = None, token_place: str | None = None) -> Iterator[None]:
    """Turns what Ray's client raises into one line that says what to do.

    Args:
        job: that the request is about.
        token_place: where the token that was sent is from.
    """
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        place = f"the one in {token_place}" if token_place else "what this machine sent"
        raise NoCluster(
            f"the cluster at {url} refuses the token: {place} is not its own. Ask whoever started "
            "the cluster for its token."
        ) from error
    except requests.exceptions.HTTPError as error:
        raise no_dashboard(url) from error
    except aiohttp.WSServerHandshakeError as error:
        raise (_unknown(url, job) if job else no_dashboard(url)) from error
    except (OSError, aiohttp.ClientError) as error:  # requests' errors are OSErrors
        raise unreachable(url, reason_of(error)) from error
    except RuntimeError as error:
        said = _last_line(str(error))
        if job and "status code 404" in str(error):
            raise _unknown(url, job) from error
        if "returned 404" in str(error):
            raise no_dashboard(url) from error
        raise NoCluster(f"the cluster at {url} could not do that: {said}") from error


def _unknown(url: str, job: str | None) -> NoJob:
    return NoJob(
        f"the cluster at {url} has no job {job}. `paploss jobs` lists those that it has; a "
        "cluster that was started anew has forgotten the older ones."
    )


def unreachable(url: str, reason: str) -> NoCluster:
    return NoCluster(
        f"no answer from {url}: {reason}. Is the cluster running, and the port of Ray's dashboard "
        "(8265) open to this machine, directly or by a tunnel?"
    )


def no_dashboard(url: str) -> NoCluster:
    return NoCluster(
        f"{url} answers, but not as the dashboard of a Ray cluster, which has the jobs server. Its "
        "port is 8265 unless told otherwise."
    )


def reason_of(error: BaseException) -> str:
    """The innermost error in a few words: libraries wrap a refused connection five times."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or _last_line(str(error)) or type(error).__name__


def _last_line(text: str) -> str:
    """Of a traceback that the server sends, what counts."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" .'\"")]
    return lines[-1][:300] if lines else text
