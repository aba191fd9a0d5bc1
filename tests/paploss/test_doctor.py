"""The doctor on a sound installation, and on faults made for real."""

import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from rich.console import Console

from paploss import doctor, doctor_checks
from paploss.doctor_checks import Answer, Check


def fake_package(folder: Path, name: str, files: dict[str, str]) -> None:
    for file, text in files.items():
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def first_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose packages hide the installed ones."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


# mmcv.ops asks for its extension in this way, whether or not it was compiled.
OPS_THAT_LOAD_EXT = {
    "__init__.py": "__version__ = '2.3.6'",
    "ops/__init__.py": "import importlib\nnms = importlib.import_module('mmcv._ext').nms",
}


def test_a_sound_installation_passes_every_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    results = doctor.run_doctor(tmp_path / "experiments")
    assert {check.name: check.detail for check in results if not check.ok} == {}
    assert not (tmp_path / "experiments").exists()  # looking leaves nothing behind
    assert list(tmp_path.iterdir()) == []
    versions = {check.name: check.detail for check in results}
    assert versions["mmcv ops"].endswith("nms runs")
    assert versions["evaluators"].endswith("same AP")


def test_mmcv_without_compiled_ops(first_on_path: Path) -> None:
    fake_package(first_on_path, "mmcv", OPS_THAT_LOAD_EXT)
    check = doctor.compiled_ops()
    assert not check.ok
    assert check.detail == "mmcv is installed without compiled ops"
    assert check.remedy == doctor_checks.REBUILD


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_ops_compiled_for_another_torch(first_on_path: Path) -> None:
    fake_package(first_on_path, "mmcv", OPS_THAT_LOAD_EXT)
    source = first_on_path / "ext.c"
    source.write_text(
        "extern void *c10_gone(void);\nvoid *PyInit__ext(void) { return c10_gone(); }"
    )
    library = first_on_path / "mmcv" / f"_ext{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    check = doctor.compiled_ops()
    assert not check.ok
    assert "compiled for another torch" in check.detail
    assert "c10_gone" in check.detail


def test_a_crash_is_named_and_the_other_probes_still_answer(first_on_path: Path) -> None:
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
    fake_package(first_on_path, "mmcv", {"__init__.py": crash})
    answers = doctor.probe(["ops", "evaluators"])
    assert answers["ops"].error == "the process was killed by SIGSEGV"
    assert answers["evaluators"].error is None
    assert "crash" in doctor_checks.check_ops(answers["ops"]).detail


def test_ops_that_compute_nonsense(first_on_path: Path) -> None:
    wrong = "import torch\ndef nms(boxes, scores, iou): return None, torch.tensor([0, 1, 2])"
    fake_package(first_on_path, "mmcv", {**OPS_THAT_LOAD_EXT, "ops/__init__.py": wrong})
    check = doctor.compiled_ops()
    assert not check.ok
    assert "[0, 1, 2] instead of [0, 2]" in check.detail


def test_a_probe_that_exits_or_hangs_is_a_failure(
    first_on_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(first_on_path, "ray", {"__init__.py": "import os\nos._exit(3)"})
    assert "ended with code 3" in str(doctor.probe(["ray"])["ray"].error)
    fake_package(first_on_path, "ray", {"__init__.py": "import time\ntime.sleep(60)"})
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 2.0)
    assert doctor.probe(["ray"])["ray"].error == "no answer within 2 s"


def test_an_old_torch(first_on_path: Path) -> None:
    old = """
__version__ = "1.13.1"
class version: cuda = None
class cuda: is_available = staticmethod(lambda: False)
"""
    fake_package(first_on_path, "torch", {"__init__.py": old})
    check = doctor_checks.check_torch(doctor.probe(["torch"])["torch"])
    assert not check.ok
    assert check.detail == "1.13.1, but 2.4 or newer is needed"
    assert "torch>=2.4" in check.remedy


def test_a_torch_that_cannot_be_imported(first_on_path: Path) -> None:
    fake_package(first_on_path, "torch", {"__init__.py": "raise OSError('libgomp.so.1 is gone')"})
    answers = doctor.probe(["torch", "ops"])
    check = doctor_checks.check_torch(answers["torch"])
    assert not check.ok
    assert check.detail == "OSError: libgomp.so.1 is gone"
    assert doctor_checks.check_cuda(answers["torch"], answers["ops"]).detail


