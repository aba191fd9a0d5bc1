"""The set-up script's decisions, and that constraints.txt pins what pyproject.toml asks for."""

import ast
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[ModuleType, ModuleType]:
    """scripts/setup.py and scripts/steps.py, writing their log to a folder of the test."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    for name in ("setup", "steps"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    steps, setup = importlib.import_module("steps"), importlib.import_module("setup")
    monkeypatch.setattr(steps, "ROOT", tmp_path)
    monkeypatch.setattr(steps, "LOG", tmp_path / "setup.log")
    return setup, steps


@pytest.mark.parametrize("name", ["setup.py", "steps.py"])
def test_an_old_python_can_read_the_script(name: str) -> None:
    """It has to start in order to say that another Python is needed."""
    ast.parse((ROOT / "scripts" / name).read_text(encoding="utf-8"), feature_version=(3, 7))


def pythons(setup: ModuleType, **found: tuple[tuple[int, int], bool]) -> Any:
    """A probe that knows the interpreters `found`: their version and whether they have venv."""
    known = {name.replace("_", "."): fact for name, fact in found.items()}
    return lambda command: (
        setup.Python(command, *known[command], True) if command in known else None
    )


def test_the_first_suitable_python_is_taken(scripts: tuple[ModuleType, ModuleType]) -> None:
    setup, _ = scripts
    probe = pythons(setup, python3=((3, 13), True), python3_10=((3, 10), True))
    assert setup.choose_python(None, probe).command == "python3.10"
    probe = pythons(setup, python3=((3, 12), True))
    assert setup.choose_python(None, probe).command == "python3"
    probe = pythons(setup, python3_11=((3, 11), False), python3_12=((3, 12), True))
    assert setup.choose_python(None, probe).command == "python3.12"


def test_a_named_python_is_taken_or_refused(scripts: tuple[ModuleType, ModuleType]) -> None:
    setup, _ = scripts
    probe = pythons(setup, python3_11=((3, 11), True), mine=((3, 12), True), old=((3, 9), True))
    assert setup.choose_python("mine", probe).command == "mine"
    with pytest.raises(setup.SetupError, match=r"found old \(3\.9\) for PYTHON=old"):
        setup.choose_python("old", probe)


def test_no_suitable_python_and_no_venv_are_told_apart(
    scripts: tuple[ModuleType, ModuleType],
) -> None:
    setup, _ = scripts
    with pytest.raises(setup.SetupError, match=r"found python3 \(3\.13\)"):
        setup.choose_python(None, pythons(setup, python3=((3, 13), True)))
    with pytest.raises(setup.SetupError, match="none that runs"):
        setup.choose_python(None, pythons(setup))
    with pytest.raises(setup.SetupError, match=r"apt install python3\.11-venv"):
        setup.choose_python(None, pythons(setup, python3=((3, 11), False)))


def test_probing_real_interpreters(scripts: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    setup, _ = scripts
    this = setup.probe_python(sys.executable)
    assert this.version == sys.version_info[:2]
    assert this.has_venv
    broken = tmp_path / "python3.11"
    broken.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    broken.chmod(0o755)
    assert setup.probe_python(str(broken)) is None
    assert setup.probe_python(str(tmp_path / "absent")) is None


@pytest.mark.parametrize(
    ("cores", "memory", "wanted", "jobs"),
    [
        (2, 16.0, None, 2),  # the cores decide
        (16, 7.9, None, 3),  # 7.9 GiB hold three compilers of 2 GiB
        (4, 0.5, None, 1),  # never fewer than one
        (2, 1.0, "8", 8),  # the user decides
        (2, 16.0, "", 2),
    ],
)
def test_jobs(
    scripts: tuple[ModuleType, ModuleType], cores: int, memory: float, wanted: str | None, jobs: int
) -> None:
    assert scripts[0].count_jobs(cores, memory, wanted) == jobs


@pytest.mark.parametrize("wanted", ["many", "0", "-1", "2.5"])
def test_a_bad_number_of_jobs_is_refused(
    scripts: tuple[ModuleType, ModuleType], wanted: str
) -> None:
    with pytest.raises(scripts[0].SetupError, match="whole number"):
        scripts[0].count_jobs(2, 16.0, wanted)


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("  [12/78] c++ -MMD -MF nms.o.d -c nms.cpp\n", (12, 78)),
        ("[1/1] g++ x.o -o _ext.so", (1, 1)),
        ("  [notice] A new release of pip is available", None),
        ("building 'mmcv._ext' extension [1/2]", None),
        ("", None),
    ],
)
def test_progress(
    scripts: tuple[ModuleType, ModuleType], line: str, progress: tuple[int, int] | None
) -> None:
    assert scripts[1].parse_progress(line) == progress


def test_progress_in_words(scripts: tuple[ModuleType, ModuleType]) -> None:
    _, steps = scripts
    assert steps.describe_progress(45.0, 45.0, None) == "45 s"
    assert steps.describe_progress(45.0, 30.0, (2, 80)) == "45 s, 2 of 80 files"  # too early to say
    # 20 of 80 files in 120 s: 60 more at 6 s each.
    words = "2 min 10 s, 20 of 80 files, about 6 min 00 s left"
    assert steps.describe_progress(130.0, 120.0, (20, 80)) == words


@pytest.mark.parametrize(
    ("cuda", "gpu", "nvcc", "force", "forced", "obstacle"),
    [
        ("", False, False, None, "0", None),  # a CPU build
        ("13.0", False, True, None, "0", None),  # a CUDA build of torch, no GPU: as mmcv decides
        ("13.0", True, True, None, "1", None),
        ("13.0", False, True, "1", "1", None),  # a machine to build on
        ("13.0", True, False, None, "1", "CUDA toolkit 13.0"),
        ("", False, True, "1", "1", "a CPU build is installed"),
    ],
)
def test_cuda(
    scripts: tuple[ModuleType, ModuleType],
    cuda: str, gpu: bool, nvcc: bool, force: str | None, forced: str, obstacle: str | None,
) -> None:  # fmt: skip
    env, _, problem = scripts[0].plan_cuda(cuda, gpu, nvcc, force)
    assert env == {"FORCE_CUDA": forced}
    assert (obstacle in problem) if obstacle else problem is None


def test_a_missing_compiler_is_named(
    scripts: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setup, _ = scripts
    python = setup.Python("python3.11", (3, 11), True, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    (missing,) = setup.build_obstacles(python)
    assert missing.startswith("No C++ compiler was found")
    (tmp_path / "c++").write_text("#!/bin/sh\n")
    (tmp_path / "c++").chmod(0o755)
    assert setup.build_obstacles(python) == []


def test_a_step_is_quiet_and_logged(
    scripts: tuple[ModuleType, ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    _, steps = scripts
    steps.Steps(total=6).run("torch", ["echo", "much noise"], "hint")
    assert capsys.readouterr().out == "[1/6] torch\n"
    assert "$ echo 'much noise'\nmuch noise\n" in steps.LOG.read_text()


def test_a_failed_step_shows_the_end_of_its_output_and_what_to_do(
    scripts: tuple[ModuleType, ModuleType],
) -> None:
    _, steps = scripts
    command = ["sh", "-c", "seq 100; echo no space left >&2; exit 7"]
    with pytest.raises(steps.SetupError) as stopped:
        steps.Steps(total=6).run("torch", command, "Make room.")
    message = str(stopped.value)
    assert "torch: failed with exit code 7" in message
    assert "| no space left\nMake room.\n" in message
    assert "| 99\n" in message
    assert "| 50\n" not in message
    assert "setup.log" in message


def test_a_long_step_shows_signs_of_life(
    scripts: tuple[ModuleType, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, steps = scripts
    monkeypatch.setattr(steps, "HEARTBEAT", 0.5)
    steps.Steps(total=6).run("mmcv", ["sh", "-c", "echo '[9/12] c++ x.cpp'; sleep 3"], "hint")
    beats = capsys.readouterr().out.splitlines()[1:]
    assert any("9 of 12 files, about" in beat for beat in beats), beats


def test_what_the_watcher_raises_ends_the_step_and_its_children(
    scripts: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    _, steps = scripts

    def watch(line: str) -> None:
        if "compiling" in line:
            raise steps.SetupError("no compiler")

    # The shell's own child stands for a compiler.
    command = ["sh", "-c", "sleep 300 & echo $! > pid; echo compiling; wait"]
    begin = time.monotonic()
    with pytest.raises(steps.SetupError, match="no compiler"):
        steps.Steps(total=6).run("mmcv", command, "hint", watch=watch)
    assert time.monotonic() - begin < 60
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline, "the compiler outlived the set-up"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Neither gone nor dead and waiting to be reaped."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


def test_make_lists_its_targets() -> None:
    # Under `make test` it is a make within a make, which says where it enters and leaves.
    command = ["make", "--no-print-directory", "help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    targets = [line.split()[1] for line in done.stdout.splitlines()]
    assert targets == ["help", "setup", "search", "test", "check", "clean"]


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    lines = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    return [Requirement(line) for line in [*lines, *extras["dev"]]]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_has_one_exact_pin(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pins: dict[str, str] = {}
    for pin in constraints():
        if pin.marker is None or pin.marker.evaluate(environment):
            name = canonicalize_name(pin.name)
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            assert name not in pins, f"two pins of {name} for Python {python}"
            pins[name] = specifier.version
    for requirement in wanted():
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} has no pin"
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


def test_nothing_names_a_package_index() -> None:
    """pip's own settings decide where packages come from."""
    files = ["constraints.txt", "pyproject.toml", "Makefile", "scripts/setup.py", ".ci/run"]
    for name in files:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "index-url" not in text, name
        assert "://" not in text.replace("http://www.apache.org", ""), name


def test_ci_needs_no_settings() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
