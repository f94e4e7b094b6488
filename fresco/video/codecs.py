"""Codecs of result videos: encoder, containers, layout of the frames, and quality."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from fresco.errors import VideoError
from fresco.video.color import FULL, UNTOLD, Colour, choose_stored, rgb_to_planes
from fresco.video.containers import CONTAINERS
from fresco.video.png_text import read_text
from fresco.video.streams import open_container

_HIGHEST_CRF = 51
"""Highest value of `output.crf`, whose scale is that of H.264."""

_CPU_AVX2, _CPU_AVX512 = 11, 13
"""Numbers of OpenCV for `checkHardwareSupport`; Python has no names for them."""


_USUAL_COLOUR = choose_stored(UNTOLD)
_SAY_FULL = frozenset({"libx264", "libx265", "libvpx-vp9", "libsvtav1"})
"""Encoders whose streams can say that values span all numbers."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec, and how frames are stored with it."""

    label: str
    """Name for users."""
    encoder: str
    """FFmpeg's name."""
    suffixes: tuple[str, ...]
    """Endings of files that can hold it; the first is the default."""
    layout: str
    """FFmpeg's pixel format."""
    quality: Callable[[int, bool], dict[str, str]]
    """Options of the encoder from `output.crf`, and whether the last frame is held long."""
    bits: int = 8
    """Bits of a sample."""
    halved: tuple[bool, bool] = (True, True)
    """Whether chroma has half the columns, and half the rows; the frame's sides are even then."""
    alpha_layout: str = ""
    """Pixel format of frames with alpha; empty: it has none."""
    tick: Fraction | None = None
    """Seconds to which every time is rounded; None: the container decides."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Four-letter tag of the stream, by FFmpeg's name of the container."""

    @property
    def deep(self) -> bool:
        """Whether it stores more than 8 bits of a sample, and so takes frames of 16 bits."""
        return self.bits > 8

    @property
    def has_alpha(self) -> bool:
        """Whether its frames have alpha."""
        return self.layout == self.alpha_layout

    def with_alpha(self) -> Codec:
        """The same codec for frames with alpha; VideoError where it has none."""
        if not self.alpha_layout:
            raise VideoError(
                f"output.background is transparent, which {self.label} cannot keep; choose "
                f"another output.codec: {', '.join((*ALPHA, *FOLDERS))}."
            )
        return dataclasses.replace(self, layout=self.alpha_layout)

    def choose_colour(self, source: Colour) -> Colour:
        """Choose how the colours of a source are stored."""
        return choose_stored(source, may_be_full=self.encoder in _SAY_FULL)

    def make_frame(self, rgb: NDArray[Any], colour: Colour = _USUAL_COLOUR) -> VideoFrame:
        """Make a frame to encode from RGB [H, W, 3], or with alpha from [H, W, 4].

        The array is uint8, or uint16 if the codec is `deep`.

        Args:
            colour: result of `choose_colour`.
        """
        height, width = rgb.shape[:2]
        if self.layout == "pal8":
            return _make_palette_frame(rgb)
        if self.layout in ("bgr0", "bgra"):
            whole = np.full((height, width, 4), 255, np.uint8)
            whole[..., :3] = rgb[..., 2::-1]
            if rgb.shape[2] == 4:
                whole[..., 3] = rgb[..., 3]
            planes = [whole.reshape(height, -1)]
        else:
            planes = rgb_to_planes(
                rgb[..., :3], self.bits, *self.halved, matrix=colour.matrix,
                full=colour.span == FULL,
            )
            if self.has_alpha:
                planes.append(_scale_alpha(rgb[..., 3], self.bits))
        frame = VideoFrame(width, height, self.layout)
        for plane, values in zip(frame.planes, planes, strict=True):
            _fill(plane, values)
        if self.layout not in ("bgr0", "bgra"):
            frame.colorspace, frame.color_range = colour.matrix, colour.span
        known: Any = frame
        if hasattr(known, "color_primaries"):  # ProRes uses the tags of its frames; newer PyAV only
            known.color_primaries, known.color_trc = colour.primaries, colour.transfer
        return frame

    def tag(self, context: Any, colour: Colour = _USUAL_COLOUR) -> None:
        """Set in an encoder's context what the colours of `make_frame` mean."""
        if self.layout == "pal8":
            return
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        if self.layout in ("bgr0", "bgra"):
            context.color_range = FULL
        else:
            context.color_range, context.colorspace = colour.span, colour.matrix


