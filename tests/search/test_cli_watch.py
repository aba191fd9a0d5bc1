"""`paploss dashboard` from the command line; see dashboard/test_server.py for what it serves."""

import socket

import pytest
from typer.testing import CliRunner

from paploss.errors import BadExperiment, UserError
from search.cli import app
from search.cli_watch import _address, _experiments_in


def run(*arguments):
    """A command line that cannot work: its exit code, or what it raises."""
    return CliRunner().invoke(app, ["dashboard", *map(str, arguments)], catch_exceptions=False)


def test_help_is_enough(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    told = run("--help")
    assert told.exit_code == 0
    for name in ("EXPERIMENTS", "--port", "8266", "--host", "127.0.0.1", "--open"):
        assert name.lower() in told.output.lower()


@pytest.mark.parametrize("arguments", [[], ["x", "--port", "70000"], ["x", "--port", "x"]])
def test_a_command_line_that_cannot_be(arguments):
    assert run(*arguments).exit_code == 2


def test_no_experiment_there(tmp_path):
    with pytest.raises(BadExperiment, match="not an experiment"):
        run(tmp_path / "none")
    with pytest.raises(BadExperiment, match="not an experiment"):
        run(tmp_path)


def test_a_port_that_is_taken_is_named(experiment, record):
    path = experiment([record("baseline")])
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="--port"):
        run(path, "--port", taken.getsockname()[1])


def test_a_folder_of_experiments_stands_for_them(experiment, record, tmp_path):
    one = experiment([record("baseline")])
    other = one.rename(tmp_path / "other")
    one = experiment([record("baseline")])
    (tmp_path / "no_experiment").mkdir()
    assert _experiments_in([tmp_path]) == [other, one]
    assert _experiments_in([one, tmp_path, one]) == [one, other]
    assert _experiments_in([tmp_path / "none"]) == [tmp_path / "none"]


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8266/"),
        ("0.0.0.0", "http://127.0.0.1:8266/"),
        ("gpu-box", "http://gpu-box:8266/"),
        ("::1", "http://[::1]:8266/"),
        ("::", "http://[::1]:8266/"),
    ],
)
def test_the_address_can_be_opened(host, address):
    assert _address(host, 8266) == address
