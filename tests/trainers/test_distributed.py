"""Several processes that train together: what starts them wrongly, and two real ones."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from paploss.errors import BadConfig
from trainers.config import TaskConfig
from trainers.distributed import (
    ALONE,
    Worker,
    choose_device,
    interface_to,
    is_of_peers,
    joined,
    meeting_point,
    this_worker,
    told_by_all,
)
from trainers.export import TrainingConfig, training_config, write_training_yaml
from trainers.trial import TrialSpec, run_trial

ROOT = Path(__file__).parents[2]
WHOLE = {
    "RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "1"
}  # fmt: skip


def test_torchrun_says_who_a_worker_is() -> None:
    worker = this_worker(WHOLE)
    assert worker == Worker(rank=3, size=8, local_rank=1)
    assert not worker.first
    assert this_worker(WHOLE | {"RANK": "0", "LOCAL_RANK": "0"}).first


def test_without_torchrun_a_process_is_alone() -> None:
    assert this_worker({"PATH": "/bin", "MASTER_ADDR": "host"}) == ALONE == Worker(0, 1, 0)
    assert ALONE.first


@pytest.mark.parametrize("missing", sorted(WHOLE))
def test_a_part_of_an_environment(missing: str) -> None:
    """Some clusters set a few of these variables for every job."""
    given = {name: value for name, value in WHOLE.items() if name != missing}
    with pytest.raises(BadConfig, match=rf"not {missing}: .*\. Start with torchrun, .* or unset"):
        this_worker(given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"RANK": "8"}, "RANK=8, WORLD_SIZE=8, LOCAL_RANK=1; expected LOCAL_RANK <= RANK < WORLD"),
        ({"RANK": "-1"}, "RANK=-1"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK=-1"),
        ({"LOCAL_RANK": "4"}, "LOCAL_RANK=4; expected LOCAL_RANK <= RANK"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two, LOCAL_RANK=1; expected whole numbers"),
    ],
)
def test_an_environment_that_contradicts_itself(wrong: dict[str, str], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        this_worker(WHOLE | wrong)


@pytest.fixture
def see_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def see(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return see


@pytest.mark.parametrize(
    ("gpus", "asked", "chosen"),
    [
        (0, None, "cpu"),
        (0, "cpu", "cpu"),
        (2, None, "cuda"),
        (2, "cuda", "cuda"),
        (2, "cpu", "cpu"),
    ],
)
def test_a_gpu_is_taken_where_there_is_one(
    see_gpus: Callable[[int], None], gpus: int, asked: str | None, chosen: str
) -> None:
    see_gpus(gpus)
    assert choose_device(asked, Worker(1, 2, 1)) == chosen


@pytest.mark.parametrize(
    ("gpus", "asked", "message"),
    [
        (0, "cuda", "torch sees no GPU here. Take --device cpu"),
        (1, "cuda", "worker 1 of this machine has no GPU: torch sees 1"),
        (1, None, "worker 1 of this machine has no GPU: torch sees 1"),
        (1, "gpu", "--device gpu: expected cpu or cuda"),
        (2, "cuda:1", "--device cuda:1: expected cpu or cuda. CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_device_that_is_not_there(
    see_gpus: Callable[[int], None], gpus: int, asked: str | None, message: str
) -> None:
    see_gpus(gpus)
    with pytest.raises(BadConfig, match=message):
        choose_device(asked, Worker(1, 2, 1))


def test_alone_nobody_is_joined() -> None:
    with joined(ALONE, "cpu"):
        assert not torch.distributed.is_initialized()
        assert told_by_all("me") == ["me"]


@pytest.mark.parametrize(
    ("gpus", "local_rank", "taken"),
    [(8, 3, 3), (1, 3, 0), (2, 3, 1)],
    ids=["torchrun", "an actor that sees its own GPU alone", "one that sees its own two"],
)
def test_a_worker_takes_a_gpu_of_those_that_it_sees(
    monkeypatch: pytest.MonkeyPatch, gpus: int, local_rank: int, taken: int
) -> None:
    """No GPU here: what torch is asked for is all that can be seen."""
    chosen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, timeout: chosen.append(backend)
    )
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: chosen.append("left"))
    with joined(Worker(3, 8, local_rank), "cuda"):
        assert chosen == [taken, "nccl"]
    assert chosen == [taken, "nccl", "left"]


def test_only_the_first_worker_has_the_plain_names() -> None:
    names = ("train.log", "skipped.jsonl", "README")
    assert tuple(map(ALONE.own, names)) == names
    assert tuple(map(Worker(2, 4, 0).own, names)) == (
        "train-2.log", "skipped-2.jsonl", "README-2"
    )  # fmt: skip


def test_a_meeting_point_is_seen_from_this_machine_alone() -> None:
    with meeting_point("127.0.0.1", 2) as point:
        assert point["WORLD_SIZE"] == "2"
        port = int(point["MASTER_PORT"])
        listening = [c for c in psutil.Process().net_connections() if c.laddr.port == port]
        assert {connection.laddr.ip for connection in listening} == {"127.0.0.1"}
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
        with pytest.raises(OSError, match="in use"), meeting_port_again(port):
            pass


@contextlib.contextmanager
def meeting_port_again(port: int) -> Any:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


def test_the_interface_that_leads_to_a_host() -> None:
    name = interface_to("127.0.0.1")
    assert name is None or name.startswith("lo")
    assert interface_to("no-such-host.invalid") is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.distributed.DistNetworkError("timed out"), True),
        (torch.distributed.DistBackendError("NCCL error"), True),
        (RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:1] closed by peer"), True),
        (RuntimeError("CUDA out of memory"), False),
        (ValueError("no file /data/gloo/x"), False),
    ],
)
def test_what_says_only_that_another_worker_is_gone(error: Exception, expected: bool) -> None:
    assert is_of_peers(error) is expected


def torchrun(*command: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    """Two workers on this machine."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run(
        [*launcher, *map(str, command)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def written(task: TaskConfig, path: Path, **changes: Any) -> TrainingConfig:
    """A training YAML of the task's start."""
    config = training_config(task, task.start, 17, {"val_mean": 0.25, "test_mean": 0.125})
    config = config.model_copy(update=changes)
    write_training_yaml(config, path)
    return config


@pytest.mark.slow
def test_two_workers_train_one_detector(
    task: TaskConfig, make_spec: Callable[..., TrialSpec], tmp_path: Path
) -> None:
    written(task, tmp_path / "best.yaml")
    options = ["--out", tmp_path / "out", "--device", "cpu"]
    options += ["--set", "schedule.epochs=2", "--set", "evaluate_every=1"]
    done = torchrun("-m", "search.cli", "train", "best.yaml", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr

    # Every line once, though two processes ran; with the score of the first epoch.
    said = done.stdout.splitlines()
    starts = [line.split("  ")[0] for line in said]
    for line in ("batches of 4 images on 2 devices, learning rate 0.002", "epoch 2/2"):
        assert starts.count(line) == 1
    assert starts.count("epoch 1/2") == 2
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert said[said.index("AP                            val    test") + 1 :][:2] == [
        "search's short training    0.2500  0.1250",
        f"this training              {results['val']['AP']:.4f}  {results['test']['AP']:.4f}",
    ]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.pth")) == [
        "epoch_1.pth", "epoch_2.pth"
    ]  # fmt: skip
    # 16 images in batches of 2 + 2: 4 iterations an epoch.
    checkpoint = torch.load(tmp_path / "out" / "epoch_2.pth", weights_only=False)
    assert checkpoint["meta"]["iter"] == 8
    # The head that both trained is that of a trial of this theta.
    trial = run_trial(make_spec(theta=task.start), tmp_path / "trial")
    assert results["fingerprint"] == trial.fingerprint


@pytest.mark.slow
def test_two_workers_stay_in_step_and_resume(task: TaskConfig, tmp_path: Path) -> None:
    """In bfloat16, with a criterion that adapts to the epochs and a backbone that counts images."""
    steady = {"augmentation": "none", "warmup_iterations": 0, "amp": True}
    schedule = task.schedule.model_copy(update=steady)
    written(task, tmp_path / "best.yaml", criterion={"type": "alrp"}, schedule=schedule)
    out = tmp_path / "out"
    script = ROOT / "tests" / "trainers" / "two_workers.py"
    done = torchrun(script, "best.yaml", out, *free_ports(4), folder=tmp_path)
    assert done.returncode == 0, done.stderr

    one, other = (torch.load(out / f"state-{rank}.pth") for rank in (0, 1))
    assert one["iterations"] == other["iterations"] == 8
    assert one["last"] == other["last"]
    assert {*one["images"], *other["images"]} == set(range(16))
    assert len(one["images"]) == len(other["images"]) == 8
    assert one["draw"] != other["draw"], "they flip their images apart"
    assert same(one["state"], other["state"])
    weight = one["state"]["bbox_head.criterion.localization_weight"]
    assert weight not in (1, 50), "it has adapted"

    whole, resumed = (
        torch.load(out / name / "epoch_2.pth", weights_only=False)["state_dict"]
        for name in ("whole", "resumed")
    )
    assert same(whole, one["state"])
    assert same(resumed, whole)
    results = [
        json.loads((out / name / "results.json").read_text()) for name in ("whole", "resumed")
    ]
    assert results[0] == results[1]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)