def _scale_alpha(alpha: NDArray[Any], bits: int) -> NDArray[Any]:
    """Scale alpha of 8 or 16 bits to a plane of this number of bits."""
    most = 255 if alpha.dtype == np.uint8 else 65535
    scaled = np.rint(alpha.astype(np.float32) * ((2**bits - 1) / most))
    return scaled.astype(np.uint8 if bits == 8 else "<u2")


def _fill(plane: Any, values: NDArray[Any]) -> None:
    """Copy rows into a plane, whose own rows may be longer."""
    rows = np.ascontiguousarray(values).view(np.uint8)
    padded = np.zeros((plane.height, plane.line_size), np.uint8)
    padded[:, : rows.shape[1]] = rows
    plane.update(padded)


def _make_palette_frame(rgb: NDArray[np.uint8]) -> VideoFrame:
    """Make a frame with the 256 colours that suit it best."""
    from PIL import Image

    image = Image.fromarray(rgb).quantize(256, method=Image.Quantize.MEDIANCUT)
    colours = np.asarray(image.getpalette() or [], np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 4), np.uint8)  # alpha, red, green, blue
    palette[:, 0] = 255
    palette[: len(colours), 1:] = colours
    pair: Any = np.asarray(image, np.uint8), palette
    return VideoFrame.from_ndarray(pair, format="pal8")


def _scale(crf: int, highest: int) -> str:
    """Convert `output.crf` to the scale of another encoder."""
    return str(round(crf * highest / _HIGHEST_CRF))


def _choose_h264(crf: int, held: bool) -> dict[str, str]:
    # With AVX-512 x264 does not always write the same bytes for the same frames: 6 of 732 files of
    # the same 20 frames differed (core 165). With the instructions before it none of 600 did.
    wide = all(cv2.checkHardwareSupport(number) for number in (_CPU_AVX2, _CPU_AVX512))
    options = {"crf": str(crf), "preset": "medium"} | ({"x264-params": "asm=avx2"} if wide else {})
    # Containers keep the length of the last packet: it must be the last frame's.
    return options | ({"bf": "0"} if held else {})


def _choose_h265(crf: int, held: bool) -> dict[str, str]:
    parameters = "log-level=error" + (":bframes=0" if held else "")
    return {"crf": str(crf), "preset": "medium", "x265-params": parameters}


def _choose_av1(crf: int, held: bool) -> dict[str, str]:
    os.environ.setdefault("SVT_LOG", "1")  # otherwise it prints its settings for every file
    return {"crf": _scale(crf, 63), "preset": "8"}


def _choose_vp9(crf: int, held: bool) -> dict[str, str]:
    return {"crf": _scale(crf, 63), "b": "0", "deadline": "good", "cpu-used": "2", "row-mt": "1"}


def _choose_webp(crf: int, held: bool) -> dict[str, str]:
    return {"quality": str(100 - int(_scale(crf, 100))), "compression_level": "4"}


def _nothing(crf: int, held: bool) -> dict[str, str]:
    return {}


_USUAL = (".mp4", ".m4v", ".mov", ".mkv")
_HVC1 = {"mp4": "hvc1", "mov": "hvc1"}
"""Apple's players take H.265 by this name only."""

