"""What is settled before a cluster is joined: Ray's token, and how its logs read."""

import contextlib
import logging
import os
import stat
import sys

import pytest

from search.run.cluster import _make_token, one_line

# --- Ray's token --------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path


@contextlib.contextmanager
def umask(mask):
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_token_is_for_its_owner_alone(home, mask):
    with umask(mask):
        _make_token()
    token = home / ".ray" / "auth_token"
    assert mode(token) == 0o600
    assert mode(token.parent) == 0o700
    assert len(token.read_text()) == 64  # 32 random bytes, as hexadecimal digits
    assert int(token.read_text(), 16)


def test_two_users_have_two_tokens(tmp_path, home, monkeypatch):
    _make_token()
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    _make_token()
    one, other = (h / ".ray" / "auth_token" for h in (tmp_path, tmp_path / "other"))
    assert one.read_text() != other.read_text()


def test_a_token_that_is_there_is_kept(home):
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("mine")
    _make_token()
    assert (home / ".ray" / "auth_token").read_text() == "mine"


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_from_elsewhere_is_enough(home, monkeypatch, name):
    monkeypatch.setenv(name, "somewhere")
    _make_token()
    assert list(home.iterdir()) == []


def test_every_cluster_is_asked_for_a_token():
    # Set when search.run was imported, before Ray read it.
    assert os.environ["RAY_AUTH_MODE"] in ("token", "disabled")


def test_a_snapshot_of_tunes_that_fails_takes_one_line(capsys):
    logger = logging.getLogger("test_a_snapshot")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.addFilter(one_line)
    logger.propagate = False
    try:
        raise FileNotFoundError("gone")
    except FileNotFoundError:
        logger.error("Saving to '%s' failed: ", "here", exc_info=True)
    logger.error("plain %d", 1)
    said = capsys.readouterr().out
    assert said == "Saving to 'here' failed: FileNotFoundError('gone')\nplain 1\n"
