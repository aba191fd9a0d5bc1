"""The script for Slurm, run for real: a search by `ray symmetric-run`, its time limit, the resume.

Between both the experiment's folder is lost, and comes back from its mirror.

Stand-ins for srun and scontrol run everything on this machine. Each job has a process namespace of
its own, as its nodes would be: `ray symmetric-run` refuses to start where it sees another Ray, and
stops every Ray that it sees.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "slurm" / "paploss.sbatch"
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
if os.getuid() != 0:
    NAMESPACE += ["--user", "--map-root-user"]


def _has_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _has_namespaces(), reason="no process namespaces for users here"),
]

SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
case "$1 $2" in
    "show hostnames") printf '%s\\n' ${3//,/ } ;;
    "show job") echo "JobId=$3 OverSubscribe=$OVERSUBSCRIBE" ;;
    requeue*) echo "$2" >> requeued ;;
esac
"""
Job = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where sbatch is called."""
    folder = tmp_path / "submit"
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    folder.mkdir()
    return folder


@pytest.fixture
def job(folder: Path, home: Path, settings: dict[str, Any]) -> Iterator[Job]:
    """Starts the script as Slurm would, with a search of five trials."""
    search = {
        **settings,
        "algorithm": {"rounds": 1, "samples": 2},
        "final": {"candidates": 1, "repeats": 1},
        "mirror": f"file://{folder.parent / 'mirror'}",
    }
    (folder / "search.yaml").write_text(yaml.safe_dump(search))
    started: list[subprocess.Popen[bytes]] = []

    def start(nodes: str, exclusive: bool) -> subprocess.Popen[bytes]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
        # Any venv's bin/activate: the interpreter of the tests is in it.
        env = {
            **kept,
            "PATH": f"{folder.parent / 'bin'}:{kept['PATH']}",
            "HOME": str(home),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "PAPLOSS_VENV": sys.prefix,
            "SLURM_JOB_ID": str(100_000 + os.getpid()),
            "SLURM_JOB_NODELIST": nodes,
            "SLURM_JOB_NUM_NODES": str(len(nodes.split(","))),
            "SLURM_CPUS_PER_TASK": str(2 // len(nodes.split(","))),
            "OVERSUBSCRIBE": "NO" if exclusive else "OK",
        }
        with (folder / "paploss.log").open("ab") as log:
            process = subprocess.Popen(
                [*NAMESPACE, "bash", SCRIPT, "search.yaml"],
                cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()  # the namespace ends with its first process
            process.wait()


def test_a_job_runs_into_its_time_limit_loses_its_disk_and_resumes(job: Job, folder: Path) -> None:
    # The first run has its node to itself.
    first = job(nodes="node1", exclusive=True)
    journal = folder / "experiments" / "one" / "journal"
    wait_for(lambda: list(journal.glob("*.json")), first, folder)
    (private,) = folder.glob(".paploss-slurm-*")
    assert private.stat().st_mode & 0o777 == 0o700
    assert (private / "token").stat().st_mode & 0o777 == 0o600
    assert len((private / "token").read_text()) == 64
    os.kill(batch_script(first.pid), signal.SIGUSR1)  # as --signal=B:USR1@300 does
    assert first.wait(120) == 130, log(folder)
    kept = {path.name: path.read_bytes() for path in journal.glob("*.json")}
    assert 1 <= len(kept) < 5
    assert "by ray symmetric-run" in log(folder)
    assert f"{len(kept)} of 5 trials are finished and kept" in log(folder)
    assert (folder / "requeued").read_text().count("\n") == 1
    assert not private.exists()

    # The disk is gone, the mirror is not.
    shutil.rmtree(folder / "experiments")
    there = folder.parent / "mirror" / "one"
    command = [sys.executable, "-m", "search.cli", "restore", f"file://{there}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    assert f"finished trials back in experiments/one: {len(kept)}\n" in said.stdout
    assert {path.name: path.read_bytes() for path in journal.glob("*.json")} == kept

    # Slurm starts it again, now on two nodes that others may use too.
    second = job(nodes="node1,node2", exclusive=False)
    assert second.wait(240) == 0, log(folder)
    assert "Ray on 2 nodes" in log(folder) and "node by node" in log(folder)
    assert f"resumed with {len(kept)} finished trials" in log(folder)
    after = {path.name: path.read_bytes() for path in journal.glob("*.json")}
    assert len(after) == 5
    assert kept.items() <= after.items()
    best = (folder / "experiments" / "one" / "best.yaml").read_bytes()
    assert (there / "best.yaml").read_bytes() == best
    assert {path.name: path.read_bytes() for path in there.glob("journal/*.json")} == after
    assert (folder / "requeued").read_text().count("\n") == 1
    assert list(folder.glob(".paploss-slurm-*")) == []
    assert not list(Path("/tmp").glob(f"paploss-{100_000 + os.getpid()}"))


def test_a_ray_that_does_not_start_is_no_success(job: Job, folder: Path) -> None:
    """`ray symmetric-run` itself exits with 0 then."""
    (folder.parent / "bin" / "ray").write_text("#!/bin/bash\nexit 0\n")
    (folder.parent / "bin" / "ray").chmod(0o755)
    # In front of the one of the virtual environment, which the script activates.
    activate = folder.parent / "venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"PATH={folder.parent / 'bin'}:$PATH\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "prefix", str(folder.parent / "venv"))
        process = job(nodes="node1", exclusive=True)
    assert process.wait(60) == 1, log(folder)
    assert "Ray did not start on all 1 nodes" in log(folder)


def log(folder: Path) -> str:
    return (folder / "paploss.log").read_text(errors="replace")


def batch_script(unshare: int) -> int:
    """The process id, out here, of the script inside of the namespace."""
    (script,) = psutil.Process(unshare).children()
    return script.pid


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, log(folder)
        assert time.monotonic() < end, log(folder)
        time.sleep(0.05)
