"""The synthesis program as a user runs it, and what it must compute in plain numpy."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from fresco.propagation.program import find_program

RUN_SECONDS = 120.0
"""Every run of these tests takes well below a second; sanitizers slow it twentyfold."""
KEPT = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}
"""Channels of RGBA that an image with so many channels has."""


@cache
def program() -> str:
    return str(find_program())


def start(*words: object, folder: Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the program in a folder until it ends."""
    return subprocess.run(
        [program(), *map(str, words)], cwd=folder, input=given, capture_output=True,
        check=False, timeout=RUN_SECONDS,
    )


def start_in_80_mb(*words: object, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """The same with 80 MB for stacks and all else; skips where that cannot be."""
    if sys.platform != "linux":
        pytest.skip("only on Linux a limit counts the stacks of threads")

    def limited(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["sh", "-c", 'ulimit -v 80000; exec "$@"', "sh", program(), *words], cwd=folder,
            capture_output=True, check=False, timeout=RUN_SECONDS,
        )

    if limited("-version").returncode:
        pytest.skip("this build of the program does not start in 80 MB")
    return limited(*map(str, words))


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refused(code: int, *words: object, folder: Path, given: bytes = b"") -> str:
    """What the program says, in one line, when it ends with this code and leaves nothing behind."""
    before = listing(folder)
    done = start(*words, folder=folder, given=given)
    text = done.stderr.decode("utf-8")
    assert done.returncode == code, text
    assert text.startswith("ebsynth: ")
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    assert len(text) < 1000
    assert listing(folder) == before
    if not given:
        assert done.stdout == b""
    return text


def blocks(seed: int, height: int, width: int, channels: int = 3, side: int = 2) -> np.ndarray:
    """Squares of random colours, uint8."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // side + 1, width // side + 1, channels), np.uint8)
    return coarse.repeat(side, 0).repeat(side, 1)[:height, :width]


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    """File of an image in grey, RGB or RGBA."""
    if image.ndim == 3 and image.shape[2] in (3, 4):
        order = [2, 1, 0] + [3] * (image.shape[2] == 4)
        image = np.ascontiguousarray(image[..., order])
    done, data = cv2.imencode(suffix, image)
    assert done
    return data.tobytes()


def decoded(path: Path) -> np.ndarray:
    """A written PNG as [H, W, C]: grey, RGB or RGBA."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    if image.ndim == 2:
        return image[..., None]
    return image[..., [2, 1, 0] + [3] * (image.shape[2] == 4)]


@dataclass(frozen=True)
class Guide:
    source: np.ndarray
    target: np.ndarray
    weight: float | None = None


@dataclass(frozen=True)
class Painted:
    output: np.ndarray
    """uint8 [H, W, C]."""
    errors: np.ndarray
    """float32 [H, W]."""
    field: np.ndarray
    """int32 [H, W, 2], x and y of every pixel's match."""
    data: bytes
    """All files written, one after the other."""


def read_errors(path: Path) -> np.ndarray:
    data = path.read_bytes()
    (count,) = struct.unpack_from("<q", data)
    assert len(data) == 8 + 4 * count
    return np.frombuffer(data, "<f4", offset=8)


def read_field(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """The field, and width and height of its source."""
    data = path.read_bytes()
    width, height, *source = struct.unpack_from("<4i", data)
    assert len(data) == 16 + 8 * width * height
    return np.frombuffer(data, "<i4", offset=16).reshape(height, width, 2), (source[0], source[1])


def field_bytes(field: np.ndarray, source: np.ndarray) -> bytes:
    """A field in the file's format."""
    sizes = (field.shape[1], field.shape[0], source.shape[1], source.shape[0])
    return struct.pack("<4i", *sizes) + field.astype("<i4").tobytes()


def command(
    folder: Path, style: np.ndarray, guides: Sequence[Guide], style_weight: float | None = None
) -> list[str]:
    """Write the images; the words that name them."""
    (folder / "style.png").write_bytes(encoded(style))
    words = ["-style", "style.png"]
    if style_weight is not None:
        words += ["-weight", repr(style_weight)]
    for number, guide in enumerate(guides):
        names = [f"source{number}.png", f"target{number}.png"]
        for name, image in zip(names, (guide.source, guide.target), strict=True):
            (folder / name).write_bytes(encoded(image))
        words += ["-guide", *names]
        if guide.weight is not None:
            words += ["-weight", repr(guide.weight)]
    return words


def painted(words: Sequence[str], *options: object, folder: Path) -> Painted:
    """Run a command and read all it writes."""
    files = [folder / name for name in ("out.png", "out.bin", "out.nnf")]
    done = start(
        *words, *options, "-output", files[0], "-errormap", files[1], "-nnf", files[2],
        folder=folder,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    assert done.stdout == b""
    output = decoded(files[0])
    field, _ = read_field(files[2])
    assert field.shape[:2] == output.shape[:2]
    errors = read_errors(files[1]).reshape(output.shape[:2])
    result = Painted(output, errors, field, b"".join(path.read_bytes() for path in files))
    for path in files:
        path.unlink()
    return result


def rgba(image: np.ndarray) -> np.ndarray:
    """Any image with four channels."""
    if image.ndim == 2:
        image = image[..., None]
    colour = image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, 2)
    opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
    return np.concatenate([colour, image[..., 3:] if image.shape[2] == 4 else opaque], 2)


def needed_channels(*images: np.ndarray) -> int:
    """Most channels that one of the images needs."""
    counts = []
    for image in map(rgba, images):
        grey = (image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all()
        counts.append((1 if grey else 3) + bool((image[..., 3] < 255).any()))
    return max(counts)


def distance_parts(
    style: np.ndarray, guides: Sequence[Guide], style_weight: float, result: Painted, patch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Squared differences over every patch by channel, [H, W, C], and the channels' weights."""
    channels = needed_channels(style)
    sources, targets = [rgba(style)[..., KEPT[channels]]], [result.output]
    weights = [style_weight / channels] * channels
    for guide in guides:
        channels = needed_channels(guide.source, guide.target)
        sources.append(rgba(guide.source)[..., KEPT[channels]])
        targets.append(rgba(guide.target)[..., KEPT[channels]])
        weight = 1 / len(guides) if guide.weight is None else guide.weight
        weights += [weight / channels] * channels
    source = np.concatenate(sources, 2).astype(np.int64)
    target = np.concatenate(targets, 2).astype(np.int64)
    rows, columns = np.indices(target.shape[:2])
    sums = np.zeros(target.shape, np.int64)
    for dy, dx in offsets(patch):
        ours = target[clipped(rows + dy, target.shape[0]), clipped(columns + dx, target.shape[1])]
        theirs = source[clipped(result.field[..., 1] + dy, source.shape[0]),
                        clipped(result.field[..., 0] + dx, source.shape[1])]
        sums += (ours - theirs) ** 2
    return sums, np.array(weights)


def offsets(patch: int) -> list[tuple[int, int]]:
    reach = range(-(patch // 2), patch // 2 + 1)
    return [(dy, dx) for dy in reach for dx in reach]


def clipped(places: np.ndarray, side: int) -> np.ndarray:
    return np.clip(places, 0, side - 1)


def voted(style: np.ndarray, field: np.ndarray, patch: int) -> np.ndarray:
    """Mean of what the patches that cover a pixel say of it, rounded half up; uint8 [H, W, C]."""
    source = rgba(style)[..., KEPT[needed_channels(style)]].astype(np.int64)
    height, width = field.shape[:2]
    sums = np.zeros((height, width, source.shape[2]), np.int64)
    votes = np.zeros((height, width, 1), np.int64)
    rows, columns = np.indices((height, width))
    for dy, dx in offsets(patch):
        y, x = rows + dy, columns + dx
        match = field[clipped(y, height), clipped(x, width)]
        sy, sx = match[..., 1] - dy, match[..., 0] - dx
        counts = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        counts &= (sy >= 0) & (sy < source.shape[0]) & (sx >= 0) & (sx < source.shape[1])
        sums += counts[..., None] * source[clipped(sy, source.shape[0]),
                                           clipped(sx, source.shape[1])]
        votes += counts[..., None]
    return ((2 * sums + votes) // (2 * votes)).astype(np.uint8)


def usage(field: np.ndarray, source: np.ndarray, patch: int) -> np.ndarray:
    """How many patches of the target cover each pixel of the source."""
    counts = np.zeros(source.shape[:2])
    np.add.at(counts, (field[..., 1], field[..., 0]), 1)
    return cv2.boxFilter(counts, -1, (patch, patch), normalize=False,
                         borderType=cv2.BORDER_CONSTANT)


@dataclass(frozen=True)
class Shifted:
    """Style and guide of blocks, and the same moved left by `shift`: the answer is known."""

    shift: int = 5
    height: int = 40
    width: int = 56

    def moved(self, image: np.ndarray) -> np.ndarray:
        return image[:, self.shift:self.shift + self.width]

    def image(self, seed: int, channels: int = 3) -> np.ndarray:
        return blocks(seed, self.height, self.width + self.shift, channels)

    @property
    def style(self) -> np.ndarray:
        return self.image(7)[:, :self.width]

    @property
    def wanted(self) -> np.ndarray:
        return self.moved(self.image(7))

    def guide(self, seed: int = 99, channels: int = 3, weight: float | None = 4.0) -> Guide:
        image = self.image(seed, channels)
        return Guide(image[:, :self.width], self.moved(image), weight)

    def inside(self, image: np.ndarray, edge: int = 4) -> np.ndarray:
        """Where the answer is known: patches that have a counterpart in the source."""
        return image[edge:-edge, edge:-edge - self.shift]
