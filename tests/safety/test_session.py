"""A real search, by the command that a user types: what it listens on, what it writes down, and
what it reads of what somebody else has put into its folder."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from paploss.configs import find
from paploss.files import read_yaml
from tests.service.conftest import ROOT, Driver
from trainers.datasets.shapes import draw_shapes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
PATIENCE = 600.0
"""Seconds for what takes twenty where nothing else runs."""

SECRETS = {
    name: f"secret-{name.lower()}-5f3b"
    for name in ("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "MY_TOKEN")
}
TOKEN = "5ecre7" * 8


class MakesAFolder:
    """Unpickled, it leaves a trace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@dataclass
class Session:
    """A search that was interrupted, fed with pickles, and resumed to its end."""

    experiment: Path
    home: Path
    trace: Path
    output: str = ""
    listening: set[tuple[str, str]] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)


def listening(driver: Driver) -> set[tuple[str, str]]:
    """(address, process) of everything that listens in the driver's family, now."""
    found = set()
    for process in [psutil.Process(driver.process.pid), *driver.look()]:
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, process.name()))
        except psutil.Error:  # it has just ended
            continue
    return found


def small_search(folder: Path) -> Path:
    """Six trials of two iterations."""
    draw_shapes(folder / "shapes", train=16, val=8, test=8, size=64)
    values = {
        "name": "one",
        "storage": str(folder),
        "detector": read_yaml(find("detectors", "retinanet_r18_small")),
        "data": str(folder / "shapes" / "dataset.yaml"),
        "criterion": {"type": "parameterized_ap", "segments": 2},
        "algorithm": {"rounds": 1, "samples": 2},
        "preflight": {"enabled": False},
        "final": {"candidates": 2, "repeats": 1},
        "schedule": {"epochs": 1, "batch_size": 8, "image_size": [64, 64], "warmup_iterations": 0},
    }
    values["detector"]["model"]["backbone"]["base_channels"] = 8
    values["detector"]["model"]["neck"]["in_channels"] = [16, 32]
    (folder / "search.yaml").write_text(yaml.safe_dump(values))
    return folder / "search.yaml"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("session")
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir(mode=0o700)
    (home / ".ray" / "auth_token").write_text(TOKEN)
    search = small_search(folder)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
    env |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **SECRETS}
    found = Session(folder / "one", home, folder / "trace")
    drivers = []

    def start(*arguments: Any) -> Driver:
        log = folder / f"{len(drivers)}.log"
        command = [sys.executable, "-m", "search.cli", *map(str, arguments)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        drivers.append(Driver(process, log))
        return drivers[-1]

    looked: list[float] = [0.0]

    def finished() -> int:
        if time.monotonic() - looked[-1] > 0.5:  # looking takes time of its own
            found.listening |= listening(drivers[-1])
            looked.append(time.monotonic())
        return len([*found.experiment.glob("journal/*.json")])

    try:
        driver = start("search", search)
        driver.wait_for(lambda: finished() >= 1, PATIENCE)
        found.asked = {
            process.environ().get("RAY_AUTH_MODE", "")
            for process in driver.look()
            if process.name() == "gcs_server"
        }
        driver.interrupt()
        assert driver.code(PATIENCE) == 130, driver.output
        content = pickle.dumps(MakesAFolder(found.trace))
        names = {path.name for path in found.experiment.iterdir() if path.is_file()}
        assert any(name.startswith("search_gen_state") for name in names), names
        newer = (
            "search_gen_state-9999.json",
            "searcher-state-9999.pkl",
            "tuner.pkl",
            "trainable.pkl",
        )
        for name in (*(n for n in names if "state" in n and n != "status.json"), *newer):
            (found.experiment / name).write_bytes(content)
        driver = start("resume", found.experiment)
        driver.wait_for(lambda: finished() >= 4, PATIENCE)
        assert driver.code(PATIENCE) == 0, driver.output
        found.output = "\n".join(driver.output for driver in drivers)
        yield found
    finally:
        for driver in drivers:
            driver.clean_up()


def test_everything_listens_on_loopback(session: Session) -> None:
    addresses = {address.removeprefix("::ffff:") for address, _ in session.listening}
    assert addresses, "nothing listens: the test sees nothing"
    assert addresses <= {"127.0.0.1", "::1"}, session.listening


def test_rays_cluster_asks_for_a_token(session: Session) -> None:
    assert session.asked == {"token"}


def test_no_pickle_of_an_experiment_is_read(session: Session) -> None:
    assert not session.trace.exists()
    assert (session.experiment / "best.yaml").exists()
    assert "Traceback" not in session.output


def test_no_secret_is_written_down(session: Session) -> None:
    files = [path for path in session.experiment.rglob("*") if path.is_file()]
    assert len(files) > 20
    for secret in (*SECRETS.values(), TOKEN):
        assert [p for p in files if secret.encode() in p.read_bytes()] == []
        assert secret not in session.output
