"""The copy of an experiment: what is in it, when storage fails, and what comes back from it."""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pyarrow import fs
from typer.testing import CliRunner

from paploss.errors import BadExperiment
from search import cli
from search.run.mirror import Mirror
from search.run.remote import is_mirrored, open_remote
from search.run.restore import restore_from_mirror


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """What a running search leaves: four small files, and two that are no business of a mirror."""
    folder = tmp_path / "experiments" / "one"
    for name in ("journal", "policy", "search-000-00-0-abc"):
        (folder / name).mkdir(parents=True)
    (folder / "config.yaml").write_text("name: one\n")
    (folder / "space.json").write_text("{}")
    finish(folder, "start-000-00-0")
    (folder / "policy" / "round-000.json").write_text("{}")
    (folder / ".lock").write_text("")
    (folder / "search-000-00-0-abc" / "train.log").write_text("a long story")
    return folder


def finish(experiment: Path, key: str, status: str = "ok") -> None:
    """A finished trial's record, put into place as the journal does it."""
    path = experiment / "journal" / f"{key}.json"
    path.with_suffix(".tmp").write_text(json.dumps({"status": status}))
    path.with_suffix(".tmp").replace(path)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


WHOLE = {"config.yaml", "space.json", "journal/start-000-00-0.json", "policy/round-000.json"}


def test_every_finished_trial_is_copied_and_the_rest_is_not(
    experiment: Path, tmp_path: Path
) -> None:
    there, said = tmp_path / "there", []
    with Mirror(experiment, f"file://{there}", said.append) as mirror:
        finish(experiment, "search-000-00-0")
        mirror.changed()
        finish(experiment, "search-000-01-0")
        (experiment / "best.yaml").write_text("late\n")
    more = {"journal/search-000-00-0.json", "journal/search-000-01-0.json", "best.yaml"}
    assert names(there) == WHOLE | more
    assert (there / "best.yaml").read_text() == "late\n"
    assert said == []


