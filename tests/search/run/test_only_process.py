"""One process at a time on a folder, and who it is."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from paploss.errors import BadExperiment
from search.run.only_process import only_process

HOLDER = """
import sys
from pathlib import Path
from search.run.only_process import only_process
with only_process(Path(sys.argv[1]), "none"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BadExperiment) as refused, only_process(tmp_path, "Stop it first."):
            pass
        holder.kill()
    message = str(refused.value)
    assert f"another process is running {tmp_path} (process {holder.pid} on " in message
    assert f" on {os.uname().nodename}, since 20" in message and message.endswith("Stop it first.")
    with only_process(tmp_path, ""):  # the lock has ended with its process
        assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text()


def test_storage_without_locks_is_refused(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(BadExperiment, match=r"cannot lock .*No locks available"):
        only_process(tmp_path, "").__enter__()


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadExperiment, match="cannot write to"):
        only_process(tmp_path / "file" / "x", "").__enter__()
