"""Convert decoded frames to RGB and back, with the matrix and range that the stream names.

FFmpeg's own scaler darkens by about one grey level a round trip at its default settings, and the
flags against that differ between versions of PyAV. So planar YUV is converted here, in float32; the
scaler only unpacks formats that are not planar.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import av
import cv2
import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from fresco.errors import VideoError

BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M = 1, 2, 4, 5, 6
SMPTE240M, BT2020_NCL, BT2020_CL = 7, 9, 10
"""Matrix numbers of ITU-T H.273, which FFmpeg uses as they are."""

LIMITED, FULL = 1, 2
"""Range numbers of FFmpeg: 16..235 and 0..255."""

_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020_NCL: (0.2627, 0.0593),
    BT2020_CL: (0.2627, 0.0593),
}
"""Weights of red and blue in luma, by matrix (H.273, table 4)."""


@dataclass(frozen=True, slots=True)
class Colour:
    """What the colours of a video's frames mean, in the numbers of H.273."""

    primaries: int = UNSPECIFIED
    """Chromaticities of red, green, blue and white."""
    transfer: int = UNSPECIFIED
    """Function from light to values."""
    matrix: int = UNSPECIFIED
    """Matrix from RGB to Y, Cb and Cr."""
    span: int = 0
    """`LIMITED` or `FULL`; 0: the stream does not say."""


UNTOLD = Colour()
"""Colours of a source without tags."""


def choose_stored(source: Colour, *, may_be_full: bool = True) -> Colour:
    """Choose how a result is stored: like its source, or if unknown as BT.709, limited range.

    Frames stay values of the source's primaries and transfer all the way; they are only taken
    from one matrix and range to RGB and back.

    Args:
        may_be_full: whether the codec can say that values span 0..255.
    """
    known = source.matrix in _WEIGHTS
    matrix = BT2020_NCL if source.matrix == BT2020_CL else source.matrix
    return Colour(
        BT709 if source.primaries in (0, UNSPECIFIED) else source.primaries,
        BT709 if source.transfer in (0, UNSPECIFIED) else source.transfer,
        matrix if known else BT709,
        FULL if may_be_full and known and source.span == FULL else LIMITED,
    )


_HD_WIDTH, _SD_HEIGHT = 1280, 576
"""An untagged frame this wide, or taller than that, is taken as BT.709 as players do."""


def guess_matrix(width: int, height: int) -> int:
    """Guess the matrix of a stream without tags by its size."""
    return BT709 if width >= _HD_WIDTH or height > _SD_HEIGHT else SMPTE170M


