"""The jobs server of a Ray cluster, over HTTP: what it answers, and what its errors mean.

Whoever has the token may run any code on the cluster: that is what a jobs server is for. The token
is Ray's own, looked for where Ray looks. It goes into the header of a request and nowhere else.
"""

import contextlib
import ipaddress
import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cluster.errors import NoCluster, explained, no_dashboard, reason_of, unreachable
from cluster.token import find_token

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

ADDRESS = "RAY_API_SERVER_ADDRESS"
"""The environment variable that `ray job` reads the address from, too."""
OLDEST_RAY = (2, 60)
_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)  # fmt: skip
_PATIENCE = 10  # seconds for the first answer


@dataclass(frozen=True)
class JobsServer:
    """A jobs server that has answered.

    Every method raises NoCluster if it no longer does; those that take a job's id raise NoJob if
    it is unknown.

    Attributes:
        url: "http://host:port".
    """

    url: str
    client: "JobSubmissionClient" = field(repr=False)

    def submit(self, **what: Any) -> str:
        """The id of a new job; the arguments are those of Ray's `submit_job`."""
        with explained(self.url):
            return self.client.submit_job(**what)

    def jobs(self) -> "list[JobDetails]":
        """All jobs that were submitted to this cluster since it started, oldest first."""
        with explained(self.url):
            found = [job for job in self.client.list_jobs() if job.submission_id]
        return sorted(found, key=lambda job: job.start_time or 0)

    def job(self, job: str) -> "JobDetails":
        """What the server knows of a job."""
        with explained(self.url, job):
            return self.client.get_job_info(job)

    def logs(self, job: str) -> str:
        """All that a job has printed so far."""
        with explained(self.url, job):
            return self.client.get_job_logs(job)

    async def tail(self, job: str) -> AsyncIterator[str]:
        """What a job prints, from the beginning and as it comes, until the job has ended."""
        with explained(self.url, job):
            async for text in self.client.tail_job_logs(job):
                yield text

    def stop(self, job: str) -> bool:
        """Ask a job to end; False if it has ended already."""
        with explained(self.url, job):
            return self.client.stop_job(job)


def connect(address: str | None, warn: Callable[[str], object]) -> JobsServer:
    """The jobs server at `address`, or at $RAY_API_SERVER_ADDRESS.

    Args:
        address: "http://host:port" of Ray's dashboard.
        warn: told in a line what the user should know, before the token is sent if it is of that.

    Raises:
        NoCluster: no address, nothing there, no jobs server of Ray, one that is too old, a token
            that is missing or wrong.
    """
    url = _url(address or os.environ.get(ADDRESS))
    mode, token = _authentication_mode(url), find_token()
    if mode == "token" and token is None:
        raise NoCluster(
            f"the cluster at {url} asks for a token, and there is none here. Put the cluster's "
            "into ~/.ray/auth_token (readable by you alone), or name its file in "
            "RAY_AUTH_TOKEN_PATH."
        )
    for line in _dangers(url, mode):
        warn(line)
    from ray.job_submission import JobSubmissionClient

    # Ray's loggers tell what is told here in better words.
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    headers = {"Authorization": f"Bearer {token.value}"} if token else {}
    with explained(url, token_place=token.place if token else None), _address_in_environment(url):
        try:
            client = JobSubmissionClient(url, headers=headers)
        except (KeyError, TypeError, ValueError) as error:  # JSON, but not Ray's
            raise no_dashboard(url) from error
    _check_version(url, str(client._server_ray_version), warn)
    return JobsServer(url, client)


def _url(address: str | None) -> str:
    if not address:
        raise NoCluster(
            "no cluster was named: give --address http://HEAD:8265, the address of Ray's "
            f"dashboard, or set {ADDRESS}."
        )
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and "@" not in url
        valid = valid and (parts.port is None or parts.port > 0)  # reading it checks its range
    except ValueError:
        valid = False
    if not valid:
        shown = address.rpartition("@")[2]  # a password in it stays unsaid
        raise NoCluster(
            f"--address {shown}: expected http://HEAD:8265 or https://HEAD, the address of Ray's "
            "dashboard."
        )
    return url


def _authentication_mode(url: str) -> str | None:
    """What the server says of itself without a token: "token", "disabled"; None if it does not.

    It also finds out, within seconds, whether anything answers there: Ray's client waits for ever.
    """
    try:
        with urllib.request.urlopen(f"{url}/api/authentication_mode", timeout=_PATIENCE) as answer:
            mode = json.load(answer)["authentication_mode"]
            return str(mode)
    except urllib.error.HTTPError:
        return None  # something answers; Ray's client finds out what it is
    except OSError as error:
        raise unreachable(url, reason_of(error)) from error
    except (ValueError, KeyError, TypeError, HTTPException) as error:
        raise no_dashboard(url) from error


def _dangers(url: str, mode: str | None) -> Iterator[str]:
    """What is unsafe about sending a token to `url`."""
    if mode == "disabled":
        yield (
            "the cluster asks for no token: whoever reaches it runs code there. Start it with "
            "RAY_AUTH_MODE=token."
        )
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        yield (
            f"{url} is not encrypted: the token can be read on the way. Use a tunnel (ssh -L "
            "8265:localhost:8265 HEAD, or kubectl port-forward) or https."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_version(url: str, theirs: str, warn: Callable[[str], object]) -> None:
    """The job runs with the cluster's Ray; only the requests come from this one.

    Raises:
        NoCluster: the cluster's is too old for paploss.
    """
    import ray

    known = tuple(int(part) for part in theirs.split(".")[:2] if part.isdigit())
    if known < OLDEST_RAY:
        oldest = ".".join(map(str, OLDEST_RAY))
        raise NoCluster(
            f"the cluster at {url} runs Ray {theirs}; paploss needs {oldest} or newer there, best "
            f"{ray.__version__} as here."
        )
    if theirs != ray.__version__:
        warn(f"the cluster runs Ray {theirs}, this machine {ray.__version__}.")


@contextlib.contextmanager
def _address_in_environment(url: str) -> Iterator[None]:
    """Ray lets the environment overrule the address that it is given."""
    kept = os.environ.get(ADDRESS)
    os.environ[ADDRESS] = url
    try:
        yield
    finally:
        if kept is None:
            del os.environ[ADDRESS]
        else:
            os.environ[ADDRESS] = kept
