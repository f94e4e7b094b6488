"""Read JSON, and write its files in base64 to disk while they arrive.

Only the rest is parsed. It is small, because no body needs more than a megabyte of names, numbers
and words.
"""

from __future__ import annotations

import json
import re
import secrets
import tempfile
from pathlib import Path
from typing import IO, Any

from fastapi import HTTPException

from fresco.errors import SettingsError
from fresco.server.api.fields import MOST_LEVELS
from fresco.server.encoded import EncodedFile
from fresco.writing import explain

MOST_PLAIN = 1_000_000
"""Largest number of bytes of a body besides its files in base64."""
_SHORTEST = 1024
"""Shortest text that is written to disk; shorter ones may be anything."""
_LONGEST = 1 << 16
"""Number of letters from which a text that looks like base64 must be base64. All other texts of the
API are shorter, except keyframes by hand, which contain commas."""
_RUN = re.compile(rb'(?:[^"\\]+|\\/)*')
"""The inside of a JSON string up to its end or an escape; some programs escape slashes."""
_BASE64 = re.compile(rb"(?:data:[\w.+/;=-]{0,200},)?[A-Za-z0-9+/]+={0,2}")
_GOING_ON = re.compile(rb"[A-Za-z0-9+/]*={0,2}")


class JsonBody:
    """Receives a body as it arrives; a sink of `body.Lane`.

    Args:
        folder: folder on the disk for files; they are temporary.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plain = bytearray()
        self._string: bytearray | None = None
        """The present string, while it may still be base64."""
        self._in_string = self._lifting = False
        self._rest = b""
        self._spool: IO[bytes] | None = None
        self._spooled = 0
        self._files: list[EncodedFile] = []
        # Not to be guessed, so that no client names a file that it did not send.
        self._token = secrets.token_hex(16)

    def __enter__(self) -> JsonBody:
        return self

    def __exit__(self, *_: object) -> None:
        if self._spool is not None:
            self._spool.close()

    @property
    def is_empty(self) -> bool:
        """Whether nothing has arrived."""
        return not self._plain

    def write(self, data: bytes) -> None:
        """Receive the next bytes."""
        data, self._rest = self._rest + data, b""
        place = 0
        while place < len(data):
            place = self._read_string(data, place) if self._in_string else (
                self._read_plain(data, place))

    def read(self) -> Any:
        """Parse the value, with an `EncodedFile` in place of every long text in base64."""
        try:
            value = json.loads(bytes(self._plain + self._rest))
            return self._restore(value, 0)
        except RecursionError as error:
            raise _too_deep() from error
        except ValueError as error:
            raise SettingsError(
                f"The request cannot be read ({error}); see /fresco/schema."
            ) from error

    def _read_plain(self, data: bytes, place: int) -> int:
        """Read what is between strings."""
        quote = data.find(b'"', place)
        end = len(data) if quote < 0 else quote + 1
        self._keep(data[place:end])
        if quote >= 0:
            self._in_string, self._string = True, bytearray()
        return end

    def _read_string(self, data: bytes, place: int) -> int:
        """Read a piece of a string: up to its end, an escape, or the end of the data."""
        end = _RUN.match(data, place).end()  # pyright: ignore[reportOptionalMemberAccess]
        if end > place:
            self._take(data[place:end].replace(b"\\/", b"/"))
        if end == len(data):
            return end
        if data[end:end + 1] == b'"':
            self._end_string()
            return end + 1
        if end + 1 == len(data):
            self._rest = data[end:]
            return len(data)
        self._take_plain(data[end:end + 2])
        return end + 2

    def _take(self, piece: bytes) -> None:
        if self._lifting:
            if not _GOING_ON.fullmatch(piece):
                raise _no_base64()
            self._spool_bytes(piece)
        elif self._string is None:
            self._keep(piece)
        else:
            self._string += piece
            if len(self._string) > _LONGEST:
                self._decide()

    def _take_plain(self, piece: bytes) -> None:
        """Take a piece with an escape, which base64 does not have."""
        if self._lifting:
            raise _no_base64()
        if self._string is not None:
            self._keep(self._string)
            self._string = None
        self._keep(piece)

    def _decide(self) -> None:
        """Write the present string to disk if it is base64, otherwise keep it."""
        string, self._string = self._string or bytearray(), None
        if len(string) < _SHORTEST or not _BASE64.fullmatch(string):
            self._keep(string)
            return
        self._lifting = True
        self._files.append(EncodedFile(self._find_spool(), self._spooled, 0))
        self._keep(f"{self._token}{len(self._files) - 1}".encode())
        self._spool_bytes(bytes(string))

    def _end_string(self) -> None:
        if self._string is not None:
            self._decide()
        self._keep(b'"')
        self._in_string = self._lifting = False
        self._string = None

    def _find_spool(self) -> IO[bytes]:
        if self._spool is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._spool = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        return self._spool

    def _spool_bytes(self, data: bytes) -> None:
        try:
            self._find_spool().write(data)
        except OSError as error:
            raise explain(error, self._folder) from error
        self._spooled += len(data)
        self._files[-1].grow(len(data))

    def _keep(self, data: bytes | bytearray) -> None:
        self._plain += data
        if len(self._plain) > MOST_PLAIN:
            raise HTTPException(
                413, f"The request holds more than {MOST_PLAIN} bytes besides files in base64; "
                "shorten it."
            )

    def _restore(self, value: Any, depth: int) -> Any:
        """Put the files into their places in a parsed value."""
        if depth > MOST_LEVELS:
            raise _too_deep()
        if isinstance(value, str) and value.startswith(self._token):
            return self._files[int(value.removeprefix(self._token))]
        if isinstance(value, list):
            return [self._restore(item, depth + 1) for item in value]
        if isinstance(value, dict):
            if any(name.startswith(self._token) for name in value):
                raise SettingsError(
                    f"The request has a field whose name is longer than {_SHORTEST} letters; see "
                    "/fresco/schema."
                )
            return {name: self._restore(item, depth + 1) for name, item in value.items()}
        return value


def _no_base64() -> SettingsError:
    return SettingsError(
        f"A text of more than {_LONGEST} letters in the request is not base64 to its end; encode "
        "the file's bytes, or shorten the text."
    )


def _too_deep() -> SettingsError:
    return SettingsError(f"The request is nested deeper than {MOST_LEVELS} levels; flatten it.")
