"""A proxy that stands between a client and a server and does to their traffic what networks do.

It runs in a thread of its own and is steered from the test:

    with FaultProxy(server.url) as proxy:
        queue = TaskQueue(... proxy.url ...)
        proxy.drop_replies(1, matching=b"FCALL")
        queue.push(task)                     # runs on the server; its reply never comes
        assert proxy.replies_dropped == 1

What is forwarded is cut at message boundaries, so "the server has executed it" is a fact and not a guess.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from tests.support.proxy_link import WAIT_SECONDS, Link

Matching = bytes | Callable[[bytes], bool] | None
T = TypeVar("T")


class _Rule:
    """What shall happen to the next `left` requests that match."""

    def __init__(self, count: int, matching: Matching) -> None:
        self.left = count
        self._matching = matching

    def applies(self, request: bytes) -> bool:
        if self.left <= 0:
            return False
        if self._matching is None:
            return True
        if isinstance(self._matching, bytes):
            return self._matching in request
        return self._matching(request)


class FaultProxy:
    """Forwards to `upstream` (unix:///path or redis://host:port) from a Unix socket, or with `tcp` a free
    port.

    All methods may be called from any thread. Rules for requests (`drop_replies`, `drop_requests`, `hold`)
    use up their count; the rest lasts until it is taken back or `heal` is called.
    """

    def __init__(self, upstream: str, *, tcp: bool = False) -> None:
        parts = urlsplit(upstream)
        self._upstream: str | tuple[str, int]
        if parts.scheme == "unix":
            self._upstream = unquote(parts.path)
        else:
            self._upstream = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._tcp = tcp
        self._directory = Path(tempfile.mkdtemp(prefix="fq-", dir="/tmp"))
        self.socket_path = "" if tcp else str(self._directory / "p")
        self.port = 0
        self._changed = threading.Condition()
        self._links: set[Link] = set()
        self.delay_seconds = 0.0
        self.slice_bytes = 0
        self.refusing = False
        self.replies_to_drop = _Rule(0, None)
        self.drop_errors_too = False
        self.requests_to_drop = _Rule(0, None)
        self.requests_to_hold = _Rule(0, None)
        self._commands: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self.open = asyncio.Event()  # clear while the proxy is a black hole
        self.open.set()
        self.held: deque[asyncio.Future[bool]] = deque()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._server: asyncio.Server | None = None

    # Steering

    def delay(self, seconds: float) -> None:
        """Let each message, in both directions, arrive this much later (0: no more)."""
        self.delay_seconds = seconds

    def slice(self, size: int) -> None:
        """Let messages arrive in pieces of this many bytes (0: whole)."""
        self.slice_bytes = size

    def black_hole(self, on: bool = True) -> None:
        """Take what comes and deliver nothing; connections stay. What was held back comes when it is off."""
        self._on_loop(self.open.clear if on else self.open.set)

    def refuse(self, on: bool = True) -> None:
        """Close new connections at once, as a server that is away does."""
        self.refusing = on

    def reset(self) -> int:
        """Reset all connections, and say how many there were."""
        return self._on_loop(self._reset_links)

    def drop_replies(self, count: int, *, matching: Matching = None, errors: bool = False) -> None:
        """Swallow the replies of the next `count` requests that match, and close their connections.

        `matching` is something that the request contains, or a predicate of its bytes. The server has carried
        them out: a reply that is an error (as NOSCRIPT) passes and is not counted, unless `errors` is set.
        """
        self.drop_errors_too = errors
        self.replies_to_drop = _Rule(count, matching)

    def drop_requests(self, count: int, *, matching: Matching = None) -> None:
        """Let the next `count` requests that match never reach the server, and close their connections."""
        self.requests_to_drop = _Rule(count, matching)

    def hold(self, count: int = 1, *, matching: Matching = None) -> None:
        """Keep the next `count` requests that match, and what follows on their connections, until `release`.

        A request that is released after its client has gone is carried out all the same: it came late.
        """
        self.requests_to_hold = _Rule(count, matching)

    def release(self, *, forward: bool = True) -> int:
        """Let held requests go on (or drop them, if not `forward`), and say how many there were."""
        return self._on_loop(lambda: self._release(forward))

    def heal(self) -> None:
        """Take every fault back; held requests go on."""
        self.delay(0)
        self.slice(0)
        self.refuse(False)
        self.drop_replies(0)
        self.drop_requests(0)
        self.hold(0)
        self.black_hole(False)
        self.release()

    # Observing

    @property
    def url(self) -> str:
        """Where clients connect: a unix:// or redis:// URL."""
        return f"redis://127.0.0.1:{self.port}/0" if self._tcp else f"unix://{self.socket_path}"

    @property
    def commands(self) -> Counter[str]:
        """How many requests came, by command (those of the client library's own handshake too)."""
        with self._changed:
            return self._commands.copy()

    @property
    def requests(self) -> int:
        with self._changed:
            return self._commands.total()

    @property
    def replies(self) -> int:
        """Replies that came from the server, dropped ones included."""
        return self._count("replies")

    @property
    def replies_dropped(self) -> int:
        return self._count("replies_dropped")

    @property
    def requests_dropped(self) -> int:
        return self._count("requests_dropped")

    @property
    def connections_refused(self) -> int:
        """Connections that were closed at once by `refuse`."""
        return self._count("connections_refused")

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return self._count("connections")

    def wait_for(self, condition: Callable[[FaultProxy], bool], timeout: float = WAIT_SECONDS) -> None:
        """Return when the condition holds, looked at after each message; AssertionError after `timeout`
        seconds.

        For example `proxy.wait_for(lambda p: p.replies_dropped == 3)`.
        """
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), timeout), f"not within {timeout} s"

    def wait_held(self, count: int = 1, timeout: float = WAIT_SECONDS) -> None:
        """Return when `count` requests are held."""
        self.wait_for(lambda proxy: len(proxy.held) >= count, timeout)

    # Running

    def start(self) -> FaultProxy:
        """Listen; returns when clients can connect."""
        self._thread.start()
        self._await(self._listen())
        return self

    def close(self) -> None:
        """Drop all connections, stop listening and end the thread."""
        if self._thread.is_alive():
            self._await(self._shut())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        if not self._loop.is_closed():
            self._loop.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> FaultProxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT_SECONDS)

    def _on_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return function() if threading.current_thread() is self._thread else self._await(call())

    async def _listen(self) -> None:
        if self._tcp:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
        else:
            self._server = await asyncio.start_unix_server(self._serve, self.socket_path)

    async def _shut(self) -> None:
        assert self._server is not None
        self._server.close()
        self._release(forward=False)
        self._reset_links()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next round

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            self.count("connections_refused")
            writer.transport.abort()
            return
        try:
            if isinstance(self._upstream, str):
                upstream = await asyncio.open_unix_connection(self._upstream)
            else:
                upstream = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        link = Link(self, (reader, writer), upstream)
        self._links.add(link)
        self.count("connections", 1)
        try:
            await link.run()
        except asyncio.CancelledError:
            pass  # only _shut cancels; Python 3.11 would log it as an error
        finally:
            self._links.discard(link)
            self.count("connections", -1)

    def _reset_links(self) -> int:
        links = list(self._links)
        for link in links:
            link.abort()
        return len(links)

    def _release(self, forward: bool) -> int:
        held = list(self.held)
        self.held.clear()
        for future in held:
            if not future.done():
                future.set_result(forward)
        return len(held)

    # What links report

    def count(self, what: str, change: int = 1) -> None:
        with self._changed:
            self._counts[what] += change
            self._changed.notify_all()

    def count_command(self, name: str) -> None:
        with self._changed:
            self._commands[name] += 1
            self._changed.notify_all()

    def hold_now(self) -> asyncio.Future[bool]:
        with self._changed:
            future: asyncio.Future[bool] = self._loop.create_future()
            self.held.append(future)
            self._changed.notify_all()
        return future

    def _count(self, what: str) -> int:
        with self._changed:
            return self._counts[what]
