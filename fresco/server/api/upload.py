"""The file in a form, read from the network as it is asked for.

Starlette's own forms (`request.form()`) hold texts in memory, of any length before Starlette 0.40,
and write the file to a temporary folder before it can be copied. Here every block goes straight to
its place; `route.py` counts them up to the limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import unquote

import anyio.from_thread
from starlette.requests import Request

from fresco.errors import SettingsError

SCHEMA: dict[str, Any] = {
    "type": "object", "required": ["video"],
    "properties": {
        "video": {"type": "string", "format": "binary", "description": "The video file."},
    },
}
_FIELD = "video"
_MOST_HEADERS = 1 << 16
"""Bytes of all headers within a form."""


class UploadedFile:
    """The file of the field `video`. Only in a thread of the server's pool."""

    def __init__(self, request: Request) -> None:
        self.name = ""
        self._stream = request.stream()
        self._blocks: deque[bytes] = deque()
        self._header: list[bytes] = [b"", b""]
        self._part: dict[bytes, bytes] = {}
        self._headers = 0
        self._here = self._found = self._whole = self._over = False
        self._parser = self._make_parser(request.headers.get("content-type", ""))
        while not self._found and not self._over:
            self._pull()
        if not self._found:
            raise SettingsError(
                f"The form has no file in its field {_FIELD!r}; send the video there."
            )

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, as many as came at once; nothing at the end."""
        while not self._blocks and not self._over:
            self._pull()
        return self._blocks.popleft() if self._blocks else b""

    def _pull(self) -> None:
        """The next bytes of the request, through the loop of the server."""
        data = anyio.from_thread.run(self._next)
        if data:
            with _explain_errors():
                self._parser.write(data)
            return
        self._over = True
        if not self._whole:
            raise SettingsError("The form ends before its last line; send the file again.")

    async def _next(self) -> bytes:
        return await anext(self._stream, b"")

    def _make_parser(self, content_type: str) -> Any:
        multipart = _multipart()
        kind, options = multipart.parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise SettingsError(
                f"The body is {content_type or 'of no type'}; send a form (multipart/form-data) "
                f"with the file in its field {_FIELD!r}."
            )
        with _explain_errors():
            return multipart.MultipartParser(options[b"boundary"], {
                "on_part_begin": self._begin_part,
                "on_header_field": partial(self._extend_header, 0),
                "on_header_value": partial(self._extend_header, 1),
                "on_header_end": self._end_header, "on_headers_finished": self._end_headers,
                "on_part_data": self._take_data, "on_end": self._end,
            })

    def _begin_part(self) -> None:
        self._header, self._part = [b"", b""], {}
        self._here = False

    def _extend_header(self, which: int, data: bytes, start: int, end: int) -> None:
        self._headers += end - start
        if self._headers > _MOST_HEADERS:
            raise SettingsError(f"The headers in the form are above {_MOST_HEADERS} bytes.")
        self._header[which] += data[start:end]

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            _, self._part = _multipart().parse_options_header(value)
        self._header = [b"", b""]

    def _end_headers(self) -> None:
        named = self._part.get(b"name") == _FIELD.encode()
        coded, plain = self._part.get(b"filename*"), self._part.get(b"filename")
        self._here = named and not self._found and (coded or plain) is not None
        if self._here:
            self._found = True
            self.name = unquote(_decode(coded).rpartition("'")[2]) if coded else _decode(plain)

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._here and end > start:
            self._blocks.append(data[start:end])

    def _end(self) -> None:
        self._whole = True


def _decode(name: bytes | None) -> str:
    return (name or b"").decode("utf-8", "replace")


def _multipart() -> Any:
    """python-multipart by its present or its former name; gradio needs it too."""
    try:
        from python_multipart import multipart
    except ImportError:
        from multipart import multipart
    return multipart


@contextmanager
def _explain_errors() -> Iterator[None]:
    """Errors of the parser, which are of the sender."""
    try:
        yield
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"The form cannot be read ({error}); send the file again.") from error
