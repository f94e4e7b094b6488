"""Files that are no videos, or no longer, or pretend to be enormous."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.clips import moving_texture, write_clip, write_sound


def broken_videos(good: Path, folder: Path) -> dict[str, bytes]:
    """Name -> bytes of files that must be refused.

    Args:
        good: an MP4 that is whole.
        folder: for what has to be written first.
    """
    data = good.read_bytes()
    stream = write_clip(folder / "a.mkv", moving_texture(24, 64, 64)).read_bytes()
    noise = np.random.default_rng(0).bytes(20_000)
    return {
        **dict(_cut(data, "mp4")), **dict(_cut(stream, "mkv")), **dict(_pictures()),
        **dict(_texts()), **dict(_lists(good)),
        "nothing.mp4": b"",
        "one byte.mp4": b"\0",
        "zeros.mp4": bytes(50_000),
        "noise.mp4": noise,
        "noise.webm": b"\x1a\x45\xdf\xa3" + noise,
        "noise.avi": b"RIFF\xff\xff\xff\x7fAVI LIST" + noise,
        "noise.ts": (b"\x47" + noise[:187]) * 60,
        "noise.flv": b"FLV\x01\x05\0\0\0\x09" + noise,
        "noise.ogv": b"OggS" + noise,
        "noise.gif": b"GIF89a\xff\xff\xff\xff\xf7\0\0" + noise[:200],
        "sound.mp4": write_sound(folder / "sound.m4a").read_bytes(),
        "huge box.mp4": data[:4] + b"ftyp" + data[8:32] + struct.pack(">IQ", 1, 1 << 62) + noise,
        "huge header.gif": _huge_gif(),
        "huge header.ivf": _huge_ivf(),
        "many samples.mp4": _counted(data),
        "zip.mp4": _zipped(data),
        "gzip.mp4": gzip.compress(data),
        "elf.mp4": b"\x7fELF" + noise,
    }


def _cut(data: bytes, kind: str) -> Iterator[tuple[str, bytes]]:
    """Cut off or damaged in the middle, the index at the end lost."""
    for share in (1, 25, 50, 75):
        yield f"cut at {share}%.{kind}", data[: len(data) * share // 100]
    yield f"headless.{kind}", data[len(data) // 3 :]


def _pictures() -> Iterator[tuple[str, bytes]]:
    image = Image.effect_noise((64, 64), 50).convert("RGB")
    for kind, name in (("PNG", "png.mp4"), ("JPEG", "jpeg.mov"), ("BMP", "bmp.avi"),
                       ("WEBP", "webp.webm"), ("PNG", "picture.png")):
        file = io.BytesIO()
        image.save(file, kind)
        yield name, file.getvalue()


def _texts() -> Iterator[tuple[str, bytes]]:
    yield "page.mp4", b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 40
    yield "text.mp4", b"This is not a video.\n" * 300
    yield "script.mp4", b"#!/bin/sh\ntouch /tmp/owned\n"
    yield "vector.mp4", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="a"/></svg>'


def _lists(good: Path) -> Iterator[tuple[str, bytes]]:
    """Lists that name other files: of this machine, or of another."""
    path = str(good).encode()
    yield "list.mp4", b"ffconcat version 1.0\nfile '" + path + b"'\n"
    yield "playlist.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n" + path
    yield "far playlist.ts", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"
    yield "manifest.mp4", (
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        b'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4">'
        b'<Representation id="1" bandwidth="1"><BaseURL>' + path + b"</BaseURL>"
        b"</Representation></AdaptationSet></Period></MPD>"
    )
    yield "session.mp4", b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"


def _huge_gif() -> bytes:
    """One frame of one pixel on a screen of 65535x65535."""
    screen = b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6)
    return screen + b"\x2c" + bytes(4) + b"\x01\0\x01\0\0\x02\x02\x44\x01\0\x3b"


def _huge_ivf() -> bytes:
    """A key frame of VP8 that says it is 16383x16383."""
    frame = b"\x50\x01\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(40)
    header = struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, b"VP80", 16383, 16383, 30, 1, 1, 0)
    return header + struct.pack("<IQ", len(frame), 0) + frame


def _counted(data: bytes) -> bytes:
    """The header names four thousand million frames."""
    broken = bytearray(data)
    at = broken.index(b"stsz") + 12
    broken[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(broken)


def _zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.mp4", data)
    return file.getvalue()


def huge_png(side: int) -> bytes:
    """A small file that is a picture of that many pixels a side, all of them black."""
    row = zlib.compressobj(9)
    body = b"".join(row.compress(bytes(1 + side * 3)) for _ in range(side)) + row.flush()
    return _png(side, body) + _chunk(b"IEND", b"")


def started_png(side: int) -> bytes:
    """The beginning of such a file: it names the size and holds no pixel."""
    return _png(side, zlib.compress(bytes(1000), 9))[:60]


def _png(side: int, body: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body)


def _chunk(kind: bytes, part: bytes) -> bytes:
    return (struct.pack(">I", len(part)) + kind + part
            + struct.pack(">I", zlib.crc32(kind + part)))
