"""`paploss dashboard`: a page in the browser that follows experiments."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer


def dashboard(
    experiments: Annotated[
        list[Path],
        typer.Argument(help="Experiments' folders, or a folder of them: experiments."),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8266,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve a page that follows EXPERIMENTS while they run, and compares them."""
    from aiohttp import web

    from search.dashboard.server import is_loopback, listen, make_app
    from search.dashboard.watched import Watched

    watched = [Watched(path) for path in _experiments_in(experiments)]
    with listen(host, port) as sock:
        address = _address(host, sock.getsockname()[1])
        what = watched[0].name if len(watched) == 1 else f"{len(watched)} experiments"
        typer.echo(f"Dashboard of {what}: {address}  (Ctrl-C ends it)")
        if not is_loopback(host):
            typer.echo(
                "WARNING: whoever can reach this machine can read these experiments; nothing asks "
                "for a password. From another machine, safer: ssh -L 8266:127.0.0.1:8266 HOST",
                err=True,
            )
        if open_:
            webbrowser.open(address)
        app = make_app(watched, host)
        web.run_app(app, sock=sock, print=None, access_log=None, shutdown_timeout=1)


def _experiments_in(paths: list[Path]) -> list[Path]:
    """`paths`, with a folder of experiments replaced by them; each once."""
    found: dict[Path, Path] = {}
    for path in paths:
        inner = [] if (path / "config.yaml").exists() else sorted(path.glob("*/config.yaml"))
        for one in [config.parent for config in inner] or [path]:
            found.setdefault(one.resolve(), one)
    return list(found.values())


def _address(host: str, port: int) -> str:
    """Where a browser on this machine finds it."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/"
