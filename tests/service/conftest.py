"""Real searches, by the command that a user types, small enough to be run, killed and resumed.

Ten trials of two iterations each: baseline, start, two rounds of three, a final race of two.
"""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from paploss.configs import find
from paploss.files import read_yaml
from tests.service.local_cluster import LocalCluster
from trainers.datasets.shapes import draw_shapes

ROOT = Path(__file__).parents[2]
TRIALS = 10
# What a trial's record may differ in when it is run another time.
_OF_ONE_RUN = {
    "seconds", "timing", "attempt", "trial_id", "trial_dir", "node", "pid", "started", "finished",
}  # fmt: skip


@dataclass
class Driver:
    """A `paploss` process in a session of its own, and all the processes under it."""

    process: subprocess.Popen[bytes]
    log: Path
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def look(self) -> list[psutil.Process]:
        """The processes under the driver, now; they are remembered."""
        try:
            family = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        self.seen.update({process.pid: process for process in family})
        return family

    def wait_for(self, condition: Callable[[], Any], seconds: float = 180) -> Any:
        """What `condition` gives, once it gives something while the driver runs."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, f"it has ended before:\n{self.output}"
            assert time.monotonic() < end, f"nothing after {seconds} s:\n{self.output}"
            time.sleep(0.02)
        return found

    def code(self, seconds: float = 240) -> int:
        """The exit code, after the end."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still running after {seconds} s:\n{self.output}"
            self.look()
            time.sleep(0.2)
        return self.process.returncode

    def interrupt(self) -> None:
        """Ctrl-C: a terminal sends it to every process in its foreground."""
        self.look()
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to the driver alone, as a lack of memory does."""
        self.look()
        self.process.kill()
        self.process.wait()

    def left(self, seconds: float, *, rays: bool = True) -> list[str]:
        """The processes that are there after `seconds`; Ray's own ones only if `rays`."""
        kept = [p for p in self.seen.values() if rays or _is_training(p)]
        _, alive = psutil.wait_procs(kept, timeout=seconds)
        return [f"{process.pid} {process.name()}" for process in alive if _is_alive(process)]

    def clean_up(self) -> None:
        """End what a failed test has left: the processes that were seen, by their ids."""
        self.look()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.seen.values():
            if _is_alive(process):
                process.kill()


def _is_training(process: psutil.Process) -> bool:
    """Whether it is a trial's actor, its server, or a training."""
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "Trainable" in command or "trainers.worker" in command


def _is_alive(process: psutil.Process) -> bool:
    # psutil compares the time of the start too: an id that was given anew is another process.
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@dataclass(frozen=True)
class Experiment:
    """The directory of an experiment, read."""

    path: Path

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        files = self.path.glob("journal/*.json")
        return {path.stem: json.loads(path.read_text()) for path in files}

    @property
    def count(self) -> int:
        return len(list(self.path.glob("journal/*.json")))

    def what_counts(self) -> dict[str, Any]:
        """All that two runs of one search must have in common, to the last digit."""
        best = read_yaml(self.path / "best.yaml")
        found_by = best.pop("found_by")
        del found_by["experiment"], found_by["configuration_hash"]
        return {
            "records": {
                key: {name: value for name, value in record.items() if name not in _OF_ONE_RUN}
                for key, record in self.records.items()
            },
            "policies": {
                p.name: json.loads(p.read_text()) for p in self.path.glob("policy/round-*.json")
            },
            "best": best,
            "found_by": found_by,
        }


@dataclass(frozen=True)
class Reference:
    """The undisturbed search."""

    experiment: Experiment
    code: int
    output: str
    left: list[str]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's home without Ray's token in it."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def drivers() -> Iterator[list[Driver]]:
    """All that were started; whatever is left of them at the end is ended."""
    started: list[Driver] = []
    yield started
    for driver in started:
        driver.clean_up()


@pytest.fixture(scope="session")
def start(
    drivers: list[Driver], home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Driver]:
    """Starts a `paploss` command, or another module with its arguments."""
    logs = tmp_path_factory.mktemp("logs")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
    env |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": str(ROOT)}

    def run(
        *arguments: Any,
        cwd: Path = ROOT,
        module: str = "search.cli",
        variables: Mapping[str, str] | None = None,
    ) -> Driver:
        log = logs / f"{len(drivers):02d}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                cwd=cwd, env=env | dict(variables or {}), stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        drivers.append(Driver(process, log))
        return drivers[-1]

    return run


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """A head and two machines, for searches that take a cluster as it is; started when needed."""
    with LocalCluster(workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset.yaml of 16 + 8 + 8 images."""
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(folder, train=16, val=8, test=8, size=64)
    return folder / "dataset.yaml"


@pytest.fixture(scope="session")
def settings(data: Path) -> dict[str, Any]:
    """A search of ten trials, with the quick start's detector at half its width."""
    detector = copy.deepcopy(read_yaml(find("detectors", "retinanet_r18_small")))
    backbone, neck, head = (detector["model"][name] for name in ("backbone", "neck", "bbox_head"))
    backbone["base_channels"] = 8
    neck["in_channels"] = [8 * 2**stage for stage in backbone["out_indices"]]
    neck["out_channels"] = head["in_channels"] = head["feat_channels"] = 16
    return {
        "name": "one",
        "detector": {**detector, "name": "tiny"},
        "data": str(data),
        "criterion": {"type": "parameterized_ap", "segments": 5},
        "algorithm": {"rounds": 2, "samples": 3, "sigma": 0.2},
        "preflight": {"enabled": False},  # tests/service/test_two_heads.py has it on
        "final": {"candidates": 2, "repeats": 1},
        "schedule": {
            "epochs": 1, "batch_size": 8, "image_size": [64, 64], "optimizer": "adamw",
            "learning_rate": 0.002, "warmup_iterations": 0,
        },
    }  # fmt: skip


@pytest.fixture(scope="session")
def search_yaml(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "search.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def search(
    start: Callable[..., Driver], search_yaml: Path, tmp_path: Path
) -> Callable[..., tuple[Driver, Experiment]]:
    """Starts the search in a storage of this test's, with some settings changed."""

    def run(**changes: Any) -> tuple[Driver, Experiment]:
        changes = {"storage": tmp_path, **changes}
        overrides = [f"--set={key.replace('__', '.')}={value}" for key, value in changes.items()]
        return start("search", search_yaml, *overrides), Experiment(
            Path(changes["storage"]) / "one"
        )

    return run


@pytest.fixture(scope="session")
def reference(
    start: Callable[..., Driver], search_yaml: Path, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    """The search from its beginning to its end, which nobody disturbs. Read it only."""
    storage = tmp_path_factory.mktemp("reference")
    driver = start("search", search_yaml, f"--set=storage={storage}")
    code = driver.code()
    return Reference(Experiment(storage / "one"), code, driver.output, driver.left(30))


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts back what a command that runs in this process does to signals."""
    kept = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)
