"""Makes `.venv` ready: torch, mmcv with compiled ops, everything else. Run it with `make setup`.

Standard library only, and any Python from 3.7 on can start it: it finds a Python that suits
paploss by itself. pip's own settings and variables are respected. Variables of ours:

    PYTHON      the interpreter that `.venv` is made with
    MAX_JOBS    how many files of mmcv are compiled at a time
    FORCE_CUDA  1: compile CUDA ops although no GPU can be seen now
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, NoReturn  # noqa: UP035 (Python 3.7 has no other)

from steps import LOG, ROOT, VENV, SetupError, Steps, duration, say

PYTHONS = ("python3.11", "python3.12", "python3.10", "python3", "python")
OLDEST, NEWEST = (3, 10), (3, 12)
GIGABYTES_A_JOB = 2.0  # what the compiler takes at its worst with torch's headers

PROBE_PYTHON = """
import sys, importlib.util as u, os, sysconfig
has = lambda *names: all(u.find_spec(name) for name in names)
header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
print(*sys.version_info[:2], int(has("venv", "ensurepip")), int(os.path.exists(header)))
"""
PROBE_TORCH = """
import json, torch
print(json.dumps([torch.__version__, torch.version.cuda or "", torch.cuda.is_available()]))
"""
PROBE_OPS = """
import sys
from paploss.doctor import compiled_ops
check = compiled_ops()
print(check.detail)
sys.exit(0 if check.ok else 1)
"""


class Python:
    """An interpreter: its command, version, and whether it can make environments and compile."""

    def __init__(
        self, command: str, version: tuple[int, int], has_venv: bool, has_headers: bool
    ) -> None:
        self.command = command
        self.version = version
        self.has_venv = has_venv
        self.has_headers = has_headers


def probe_python(command: str) -> Python | None:
    """The interpreter behind `command`, or None where it does not run."""
    try:
        words = subprocess.run(
            [command, "-c", PROBE_PYTHON],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=True,
        ).stdout.split()
        major, minor, venv, headers = (int(word) for word in words)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Python(command, (major, minor), bool(venv), bool(headers))


def choose_python(wanted: str | None, probe: Callable[[str], Python | None]) -> Python:
    """The first interpreter that suits: `wanted` alone if given, else one of `PYTHONS`.

    Raises:
        SetupError: none suits; says what was found.
    """
    found = [python for python in map(probe, [wanted] if wanted else PYTHONS) if python]
    right = [python for python in found if OLDEST <= python.version <= NEWEST]
    for python in right:
        if python.has_venv:
            return python
    if right:
        name = "python{}.{}".format(*right[0].version)
        raise SetupError(
            f"{right[0].command} lacks the modules venv and ensurepip. Install them "
            f"(on Debian and Ubuntu: apt install {name}-venv) and run the same command again."
        )
    seen = ", ".join("{} ({}.{})".format(p.command, *p.version) for p in found)
    raise SetupError(
        f"paploss needs Python 3.10, 3.11 or 3.12; found {seen or 'none that runs'}"
        f"{f' for PYTHON={wanted}' if wanted else ''}. Install one, or name it: "
        "make setup PYTHON=/path/to/python3.11"
    )


def count_jobs(cores: int, memory: float, wanted: str | None) -> int:
    """How many files to compile at a time: a user's MAX_JOBS, else what cores and memory allow.

    Args:
        memory: free memory in GiB.
    """
    if wanted:
        if not wanted.isdigit() or int(wanted) < 1:
            raise SetupError(f"MAX_JOBS is {wanted!r}; expected a whole number from 1 on.")
        return int(wanted)
    return max(1, min(cores, int(memory / GIGABYTES_A_JOB)))


def plan_cuda(
    cuda: str, gpu: bool, nvcc: bool, force: str | None
) -> tuple[dict[str, str], str, str | None]:
    """Which ops to compile: (environment, words for the user, what stands in the way or None).

    Args:
        cuda: the CUDA version that torch was built for, empty for a CPU build.
        gpu: torch sees a GPU now.
        force: the user's FORCE_CUDA.
    """
    asked = force == "1"
    if not (gpu or asked):
        return {"FORCE_CUDA": "0"}, "CPU ops", None
    obstacle = None
    if not cuda:
        obstacle = "FORCE_CUDA=1 needs a CUDA build of torch, but a CPU build is installed."
    elif not nvcc:
        obstacle = (
            f"CUDA ops need the CUDA toolkit {cuda} (its compiler nvcc was not found). Install it "
            "and set CUDA_HOME, or hide the GPUs to get CPU ops: CUDA_VISIBLE_DEVICES= make setup"
        )
    return {"FORCE_CUDA": "1"}, f"CPU and CUDA {cuda} ops", obstacle


def free_memory() -> float:
    """GiB that this machine, or this container, still has."""
    free = 4 * 2**30
    try:
        text = Path("/proc/meminfo").read_text()
        free = int(re.search(r"MemAvailable:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError, TypeError):
        pass  # not Linux, or no limit
    return free / 2**30


def count_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def make_environment(python: Path) -> Python:
    """`.venv`, made anew only where there is none that runs and suits."""
    existing = probe_python(str(python)) if python.exists() else None
    if existing and OLDEST <= existing.version <= NEWEST:
        say("[1/6] Python {}.{} in .venv".format(*existing.version))
        return existing
    chosen = choose_python(os.environ.get("PYTHON"), probe_python)
    say("[1/6] .venv with {} (Python {}.{})".format(chosen.command, *chosen.version))
    made = subprocess.run(
        [chosen.command, "-m", "venv", "--clear", str(VENV)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if made.returncode:
        raise SetupError(f"{chosen.command} could not make .venv:\n{made.stdout}")
    return chosen


def build_obstacles(python: Python) -> list[str]:
    """What is missing to compile mmcv's ops; only fatal where pip finds no ready wheel."""
    missing = []
    compilers = [os.environ.get("CXX", "").split(" ")[0], "c++", "g++", "clang++"]
    if not any(shutil.which(name) for name in compilers if name):
        missing.append(
            "No C++ compiler was found (c++, g++, clang++ or CXX). Install one "
            "(on Debian and Ubuntu: apt install g++)."
        )
    if not python.has_headers:
        name = "python{}.{}".format(*python.version)
        missing.append(
            f"The headers of {name} (Python.h) are missing. Install them "
            f"(on Debian and Ubuntu: apt install {name}-dev)."
        )
    return missing


