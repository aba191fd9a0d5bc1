"""Workers that train one trial: real processes that gloo joins, and what ends them all.

The trials are those of team_trials.py, which meet and do no more.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from trainers.distributed import OF_TORCHRUN, PeersLost, environments
from trainers.team import run_together
from trainers.trial import TrialResult, TrialSpec
from trainers.worker import TrialProcess, WorkerLost

pytestmark = pytest.mark.slow
MakeSpec = Callable[..., TrialSpec]
OK = TrialResult(status="ok", reward=0.5)


class Member(TrialProcess):
    host = "localhost"

    def __init__(self) -> None:
        super().__init__("tests.trainers.team_trials")


@pytest.fixture(scope="module")
def members() -> Iterator[list[Member]]:
    """Three that go through all tests: each leaves them fit for the next.

    They are started by a job of a cluster that sets some of torchrun's variables for whatever it
    starts, as Slurm's may: that must not make a trial one of several.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in OF_TORCHRUN:
            patch.setenv(name, "7")
        found = [Member() for _ in range(3)]
    yield found
    for member in found:
        member.close()


def left(folder: Path) -> list[int]:
    """The trial's processes that are still there."""
    pids = [int(path.read_text()) for path in folder.glob("pid-*.txt")]
    assert pids
    return [pid for pid in pids if psutil.pid_exists(pid)]


def test_all_train_and_the_first_tells(
    members: list[Member], make_spec: MakeSpec, tmp_path: Path
) -> None:
    assert members[0].run(make_spec(), tmp_path / "alone", 60).iterations == 1
    result = run_together(members, make_spec(), tmp_path / "fine", 60)
    assert result == TrialResult(
        status="ok",
        reward=0.5,
        # 1 + 2 + 3, and five times three times that: they have really met.
        iterations=6 * 3**5,
        skipped_images={f"{rank}.jpg": "unreadable" for rank in range(3)},
    )
    assert left(tmp_path / "fine") == []
    for rank, log in enumerate(("train.log", "train-1.log", "train-2.log")):
        assert f"worker {rank} of 3" in (tmp_path / "fine" / log).read_text()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("crash", "the trial's process was killed (signal 9)"),
        ("exit", "the trial's process ended with exit code 3"),
        ("raise", "MemoryError: no room for worker"),
    ],
)
def test_the_first_cause_is_told_and_nobody_trains_on(
    members: list[Member], make_spec: MakeSpec, tmp_path: Path, fault: str, cause: str, rank: int
) -> None:
    """Though the others fail too, with what gloo says of a peer that is gone."""
    folder = tmp_path / f"{fault}-{rank}"
    result = run_together(members, make_spec(), folder, 60)
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.startswith(f"worker {rank} of 3 (localhost): {cause}")
    assert left(folder) == []
    # And all of them are there for the next trial.
    assert run_together(members, make_spec(), tmp_path / "next", 60).status == "ok"


def test_they_diverge_together(members: list[Member], make_spec: MakeSpec, tmp_path: Path) -> None:
    result = run_together(members, make_spec(), tmp_path / "diverge", 60)
    assert (result.status, result.reward, result.error) == ("diverged", 0, "NaN")
    assert sorted(result.skipped_images) == ["0", "1", "2"]


def test_a_server_that_is_gone_is_no_evidence(
    members: list[Member], make_spec: MakeSpec, tmp_path: Path
) -> None:
    """From here on there are two."""
    psutil.Process(members[2].pid).kill()
    with pytest.raises(WorkerLost, match=r"worker 2 of 3 .*: .*the training server has ended"):
        run_together(members, make_spec(), tmp_path / "fine", 60)
    members.pop().close()
    assert run_together(members, make_spec(), tmp_path / "next", 60).status == "ok"