def test_only_what_has_changed_is_copied_again(experiment: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    with Mirror(experiment, f"file://{there}", print) as mirror:
        mirror.close()
    with Mirror(experiment, f"file://{there}", print, connect=counting(copied := [])):
        pass
    assert {name.removesuffix(".tmp") for name in copied} == {
        ".config.yaml", ".space.json", ".start-000-00-0.json", ".round-000.json",
    }  # fmt: skip
    copied.clear()
    mirror = Mirror(experiment, f"file://{there}", print, connect=counting(copied))
    mirror._copy()
    copied.clear()
    finish(experiment, "search-000-00-0")
    mirror._copy()
    assert len(copied) == 1


def counting(copied: list[str]) -> Callable[[str], tuple[Any, str]]:
    """Connects to a local folder, and notes the name of every file that is written."""

    class Counting(fs.LocalFileSystem):
        def open_output_stream(self, path: str, *args: Any, **options: Any) -> Any:
            copied.append(path.rpartition("/")[2])
            return super().open_output_stream(path, *args, **options)

    return lambda uri: (Counting(), open_remote(uri)[1])


def test_without_an_address_nothing_happens(experiment: Path) -> None:
    threads = threading.active_count()
    with Mirror(experiment, None, pytest.fail) as mirror:
        mirror.changed()
        assert threading.active_count() == threads


class Failing(fs.FSSpecHandler):  # type: ignore[misc]
    """Storage in memory that refuses the first `times` writes."""

    def __init__(self, times: int) -> None:
        super().__init__(fsspec.filesystem("memory"))
        self.times = times
        self.tries = 0

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        self.tries += 1
        if self.tries <= self.times:
            raise OSError("AccessDenied: no entry\nand a page more")
        return super().open_output_stream(path, metadata)


class Killed(BaseException):
    """As if the process was gone."""


class Dying(Failing):
    """Storage whose user is killed after so many writes."""

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        if self.tries == self.times:
            raise Killed
        self.tries += 1
        return super(Failing, self).open_output_stream(path, metadata)


def in_memory(handler: Failing, root: str) -> Callable[[str], tuple[Any, str]]:
    return lambda uri: (fs.PyFileSystem(handler), root)


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A folder of this test's in the memory that all share."""
    return f"/{tmp_path.name}"


def test_a_failure_that_passes_is_not_worth_a_word(experiment: Path, root: str) -> None:
    said: list[str] = []
    storage = Failing(1)
    connect = in_memory(storage, root)
    with Mirror(experiment, "s3://b/one", said.append, connect, retry_seconds=0.01):
        pass
    assert said == []
    assert storage.tries == 1 + len(WHOLE)


def test_storage_that_keeps_failing_is_said_once_and_the_search_goes_on(
    experiment: Path, root: str
) -> None:
    said: list[str] = []
    told = threading.Event()
    storage = Failing(9**9)

    def say(line: str) -> None:
        said.append(line)
        told.set()

    connect = in_memory(storage, root)
    with Mirror(experiment, "s3://b/one", say, connect, retry_seconds=0.01) as mirror:
        assert told.wait(30)
        tries = storage.tries
        while storage.tries < tries + 3:  # it goes on trying, and says nothing more
            mirror.changed()
        assert len(said) == 1
    assert len(said) == 2
    assert said[0].startswith("the mirror s3://b/one cannot be written (AccessDenied: no entry)")
    assert "lacks the newest files (AccessDenied: no entry)" in said[1]


def test_storage_that_comes_back_is_said_and_gets_everything(experiment: Path, root: str) -> None:
    said: list[str] = []
    again = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        if "again." in line and "written again" in line:
            again.set()

    storage = Failing(5)
    with Mirror(experiment, "gs://b/one", say, in_memory(storage, root), retry_seconds=0.01):
        assert again.wait(30)
    assert [line.partition(" (")[0] for line in said] == [
        "the mirror gs://b/one cannot be written", "the mirror gs://b/one is written again.",
    ]  # fmt: skip
    assert storage.tries == 5 + len(WHOLE)


def test_storage_that_hangs_does_not_hold_the_search(experiment: Path) -> None:
    for_ever, said = threading.Event(), []

    def connect(uri: str) -> tuple[Any, str]:
        for_ever.wait()
        raise OSError

    mirror = Mirror(experiment, "gs://b/one", said.append, connect).__enter__()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "mirror"]
    assert thread.daemon  # the process can end without it
    mirror.changed()
    mirror.close(seconds=0.05)
    assert "lacks the newest files (it does not answer)" in said[0]
    for_ever.set()
    thread.join(30)


def test_what_another_experiment_has_there_is_not_touched(experiment: Path, tmp_path: Path) -> None:
    there, said = tmp_path / "there", []
    there.mkdir()
    (there / "config.yaml").write_text("name: another\n")
    with Mirror(experiment, f"file://{there}", said.append):
        pass
    assert names(there) == {"config.yaml"}
    assert len(said) == 1 and "another experiment" in said[0]


def test_finished_trials_that_are_missing_here_are_not_mixed(
    experiment: Path, tmp_path: Path
) -> None:
    there, said = tmp_path / "there", []
    with Mirror(experiment, f"file://{there}", said.append):
        pass
    (experiment / "journal" / "start-000-00-0.json").unlink()
    finish(experiment, "baseline-000-00-0")
    with Mirror(experiment, f"file://{there}", said.append):
        pass
    assert names(there) == WHOLE
    assert len(said) == 1 and "paploss restore" in said[0]


