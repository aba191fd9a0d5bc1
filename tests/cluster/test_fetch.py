"""Results as text through a log: what arrives is what was packed, or an error."""

import io
import tarfile
from pathlib import Path

import pytest

from cluster import fetch, pack
from cluster.errors import NoCluster
from paploss.errors import BadExperiment, UserError
from paploss.files import read_json

MIB = 2**20


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    folder = tmp_path / "there" / "one"
    contents = {
        "config.yaml": b"name: one\n", "best.yaml": b"seed: 1\n", "report.html": bytes(range(256)),
        "journal/search-000-00-0.json": b"{}", "policy/round-000.json": b"[1]",
        "search-000-00-0-abc/train.log": b"long", "searcher-state.pkl": b"pickle",
        "journal/.half.tmp": b"{",
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def log_of(experiment: Path) -> str:
    """As a job's log has it, with what Ray and Python put around it."""
    lines = [
        "INFO job_manager.py -- Runtime env is setting up.",
        *pack.lines_of(packed(experiment)),
    ]
    return "\n".join([*lines, "bye", ""])


def packed(experiment: Path) -> bytes:
    return pack.pack(experiment, MIB)


def tar_of(member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def test_results_arrive_byte_for_byte_and_nothing_else(experiment: Path, tmp_path: Path) -> None:
    files = fetch.extract(fetch.unpacked(log_of(experiment)), tmp_path)
    assert {str(file) for file in files} == {
        "config.yaml", "best.yaml", "report.html", "journal/search-000-00-0.json",
        "policy/round-000.json",
    }  # fmt: skip
    for file in files:
        assert (tmp_path / file).read_bytes() == (experiment / file).read_bytes()


def test_the_job_says_what_is_wrong(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack.main(str(tmp_path / "none"), str(MIB)) == 2
    with pytest.raises(BadExperiment, match=r"there is no experiment at .*none"):
        fetch.unpacked(capsys.readouterr().out)
    assert pack.main(str(experiment), "270") == 2  # bytes; report.html alone has 256
    with pytest.raises(BadExperiment, match="copy its folder"):
        fetch.unpacked(capsys.readouterr().out)


def test_packing_prints_what_fetching_reads(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack.main(str(experiment), str(MIB)) == 0
    assert fetch.unpacked(capsys.readouterr().out)


def test_damage_on_the_way_is_noticed(experiment: Path) -> None:
    lines = log_of(experiment).splitlines()
    text = lines[2]
    swapped = text[:50] + ("A" if text[50] != "A" else "B") + text[51:]
    for wrong in (
        [*lines[:2], swapped, *lines[3:]],
        [*lines[:2], text[:-8], *lines[3:]],
        [*lines[:2], "a line of something else!", *lines[2:]],
        lines[:3],
        [],
    ):
        with pytest.raises(NoCluster):
            fetch.unpacked("\n".join(wrong))


@pytest.mark.parametrize(
    "name",
    ["../config.yaml", "/config.yaml", "journal/../../config.yaml", "journal/a/b.json", "other.py",
     "..", "journal/../.json", "config.yaml/..", ".bashrc", "policy/x.pkl"],
)  # fmt: skip
def test_a_cluster_writes_nowhere_else(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    with pytest.raises(NoCluster, match="contain"):
        fetch.extract(tar_of(tarfile.TarInfo(name), b"x"), inside)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
def test_only_files_are_taken(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("config.yaml")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(NoCluster, match="contain"):
        fetch.extract(tar_of(member), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MOST", 1000)
    with pytest.raises(NoCluster, match="more than"):
        fetch.extract(tar_of(tarfile.TarInfo("config.yaml"), bytes(2000)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_tar_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(NoCluster, match="cannot be unpacked"):
        fetch.extract(b"not a tar", tmp_path)


class Server:
    """A jobs server whose jobs print the log of an experiment that is here."""

    def __init__(self, experiment: Path) -> None:
        self.experiment = experiment
        self.submitted: list[dict[str, object]] = []

    def submit(self, **what: object) -> str:
        files = Path(what["runtime_env"]["working_dir"]).rglob("*.py")  # gone afterwards
        self.submitted.append({**what, "files": sorted(file.name for file in files)})
        return "id"

    def job(self, job: str) -> object:
        from types import SimpleNamespace

        from ray.job_submission import JobStatus

        return SimpleNamespace(status=JobStatus.SUCCEEDED, message="", metadata={})

    def logs(self, job: str) -> str:
        return log_of(self.experiment)


def test_a_copy_is_renewed_and_nothing_else_is_overwritten(
    experiment: Path, tmp_path: Path
) -> None:
    server, out = Server(experiment), tmp_path / "here"
    there = str(experiment)
    first = fetch.fetch(server, there, out)
    assert (first.files, first.finished) == (5, True)
    assert server.submitted[0]["files"] == ["__init__.py", "pack.py"]
    (experiment / "journal" / "search-000-01-0.json").write_text("{}")
    assert fetch.fetch(server, there, out).files == 6
    assert read_json(out / "fetched.json")["experiment"] == there
    assert not list(out.glob(".fetch-*"))
    for taken in (experiment, experiment.parent):  # an experiment that lives here; any folder
        before = sorted(taken.rglob("*"))
        with pytest.raises(BadExperiment, match="choose another folder"):
            fetch.fetch(server, there, taken)
        assert sorted(taken.rglob("*")) == before
    with pytest.raises(BadExperiment, match="choose another folder"):
        fetch.fetch(server, "/shared/two", out)


def test_a_search_that_has_not_ended_has_no_best_yet(experiment: Path, tmp_path: Path) -> None:
    (experiment / "best.yaml").unlink()
    assert not fetch.fetch(Server(experiment), str(experiment), tmp_path / "here").finished


def test_a_job_that_is_no_search_has_no_results(experiment: Path) -> None:
    with pytest.raises(UserError, match="not submitted by paploss"):
        fetch.experiment_of(Server(experiment), "raysubmit_1")
    assert fetch.experiment_of(Server(experiment), "/shared/one") == "/shared/one"
