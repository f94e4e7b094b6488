"""Receive the file of a form, and write it to disk while it arrives.

Starlette's own forms (`request.form()`) hold texts of any length in memory before Starlette 0.40,
and write the file to a temporary folder first. Here every block goes to the disk that keeps the
file.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from fresco.errors import SettingsError
from fresco.server.videos import too_large
from fresco.writing import explain

SCHEMA: dict[str, Any] = {
    "type": "object", "required": ["video"],
    "properties": {
        "video": {"type": "string", "format": "binary", "description": "The video file."},
    },
}
RESULT_SCHEMA: dict[str, Any] = {
    "type": "object", "required": ["file"],
    "properties": {"file": {
        "type": "string", "format": "binary",
        "description": "A result: a video, a PNG image, or a run file.",
    }},
}
_FIELD = "video"
_FIELDS = (b"video", b"file")
"""Names of the form's field for a file."""
_MOST_HEADERS = 1 << 16
"""Largest size in bytes of all headers within a form."""
_MOST_OTHER = 1 << 20
"""Largest size in bytes of a form besides its file."""
_LONGEST_HEADER = 4096
"""Bytes of a header that is parsed; old parsers take long over long ones."""
_MEGABYTE = 1_000_000
_PLACE = ".incoming-"
"""Start of the name of a file that is being received."""
_ABANDONED = 3600
"""Seconds after which a file that does not grow belongs to a server that was killed; a request
ends after a minute without data."""


class UploadedFile:
    """The file of the field `video`; a sink of `body.Lane`.

    Args:
        content_type: of the request.
        folder: on the disk that keeps videos.
        megabytes: of the file at most.
    """

    def __init__(self, content_type: str, folder: Path, megabytes: int) -> None:
        self.name = ""
        self.path = folder / f"{_PLACE}{secrets.token_hex(8)}"
        self._left, self._megabytes = megabytes * _MEGABYTE, megabytes
        self._other = _MOST_OTHER
        self._header: list[bytes] = [b"", b""]
        self._part: dict[bytes, bytes] = {}
        self._headers = 0
        self._here = self._found = self._whole = False
        self._parser = self._make_parser(content_type)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder)
            self._file = _open(self.path)
        except OSError as error:
            raise explain(error, folder) from error

    def __enter__(self) -> UploadedFile:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file unless it was moved."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def write(self, data: bytes) -> None:
        """Receive the next bytes of the request."""
        if self._whole:
            return
        try:
            with _explain_errors():
                self._parser.write(data)
        except OSError as error:
            raise explain(error, self.path.parent) from error
        if not self._here:
            self._other -= len(data)
        if self._other < 0:
            raise SettingsError(
                f"The form holds more than {_MOST_OTHER} bytes besides a file in its field "
                f"{_FIELD!r}; send the video alone."
            )

    def finish(self) -> None:
        """Raise SettingsError unless the whole file has arrived."""
        if not self._found:
            raise SettingsError(
                f"The form has no file in its field {_FIELD!r}; send the video there."
            )
        if not self._whole:
            raise SettingsError("The form ends before its last line; send the file again.")
        try:
            self._file.close()
        except OSError as error:
            raise explain(error, self.path.parent) from error

    def _make_parser(self, content_type: str) -> Any:
        multipart = _multipart()
        kind, options = _read_header(content_type.encode("latin-1", "replace"))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise SettingsError(
                f"The body is {content_type[:200] or 'of no type'}; send a form "
                f"(multipart/form-data) with the file in its field {_FIELD!r}."
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
            _, self._part = _read_header(value)
        self._header = [b"", b""]

    def _end_headers(self) -> None:
        named = self._part.get(b"name") in _FIELDS
        coded, plain = self._part.get(b"filename*"), self._part.get(b"filename")
        self._here = named and not self._found and (coded or plain) is not None
        if self._here:
            self._found = True
            self.name = unquote(_decode(coded).rpartition("'")[2]) if coded else _decode(plain)

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._here:
            self._left -= end - start
            if self._left < 0:
                raise too_large(self._megabytes)
            self._file.write(data[start:end])

    def _end(self) -> None:
        self._whole = True


def _open(path: Path) -> BinaryIO:
    return path.open("xb")


def _remove_abandoned(folder: Path) -> None:
    """Remove incomplete uploads of servers that were killed."""
    for path in folder.glob(f"{_PLACE}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _ABANDONED:
                path.unlink()


def _read_header(value: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Read a header's value and its options."""
    if len(value) > _LONGEST_HEADER:
        raise SettingsError(f"A header of the form is above {_LONGEST_HEADER} bytes; shorten it.")
    return _multipart().parse_options_header(value)


def _decode(name: bytes | None) -> str:
    return (name or b"").decode("utf-8", "replace")


def _multipart() -> Any:
    """Import python-multipart under its present or former name; gradio needs it, too."""
    try:
        from python_multipart import multipart
    except ImportError:
        from multipart import multipart
    return multipart


@contextmanager
def _explain_errors() -> Iterator[None]:
    """Convert errors of the parser to errors of the sender."""
    try:
        yield
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"The form cannot be read ({error}); send the file again.") from error