def test_failed_trials_that_a_resume_takes_back_leave_the_mirror(
    experiment: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    finish(experiment, "search-000-00-0", "failed")
    for _ in range(2):
        with Mirror(experiment, f"file://{there}", pytest.fail):
            pass
        (experiment / "journal" / "search-000-00-0.json").unlink(missing_ok=True)
    assert names(there) == WHOLE


def test_an_experiment_comes_back_as_it_was(experiment: Path, tmp_path: Path) -> None:
    there = tmp_path / "the re"
    with Mirror(experiment, f"file://{there}", pytest.fail):
        pass
    before = {name: (experiment / name).read_bytes() for name in WHOLE}
    shutil.rmtree(experiment)
    address = f"file://{there}/".replace(" ", "%20")  # as browsers write it
    assert restore_from_mirror(address, experiment) == 1
    assert {name: (experiment / name).read_bytes() for name in names(experiment)} == before
    # And it goes on into the same mirror.
    finish(experiment, "search-000-00-0")
    with Mirror(experiment, f"file://{there}", pytest.fail):
        pass
    assert names(there) == WHOLE | {"journal/search-000-00-0.json"}


def test_a_kill_between_two_files_leaves_a_mirror_to_resume_from(
    experiment: Path, root: str, tmp_path: Path
) -> None:
    """Killed after any number of writes, the trials that are there come back whole."""
    for key in ("search-000-00-0", "search-000-01-0"):
        finish(experiment, key)

    for writes in range(2, 7):
        connect = in_memory(Dying(writes), f"{root}/{writes}")
        with contextlib.suppress(Killed):
            Mirror(experiment, "s3://b/one", pytest.fail, connect)._copy()
        back = tmp_path / f"back{writes}"
        # config.yaml and space.json come first, then the records, one a write.
        assert restore_from_mirror("s3://b/one", back, connect) == min(writes - 2, 3)
        for name in names(back):
            assert (back / name).read_bytes() == (experiment / name).read_bytes()


@pytest.mark.parametrize(
    "name",
    ["../config.yaml", "journal/../../x.json", "journal/..json", "journal/a/b.json", ".lock",
     "/etc/passwd", "journal/.hidden.json", "searcher-state-1.pkl", "journal/x.json\n",
     "one/config.yaml", "policy/", "journal\\x.json"],
)  # fmt: skip
def test_names_that_are_no_part_of_a_mirror(name: str) -> None:
    assert not is_mirrored(name)


def test_nothing_that_is_put_there_climbs_out(root: str, tmp_path: Path) -> None:
    storage = fsspec.filesystem("memory")
    storage.pipe(f"{root}/config.yaml", b"name: one\n")
    for name in ("../climbed.json", "journal/../../climbed.json", "journal/ok-1.json", "evil.py"):
        storage.store[f"{root}/{name}"] = storage.store[f"{root}/config.yaml"]
    back = tmp_path / "folder" / "back"
    assert restore_from_mirror("s3://b/one", back, in_memory(Failing(0), root)) == 1
    assert names(tmp_path / "folder") == {"back/config.yaml", "back/journal/ok-1.json"}


def test_a_restore_that_fails_leaves_nothing(experiment: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "new" / "back"
    with Mirror(experiment, f"file://{there}", pytest.fail):
        pass

    class Torn(fs.LocalFileSystem):
        def open_input_stream(self, path: str, *args: Any, **options: Any) -> Any:
            if "journal" in path:
                raise OSError("the network is gone")
            return super().open_input_stream(path, *args, **options)

    with pytest.raises(BadExperiment, match="the network is gone"):
        restore_from_mirror("s3://b/one", back, lambda uri: (Torn(), str(there)))
    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_user_of_restore_gets_wrong(experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadExperiment, match="holds no experiment"):
        restore_from_mirror(f"file://{tmp_path}/empty", tmp_path / "x")
    with pytest.raises(BadExperiment, match="holds no experiment"):
        restore_from_mirror(f"file://{tmp_path}/absent", tmp_path / "x")
    with pytest.raises(BadExperiment, match="exists already"):
        restore_from_mirror(f"file://{tmp_path}/empty", experiment)
    assert not (tmp_path / "x").exists()


def test_the_command(experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there" / "one"
    with Mirror(experiment, f"file://{there}", pytest.fail):
        pass
    monkeypatch.chdir(tmp_path / "there")
    result = CliRunner().invoke(cli.app, ["restore", f"file://{there}"])
    assert result.exit_code == 0, result.output
    assert "finished trials back in experiments/one: 1" in result.output
    assert "paploss resume experiments/one" in result.output
    assert (Path("experiments/one") / "config.yaml").exists()
    assert os.stat("experiments/one").st_mode & 0o777 == 0o755
