"""An experiment's results brought from the cluster to this machine, over HTTP alone."""

import base64
import binascii
import hashlib
import io
import os
import secrets
import shlex
import shutil
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cluster import pack
from cluster.errors import NoCluster, NoJob
from cluster.follow import has_ended
from cluster.server import JobsServer
from paploss.errors import BadExperiment
from paploss.files import read_json, write_json

MOST = 64 * 2**20
"""Bytes of results that are fetched at most, before the compression."""
_MARK = "fetched.json"


@dataclass(frozen=True)
class Fetched:
    """What has come.

    Attributes:
        folder: where it is.
        experiment: where it was, on the cluster.
        files: how many.
        finished: whether best.yaml is among them.
    """

    folder: Path
    experiment: str
    files: int
    finished: bool


def experiment_of(server: JobsServer, job: str) -> str:
    """The folder, on the cluster, of the experiment that a job runs; `job` may be it already.

    Raises:
        NoJob: there is no such job, or it runs no search.
    """
    if PurePosixPath(job).is_absolute():
        return job
    experiment = (server.job(job).metadata or {}).get("experiment")
    if not experiment:
        raise NoJob(f"the job {job} was not submitted by paploss: it has no results to fetch.")
    return experiment


def fetch(server: JobsServer, experiment: str, out: Path) -> Fetched:
    """Bring the results of `experiment` into the folder `out`; what is there already is renewed.

    A small job on the cluster's head reads them, at any moment of the search's life.

    Raises:
        BadExperiment: none is there, it is too large, or `out` holds something else.
        NoCluster: the server fails, or what has come is damaged.
    """
    _check_place(out, experiment)
    packed = unpacked(_read_there(server, experiment))
    try:
        return _store(packed, experiment, out)
    except OSError as error:
        raise BadExperiment(f"cannot write to {out}: {error.strerror}.") from error


def unpacked(log: str) -> bytes:
    """The tar whose text `cluster.pack` has printed into `log`.

    Raises:
        BadExperiment: what it said instead.
        NoCluster: the text is not there or not whole.
    """
    lines = log.splitlines()
    for line in lines:
        if line.startswith(pack.PROBLEM):
            raise BadExperiment(f"{line.removeprefix(pack.PROBLEM).strip()}.")
    try:
        begin = lines.index(pack.BEGIN)
        end = next(i for i in range(begin, len(lines)) if lines[i].startswith(pack.END))
        packed = base64.b64decode("".join(lines[begin + 1 : end]), validate=True)
    except (ValueError, StopIteration, binascii.Error) as error:
        last = lines[-1][:300] if lines else "nothing"
        raise NoCluster(f"the results did not come; the cluster printed: {last}") from error
    if hashlib.sha256(packed).hexdigest() != lines[end].removeprefix(pack.END).strip():
        raise NoCluster("the results were damaged on the way (their checksum differs): try again.")
    return packed


def extract(packed: bytes, folder: Path) -> list[PurePosixPath]:
    """Write the files of the tar `packed` into `folder` and say their paths.

    Only what `cluster.pack` packs is taken: a cluster cannot write anywhere else.

    Raises:
        NoCluster: it has other files, links, too much, or is no tar.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            members, total = [], 0
            for member in tar:
                total += member.size
                if not (member.isreg() and _is_result(PurePosixPath(member.name))):
                    raise NoCluster(f"the results contain {member.name!r}, which is none.")
                if total > MOST:
                    raise NoCluster(f"the results have more than {MOST / 2**20:.0f} MiB.")
                members.append(member)
            tar.extractall(folder, members, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise NoCluster(f"the results cannot be unpacked: {error}") from error
    return [PurePosixPath(member.name) for member in members]


def _read_there(server: JobsServer, experiment: str) -> str:
    """What a job that packs `experiment` prints."""
    words = ["python", "-m", "cluster.pack", experiment, str(MOST)]
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "cluster"
        code.mkdir()
        (code / "__init__.py").touch()
        shutil.copy(pack.__file__, code / "pack.py")
        job = server.submit(
            entrypoint=shlex.join(words),
            submission_id=f"paploss-fetch-{secrets.token_hex(4)}",
            runtime_env={"working_dir": folder},
            metadata={"fetches": experiment},
        )
    while not has_ended(details := server.job(job)):
        time.sleep(0.2)
    return server.logs(job) or details.message or ""


def _is_result(path: PurePosixPath) -> bool:
    if len(path.parts) == 1:
        return path.name in pack.FILES
    return len(path.parts) == 2 and path.parts[0] in pack.FOLDERS and path.suffix == ".json"


def _check_place(out: Path, experiment: str) -> None:
    """Nothing but an older copy of the same experiment is written over."""
    try:
        if not out.exists() or not any(out.iterdir()):
            return
        if read_json(out / _MARK)["experiment"] == experiment:
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise BadExperiment(
        f"{out} exists and is no earlier copy of {experiment}: choose another folder with --out."
    )


def _store(packed: bytes, experiment: str, out: Path) -> Fetched:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".fetch-") as staging:
        files = extract(packed, Path(staging))
        write_json(out / _MARK, {"experiment": experiment, "time": time.time()})
        for file in files:
            (out / file).parent.mkdir(exist_ok=True)
            os.replace(Path(staging) / file, out / file)
    return Fetched(out, experiment, len(files), PurePosixPath("best.yaml") in files)
