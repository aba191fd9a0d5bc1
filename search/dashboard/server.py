"""The live page's server: it reads experiments and answers GET, and can do nothing else.

    /                                                  the page
    /static/<name>.<hash>.<end>                        its script, its style, plotly.js
    /status.json                                       of every experiment, small, asked for often
    /experiments/<index>/history.json                  what has finished, when it has changed
    /experiments/<index>/trials/<folder>/train.log     the end of a trial's log

No part of a request becomes a path of the file system: an experiment is a place in a list, a
folder one of the names that its journal has.
"""

import asyncio
import gzip
import hashlib
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

from aiohttp import web

from paploss.errors import UserError
from search.dashboard import page
from search.dashboard.watched import Watched

WATCHED = web.AppKey("watched", list[Watched])
HOSTS = web.AppKey("hosts", frozenset[str])

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(experiments: Sequence[Watched], host: str = "127.0.0.1") -> web.Application:
    """The server of `experiments`, ready to be run.

    Args:
        host: what it will listen on; a name is then allowed in requests, too.
    """
    app = web.Application(middlewares=[_only_get, _only_known_hosts])
    app[WATCHED] = list(experiments)
    app[HOSTS] = frozenset({"localhost", host.lower(), socket.gethostname().lower()})
    app.on_response_prepare.append(_secure)
    app.add_routes(
        [
            web.get("/", _page),
            web.get("/static/{name}", _file),
            web.get("/status.json", _status),
            web.get(r"/experiments/{index:\d{1,4}}/history.json", _history),
            web.get(r"/experiments/{index:\d{1,4}}/trials/{folder}/train.log", _log),
        ]
    )
    return app


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        UserError: the port is taken, or this machine has no such address.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}, port {port}: {error.strerror}. Give another port, such as "
            f"`--port {port + 1 if port < 65535 else 8266}`, or `--port 0` for any free one."
        ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- what is asked for --------------------------------------------------------------------------


async def _page(request: web.Request) -> web.StreamResponse:
    names = [one.name for one in request.app[WATCHED]]
    title = names[0] if len(names) == 1 else f"{len(names)} experiments"
    text = page.live_page(f"{title}: paploss", names)
    return _tagged(request, "text/html", text.encode())


async def _file(request: web.Request) -> web.Response:
    found = page.served().get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound(text="no such file; reload the page\n")
    kind, body = found
    response = _packed(request, kind, body, _gzipped(body))
    # Its name has a hash of what it holds.
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


async def _status(request: web.Request) -> web.StreamResponse:
    reading = (asyncio.to_thread(one.status) for one in request.app[WATCHED])
    body = json.dumps(await asyncio.gather(*reading), allow_nan=False).encode()
    return _tagged(request, "application/json", body)


async def _history(request: web.Request) -> web.StreamResponse:
    try:
        tag, body = await asyncio.to_thread(_watched(request).history)
    except UserError as error:
        # Away for now: a folder that is being moved, storage that does not answer.
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from error
    return _tagged(request, "application/json", body, tag)


async def _log(request: web.Request) -> web.StreamResponse:
    text = await asyncio.to_thread(_watched(request).log, request.match_info["folder"])
    if text is None:
        raise web.HTTPNotFound(text="no trial of this experiment has a log there\n")
    return _tagged(request, "text/plain", text)


def _watched(request: web.Request) -> Watched:
    every, index = request.app[WATCHED], int(request.match_info["index"])
    if index >= len(every):
        raise web.HTTPNotFound(text="this server shows no such experiment; reload the page\n")
    return every[index]


# --- how it is answered -------------------------------------------------------------------------


def _tagged(
    request: web.Request, kind: str, body: bytes, tag: str | None = None
) -> web.StreamResponse:
    """`body`, or 304 where the one who asks has it already."""
    tag = tag or hashlib.sha256(body).hexdigest()[:16]
    asked = request.if_none_match or ()
    if any(one.value in (tag, "*") for one in asked):
        response = web.Response(status=304)
    else:
        response = _packed(request, kind, body)
    response.etag = tag
    response.headers["Cache-Control"] = "no-cache"
    return response


def _packed(
    request: web.Request, kind: str, body: bytes, small: bytes | None = None
) -> web.Response:
    """`body`, compressed where that is understood and worth it."""
    packed = {"Vary": "Accept-Encoding"}
    if len(body) > 1024 and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = small or gzip.compress(body, 5)
        packed["Content-Encoding"] = "gzip"
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=packed)


@lru_cache(maxsize=8)
def _gzipped(body: bytes) -> bytes:
    return gzip.compress(body, 6)


async def _secure(_: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer, errors too."""
    response.headers.update(
        {
            "Content-Security-Policy": f"{page.live_policy()}; frame-ancestors 'none'",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Server": "paploss",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }
    )
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def _only_get(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method not in ("GET", "HEAD"):
        raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
    return await handler(request)


@web.middleware
async def _only_known_hosts(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A page elsewhere can make its name point to this machine and then read what is served here
    (DNS rebinding). Its requests carry that name; ours an address, or a name that is known."""
    name = request.url.host or ""
    if not (_is_address(name) or name.lower() in request.app[HOSTS]):
        raise web.HTTPForbidden(
            text="This dashboard does not answer to that name. Open it as localhost, or by the "
            "address of its machine.\n"
        )
    return await handler(request)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
