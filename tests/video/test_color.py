"""Colours: against the plain formula of H.273, there and back."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from fresco.errors import VideoError
from fresco.video.codecs import CODECS
from fresco.video.color import frame_to_rgb, rgb_matrix, yuv_matrix
from fresco.video.reader import open_source
from tests.helpers.clips import ClipOptions, texture, write_clip
from tests.helpers.tolerances import COLOR_BIAS, COLOR_MEAN

WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def plain_rgb(y: int, cb: int, cr: int, matrix: int, full: bool, bits: int) -> list[int]:
    """One pixel by the words of the standard."""
    top = 2**bits - 1
    step = 2 ** (bits - 8)
    luma = y / top if full else (y - 16 * step) / (219 * step)
    blue, red = (
        (c - 128 * step) / top if full else (c - 128 * step) / (224 * step) for c in (cb, cr)
    )
    kr, kb = WEIGHTS[matrix]
    r = luma + 2 * (1 - kr) * red
    b = luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return [int(min(max(np.rint(255 * value), 0), 255)) for value in (r, g, b)]


@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layout", [("yuv444p", 8), ("yuv444p16le", 16)])
def test_pixels_follow_the_standard(matrix: int, full: bool, layout: tuple[str, int]) -> None:
    name, bits = layout
    values = np.random.default_rng(matrix).integers(0, 2**bits, (3, 4, 32))
    frame = planar_frame(values.astype(np.uint8 if bits == 8 else np.uint16), name)
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    expected = [
        [plain_rgb(*values[:, i, j].tolist(), matrix, full, bits) for j in range(32)]
        for i in range(4)
    ]
    # float32 may round a value next to a half the other way.
    assert np.abs(frame_to_rgb(frame).astype(int) - expected).max() <= 1
    assert (frame_to_rgb(frame) == expected).mean() > 0.999


@pytest.mark.parametrize("full", [False, True])
def test_matrices_are_inverse(full: bool) -> None:
    forward, back = rgb_matrix(9, full), yuv_matrix(9, full)
    assert np.allclose(forward[:, :3] @ back[:, :3], np.eye(3))
    assert np.allclose(forward[:, :3] @ back[:, 3] + forward[:, 3], 0)


@pytest.mark.parametrize("grey", [0, 1, 17, 128, 254, 255])
def test_grey_stays(grey: int) -> None:
    flat = np.full((6, 8, 3), grey, np.uint8)
    frame = CODECS["h264"].make_frame(flat)
    assert np.abs(frame_to_rgb(frame).astype(int) - grey).max() <= 1


def test_round_trip_has_no_bias() -> None:
    rgb = texture(96, 128)
    frame = CODECS["h264"].make_frame(rgb)
    change = frame_to_rgb(frame).astype(int) - rgb
    assert np.abs(change.mean((0, 1))).max() < COLOR_BIAS
    assert np.abs(change).mean() < COLOR_MEAN


def test_chroma_is_not_shifted() -> None:
    ramp = np.repeat(np.linspace(40, 200, 64)[None], 16, axis=0)
    rgb = np.dstack([ramp, np.full_like(ramp, 120), 240 - ramp]).astype(np.uint8)
    frame = CODECS["h264"].make_frame(rgb)
    change = (frame_to_rgb(frame).astype(int) - rgb)[:, 4:-4]
    # Half a pixel of shift would be 1.3 levels of red and blue, in opposite directions.
    assert np.abs(change.mean((0, 1))).max() < 0.4


@pytest.mark.parametrize(
    "layout",
    ["yuv422p", "yuv444p", "yuvj420p", "nv12", "yuv420p10le", "yuv422p10be", "p010le", "yuva420p"],
)
def test_layouts_agree(layout: str) -> None:
    rgb = texture(64, 96)
    span = 2 if layout == "yuvj420p" else 1
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(
        format=layout, dst_colorspace=1, dst_color_range=span
    )
    frame.colorspace, frame.color_range = 1, span
    change = frame_to_rgb(frame).astype(int) - rgb
    assert np.abs(change).mean() < COLOR_MEAN


def test_alpha_lies_over_black() -> None:
    rgba = np.full((4, 4, 4), 200, np.uint8)
    rgba[:, :2, 3], rgba[:, 2:, 3] = 255, 0
    rgb = frame_to_rgb(av.VideoFrame.from_ndarray(rgba, "rgba"))
    assert (rgb[:, :2] == 200).all()
    assert (rgb[:, 2:] == 0).all()


def test_untagged_is_taken_by_size() -> None:
    def reddish(height: int, width: int) -> list[int]:
        planes = np.full((3, height, width), 100, np.uint8)
        planes[2] = 160
        return frame_to_rgb(av.VideoFrame.from_ndarray(planes, "yuv444p"))[0, 0].tolist()

    assert reddish(576, 720) == plain_rgb(100, 100, 160, 6, False, 8)
    assert reddish(720, 1280) == plain_rgb(100, 100, 160, 1, False, 8)


def test_unknown_matrix_is_refused() -> None:
    frame = av.VideoFrame.from_ndarray(np.zeros((3, 4, 4), np.uint8), "yuv444p")
    frame.colorspace = 8
    with pytest.raises(VideoError, match="number 8"):
        frame_to_rgb(frame)


@pytest.mark.parametrize("number", [1, 6, 9])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layout", ["yuv444p", "yuv444p10le"])
def test_tags_of_a_file_are_obeyed(
    tmp_path: Path, number: int, full: bool, layout: str
) -> None:
    bits = 10 if layout.endswith("10le") else 8
    path = tmp_path / "tagged.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = layout
        stream.options = {"qp": "0"}
        stream.codec_context.colorspace = number
        stream.codec_context.color_range = 2 if full else 1
        planes = np.full((3, 32, 32), 100, np.uint16 if bits == 10 else np.uint8)
        planes[1], planes[2] = 110, 160
        planes <<= bits - 8
        values = planes[:, 0, 0].tolist()
        frame = planar_frame(planes, layout)
        frame.colorspace, frame.color_range = number, 2 if full else 1
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with open_source(path) as source:
        pixel = source.frame(0)[5, 5].astype(int)
    expected = plain_rgb(values[0], values[1], values[2], number, full, bits)
    assert np.abs(pixel - expected).max() <= 1


def planar_frame(planes: np.ndarray, layout: str) -> av.VideoFrame:
    frame = av.VideoFrame(planes.shape[2], planes.shape[1], layout)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        raw = np.ascontiguousarray(values).view(np.uint8)
        rows[:, : raw.shape[1]] = raw
        plane.update(rows.tobytes())
    return frame


def test_ffmpeg_made_clip_reads_back(tmp_path: Path) -> None:
    rgb = texture(96, 128)
    path = write_clip(tmp_path / "a.mp4", [rgb] * 2, ClipOptions(pix_fmt="yuv444p"))
    with open_source(path) as source:
        change = source.frame(1).astype(int) - rgb
    assert np.abs(change).mean() < COLOR_MEAN


def grey_frame(values: np.ndarray, layout: str) -> av.VideoFrame:
    """One plane of samples as they are stored, [H, W] or [H, W, 2]."""
    frame = av.VideoFrame(values.shape[1], values.shape[0], layout)
    plane = frame.planes[0]
    rows = np.zeros((values.shape[0], plane.line_size), np.uint8)
    raw = np.ascontiguousarray(values).reshape(values.shape[0], -1).view(np.uint8)
    rows[:, : raw.shape[1]] = raw
    plane.update(rows.tobytes())
    return frame


GREYS = [("gray", 8, "u1"), ("gray10le", 10, "<u2"), ("gray12be", 12, ">u2"),
         ("gray14le", 14, "<u2"), ("gray16le", 16, "<u2"), ("gray16be", 16, ">u2")]


@pytest.mark.parametrize(("layout", "bits", "kind"), GREYS)
@pytest.mark.parametrize("span", [0, 1, 2])
@pytest.mark.parametrize("matrix", [0, 1, 2])
def test_grey_has_no_matrix(layout: str, bits: int, kind: str, span: int, matrix: int) -> None:
    levels = np.linspace(0, 2**bits - 1, 40).round().astype(kind)[None].repeat(3, 0)
    frame = grey_frame(levels, layout)
    frame.colorspace, frame.color_range = matrix, span
    step = 2 ** (bits - 8)
    share = (
        (levels.astype(float) - 16 * step) / (219 * step) if span == 1
        else levels.astype(float) / (2**bits - 1)
    )
    expected = np.clip(np.rint(255 * share), 0, 255)
    got = frame_to_rgb(frame).astype(int)
    assert np.abs(got - expected[..., None]).max() <= 1


@pytest.mark.parametrize("layout", ["monob", "monow"])
@pytest.mark.parametrize("width", [16, 21])
def test_one_bit_a_pixel(layout: str, width: int) -> None:
    dots = np.random.default_rng(1).integers(0, 2, (5, width)).astype(np.uint8)
    frame = grey_frame(np.packbits(dots if layout == "monob" else 1 - dots, axis=1), layout)
    # The helper takes bytes for pixels; the frame has eight in each.
    whole = av.VideoFrame(width, 5, layout)
    whole.planes[0].update(
        np.pad(
            np.frombuffer(memoryview(frame.planes[0]), np.uint8).reshape(5, -1)[:, :8],
            ((0, 0), (0, whole.planes[0].line_size - 8)),
        ).tobytes()
    )
    assert np.array_equal(frame_to_rgb(whole), 255 * dots[..., None].repeat(3, 2))


@pytest.mark.parametrize(("layout", "kind", "top"), [("ya8", "u1", 255), ("ya16be", ">u2", 65535)])
def test_grey_with_alpha_lies_over_black(layout: str, kind: str, top: int) -> None:
    values = np.zeros((4, 6, 2), kind)
    values[..., 0], values[:, 3:, 1] = top // 5, top
    rgb = frame_to_rgb(grey_frame(values, layout))
    assert (rgb[:, :3] == 0).all()
    assert (rgb[:, 3:] == 51).all()


def test_grey_in_floats() -> None:
    frame = grey_frame(np.array([[0, 0.2, 0.5, 1, 2]], "<f4"), "grayf32le")
    assert frame_to_rgb(frame)[0, :, 1].tolist() == [0, 51, 128, 255, 255]


WORDS = {
    "rgb555": (10, 5, 0, (5, 5, 5)), "bgr555": (0, 5, 10, (5, 5, 5)),
    "rgb565": (11, 5, 0, (5, 6, 5)), "bgr565": (0, 5, 11, (5, 6, 5)),
    "rgb444": (8, 4, 0, (4, 4, 4)), "bgr444": (0, 4, 8, (4, 4, 4)),
}
"""Where red, green and blue lie in a 16-bit word, and how many bits each has."""


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("order", ["le", "be"])
def test_colours_of_few_bits(name: str, order: str) -> None:
    *shifts, bits = WORDS[name]
    drawn = np.random.default_rng(2).integers(0, 64, (4, 16, 3))
    parts = [drawn[..., k] % 2 ** bits[k] for k in range(3)]
    word = sum(part << shift for part, shift in zip(parts, shifts, strict=True))
    frame = grey_frame(np.asarray(word, "<u2" if order == "le" else ">u2"), f"{name}{order}")
    true = np.stack([255 * p / (2**b - 1) for p, b in zip(parts, bits, strict=True)], -1)
    # FFmpeg's scaler leaves the lowest bits empty: half a step, and of 4 bits a whole one.
    assert np.abs(frame_to_rgb(frame) - true).max() <= 255 / (2 ** min(bits) - 1)


@pytest.mark.parametrize("layout", ["yuva420p", "yuva444p16le", "ayuv64le", "gbrap", "rgba64le"])
def test_alpha_of_every_layout_lies_over_black(layout: str) -> None:
    rgba = np.full((16, 16, 4), 200, np.uint8)
    rgba[:, :8, 3], rgba[:, 8:, 3] = 255, 0
    frame = av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format=layout)
    rgb = frame_to_rgb(frame).astype(int)
    assert np.abs(rgb[:, :8] - 200).max() <= 2
    assert rgb[:, 8:].max() <= 2


@pytest.mark.parametrize("layout", ["rgb4", "bgr4"])
def test_two_pixels_a_byte(layout: str) -> None:
    frame = av.VideoFrame(6, 2, layout)
    plane = frame.planes[0]
    rows = np.zeros((2, plane.line_size), np.uint8)
    rows[:, :3] = [0b1000_0001, 0b0110_1111, 0b0010_0000]
    plane.update(rows.tobytes())
    red, blue, black, white = [255, 0, 0], [0, 0, 255], [0, 0, 0], [255] * 3
    true = [red, blue, [0, 255, 0], white, [0, 85, 0], black]
    if layout == "bgr4":
        true = [pixel[::-1] for pixel in true]
    assert frame_to_rgb(frame)[1].tolist() == true


def test_a_layout_that_cannot_be_read_is_refused() -> None:
    if int(av.__version__.split(".")[0]) < 17:
        pytest.skip("PyAV before 17 crashes where the scaler does not know a layout")
    with pytest.raises(VideoError, match="x2rgb10be"):
        frame_to_rgb(av.VideoFrame(4, 4, "x2rgb10be"))