def install_mmcv(
    steps: Steps, python: Path, install: list[object], obstacles: list[str], jobs: int
) -> None:
    """mmcv with compiled ops: a ready wheel where pip finds one, else compiled here.

    What was found may have been compiled for another torch, which pip cannot know; the ops are
    therefore run, and compiled anew where they do not work.
    """
    version, cuda, gpu = json.loads(
        subprocess.run(
            [str(python), "-W", "ignore", "-c", PROBE_TORCH], stdout=subprocess.PIPE, check=True
        ).stdout.splitlines()[-1]
    )
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = bool(shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin"))
    cuda_env, ops, no_cuda = plan_cuda(cuda, gpu, nvcc, os.environ.get("FORCE_CUDA"))
    obstacles = obstacles + ([no_cuda] if no_cuda else [])
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])  # where ninja is
    env = {**cuda_env, "PATH": path, "MMCV_WITH_OPS": "1", "MAX_JOBS": str(jobs)}
    compiled = []

    def watch(line: str) -> None:
        if "Building wheel for onedl-mmcv" in line and not compiled:
            compiled.append(True)
            if obstacles:
                raise SetupError("\n".join(["mmcv has to be compiled here.", *obstacles]))
            say(f"      compiling {ops}, {jobs} file(s) at a time: it takes about 15 minutes")
            say("      on 2 cores, and longer for CUDA ops")

    hint = (
        "If a compiler was 'Killed', there was too little memory: MAX_JOBS=1 make setup\n"
        "If mmcv could not be downloaded, see the network and pip's settings (pip config list)."
    )
    # -v: pip shows the compiler's progress only then. No isolation: mmcv compiles its ops only
    # where its build can import the torch that they are for.
    command = [*install, "-v", "--no-build-isolation", "onedl-mmcv"]
    steps.run(f"mmcv for torch {version}", command, hint, env, watch)
    # mmcv wants opencv-python and mmdet wants opencv-python-headless as well: both hold cv2, the
    # last one wins, and only the headless one works where there is no libGL.
    steps.run("OpenCV", [*install, "opencv-python-headless"], hint, counted=False)
    check = [python, "-W", "ignore", "-c", PROBE_OPS]
    failed = "mmcv's compiled ops do not work with this torch."
    try:
        steps.run("running a compiled op", check, failed, counted=False)
    except SetupError:
        if compiled:
            raise
        say("      they were compiled for another torch: compiling them here")
        source = ["--no-deps", "--force-reinstall", "--no-cache-dir", "--no-binary", "onedl-mmcv"]
        steps.run("mmcv from source", [*command, *source], hint, env, watch, counted=False)
        steps.run("running a compiled op", check, failed, counted=False)


def main() -> None:
    begin = time.monotonic()
    jobs = count_jobs(count_cores(), free_memory(), os.environ.get("MAX_JOBS"))
    python = VENV / "bin" / "python"
    interpreter = make_environment(python)
    obstacles = build_obstacles(interpreter)
    for obstacle in obstacles:
        say(
            f"      {obstacle} mmcv's ops cannot be compiled without it; a ready wheel can be used."
        )
    LOG.write_text("", encoding="utf-8")
    steps = Steps(total=6)
    steps.number = 1
    pip = [python, "-m", "pip"]
    install = [*pip, "install", "--progress-bar", "off", "-c", ROOT / "constraints.txt"]
    network = "See the network and pip's settings and variables: .venv/bin/pip config list"
    steps.run(
        "torch (several minutes; a CUDA build brings gigabytes along)",
        [*install, "torch"],
        f"{network}\nTo take a CPU build, point PIP_INDEX_URL or PIP_FIND_LINKS at one.",
    )
    tools = ["setuptools", "wheel", "packaging", "ninja", "hatchling", "editables"]
    steps.run("build tools", [*install, *tools], network)
    install_mmcv(steps, python, install, obstacles, jobs)
    everything = [*install, "--no-build-isolation", "-e", ".[dev]"]
    steps.run("mmdetection, Ray Tune and the rest", everything, network)
    steps.run("do all of them fit together?", [*pip, "check"], "Two packages disagree.")
    say(f"Ready in {duration(time.monotonic() - begin)}: .venv/bin/paploss --help")


def stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    try:
        main()
    except SetupError as error:
        sys.exit(f"\nset-up stopped: {error}")
    except KeyboardInterrupt:
        say("\nset-up interrupted: the same command goes on from here.")
        sys.exit(130)
