"""The server over real sockets: what it answers, what it refuses, what it lets nobody do."""

import gzip
import http.client
import json
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from paploss.errors import UserError
from search.dashboard import page
from search.dashboard.server import is_loopback, listen
from search.dashboard.watched import LOG_BYTES, Watched
from tests.search.dashboard.serving import serving

ROOT = Path(__file__).parents[3]


def ask(port, path="/", method="GET", **headers):
    """(status, headers, body) of one request; `path` goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


@pytest.fixture
def shapes(experiment, searched):
    path = experiment(searched)
    log = path / searched[0]["trial_dir"] / "train.log"
    log.parent.mkdir()
    log.write_text("<script>first</script>\nlast\n")
    return path


@pytest.fixture
def port(shapes):
    with serving(shapes) as port:
        yield port


def test_every_answer_is_guarded(port):
    for path in ("/", "/status.json", "/nothing", f"/static/{page.version('page.js')}"):
        _, headers, _ = ask(port, path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_get(port, method):
    for path in ("/", "/status.json", "/experiments/0/history.json", "/nothing"):
        status, headers, _ = ask(port, path, method)
        assert (status, headers["Allow"]) == (405, "GET,HEAD")


def test_head_is_a_get_without_a_body(port):
    status, headers, body = ask(port, "/status.json", "HEAD")
    assert status == 200 and body == b"" and "json" in headers["Content-Type"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("LOCALHOST:99", 200), ("127.0.0.1:9", 200), ("[::1]:8266", 200),
     ("192.0.2.7", 200), ("evil.example", 403), ("evil.example:8266", 403),
     ("127.0.0.1.evil.example", 403), ("localhost.evil.example", 403)],
)  # fmt: skip
def test_names_that_somebody_else_may_own_get_no_answer(port, host, status):
    assert ask(port, "/status.json", Host=host)[0] == status


@pytest.mark.parametrize(
    "path",
    ["/../config.yaml", "/static/../page.py", "/static/..%2fpage.py", "/static/page.js",
     "/experiments/1/history.json", "/experiments/-1/history.json", "/experiments/0/config.yaml",
     "/experiments/99999999999/history.json", "/experiments/%D9%A1/history.json",
     "/experiments/0/trials/journal/train.log", "/experiments/0/trials/../train.log",
     "/experiments/0/trials/..%2f..%2fsecret/train.log", "/experiments/0/trials/%00/train.log",
     "/experiments/0/trials/linked/train.log", "/experiments/0/trials/outside/train.log",
     "/experiments/0/trials/%2e%2e/train.log", "/experiments/0/trials//etc/train.log"],
)  # fmt: skip
def test_paths_do_not_climb(experiment, record, tmp_path, path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "train.log").write_text("secret")
    # A journal that somebody else wrote may name any folder.
    names = ["..", "../secret", "/etc", "journal/..", "linked", "outside", "", "\x00"]
    shapes = experiment([record("search", 0, k, trial_dir=name) for k, name in enumerate(names)])
    (shapes / "linked").symlink_to(secret)
    (shapes / "outside").mkdir()
    (shapes / "outside" / "train.log").symlink_to(secret / "train.log")
    (shapes / "train.log").write_text("secret")
    with serving(shapes) as port:
        status, _, body = ask(port, path)
    assert status == 404 and b"secret" not in body


def test_a_log_is_text_and_only_its_end(shapes, searched, port):
    folder = searched[0]["trial_dir"]
    status, headers, body = ask(port, f"/experiments/0/trials/{folder}/train.log")
    assert status == 200 and headers["Content-Type"] == "text/plain; charset=utf-8"
    assert body == b"<script>first</script>\nlast\n"
    log = shapes / folder / "train.log"
    log.write_bytes(b"0123456789\n" * (LOG_BYTES // 11 + 200))
    _, _, body = ask(port, f"/experiments/0/trials/{folder}/train.log")
    first, second, *_ = body.splitlines()
    assert first == b"... the first 2 KiB are left out ..." and second == b"0123456789"
    assert LOG_BYTES - 100 < len(body) < LOG_BYTES + 100
    log.unlink()
    assert ask(port, f"/experiments/0/trials/{folder}/train.log")[0] == 404


def test_the_log_of_a_trial_under_way(shapes, port):
    trial = {"phase": "search", "round": 0, "slot": 0, "repeat": 0, "started": 1, "folder": "now"}
    (shapes / "now").mkdir()
    (shapes / "now" / "train.log").write_text("iteration 1")
    assert ask(port, "/experiments/0/trials/now/train.log")[0] == 404
    status = {"state": "running", "updated": 2, "started": 1, "running": [trial]}
    (shapes / "status.json").write_text(json.dumps(status))
    assert ask(port, "/experiments/0/trials/now/train.log")[2] == b"iteration 1"


def test_what_has_not_changed_is_not_sent_again(shapes, record, port):
    status, headers, body = ask(port, "/experiments/0/history.json")
    tag = headers["ETag"]
    assert status == 200 and headers["Cache-Control"] == "no-cache"
    assert json.loads(ask(port, "/status.json")[2])[0]["history"] == tag.strip('"')
    assert ask(port, "/experiments/0/history.json", If_None_Match=tag)[::2] == (304, b"")
    one = json.dumps(record("search", 3, 0))
    (shapes / "journal" / "search-003-00-0.json").write_text(one)
    status, headers, changed = ask(port, "/experiments/0/history.json", If_None_Match=tag)
    assert status == 200 and headers["ETag"] != tag
    rows = [len(json.loads(text)["trials"]["rows"]) for text in (body, changed)]
    assert rows == [36, 37]


def test_the_status_is_tagged_too(shapes, port):
    tag = ask(port, "/status.json")[1]["ETag"]
    assert ask(port, "/status.json", If_None_Match=tag)[0] == 304
    (shapes / "status.json").write_text('{"state": "stopped", "updated": 2, "started": 1}')
    status, _, body = ask(port, "/status.json", If_None_Match=tag)
    assert status == 200 and json.loads(body)[0]["status"]["state"] == "stopped"


def test_the_library_is_sent_small_and_once(port):
    name = page.version("plotly.min.js")
    _, headers, body = ask(port, f"/static/{name}", Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip" and "immutable" in headers["Cache-Control"]
    assert headers["Content-Type"].startswith("text/javascript")
    assert len(body) < 2_000_000 and gzip.decompress(body) == page.plotly().encode()


def test_an_experiment_that_is_moved_away_comes_back(shapes, port):
    shapes.rename(shapes.with_name("elsewhere"))
    status, _, body = ask(port, "/experiments/0/history.json")
    assert status == 503 and b"is not an experiment" in body
    assert ask(port, "/status.json")[0] == 200
    shapes.with_name("elsewhere").rename(shapes)
    assert ask(port, "/experiments/0/history.json")[0] == 200


def test_only_what_changed_is_read(shapes, monkeypatch):
    reads = []
    original = Watched._read
    monkeypatch.setattr(Watched, "_read", lambda self: (reads.append(1), original(self))[1])
    watched = Watched(shapes)
    for _ in range(3):
        watched.history()
    (shapes / "status.json").write_text("{}")  # a sign of life is no reason
    watched.history()
    assert len(reads) <= 2  # once when it was opened, once for the first who asked


def test_a_port_that_is_taken():
    with listen("127.0.0.1", 0) as sock, pytest.raises(UserError, match="--port 0"):
        listen("127.0.0.1", sock.getsockname()[1])
    with pytest.raises(UserError, match="cannot listen on"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.3.2.1", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("gpu-box", False)],
)  # fmt: skip
def test_what_listens_here_only(host, local):
    assert is_loopback(host) is local


@contextmanager
def command(*arguments):
    line = [sys.executable, "-m", "search.cli", "dashboard", *map(str, arguments)]
    with subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_the_command_serves_until_it_is_interrupted(shapes):
    with command(shapes, "--port", 0, "--host", "0.0.0.0") as process:
        line = process.stdout.readline()
        assert line.startswith("Dashboard of shapes: http://127.0.0.1:")
        address = line.split()[3]
        with urllib.request.urlopen(f"{address}status.json", timeout=10) as response:
            assert json.load(response)[0]["name"] == "shapes"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err.startswith("WARNING: whoever can reach this machine") and err.count("\n") == 1
