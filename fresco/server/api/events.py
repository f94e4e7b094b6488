"""Send the events of one job as they happen, as server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.requests import Request

from fresco.server.jobs.engine import JobEngine, UnknownJobError
from fresco.server.jobs.job import JobStatus, dump_status

WAIT = 1.0
"""Longest time in seconds that a thread waits for a change. After a client has disconnected, its
thread ends within this time."""
HEARTBEAT = 10.0
"""Seconds after which an empty line is sent to keep the connection alive."""
STREAM = 60.0
"""Seconds after which an answer ends. Browsers then ask again by themselves. Without an end, a
server could not be restarted while a client listens."""
_PAUSE = 0.1
"""Shortest time in seconds between events, because progress changes faster than a person reads."""
_LISTENERS = 32
"""Number of threads that wait for changes, in addition to those that answer other requests."""


def event(status: JobStatus) -> bytes:
    """Encode a status as an event; its id is the version."""
    data = json.dumps(dump_status(status), separators=(",", ":"))
    return f"id: {status.version}\nevent: status\ndata: {data}\n\n".encode()


class Events:
    """Makes streams of events."""

    def __init__(self, engine: JobEngine) -> None:
        self._engine = engine
        self._limiter: anyio.CapacityLimiter | None = None

    async def stream(
        self, request: Request, job: str, version: int, *, seconds: float = STREAM
    ) -> AsyncIterator[bytes]:
        """Yield every status newer than `version`, until the job ends or the client disconnects."""
        # Created here, because it belongs to the server's event loop.
        self._limiter = self._limiter or anyio.CapacityLimiter(_LISTENERS)
        began = said = time.monotonic()
        yield b"retry: 1000\n\n"
        while time.monotonic() - began < seconds and not await request.is_disconnected():
            asked = time.monotonic()
            try:
                status = await self._wait(job, version, self._limiter)
            except UnknownJobError:
                yield b"event: deleted\ndata: {}\n\n"
                return
            now = time.monotonic()
            if status.version > version:
                version, said = status.version, now
                yield event(status)
                if status.state.ended:
                    return
                await anyio.sleep(_PAUSE)
            elif status.state.ended or now - asked < WAIT / 2:
                # Already sent, or the engine was closed and sends nothing more.
                return
            elif now - said > HEARTBEAT:
                said = now
                yield b": \n\n"

    async def _wait(self, job: str, version: int, limiter: Any) -> JobStatus:
        return await anyio.to_thread.run_sync(
            self._engine.wait, job, version, WAIT, limiter=limiter
        )
