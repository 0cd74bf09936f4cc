"""One connection through the fault proxy: the two directions, and where faults meet the messages."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

from tests.support.resp import Splitter, command_name, is_error, is_push

if TYPE_CHECKING:
    from tests.support.proxy import FaultProxy

CHUNK_BYTES = 64 * 1024
WAIT_SECONDS = 20.0


class Link:
    """One client's connection and the one to the server that serves it."""

    def __init__(
        self,
        proxy: FaultProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client_reader, self._client = client
        self._server_reader, self._server = upstream
        self._awaited: deque[bool] = deque()  # for each request without a reply: shall its reply be dropped?
        self._doomed = False  # one dropped reply closes the connection: no more of its requests are counted

    async def run(self) -> None:
        requests = asyncio.ensure_future(self._forward_requests())
        replies = asyncio.ensure_future(self._forward_replies())
        try:
            await asyncio.wait((requests, replies), return_when=asyncio.FIRST_COMPLETED)
            if requests.done() and requests.result() and not replies.done():
                # The client went by itself: half a close lets the server carry out what it was sent before.
                with contextlib.suppress(OSError, RuntimeError):
                    self._server.write_eof()
                await asyncio.wait((replies,), timeout=WAIT_SECONDS)
        finally:
            for direction in (requests, replies):
                direction.cancel()
            await asyncio.gather(requests, replies, return_exceptions=True)
            self.abort()

    def abort(self) -> None:
        """Close both sides at once, on TCP with a reset."""
        for writer in (self._client, self._server):
            raw = writer.get_extra_info("socket")
            if raw is not None and raw.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _forward_requests(self) -> bool:
        """Whether the connection ended because the client closed it."""
        splitter = Splitter()
        with contextlib.suppress(OSError):
            while data := await self._client_reader.read(CHUNK_BYTES):
                for request in splitter.feed(data):
                    if not await self._forward_request(request):
                        return False
        return True

    async def _forward_request(self, request: bytes) -> bool:
        """Whether the connection goes on."""
        proxy = self._proxy
        proxy.count_command(command_name(request))
        if proxy.requests_to_drop.applies(request):
            proxy.requests_to_drop.left -= 1
            proxy.count("requests_dropped")
            return False
        if proxy.requests_to_hold.applies(request):
            proxy.requests_to_hold.left -= 1
            if not await proxy.hold_now():
                proxy.count("requests_dropped")
                return False
        drop = not self._doomed and proxy.replies_to_drop.applies(request)
        if drop:
            proxy.replies_to_drop.left -= 1
            self._doomed = True
        self._awaited.append(drop)
        await self._transmit(self._server, request)
        return True

    async def _forward_replies(self) -> None:
        splitter = Splitter()
        with contextlib.suppress(OSError):
            while data := await self._server_reader.read(CHUNK_BYTES):
                for reply in splitter.feed(data):
                    if not await self._forward_reply(reply):
                        return

    async def _forward_reply(self, reply: bytes) -> bool:
        """Whether the connection goes on."""
        proxy = self._proxy
        if not is_push(reply):
            drop = self._awaited.popleft() if self._awaited else False
            proxy.count("replies")
            if drop:
                if proxy.drop_errors_too or not is_error(reply):
                    proxy.count("replies_dropped")
                    return False
                self._doomed = False
                proxy.replies_to_drop.left += 1
        with contextlib.suppress(OSError):  # the client may be gone; the server is still to be listened to
            await self._transmit(self._client, reply)
        return True

    async def _transmit(self, to: asyncio.StreamWriter, message: bytes) -> None:
        proxy = self._proxy
        if proxy.delay_seconds > 0:
            await asyncio.sleep(proxy.delay_seconds)
        size = proxy.slice_bytes or len(message)
        for start in range(0, len(message), size):
            await proxy.open.wait()
            to.write(message[start : start + size])
            await to.drain()
            if size < len(message):
                await asyncio.sleep(0.0002)  # else the pieces meet again in the receiver's buffer
