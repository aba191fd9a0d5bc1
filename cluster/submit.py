"""A search as a job of a Ray cluster: what it is made of, and how it is sent."""

import re
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paploss
from cluster.server import JobsServer
from cluster.upload import Upload
from paploss.errors import BadConfig, BadExperiment

PREFIX = "paploss-"
STOP_SECONDS = 60
"""How long a search may take to end cleanly when its job is stopped; Ray's default is 3."""
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


@dataclass(frozen=True)
class Submission:
    """One search to run on a cluster.

    Attributes:
        config: as the driver there finds it: a path in the uploaded folder, or a shipped name.
        name: of the experiment, as `config` and `overrides` have it.
        storage: likewise; an absolute folder that the cluster's machines share.
        overrides: "key=value", as for `paploss search --set`.
        upload: the folder that travels.
        environment: variables for the driver and the trials.
        install: requirements that pip installs for them.
        cpus: what is set aside for the driver. With 0 it runs on the head; with more, on any
            machine that has them.
        trust_code: run a detector's Python config.
    """

    config: str
    name: str
    storage: Path
    overrides: tuple[str, ...]
    upload: Upload
    environment: Mapping[str, str] = field(default_factory=dict)
    install: tuple[str, ...] = ()
    cpus: float = 0
    trust_code: bool = False

    @property
    def experiment(self) -> Path:
        return self.storage / self.name

    @property
    def entrypoint(self) -> str:
        """The driver's command. It resumes, so that the same job can be submitted again."""
        words = ["python", "-m", "search.cli", "search", self.config, "--or-resume"]
        words += ["--trust-code"] if self.trust_code else []
        return shlex.join([*words, *(f"--set={item}" for item in self.overrides)])

    @property
    def runtime_env(self) -> dict[str, Any]:
        upload = {"working_dir": str(self.upload.folder), "excludes": list(self.upload.excludes)}
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **self.environment}
        pip = {"pip": list(self.install)} if self.install else {}
        return {**upload, "env_vars": variables, **pip}

    @property
    def metadata(self) -> dict[str, str]:
        facts = {"name": self.name, "experiment": str(self.experiment)}
        return {**facts, "paploss": paploss.__version__}


def check_not_running(server: JobsServer, experiment: Path) -> None:
    """One job at a time on an experiment.

    Raises:
        BadExperiment: a job of this cluster runs it already.
    """
    for job in server.jobs():
        known = (job.metadata or {}).get("experiment")
        if known == str(experiment) and not job.status.is_terminal():
            raise BadExperiment(
                f"{experiment} is being run by the job {job.submission_id}. Follow it with "
                f"`paploss jobs logs {job.submission_id} --follow`, or choose another --name."
            )


def submit(server: JobsServer, submission: Submission) -> str:
    """Upload, start, and return the job's id.

    Raises:
        NoCluster: the server fails.
    """
    return server.submit(
        entrypoint=submission.entrypoint,
        submission_id=f"{PREFIX}{submission.name}-{secrets.token_hex(3)}",
        runtime_env=submission.runtime_env,
        metadata=submission.metadata,
        entrypoint_num_cpus=submission.cpus or None,
    )


def parse_environment(items: list[str]) -> tuple[dict[str, str], list[str]]:
    """["A=1"] as {"A": "1"}, and warnings on what looks like a secret.

    Raises:
        BadConfig: no "=", or Ray's token: jobs inherit it from the machine they run on.
    """
    variables: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise BadConfig(f"--env {name}: expected NAME=VALUE.")
        if name.startswith("RAY_AUTH_"):
            raise BadConfig(
                f"--env {name}: a job has the cluster's token from the machine it runs on; leave "
                "it out."
            )
        variables[name] = value
    warnings = [
        f"--env {name}: everybody with access to the cluster can read it. Set secrets on the "
        "cluster's machines instead."
        for name in variables
        if _SECRET.search(name)
    ]
    return variables, warnings
