"""Check every request of the page: its login, its size, and which files it may get.

Gradio's own routes check only a login of their own, read bodies of any length, and serve files of
this machine. So these checks come before all routes: of the page, of gradio, and of the API.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fresco.server.api.access import Access
from fresco.server.api.route import Answer
from fresco.server.api.routes import PREFIX

_MEGABYTE = 1_000_000
_MOST_EVENT = 16 * _MEGABYTE
"""Largest size in bytes of a request of the page without files: the values of all controls."""
_UPLOAD = re.compile(r"^/(gradio_api/)?upload$")
_FILES = re.compile(r"^/(gradio_api/)?(file|proxy|stream)([=/]|$)")
"""Routes by which gradio serves files of this machine and pages of others."""
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; "
    "base-uri 'self'; form-action 'self'"
)
"""The page loads nothing from other servers, whatever gradio puts into it."""


@dataclass(frozen=True, slots=True)
class Guard:
    """An ASGI application that checks requests for another one."""

    app: ASGIApp
    """The application behind the checks."""
    access: Access
    """Who may use the page."""
    limit_upload: Callable[[], int]
    """Returns the current limit of uploads in megabytes."""
    head: str
    """HTML put into the head of the page."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            self.access.require(HTTPConnection(scope))
            _require_open(scope["path"])
        except HTTPException as error:
            await _refuse(error, scope, receive, send)
            return
        if scope["type"] == "http":
            receive = self._limit(scope["path"], receive)
            if scope["path"] == "/":
                scope, send = _without_packing(scope), _Page(send, self.head)
        await self.app(scope, receive, send)

    def _limit(self, path: str, receive: Receive) -> Receive:
        """Limit the body of a request; a longer one is answered with 413."""
        if path.startswith(f"{PREFIX}/"):  # the API has its own limits
            return receive
        megabytes = self.limit_upload()
        most = megabytes * _MEGABYTE + _MOST_EVENT if _UPLOAD.match(path) else _MOST_EVENT
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(
                    413, f"More than {most} bytes came, which this server does not take; see "
                    "--upload-megabytes."
                )
            return message

        return limited


def _require_open(path: str) -> None:
    """Raise 403 for a route that serves files, because those of jobs come from the API only."""
    if _FILES.match(path):
        raise HTTPException(403, f"This server serves files under {PREFIX} alone.")


async def _refuse(error: HTTPException, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    answer = Answer({"detail": error.detail}, error.status_code, error.headers)
    await answer(scope, receive, send)


def _without_packing(scope: Scope) -> Scope:
    """Change a request so that its answer is not compressed."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    return {**scope, "headers": headers}


class _Page:
    """Adds HTML to the head of the page."""

    def __init__(self, send: Send, head: str) -> None:
        self._send, self._head = send, head.encode()
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        """Pass a message on; a page is held back until it is complete."""
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            if kind.startswith(b"text/html"):
                self._start = message
                return
        if self._start is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = self._body.replace(b"</head>", self._head + b"</head>", 1)
        headers = [(name, value) for name, value in self._start["headers"]
                   if name.lower() != b"content-length"]
        headers += [(b"content-length", str(len(body)).encode()),
                    (b"content-security-policy", _POLICY.encode())]
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
