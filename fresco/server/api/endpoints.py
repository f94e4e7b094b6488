"""Make endpoints of routes with a body: check the login, receive the body, work in a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import HTTPException, Query, Request, Response

from fresco.errors import FrescoError
from fresco.server.api.body import Incoming, Lane
from fresco.server.api.json_body import MOST_PLAIN, JsonBody
from fresco.server.api.sources import limit_inline
from fresco.server.api.upload import UploadedFile
from fresco.server.frames import Layer
from fresco.server.service import Service
from fresco.server.space import require_free

IMAGE_TYPES = ("image/png", "image/jpeg")
"""Content types of a body that is an image."""
_LARGEST_IMAGE = 16
"""Largest size of such an image in megabytes, because it is read into memory."""
_LAYER: Any = Query(Layer.RESULT, description="What of that frame is answered.")
_UNIT: Any = Query(1, ge=1, description="The ControlNet unit whose hint is answered.")
_BASE64 = 4 / 3
"""Number of letters for each byte of a file."""
_MEGABYTE = 1_000_000
_ROOM = 1 << 20
"""Largest number of bytes of a body besides the file in it."""


class Lanes:
    """One lane for each kind of request, so that no kind delays another.

    A person or a program usually has one request at a time. Each check of a video and each
    detection uses a whole core.
    """

    def __init__(self, service: Service) -> None:
        self.uploads = Lane(32, 4)
        self.requests = Lane(32, 4)
        self.detections = Lane(16, 2)
        self.service = service


def take_upload(service: Service, lane: Lane, handler: Callable[..., Response]) -> Any:
    """Make an endpoint whose handler takes a file and its name."""
    async def endpoint(request: Request) -> Response:
        megabytes = service.environment.limits.upload_megabytes
        kind = request.headers.get("content-type", "")
        folder = service.root / "videos"
        async with _open(request, lane) as body:
            with ExitStack() as stack:
                await lane.run_shortly(partial(_require_room, service, request))
                opened = await lane.run_shortly(partial(UploadedFile, kind, folder, megabytes))
                file = stack.enter_context(opened)
                await lane.receive(body, file, megabytes * _MEGABYTE + 2 * _ROOM)

                def work() -> Response:
                    file.finish()
                    return handler(file.path, file.name)

                return await lane.run(work)

    return endpoint


def _require_room(service: Service, request: Request) -> None:
    """Raise NoRoomError if the upload would fill the disk."""
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdecimal() and len(length) < 16 else 0
    require_free(
        service.root, service.environment.limits.free_megabytes, size, what="The upload"
    )


def take_json(service: Service, lane: Lane, handler: Callable[..., Response]) -> Any:
    """Make an endpoint whose handler takes a JSON object."""
    async def endpoint(request: Request) -> Response:
        return await _take(service, lane, handler, request)

    return endpoint


def take_json_of_job(service: Service, lane: Lane, handler: Callable[..., Response]) -> Any:
    """Make an endpoint whose handler takes a JSON object and the id of a job."""
    async def endpoint(request: Request, job: str) -> Response:
        return await _take(service, lane, partial(handler, job=job), request)

    return endpoint


def take_keyframe(service: Service, lane: Lane, handler: Callable[..., Response]) -> Any:
    """Make an endpoint whose handler takes a new image for a keyframe.

    The image comes as bytes or in a JSON object, with the keyframe's job and number, and the number
    of the frame that the user views.
    """
    async def endpoint(
        request: Request, job: str, number: int,
        look: int | None = Query(None, description="Answer this frame with the new keyframe."),
        layer: Layer = _LAYER, unit: int = _UNIT,
    ) -> Response:
        work = partial(handler, job=job, number=number, look=look, layer=layer, unit=unit)
        if _find_type(request) not in IMAGE_TYPES:
            return await _take(service, lane, work, request)
        async with _open(request, lane) as incoming:
            most = min(_LARGEST_IMAGE, limit_inline(service)) * _MEGABYTE
            data = await lane.receive_whole(incoming, most)
            return await lane.run(partial(work, data))

    return endpoint


async def _take(
    service: Service, lane: Lane, handler: Callable[..., Response], request: Request
) -> Response:
    megabytes = limit_inline(service)
    most = int(megabytes * _MEGABYTE * _BASE64) + MOST_PLAIN
    async with _open(request, lane) as incoming:
        _require_json(request)
        with JsonBody(service.root / "incoming") as body:
            await lane.receive(incoming, body, most)

            def work() -> Response:
                return handler(None if body.is_empty else body.read())

            return await lane.run(work)


@asynccontextmanager
async def _open(request: Request, lane: Lane) -> AsyncIterator[Incoming]:
    """Receive the body within the context. If it is refused, the rest is read and discarded."""
    body = Incoming(request.receive)
    try:
        with lane.enter():
            yield body
    except (FrescoError, HTTPException):
        await body.drain()
        raise


def _require_json(request: Request) -> None:
    """Raise 415 for a body of another type.

    A page of another origin can send JSON only after a preflight request, which is refused.
    """
    headers = request.headers
    length = headers.get("content-length", "0").strip()
    if length == "0" and "transfer-encoding" not in headers:
        return
    kind = _find_type(request)
    if not (kind == "application/json" or _is_derived(kind)):
        raise HTTPException(
            415, f"The body is {kind[:100] or 'of no type'}; send JSON, with the header "
            "Content-Type: application/json."
        )


def _find_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_derived(kind: str) -> bool:
    return kind.startswith("application/") and kind.endswith("+json")
