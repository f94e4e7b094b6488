"""Check the login before each route, limit the body, and answer errors with one sentence."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from fresco.errors import FrescoError, SettingsError, VideoError
from fresco.server.api.access import Access
from fresco.server.jobs.engine import JobConflictError, UnknownJobError
from fresco.server.videos import TooLargeError, UnknownVideoError

_LONGEST = 2000
"""Longest error message in letters; the value that it names may be a whole file."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_CODES: tuple[tuple[type[FrescoError], int], ...] = (
    (UnknownJobError, 404), (UnknownVideoError, 404), (JobConflictError, 409),
    (TooLargeError, 413), (SettingsError, 422), (VideoError, 422),
    # Faults of this machine, not of the client: a full disk, a missing file of weights.
    (FrescoError, 503),
)
"""Status codes by class of error; the first one that fits is used."""


class Answer(JSONResponse):
    """JSON in ASCII, so that a text that cannot be encoded can still be sent."""

    def render(self, content: Any) -> bytes:
        """Encode the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class MissingError(SettingsError):
    """A job has not made the requested file."""


PAGE_KEY = "x-fresco-page"
"""Header with which the tab identifies its requests."""
_OF_PAGE = frozenset({
    ("GET", "/fresco/jobs/{job}/frames/{number}"),
    ("GET", "/fresco/jobs/{job}/keyframes/{number}"),
    ("GET", "/fresco/jobs/{job}/judged"),
    ("POST", "/fresco/jobs/{job}/keyframes/{number}"),
})
"""Routes that the tab itself calls, because they are faster than gradio. If only the API has a
password, the page does not know it."""


def make_route_class(access: Access, page_key: str) -> type[APIRoute]:
    """Make the class of the API's routes.

    Args:
        page_key: value of the tab's `PAGE_KEY`.
    """

    class GuardedRoute(APIRoute):
        """A route that checks the login before the first byte of a body is read.

        No route has a body that FastAPI reads: it would read all of it before it asks for the
        login of the host, which is one of its dependencies.
        """

        def get_route_handler(self) -> Handler:
            """Put these checks around the route's own handler."""
            handle = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                given = request.headers.get(PAGE_KEY, "")
                from_page = (request.method, self.path_format) in _OF_PAGE and (
                    secrets.compare_digest(given.encode(), page_key.encode())
                )
                access.require(request, from_page=from_page)
                try:
                    return await handle(request)
                except RequestValidationError as error:
                    raise HTTPException(422, _explain(error)) from error
                except ClientDisconnect as error:
                    raise HTTPException(400, "The request ended before its body.") from error
                except FrescoError as error:
                    raise HTTPException(find_code(error), shorten(str(error))) from error

            return guarded

    return GuardedRoute


def find_code(error: FrescoError) -> int:
    """Find the status code of HTTP for an error."""
    if isinstance(error, MissingError):
        return 404
    return next(code for kind, code in _CODES if isinstance(error, kind))


def shorten(text: str) -> str:
    """Shorten a text, and make it one that can be sent."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _explain(error: RequestValidationError) -> str:
    """Describe in words what FastAPI found wrong."""
    found = []
    for item in error.errors():
        place = ".".join(str(part) for part in item.get("loc", ()))
        found.append(f"{place}: {item.get('msg', 'wrong')}")
    return shorten(f"The request cannot be read ({'; '.join(found)}); see /fresco/schema.")
