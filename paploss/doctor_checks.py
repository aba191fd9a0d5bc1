"""The checks of `paploss doctor`: from what was found to one line, and a remedy where it is bad."""

import os
import re
import shlex
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIP = f"{shlex.quote(sys.executable)} -m pip install"
CHECKOUT = Path(__file__).parents[1]
# The set-up runs an op, and compiles mmcv anew where that fails.
REBUILD = (
    "rm -f .venv/.ready && make setup"
    if Path(sys.prefix) == CHECKOUT / ".venv"
    else f"{PIP} --force-reinstall --no-deps --no-cache-dir --no-build-isolation "
    "--no-binary onedl-mmcv onedl-mmcv"
)
OLDEST_TORCH = (2, 4)  # what mmcv 2.3 asks for
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        ok: False where a search cannot run.
        warning: it can, but worse than it should.
        remedy: what to type or do; empty when all is well.
    """

    name: str
    ok: bool
    warning: bool
    detail: str
    remedy: str


@dataclass(frozen=True)
class Answer:
    """What a probe found: facts, or the error that it ended with."""

    facts: dict[str, Any]
    error: str | None


def check_python(version: tuple[int, int, int]) -> Check:
    ok = (3, 10) <= version[:2] <= (3, 12)
    remedy = "" if ok else "Install Python 3.10, 3.11 or 3.12, then: make clean setup"
    return Check("Python", ok, False, "{}.{}.{}".format(*version), remedy)


def check_torch(torch: Answer) -> Check:
    if torch.error:
        return Check("torch", False, False, torch.error, f'{PIP} "torch>=2.4"')
    version = torch.facts["version"]
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_TORCH:
        detail = f"{version}, but 2.4 or newer is needed"
        return Check("torch", False, False, detail, f'{PIP} --upgrade "torch>=2.4"')
    return Check("torch", True, False, version, "")


def check_ops(ops: Answer) -> Check:
    """Are mmcv's compiled ops there, and do they match torch?"""
    if ops.error is None:
        detail = f"{ops.facts['version']}, nms runs"
        return Check("mmcv ops", True, False, detail, "")
    detail, remedy = explain_ops_error(ops.error)
    return Check("mmcv ops", False, False, detail, remedy)


def explain_ops_error(error: str) -> tuple[str, str]:
    """What the error of an op that does not run means, and the remedy."""
    if "mmcv._ext" in error and "No module named" in error:
        return "mmcv is installed without compiled ops", REBUILD
    if "No module named 'mmcv'" in error:
        return "mmcv is not installed", f"{PIP} --no-build-isolation onedl-mmcv"
    if "No module named 'torch'" in error:
        return "torch is missing, see above", "Install torch first."
    if "libGL" in error or "libgthread" in error:
        headless = f"{PIP} --force-reinstall --no-deps opencv-python-headless"
        return f"OpenCV wants a display library ({error})", headless
    if "undefined symbol" in error or "cannot open shared object" in error:
        return f"mmcv's ops were compiled for another torch ({error})", REBUILD
    if "SIGSEGV" in error or "SIGABRT" in error or "SIGILL" in error:
        return f"mmcv's ops crash, so they were compiled for another machine: {error}", REBUILD
    return f"mmcv's ops do not run: {error}", REBUILD


def check_gpu_ops(ops: Answer) -> Check | None:
    """A failure when torch has a GPU that mmcv's ops cannot use; None otherwise."""
    error = ops.facts.get("gpu_error")
    if not error:
        return None
    detail = f"torch sees a GPU, but mmcv's ops have no kernels for it ({error})"
    return Check("CUDA", False, False, detail, REBUILD)


def check_cuda(torch: Answer, ops: Answer) -> Check:
    if torch.error:
        return Check("CUDA", True, True, "unknown without torch", "Install torch first.")
    lacking = check_gpu_ops(ops)
    if lacking:
        return lacking
    built, gpus = torch.facts["cuda"], torch.facts["gpus"]
    if gpus:
        detail = f"{len(gpus)} GPU(s): {', '.join(sorted(set(gpus)))}; CUDA {built}"
        return Check("CUDA", True, False, detail, "")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden in ("", "-1"):
        return Check("CUDA", True, False, f"CPU mode: CUDA_VISIBLE_DEVICES={hidden!r}", "")
    if not Path("/proc/driver/nvidia").exists() and shutil.which("nvidia-smi") is None:
        return Check("CUDA", True, False, "CPU mode: this machine has no NVIDIA driver", "")
    if built is None:
        detail = "CPU mode: torch is a CPU build, though this machine has an NVIDIA driver"
        remedy = "To use the GPUs: install a CUDA build of torch, then make clean setup"
        return Check("CUDA", True, True, detail, remedy)
    detail = f"torch is built for CUDA {built} and the driver is there, but torch sees no GPU"
    remedy = "See nvidia-smi; update the driver, or install a torch built for an older CUDA."
    return Check("CUDA", False, False, detail, remedy)


