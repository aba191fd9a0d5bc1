"""`paploss doctor`: what an install can get wrong, and how to mend it.

What may crash (torch, compiled ops, Ray) is loaded by `paploss.doctor_probe` in another process,
so that even a segmentation fault becomes one line.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from paploss import doctor_checks as checks
from paploss.doctor_checks import Answer, Check
from paploss.doctor_probe import MARK, PROBES

PROBE_SECONDS = 120.0  # far more than a sound install takes, for a cold disk


def run_doctor(storage: Path | None = None) -> list[Check]:
    """All checks, in the order in which they build on each other.

    Args:
        storage: where experiments go; `experiments` in the current folder by default.
    """
    folder = Path("experiments") if storage is None else storage
    answers = probe(list(PROBES))
    return [
        checks.check_python(sys.version_info[:3]),
        checks.check_torch(answers["torch"]),
        checks.check_ops(answers["ops"]),
        checks.check_cuda(answers["torch"], answers["ops"]),
        checks.check_detector(answers["mmdet"]),
        checks.check_ray(answers["ray"]),
        checks.check_ray_address(),
        checks.check_shared_memory(Path("/dev/shm")),
        checks.check_evaluators(answers["evaluators"]),
        checks.check_compiler(),
        checks.check_storage(folder),
        checks.check_disk(folder),
        checks.check_memory(checks.available_memory()),
    ]


def print_doctor(results: list[Check], console: Console | None = None) -> int:
    """A line for each check; a second one with the remedy. The exit code: 1 if one failed."""
    console = console or Console()
    width = max(len(check.name) for check in results)
    for check in results:
        word, style = ("ok", "green") if check.ok else ("fail", "bold red")
        if check.ok and check.warning:
            word, style = "warn", "yellow"
        line = Text.assemble((f"{word:<5}", style), f"{check.name:<{width}}  ", check.detail)
        console.print(line, soft_wrap=True)
        if check.remedy and word != "ok":
            console.print(Text(f"{'':<{width + 7}}-> {check.remedy}"), soft_wrap=True)
    return 0 if all(check.ok for check in results) else 1


def compiled_ops() -> Check:
    """Only the check of mmcv's compiled ops, GPU kernels included; the set-up asks for it."""
    ops = probe(["ops"])["ops"]
    return checks.check_gpu_ops(ops) or checks.check_ops(ops)


def probe(names: list[str]) -> dict[str, Answer]:
    """The answers of `names`; a probe that kills its process is named, and the rest go on."""
    answers: dict[str, Answer] = {}
    while left := [name for name in names if name not in answers]:
        output, end = _run_probes(left)
        for line in output.splitlines():
            if line.startswith(MARK):
                answer = json.loads(line[len(MARK) :])
                answers[answer["probe"]] = Answer(answer.get("facts", {}), answer["error"])
        unanswered = [name for name in left if name not in answers]
        if unanswered:
            answers[unanswered[0]] = Answer({}, end)
    return answers


def _run_probes(names: list[str]) -> tuple[str, str]:
    """Standard output of a process with the probes `names`, and how it ended."""
    home = str(Path(__file__).parents[1])  # last, so that it hides nothing
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), home]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "paploss.doctor_probe", *names]
    try:
        done = subprocess.run(
            command,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        return text, f"no answer within {PROBE_SECONDS:.0f} s"
    last = (done.stderr.strip().splitlines() or [""])[-1][:300]
    code = done.returncode
    end = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return done.stdout, f"the process was {end}" if code < 0 else f"the process {end}: {last}"