CODECS = {
    "h264": Codec("H.264", "libx264", _USUAL, "yuv420p", _choose_h264),
    "h265": Codec("H.265", "libx265", _USUAL, "yuv420p", _choose_h265, tags=_HVC1),
    "h265-10bit": Codec(
        "H.265, 10 bit", "libx265", _USUAL, "yuv420p10le", _choose_h265, bits=10, tags=_HVC1
    ),
    "av1": Codec(
        "AV1, 10 bit", "libsvtav1", (".mp4", ".mkv", ".webm"), "yuv420p10le", _choose_av1, bits=10
    ),
    "vp9": Codec(
        "VP9", "libvpx-vp9", (".webm", ".mkv", ".mp4"), "yuv420p", _choose_vp9,
        alpha_layout="yuva420p",
    ),
    "prores-422-hq": Codec(
        "ProRes 422 HQ", "prores_ks", (".mov", ".mkv"), "yuv422p10le",
        lambda crf, held: {"profile": "3", "vendor": "apl0"}, bits=10, halved=(True, False),
    ),
    "prores-4444": Codec(
        "ProRes 4444", "prores_ks", (".mov", ".mkv"), "yuv444p10le",
        lambda crf, held: {"profile": "4", "vendor": "apl0"}, bits=10, halved=(False, False),
        alpha_layout="yuva444p10le",
    ),
    "ffv1": Codec(
        "FFV1, lossless", "ffv1", (".mkv",), "bgr0",
        lambda crf, held: {"level": "3", "slicecrc": "1"}, halved=(False, False),
        alpha_layout="bgra",
    ),
    "gif": Codec(
        "GIF", "gif", (".gif",), "pal8", _nothing, halved=(False, False), tick=Fraction(1, 100)
    ),
    "webp": Codec(
        "animated WebP", "libwebp_anim", (".webp",), "bgra", _choose_webp, halved=(False, False),
        alpha_layout="bgra", tick=Fraction(1, 1000),
    ),
}
"""Codecs by their names in `output.codec`."""

ALPHA = tuple(name for name, codec in CODECS.items() if codec.alpha_layout)
"""Names of the codecs that keep transparency."""

FOLDERS = {"png": 8, "png-16bit": 16}
"""Names of `output.codec` that stand for a folder of PNG images -> bits of their samples."""

AUTOMATIC = "auto"
"""`output.codec`: the usual codec of the file's ending."""


def choose_codec(name: str, path: Path) -> Codec:
    """Find the codec of a name for a file; VideoError if the file's ending cannot hold it.

    Args:
        name: a name of `CODECS` or `FOLDERS`, or `AUTOMATIC`.
    """
    suffix = path.suffix.lower()
    if name in FOLDERS:
        raise VideoError(
            f"{path.name} is a file, but output.codec is {name}, which is a folder of images; "
            "name the result without an ending, or choose another codec."
        )
    if suffix not in CONTAINERS:
        raise VideoError(
            f"{path} ends in {path.suffix or 'nothing'}; name the result {', '.join(CONTAINERS)}, "
            "or give a folder for images."
        )
    codec = CODECS[CONTAINERS[suffix].codec if name == AUTOMATIC else name]
    if suffix not in codec.suffixes:
        raise VideoError(
            f"{path.name} cannot hold {codec.label} (output.codec {name}); name the result "
            f"{' or '.join(codec.suffixes)}, or choose another codec."
        )
    if codec.encoder not in av.codecs_available:
        raise VideoError(
            f"PyAV {av.__version__} has no encoder for {codec.label} ({codec.encoder}); choose "
            "another output.codec."
        )
    return codec


def read_comment(path: Path) -> str:
    """Read the comment of a video or PNG file; empty if it has none or is another file."""
    if text := read_text(path):
        return text
    try:
        with open_container(path) as container:
            names = {name.lower(): text for name, text in container.metadata.items()}
    except (OSError, VideoError):
        return ""
    return names.get("comment", "")


def choose_suffix(name: str) -> str:
    """Choose the ending of a result whose codec alone is known; empty means a folder."""
    if name in FOLDERS:
        return ""
    return CODECS["h264" if name == AUTOMATIC else name].suffixes[0]