@lru_cache(maxsize=16)
def rgb_matrix(matrix: int, full: bool) -> NDArray[np.float64]:
    """Make the [3, 4] affine map from 8-bit Y, Cb, Cr to R, G, B of 0..255."""
    red, blue = _WEIGHTS[matrix]
    green = 1 - red - blue
    linear = np.array([
        [1, 0, 2 * (1 - red)],
        [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
        [1, 2 * (1 - blue), 0],
    ])
    luma, chroma, black = (1.0, 1.0, 0.0) if full else (255 / 219, 255 / 224, 16.0)
    linear = linear * [luma, chroma, chroma]
    return np.asarray(np.column_stack([linear, -linear @ [black, 128.0, 128.0]]), np.float64)


@lru_cache(maxsize=16)
def yuv_matrix(matrix: int, full: bool) -> NDArray[np.float64]:
    """Make the [3, 4] affine map from R, G, B of 0..255 to 8-bit Y, Cb, Cr."""
    forward = rgb_matrix(matrix, full)
    inverse = np.linalg.inv(forward[:, :3])
    return np.asarray(np.column_stack([inverse, -inverse @ forward[:, 3]]), np.float64)


def to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Round and clamp to 0..255."""
    rounded = cv2.addWeighted(values, 1, values, 0, 0, dtype=cv2.CV_8U)
    return np.asarray(rounded, np.uint8).reshape(values.shape)


def lay_over_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay an RGBA image over black; returns RGB."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return to_uint8(rgba[..., :3] * alpha)


def _read_samples(frame: VideoFrame, number: int, dtype: str, count: int = 1) -> NDArray[Any]:
    """Read one plane as it is stored, [H, W * count].

    Args:
        dtype: of a sample, without its byte order.
        count: samples a pixel.
    """
    plane = frame.planes[number]
    order = ">" if frame.format.is_big_endian else "<"
    kind = np.dtype(order + dtype)
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    wanted = rows[: plane.height, : plane.width * count * kind.itemsize]
    return np.ascontiguousarray(wanted).view(kind)


def _read_plane(frame: VideoFrame, number: int, bits: int) -> NDArray[np.float32]:
    """Read one plane in 8-bit units: a 10-bit value of 64 becomes 16.0."""
    values = _read_samples(frame, number, "u1" if bits <= 8 else "u2").astype(np.float32)
    if bits > 8:
        values *= 2.0 ** (8 - bits)
    return values


def _upsample(chroma: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarge a chroma plane to luma's size, (width, height).

    Where it is halved, samples sit on every second luma column and between two luma rows: the
    position that H.264 and similar codecs assume unless told otherwise.
    """
    width, height = size
    rows, columns = chroma.shape
    if (columns, rows) == size:
        return chroma
    step_x, step_y = round(width / columns), round(height / rows)
    tall = cv2.resize(chroma, (columns, rows * step_y), interpolation=cv2.INTER_LINEAR)
    right = np.concatenate([tall[:, 1:], tall[:, -1:]], axis=1)
    wide = np.empty((rows * step_y, columns * step_x), np.float32)
    for offset in range(step_x):
        share = offset / step_x
        wide[:, offset::step_x] = cv2.addWeighted(tall, 1 - share, right, share, 0)
    return wide[:height, :width]


def _choose_matrix(frame: VideoFrame) -> int:
    matrix = int(frame.colorspace)
    if matrix == UNSPECIFIED:
        return guess_matrix(frame.width, frame.height)
    if matrix not in _WEIGHTS:
        raise VideoError(
            f"The frame's colour matrix is number {matrix} of H.273, which is not supported; "
            "convert the video to BT.709 first."
        )
    return matrix


def _convert(frame: VideoFrame, target: str, **how: int) -> VideoFrame:
    """Convert a frame to another layout by FFmpeg's scaler."""
    try:
        return frame.reformat(format=target, **how)
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(
            f"The frame's layout, {frame.format.name}, cannot be read; convert the video to "
            "yuv420p or rgb24 first."
        ) from error


def _unpack(frame: VideoFrame, bits: int) -> VideoFrame:
    """Convert a frame to one plane a component, with the same depth, range and matrix."""
    parts = frame.format.components
    if len({part.plane for part in parts}) == len(parts):
        return frame
    alpha = "a" if any(part.is_alpha for part in parts) else ""
    target = f"yuv{alpha}444p" if bits <= 8 else f"yuv{alpha}444p16le"
    span = int(frame.color_range) or LIMITED
    return _convert(frame, target, src_color_range=span, dst_color_range=span)


def _count_bits(frame: VideoFrame) -> int:
    """Number of bits of a sample, counted from the top of its bytes if it is stored there."""
    # Such as yuv444p10msble, whose 10 bits are the upper ones of 16.
    return 16 if "msb" in frame.format.name else frame.format.components[0].bits


def _is_full(frame: VideoFrame) -> bool:
    """Whether values use 0..255; without a tag grey does and colour does not."""
    span = int(frame.color_range)
    if span in (LIMITED, FULL):
        return span == FULL
    return frame.format.name.startswith("yuvj") or _is_grey(frame)


def _build_affine(matrix: int, full: bool, bits: int) -> NDArray[np.float32]:
    """Make `rgb_matrix` for values in the units of `_read_plane`."""
    affine = rgb_matrix(matrix, full).copy()
    if full and bits > 8:
        # 10-bit white is 1023, that is 255.75 in 8-bit units.
        affine[:, :3] *= 255 / (256 - 2.0 ** (8 - bits))
        affine[:, 3] = -affine[:, 1:3] @ [128.0, 128.0]
    return affine.astype(np.float32)


def _is_grey(frame: VideoFrame) -> bool:
    """Whether a frame has no colours, and so no colour matrix."""
    kind = frame.format
    colours = [part for part in kind.components if not part.is_alpha]
    return len(colours) == 1 and not kind.has_palette and not kind.is_rgb


def _read_grey(frame: VideoFrame) -> NDArray[np.float32]:
    """Read all samples of a grey frame from 0 to 1, [H, W, 1], or with alpha [H, W, 2]."""
    name, count = frame.format.name, len(frame.format.components)
    bits = frame.format.components[0].bits
    if bits == 1:
        plane = frame.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        dots = np.unpackbits(rows[: frame.height], axis=1)[:, : frame.width]
        values = (1 - dots if name.startswith("monow") else dots).astype(np.float32)
    elif name.startswith(("grayf", "yaf")):
        values = _read_samples(frame, 0, f"f{bits // 8}", count).astype(np.float32)
    else:
        whole = _read_samples(frame, 0, f"u{4 if bits > 16 else 2 if bits > 8 else 1}", count)
        values = (whole / (2.0**bits - 1)).astype(np.float32)
    return values.reshape(frame.height, frame.width, count)


def _grey_to_rgb(frame: VideoFrame) -> NDArray[np.uint8]:
    values = _read_grey(frame)
    grey = values[..., :1] * 255
    if not _is_full(frame):
        # In 8-bit units: 10-bit black is 64 of 1023, that is 16 of 255.75.
        bits = frame.format.components[0].bits
        grey = (grey * (1 if bits <= 8 else (256 - 2.0 ** (8 - bits)) / 255) - 16) * (255 / 219)
    rgb = to_uint8(np.repeat(grey, 3, axis=2))
    if values.shape[2] == 2:
        return lay_over_black(np.dstack([rgb, to_uint8(values[..., 1:] * 255)]))
    return rgb


def _yuv_to_rgb(frame: VideoFrame) -> NDArray[np.uint8]:
    matrix, full = _choose_matrix(frame), _is_full(frame)
    planar = _unpack(frame, frame.format.components[0].bits)
    bits = _count_bits(planar)
    luma = _read_plane(planar, 0, bits)
    size = (luma.shape[1], luma.shape[0])
    chroma = [_upsample(_read_plane(planar, k, bits), size) for k in (1, 2)]
    rgb = to_uint8(cv2.transform(cv2.merge([luma, *chroma]), _build_affine(matrix, full, bits)))
    if len(planar.planes) == 4:
        return lay_over_black(np.dstack([rgb, to_uint8(_read_plane(planar, 3, bits))]))
    return rgb


def _swap_bytes(frame: VideoFrame) -> VideoFrame:
    """Swap bytes of a frame of 16-bit words, because FFmpeg's scaler reads one order wrongly."""
    swapped = VideoFrame(frame.width, frame.height, f"{frame.format.name[:-2]}le")
    rows = _read_samples(frame, 0, "u2").astype("<u2").view(np.uint8)
    plane = swapped.planes[0]
    padded = np.zeros((plane.height, plane.line_size), np.uint8)
    padded[:, : rows.shape[1]] = rows
    plane.update(padded.tobytes())
    return swapped


def _read_nibbles(frame: VideoFrame) -> NDArray[np.uint8]:
    """Read RGB of two pixels a byte, rgb4 or bgr4, which FFmpeg's scaler does not read."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    pairs = np.stack([rows >> 4, rows & 15], axis=2).reshape(len(rows), -1)
    first, green, last = (pairs >> 3) * 255, (pairs >> 1 & 3) * 85, (pairs & 1) * 255
    order = (first, green, last) if frame.format.name == "rgb4" else (last, green, first)
    return np.stack(order, axis=2)[: frame.height, : frame.width].astype(np.uint8)


def frame_to_rgb(frame: VideoFrame) -> NDArray[np.uint8]:
    """Convert a decoded frame to RGB [H, W, 3], by its matrix and range; alpha is laid over black.
    """
    kind = frame.format
    if _is_grey(frame):
        return _grey_to_rgb(frame)
    seen_through = kind.is_rgb and any(part.is_alpha for part in kind.components)
    if kind.has_palette or seen_through:
        return lay_over_black(np.asarray(_convert(frame, "rgba").to_ndarray(), dtype=np.uint8))
    if kind.is_rgb:
        if kind.is_bit_stream:
            return _read_nibbles(frame)
        if kind.is_big_endian and len(frame.planes) == 1 and kind.components[0].bits < 8:
            frame = _swap_bytes(frame)
        return np.asarray(_convert(frame, "rgb24").to_ndarray(), dtype=np.uint8)
    return _yuv_to_rgb(frame)


def frame_to_alpha(frame: VideoFrame) -> NDArray[np.float32] | None:
    """Read the alpha of a decoded frame, [H, W] from 0 to 1; None if it has none."""
    kind = frame.format
    if _is_grey(frame):
        values = _read_grey(frame)
        return values[..., 1] if values.shape[2] == 2 else None
    if not (kind.has_palette or any(part.is_alpha for part in kind.components)):
        return None
    if kind.has_palette or kind.is_rgb:
        deep = kind.components[0].bits > 8
        rgba = _convert(frame, "rgba64le" if deep else "rgba").to_ndarray()
        return (rgba[..., 3] / np.float32(65535 if deep else 255)).astype(np.float32)
    planar = _unpack(frame, kind.components[0].bits)
    bits = _count_bits(planar)
    plane = _read_samples(planar, 3, "u1" if bits <= 8 else "u2")
    return (plane / np.float32(2**bits - 1)).astype(np.float32)


def is_transparent(frame: VideoFrame) -> bool:
    """Whether a decoded frame has transparent parts."""
    alpha = frame_to_alpha(frame)
    return alpha is not None and bool((alpha < 1).any())


def _build_inverse(matrix: int, full: bool, bits: int) -> NDArray[np.float32]:
    """Make `yuv_matrix` for samples of this number of bits."""
    affine = yuv_matrix(matrix, full)
    if full and bits > 8:  # 10-bit white is 1023, and grey has chroma 512
        affine = affine * ((2.0**bits - 1) / 255)
        affine[1:, 3] = 2.0 ** (bits - 1)
        return affine.astype(np.float32)
    return (affine * 2.0 ** (bits - 8)).astype(np.float32)


def rgb_to_planes(
    rgb: NDArray[Any], bits: int = 8, halve_columns: bool = True, halve_rows: bool = True, *,
    matrix: int = BT709, full: bool = False,
) -> list[NDArray[Any]]:
    """Convert RGB [H, W, 3], uint8 or uint16, to planes Y, Cb, Cr: uint8, or uint16 above 8 bits.

    Args:
        halve_columns: chroma has half the columns; W is even.
        halve_rows: chroma has half the rows; H is even.
        matrix: of H.273.
        full: whether values span 0..255.
    """
    values = rgb.astype(np.float32)
    if rgb.dtype == np.uint16:
        values /= 257
    luma, *chroma = cv2.split(cv2.transform(values, _build_inverse(matrix, full, bits)))
    # Columns weigh 1 2 1 around every second one, rows average in pairs: the inverse of the
    # sample position that reading assumes.
    across = np.array([0.25, 0.5, 0.25] if halve_columns else [1.0], np.float32)
    down = np.array([0.5, 0.5] if halve_rows else [1.0], np.float32)
    anchor = (len(across) // 2, 0)
    planes = [luma]
    for plane in chroma:
        smooth = cv2.sepFilter2D(
            plane, cv2.CV_32F, across, down, anchor=anchor, borderType=cv2.BORDER_REPLICATE
        )
        planes.append(smooth[:: 1 + halve_rows, :: 1 + halve_columns])
    if bits == 8:
        return [to_uint8(plane) for plane in planes]
    return [np.clip(np.rint(plane), 0, 2**bits - 1).astype("<u2") for plane in planes]