def check_detector(mmdet: Answer) -> Check:
    if mmdet.error:
        remedy = f"{PIP} onedl-mmengine onedl-mmdetection"
        return Check("mmdetection", False, False, mmdet.error, remedy)
    detail = f"{mmdet.facts['mmdet']}, mmengine {mmdet.facts['mmengine']}"
    return Check("mmdetection", True, False, detail, "")


def check_ray(ray: Answer) -> Check:
    if ray.error:
        return Check("Ray", False, False, ray.error, f'{PIP} "ray[tune]"')
    return Check("Ray", True, False, ray.facts["version"], "")


def check_ray_address() -> Check:
    """Which cluster a search would join: one that does not answer makes it wait."""
    address = os.environ.get("RAY_ADDRESS", "")
    if not address or address == "local":
        return Check("Ray cluster", True, False, "starts its own on this machine", "")
    detail = f"RAY_ADDRESS={address}: searches run there"
    match = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d+)", address)
    if match is None:
        return Check("Ray cluster", True, False, detail, "")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=2.0).close()
    except (OSError, OverflowError):
        remedy = "unset RAY_ADDRESS (then a search starts Ray here), or start that cluster."
        return Check("Ray cluster", False, False, f"RAY_ADDRESS={address} does not answer", remedy)
    return Check("Ray cluster", True, False, detail, "")


def check_shared_memory(folder: Path) -> Check:
    """Ray keeps objects in shared memory, and is slow on a disk instead."""
    if not folder.is_dir():
        return Check("shared memory", True, False, f"no {folder} on this system", "")
    free = shutil.disk_usage(folder).free / GIB
    remedy = "" if free >= 1 else "In a container: start it with --shm-size=2g or more."
    return Check("shared memory", True, free < 1, f"{free:.1f} GiB free in {folder}", remedy)


def check_evaluators(evaluators: Answer) -> Check:
    if evaluators.error:
        remedy = f"{PIP} --force-reinstall --no-deps pycocotools faster-coco-eval"
        return Check("evaluators", False, False, evaluators.error, remedy)
    facts = evaluators.facts
    detail = f"pycocotools {facts['pycocotools']}, faster-coco-eval {facts['faster_coco_eval']}"
    return Check("evaluators", True, False, f"{detail}: same AP", "")


def check_compiler() -> Check:
    """For information: only compiling mmcv's ops needs one."""
    names = [os.environ.get("CXX", "").split(" ")[0], "c++", "g++", "clang++"]
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    return Check("C++ compiler", True, False, found or "none; only compiling mmcv needs it", "")


def check_storage(folder: Path) -> Check:
    """Writes a file and waits until the disk has it."""
    place = nearest_existing(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".paploss-doctor-") as file:
            file.write(b"paploss")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        detail = f"{folder} cannot be written ({place}: {error.strerror})"
        remedy = "Choose another folder: paploss doctor --storage FOLDER"
        return Check("storage", False, False, detail, remedy)
    return Check("storage", True, False, f"{folder} can be written", "")


def check_disk(folder: Path) -> Check:
    try:
        free = shutil.disk_usage(nearest_existing(folder)).free / GIB
    except OSError as error:  # a link to a disk that is not there
        return Check("disk space", False, False, f"{folder}: {error.strerror}", "Mount it.")
    remedy = "" if free >= 5 else f"Make room, or choose another storage than {folder}."
    return Check("disk space", free >= 1, free < 5, f"{free:.1f} GiB free for {folder}", remedy)


def nearest_existing(path: Path) -> Path:
    """`path`, or the nearest of its parents that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def available_memory() -> float | None:
    """GiB that this machine, or this container, still has; None where that cannot be read."""
    try:
        match = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    free = int(match[1]) / 2**20 if match else None
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free or float("inf"), (limit - used) / GIB)


def check_memory(free: float | None) -> Check:
    if free is None:
        return Check("memory", True, False, "cannot be read on this system", "")
    remedy = "" if free >= 4 else "Run fewer trials at a time, or close other programs."
    return Check("memory", True, free < 4, f"{free:.1f} GiB available", remedy)
