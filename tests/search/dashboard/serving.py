"""The dashboard's real server, in a thread of the test."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from search.dashboard.server import listen, make_app
from search.dashboard.watched import Watched


@contextmanager
def serving(*experiments: Path, port: int = 0) -> Iterator[int]:
    """The port on which `experiments` are served until the block ends."""
    app = make_app([Watched(path) for path in experiments])
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    def wait(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout=20)

    with listen("127.0.0.1", port) as sock:
        wait(runner.setup())
        wait(web.SockSite(runner, sock).start())
        try:
            yield sock.getsockname()[1]
        finally:
            wait(runner.cleanup())
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=20)
            loop.close()