def test_evaluators_that_disagree(first_on_path: Path) -> None:
    import faster_coco_eval

    real = Path(faster_coco_eval.__file__).parent
    shutil.copytree(real, first_on_path / "faster_coco_eval")
    with (first_on_path / "faster_coco_eval" / "__init__.py").open("a") as file:
        file.write(
            "\nsummarize = COCOeval_faster.summarize\n"
            "def lower(self):\n    summarize(self)\n    self.stats[0] -= 0.01\n"
            "COCOeval_faster.summarize = lower\n"
        )
    check = doctor_checks.check_evaluators(doctor.probe(["evaluators"])["evaluators"])
    assert not check.ok
    assert "AP of a known result" in check.detail


def test_storage_with_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "experiments").write_text("a file, not a folder")
    for folder in (tmp_path / "experiments", tmp_path / "experiments" / "deeper"):
        check = doctor_checks.check_storage(folder)
        assert not check.ok
        assert str(folder) in check.detail
        assert "Not a directory" in check.detail
        assert "--storage" in check.remedy


def test_storage_behind_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "experiments").symlink_to(tmp_path / "unmounted")
    assert not doctor_checks.check_storage(tmp_path / "experiments").ok
    assert not doctor_checks.check_disk(tmp_path / "experiments").ok


@pytest.mark.parametrize(
    ("free", "ok", "warning"), [(0.5, False, True), (3.0, True, True), (6.0, True, False)]
)
def test_disk_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, ok: bool, warning: bool
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free * 2**30))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    check = doctor_checks.check_disk(tmp_path)
    assert (check.ok, check.warning) == (ok, warning)
    assert bool(check.remedy) == warning


def test_a_ray_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        check = doctor_checks.check_ray_address()
        assert check.ok
        assert f"127.0.0.1:{port}" in check.detail
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        check = doctor_checks.check_ray_address()
        assert not check.ok
        assert check.detail == f"RAY_ADDRESS={address} does not answer"
        assert check.remedy.startswith("unset RAY_ADDRESS")


@pytest.mark.parametrize(
    ("version", "ok"), [((3, 9, 18), False), ((3, 10, 0), True), ((3, 12, 9), True),
                        ((3, 13, 0), False)],
)  # fmt: skip
def test_python_version(version: tuple[int, int, int], ok: bool) -> None:
    assert doctor_checks.check_python(version).ok == ok


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        ("ModuleNotFoundError: No module named 'mmcv'", "mmcv is not installed"),
        ("ModuleNotFoundError: No module named 'mmcv._ext'", "without compiled ops"),
        ("ModuleNotFoundError: No module named 'torch'", "torch is missing"),
        ("ImportError: mmcv/_ext.so: undefined symbol: _ZN3c105ErrorE", "another torch"),
        ("ImportError: libcudart.so.12: cannot open shared object file", "another torch"),
        ("ImportError: libGL.so.1: cannot open shared object file", "display library"),
        ("the process was killed by SIGILL", "another machine"),
        ("RuntimeError: something new", "something new"),
    ],
)
def test_what_an_error_of_the_ops_means(error: str, detail: str) -> None:
    check = doctor_checks.check_ops(Answer({}, error))
    assert not check.ok
    assert detail in check.detail
    assert check.remedy


def test_a_gpu_without_kernels_in_mmcv_is_a_failure() -> None:
    torch = Answer({"version": "2.13.0", "cuda": "13.0", "gpus": ["H200"]}, None)
    ops = Answer({"version": "2.3.6", "gpu_error": "RuntimeError: not implemented"}, None)
    check = doctor_checks.check_cuda(torch, ops)
    assert not check.ok
    assert "no kernels" in check.detail
    sound = doctor_checks.check_cuda(torch, Answer({"gpu_error": None}, None))
    assert sound.ok
    assert sound.detail == "1 GPU(s): H200; CUDA 13.0"


def test_print_gives_a_line_a_check_and_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    good = Check("Python", True, False, "3.11.7", "")
    warned = Check("memory", True, True, "2.0 GiB available", "Close other programs.")
    bad = Check("storage", False, False, "[x] cannot be written", "Choose another folder.")
    console = Console(width=80)
    assert doctor.print_doctor([good, warned], console) == 0
    assert doctor.print_doctor([good, warned, bad], console) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "warn", "->", "ok", "warn", "->",
                                                  "fail", "->"]  # fmt: skip
    assert lines[-2].endswith("[x] cannot be written")  # brackets are no markup


def test_the_doctor_loads_nothing_that_may_crash() -> None:
    code = "import sys, paploss.doctor; print(sorted({'torch', 'mmcv', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