def test_one_that_hangs_is_a_stall_of_all(
    members: list[Member], make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The last test of theirs: servers that have stalled are not used again."""
    with pytest.raises(WorkerLost, match=r"worker \d of 2 .* made no progress for 2 s"):
        run_together(members, make_spec(), tmp_path / "hang-1", 2)
    assert left(tmp_path / "hang-1") == []


class Told:
    """A member that says what it is told to, and what it was asked."""

    def __init__(self, *news: TrialResult | Exception | None, host: str = "127.0.0.1") -> None:
        self.news, self.host = list(news), host
        self.environment: dict[str, str] = {}
        self.stopped = 0

    def start(
        self, spec: TrialSpec, folder: Path, stall_seconds: float, environment: dict[str, str]
    ) -> None:
        self.environment = environment

    def poll(self, seconds: float) -> TrialResult | None:
        news = self.news.pop(0) if len(self.news) > 1 else self.news[0]
        if isinstance(news, Exception):
            raise news
        return news

    def stop(self) -> None:
        self.stopped += 1

    def close(self) -> None:
        raise AssertionError("it is kept for the next trial")


def run(*members: Told, spec: TrialSpec) -> TrialResult:
    return run_together(members, spec, Path(), 60)


def test_workers_that_lose_each_other_are_the_clusters_affair(make_spec: MakeSpec) -> None:
    members = [Told(PeersLost("gone")), Told(None, PeersLost("closed"))]
    with pytest.raises(
        WorkerLost, match=r"worker 0 of 2 \(127.0.0.1\): lost its connection .*: gone"
    ):
        run(*members, spec=make_spec())
    assert [member.stopped for member in members] == [1, 1]


def test_the_one_that_was_lost_may_be_noticed_later(make_spec: MakeSpec) -> None:
    """A machine that is gone is known to be gone after the others' connections have broken."""
    lost = Told(None, None, None, WorkerLost("its machine is gone"))
    with pytest.raises(WorkerLost, match=r"^worker 1 of 2 \(127.0.0.1\): its machine is gone"):
        run(Told(PeersLost("closed")), lost, spec=make_spec())


@pytest.mark.parametrize("status", ["diverged", "stopped"])
def test_one_may_end_where_the_others_only_lose_it(make_spec: MakeSpec, status: Any) -> None:
    ended = TrialResult(status=status, reward=0, error="not worth it")
    assert run(Told(PeersLost("closed")), Told(None, ended), spec=make_spec()) == ended


def test_others_may_be_ready_before_the_first(make_spec: MakeSpec) -> None:
    others = TrialResult(status="ok")
    assert run(Told(None, None, OK), Told(others), Told(None, others), spec=make_spec()) == OK


def test_on_one_machine_they_meet_where_nobody_else_can(make_spec: MakeSpec) -> None:
    near = [Told(OK, host="127.0.0.2"), Told(OK, host="127.0.0.2")]
    run(*near, spec=make_spec())
    assert [m.environment["MASTER_ADDR"] for m in near] == ["127.0.0.1"] * 2
    apart = [Told(OK, host="127.0.0.2"), Told(OK, host="127.0.0.3")]
    run(*apart, spec=make_spec())
    assert [m.environment["MASTER_ADDR"] for m in apart] == ["127.0.0.2"] * 2
    for members in (near, apart):
        assert len({m.environment["MASTER_PORT"] for m in members}) == 1


def test_ranks_on_their_machines() -> None:
    point = {"MASTER_ADDR": "a", "MASTER_PORT": "1", "WORLD_SIZE": "4"}
    found = environments(point, ["a", "b", "a", "b"])
    assert [(each["RANK"], each["LOCAL_RANK"]) for each in found] == [
        ("0", "0"), ("1", "0"), ("2", "1"), ("3", "1")
    ]  # fmt: skip
    assert all(each.items() >= point.items() for each in found)


def test_alone_there_is_nobody_to_meet(make_spec: MakeSpec) -> None:
    member = Told(None, TrialResult(status="failed", error="out of memory"))
    assert run(member, spec=make_spec()).error == "out of memory"
    assert member.environment == {}
