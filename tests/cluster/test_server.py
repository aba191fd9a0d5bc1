"""What a jobs server's answers mean to the user. The servers here are real, and small."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.errors import NoCluster, NoJob
from cluster.server import connect
from cluster.token import find_token
from paploss.errors import UserError

TOKEN = "0123456789abcdef" * 4
Answers = dict[str, tuple[int, Any]]
MODE, VERSION = "/api/authentication_mode", "/api/version"
RAY: Answers = {
    MODE: (200, {"authentication_mode": "token"}),
    VERSION: (200, {"version": "4", "ray_version": ray.__version__}),
}


class Requests(list[tuple[str, str | None]]):
    """The requests that a server got: path and Authorization."""

    url: str


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], Requests]]:
    """Starts a server that answers paths as told, and others with 404."""
    servers = []

    def start(answers: Answers) -> Requests:
        got = Requests()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                got.append((self.path, self.headers.get("Authorization")))
                code, content = answers.get(self.path, (404, "not found"))
                text = content if isinstance(content, str) else json.dumps(content)
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        got.url = f"http://127.0.0.1:{server.server_port}"
        return got

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a home and the cluster's token in the environment; the home."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def refused(address: str | None) -> str:
    with pytest.raises(NoCluster) as caught:
        connect(address, lambda line: None)
    said = str(caught.value)
    assert "\n" not in said
    assert TOKEN not in said
    return said


def test_a_cluster_is_used_with_the_token(serve: Callable[[Answers], Requests]) -> None:
    got, warnings = serve(RAY), []
    server = connect(got.url, warnings.append)
    assert warnings == []
    assert TOKEN not in repr(server)
    # The token goes to the server when it has said that it is Ray's, not before.
    assert got[0] == (MODE, None)
    assert (VERSION, f"Bearer {TOKEN}") in got


def test_the_environment_names_the_cluster(
    serve: Callable[[Answers], Requests], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", serve(RAY).url)
    connect(None, lambda line: None)


def test_the_option_goes_before_the_environment(
    serve: Callable[[Answers], Requests], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    asked = serve(RAY)
    assert connect(asked.url, lambda line: None).client.get_address() == asked.url


@pytest.mark.parametrize(
    "address",
    [None, "ray://head:10001", "ftp://head", "http://", "http://head:99999", "http://head:0",
     "http://me:password@head:8265", "http://[::1"],
)  # fmt: skip
def test_no_address_of_a_dashboard(address: str | None) -> None:
    said = refused(address)
    assert "http://HEAD:8265" in said
    assert "password" not in said


def test_nothing_there() -> None:
    with socket.socket() as unused:  # bound, but nothing listens
        unused.bind(("127.0.0.1", 0))
        assert "Connection refused" in refused(f"http://127.0.0.1:{unused.getsockname()[1]}")


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {MODE: (200, "<html>hello</html>")},
        {MODE: (200, [1])},
        {MODE: RAY[MODE], VERSION: (200, "<html>")},
        {MODE: RAY[MODE], VERSION: (200, {"version": 1})},
        {MODE: RAY[MODE], VERSION: (500, "oh")},
    ],
)
def test_something_else_there(answers: Answers, serve: Callable[[Answers], Requests]) -> None:
    assert "not as the dashboard" in refused(serve(answers).url)


@pytest.mark.parametrize("code", [401, 403])
def test_a_wrong_token(code: int, serve: Callable[[Answers], Requests]) -> None:
    said = refused(serve({**RAY, VERSION: (code, "Forbidden")}).url)
    assert "refuses the token: the one in RAY_AUTH_TOKEN" in said


def test_no_token(serve: Callable[[Answers], Requests], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    asked = serve(RAY)
    assert "asks for a token" in refused(asked.url)
    assert [path for path, _ in asked] == [MODE]


def test_an_old_ray_is_refused(serve: Callable[[Answers], Requests]) -> None:
    said = refused(serve({**RAY, VERSION: (200, {"ray_version": "2.9.3"})}).url)
    assert "Ray 2.9.3" in said
    assert "2.60 or newer" in said


def test_another_ray_and_no_authentication_are_warned_of(
    serve: Callable[[Answers], Requests],
) -> None:
    warnings: list[str] = []
    answers = {
        MODE: (200, {"authentication_mode": "disabled"}),
        VERSION: (200, {"ray_version": "2.99.0"}),
    }
    connect(serve(answers).url, warnings.append)
    assert len(warnings) == 2
    assert "asks for no token" in warnings[0]
    assert "Ray 2.99.0" in warnings[1]


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://head:8265", True), ("http://10.0.0.1:8265", True),
        ("http://localhost.example.org", True), ("https://head:8265", False),
        ("http://localhost:8265", False), ("http://127.0.1.1:8265", False),
        ("http://[::1]:8265", False),
    ],
)  # fmt: skip
def test_a_token_in_the_clear_is_warned_of(url: str, warned: bool) -> None:
    from cluster.server import _dangers

    said = list(_dangers(url, "token"))
    assert len(said) == warned
    assert not warned or "ssh -L" in said[0]


def test_requests_after_the_first(serve: Callable[[Answers], Requests]) -> None:
    answers = {
        **RAY,
        "/api/jobs/broken": (500, "Traceback (most recent call last):\n  x\nOSError: disk full\n"),
    }
    server = connect(serve(answers).url, lambda line: None)
    with pytest.raises(NoJob, match="has no job other"):
        server.job("other")
    with pytest.raises(NoCluster, match=r"OSError: disk full"):
        server.job("broken")


def test_the_token_is_looked_for_where_ray_looks(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._raylet import AuthenticationTokenLoader

    def rays() -> str | None:
        loader = AuthenticationTokenLoader.instance()
        loader.reset_cache()
        return loader.get_raw_token(True) if loader.has_token(True) else None

    named, usual = user / "named", user / ".ray" / "auth_token"
    usual.parent.mkdir()
    named.write_text("of-the-named-file\n")
    usual.write_text("of-the-usual-file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(named))
    places = []
    for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", None):
        token = find_token()
        assert token is not None
        assert token.value == rays()
        assert token.value not in repr(token)
        places.append(token.place)
        if variable:
            monkeypatch.delenv(variable)
    assert places == ["RAY_AUTH_TOKEN", str(named), str(usual)]
    usual.unlink()
    assert find_token() is None


def test_a_token_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, user: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(user / "none"))
    with pytest.raises(UserError, match="RAY_AUTH_TOKEN_PATH: cannot read"):
        find_token()
