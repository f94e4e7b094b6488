"""Receive bodies of requests without a thread, and without keeping them in memory.

A slow client occupies only a file. Threads write what has arrived, and work on it when all of it
has arrived. They are not from the server's own pool, so the other pages of the program still
answer, whatever is sent here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
from fastapi import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive

BLOCK = 1 << 16
"""Number of bytes that are received at once."""
BLOCK_SECONDS = 60.0
"""Seconds in which a block must arrive: about 1 kB/s, slower than any usual connection."""
_DRAINED = 64_000_000
"""Bytes of a refused body that are read and discarded, because most clients read the answer only
after they have sent everything."""

_T = TypeVar("_T")


class Sink(Protocol):
    """Receives a body, block by block, in a thread."""

    def write(self, data: bytes) -> None:
        """Receive the next bytes."""
        ...


class Incoming:
    """The body of a request that is being received."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def take_block(self) -> bytes:
        """Receive the next bytes: a whole block, unless they are the last."""
        parts: list[bytes] = []
        size = 0
        with anyio.move_on_after(BLOCK_SECONDS):
            while size < BLOCK and not self.ended:
                parts.append(await self._take())
                size += len(parts[-1])
            return b"".join(parts)
        raise HTTPException(
            408, f"Less than {BLOCK} bytes of the request came within {BLOCK_SECONDS:g} seconds; "
            "send it again over a faster connection."
        )

    async def drain(self) -> None:
        """Read and discard more of the body, so that the client receives the refusal."""
        left = _DRAINED
        with anyio.move_on_after(BLOCK_SECONDS), suppress(ClientDisconnect):
            while left > 0 and not self.ended:
                left -= len(await self._take()) or 1

    async def _take(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.ended = True
            raise ClientDisconnect
        self.ended = not message.get("more_body")
        return message.get("body", b"")


class Lane:
    """Requests of one kind that have a body.

    Args:
        requests: largest number at once; further ones are refused.
        threads: largest number that work at once; further ones wait without a thread.
    """

    def __init__(self, requests: int, threads: int) -> None:
        self._left, self._threads = requests, threads
        self._limiters: tuple[anyio.CapacityLimiter, anyio.CapacityLimiter] | None = None

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Count the request within the context; raise 503 if there are too many."""
        if self._left <= 0:
            raise HTTPException(
                503, "The server takes no more requests of this kind at the moment; ask again in "
                "some seconds.", {"Retry-After": "10"},
            )
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1

    async def receive(self, body: Incoming, sink: Sink, most: int) -> None:
        """Pass a body to `sink`; 413 if it is longer than `most` bytes, 408 if it does not come."""
        async for block in self._take_blocks(body, most):
            await self.run_shortly(partial(sink.write, block))

    async def receive_whole(self, body: Incoming, most: int) -> bytes:
        """Receive a small body into memory; errors as of `receive`."""
        return b"".join([block async for block in self._take_blocks(body, most)])

    async def _take_blocks(self, body: Incoming, most: int) -> AsyncIterator[bytes]:
        taken = 0
        while not body.ended:
            block = await body.take_block()
            taken += len(block)
            if taken > most:
                raise HTTPException(
                    413, f"The request is larger than {most} bytes, the limit of this server; "
                    "upload a video by POST /fresco/videos, shorten it, or raise the limit in the "
                    "settings."
                )
            yield block

    async def run_shortly(self, work: Callable[[], _T]) -> _T:
        """Run quick work in a thread."""
        writing, _ = self._find_limiters()
        return await anyio.to_thread.run_sync(work, limiter=writing)

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run the work of a request whose body has arrived in a thread."""
        _, working = self._find_limiters()
        return await anyio.to_thread.run_sync(work, limiter=working)

    def _find_limiters(self) -> tuple[anyio.CapacityLimiter, anyio.CapacityLimiter]:
        """The limiters of threads that write blocks and of threads that work."""
        if self._limiters is None:
            self._limiters = (
                anyio.CapacityLimiter(self._threads), anyio.CapacityLimiter(self._threads)
            )
        return self._limiters
