"""Pictures that are odd, broken or missing: read as they are meant, or refused in one line."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.synthesis import (
    Guide,
    blocks,
    command,
    decoded,
    encoded,
    painted,
    refused,
    start,
    start_in_80_mb,
    voted,
)

INPUT = 3
INTERNAL = 4
LARGEST_SIDE = 32767
FEW = ("-searchvoteiters", 1, "-patchmatchiters", 1)


def saved(image: np.ndarray, form: str, mode: str | None = None, **options: object) -> bytes:
    """File of an image as Pillow writes it."""
    picture = Image.fromarray(image)
    data = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(data, form, **options)
    return data.getvalue()


def style_output(tmp_path: Path, small: list[str], data: bytes) -> tuple[np.ndarray, bytes]:
    """What comes out with a style file of these bytes; and all written files."""
    (tmp_path / "style").write_bytes(data)
    result = painted(["-style", "style", *small[2:]], *FEW, folder=tmp_path)
    return result.output, result.data


def test_every_form_of_the_same_picture_is_read_alike(small: list[str], tmp_path: Path) -> None:
    style = blocks(1, 32, 36)
    deep = style.astype(np.uint16) * 256 + 255 - style  # other lower bytes
    forms = {
        "png": encoded(style), "deep png": encoded(deep), "rgba png": saved(style, "PNG", "RGBA"),
        "bmp": saved(style, "BMP"), "tga": saved(style, "TGA"),
        "packed tga": saved(style, "TGA", compression="tga_rle"),
        "rgba tga": saved(style, "TGA", "RGBA"), "rgba bmp": saved(style, "BMP", "RGBA"),
        "ppm": b"P6\n# a comment\n36 32\n255\n" + style.tobytes(),
        "deep ppm": b"P6 36 32 65535 " + deep.astype(">u2").tobytes(),
    }
    results = {name: style_output(tmp_path, small, data)[1] for name, data in forms.items()}
    assert [name for name in forms if results[name] != results["png"]] == []


def test_every_form_of_a_grey_picture_is_read_alike(small: list[str], tmp_path: Path) -> None:
    grey = blocks(1, 32, 36, 1)[..., 0]
    forms = {
        "png": encoded(grey), "colour png": saved(grey, "PNG", "RGB"),
        "16-bit png": encoded(grey.astype(np.uint16) * 256 + 77), "bmp": saved(grey, "BMP"),
        "alpha png": saved(grey, "PNG", "LA"), "tga": saved(grey, "TGA"),
        "pgm": b"P5 36 32 255\n" + grey.tobytes(), "palette png": saved(grey, "PNG", "P"),
        "deep pgm": b"P5 36 32 65535\n" + (grey.astype(int) * 256).astype(">u2").tobytes(),
    }
    results = {name: style_output(tmp_path, small, data)[1] for name, data in forms.items()}
    assert [name for name in forms if results[name] != results["png"]] == []
    output, _ = style_output(tmp_path, small, forms["png"])
    assert output.shape[2] == 1


def test_pnm_values_are_brought_to_the_whole_range(small: list[str], tmp_path: Path) -> None:
    bits = blocks(1, 32, 36, 1)[..., 0] // 128
    full = style_output(tmp_path, small, encoded(bits * 255))[1]
    for largest, dtype in ((1, "u1"), (77, "u1"), (256, ">u2"), (9999, ">u2")):
        values = (bits.astype(int) * largest).astype(dtype).tobytes()
        data = f"P5 36 32 {largest}\n".encode() + values
        assert style_output(tmp_path, small, data)[1] == full


def test_alpha_is_a_channel_of_its_own(small: list[str], tmp_path: Path) -> None:
    """One pixel below 255 is enough."""
    colour, alpha = blocks(1, 32, 36), np.full((32, 36, 1), 255, np.uint8)
    alpha[10:20, 10:20] = 40
    style = np.concatenate([colour, alpha], 2)
    (tmp_path / "style.png").write_bytes(encoded(style))
    result = painted(small, *FEW, folder=tmp_path)
    assert result.output.shape[2] == 4
    assert (result.output == voted(style, result.field, 5)).all()
    alpha[...], alpha[3, 4] = 255, 254
    style = np.concatenate([colour, alpha], 2)
    (tmp_path / "style.png").write_bytes(encoded(style))
    assert painted(small, *FEW, folder=tmp_path).output.shape[2] == 4


def test_grey_with_alpha_stays_so(small: list[str], tmp_path: Path) -> None:
    grey = blocks(1, 32, 36, 2)
    data = io.BytesIO()
    Image.merge("LA", [Image.fromarray(grey[..., i]) for i in range(2)]).save(data, "PNG")
    (tmp_path / "style.png").write_bytes(data.getvalue())
    assert start(*small, *FEW, folder=tmp_path).returncode == 0
    with Image.open(tmp_path / "output.png") as picture:
        assert picture.mode == "LA"


@pytest.mark.parametrize(
    ("mode", "options"),
    [("L", {}), ("RGB", {}), ("RGB", {"progressive": True}), ("CMYK", {"quality": 95})],
)
def test_jpeg(
    small: list[str], tmp_path: Path, mode: str, options: dict[str, object]
) -> None:
    """Decoders differ by a level or two where colours are subsampled; CMYK was made from RGB."""
    style = blocks(1, 32, 36, side=16)
    data = saved(style, "JPEG", mode, **{"subsampling": 0, **options})
    output, _ = style_output(tmp_path, small, data)
    with Image.open(io.BytesIO(data)) as picture:
        read = np.asarray(picture.convert("L" if mode == "L" else "RGB"))
    field = painted(["-style", "style", *small[2:]], *FEW, folder=tmp_path).field
    assert np.abs(voted(read, field, 5).astype(int) - output).mean() < 2


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 7), (7, 2), (1, 40), (3, 3)])
def test_tiny_pictures_are_painted(tmp_path: Path, height: int, width: int) -> None:
    tiny, large = blocks(1, height, width), blocks(2, 20, 24)
    for style, target in ((tiny, large), (large, tiny), (tiny, tiny)):
        words = command(tmp_path, style, [Guide(style, target)])
        for options in ((), ("-extrapass3x3",), ("-patchsize", 17)):
            result = painted(words, *options, folder=tmp_path)
            assert (result.output == voted(style, result.field, 17 if "-patchsize" in options
                                           else 3 if options else 5)).all()


def test_longest_side(tmp_path: Path) -> None:
    line = blocks(1, 1, LARGEST_SIDE, 1)
    words = command(tmp_path, line, [Guide(line, line)])
    result = painted(words, "-searchvoteiters", 1, "-patchmatchiters", 1, folder=tmp_path)
    assert result.output.shape == (1, LARGEST_SIDE, 1)
    assert result.field[..., 0].max() > LARGEST_SIDE // 2


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claimed(width: int, height: int, content: bytes = b"") -> bytes:
    """A PNG that says it is so large, of RGBA."""
    header = struct.pack(">2I5B", width, height, 8, 6, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b""))


def of_style(change: Callable[[bytes], bytes]) -> bytes:
    return change(encoded(blocks(1, 32, 36)))


BROKEN = {
    "empty": (b"", "is empty (0 bytes)"),
    "text": (b"This is no picture at all.\n" * 9, "is no image this program reads"),
    "one byte": (b"\x89", "is no image"),
    "png header": (of_style(lambda data: data[:20]), "is no image"),
    "png cut in the middle": (of_style(lambda data: data[:len(data) // 2]), "ends in the middle"),
    "png without its end": (of_style(lambda data: data[:-30]), "ends in the middle"),
    "png of width 0": (claimed(0, 5), "is 0x5; give sides of 1 to 32767"),
    "png without pixels": (claimed(5, 5), "is no image"),
    "png that is too wide": (
        claimed(32768, 1, bytes(32768 * 4 + 1)), "is 32768x1; give sides of 1"
    ),
    "png of too many pixels": (claimed(32767, 32767), "is 32767x32767; give sides of 1 to 32767"),
    "png of the largest number": (claimed(2**32 - 1, 2**32 - 1), "give sides of 1 to 32767"),
    "png of a few bytes": (claimed(8000, 8000), "ends in the middle"),
    "png that unpacks to more": (claimed(4, 4, bytes(40_000_000)), "outofmem"),
    "jpeg cut in the middle": (
        saved(blocks(1, 64, 64, side=1), "JPEG")[:1500], "ends in the middle"),
    "jpeg that claims too much": (
        saved(blocks(1, 64, 64), "JPEG").replace(b"\x11\x08\0\x40\0\x40", b"\x11\x08\x70\0\x09\0"),
        "ends in the middle"),
    "bmp cut in the middle": (saved(blocks(1, 32, 36), "BMP")[:900], "ends in the middle"),
    "bmp of height 0": (
        struct.pack("<2sI4x4I2H6I", b"BM", 54, 54, 40, 36, 0, 1, 24, 0, 0, 0, 0, 0, 0),
        "is 36x0; give sides of 1"),
    "tga cut in the middle": (saved(blocks(1, 32, 36), "TGA")[:900], "ends in the middle"),
    "tga that claims too much": (
        struct.pack("<3B9x2H2B", 0, 0, 2, 30000, 2000, 24, 0) + bytes(900), "ends in the middle"),
    "ppm cut in the middle": (b"P6 36 32 255\n" + bytes(900), "ends in the middle"),
    "ppm header": (b"P6 36 32", "broken PNM header"),
    "ppm without pixels": (b"P6 36 32 255", "ends in the middle"),
    "ppm of height 0": (b"P6 36 0 255\n" + bytes(900), "broken PNM header"),
    "ppm of a huge width": (b"P6 99999999999999999999 1 255\n" + bytes(900), "give sides of 1 to"),
    "ppm of a huge range": (b"P6 2 2 65536\n" + bytes(900), "broken PNM header"),
    "gif": (saved(blocks(1, 32, 36), "GIF"), "is no image this program reads"),
    "webp": (saved(blocks(1, 32, 36), "WEBP"), "is no image this program reads"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("place", ["style.png", "source0.png", "target1.png"])
def test_broken_picture(small: list[str], tmp_path: Path, name: str, place: str) -> None:
    data, reason = BROKEN[name]
    (tmp_path / place).write_bytes(data)
    said = refused(INPUT, *small, folder=tmp_path)
    assert said.startswith(f"ebsynth: {place} ")
    assert reason in said
    assert "; " in said  # and what to do


@pytest.mark.parametrize("number", [1, 3, 4, 6, 7])
def test_missing_file_is_named(small: list[str], tmp_path: Path, number: int) -> None:
    words = [*small]
    words[number] = "nö file.png"
    said = refused(INPUT, *words, folder=tmp_path)
    assert "nö file.png cannot be read; check the path" in said


def test_missing_start(small: list[str], tmp_path: Path) -> None:
    assert "none.nnf cannot be read" in refused(
        INPUT, *small, "-start", "none.nnf", folder=tmp_path)


def test_folder_instead_of_a_picture(small: list[str], tmp_path: Path) -> None:
    assert ". cannot be read" in refused(INPUT, "-style", ".", *small[2:], folder=tmp_path)


@pytest.mark.parametrize(
    ("place", "reason"),
    [("source0.png", "source guide 1 is 5x4, not 36x32; give images of one size"),
     ("source1.png", "source guide 2 is 5x4, not 36x32"),
     ("target1.png", "target guide 2 is 5x4, not 40x34")],
)
def test_sizes_that_disagree(small: list[str], tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / place).write_bytes(encoded(blocks(1, 4, 5)))
    assert reason in refused(INPUT, *small, folder=tmp_path)


@pytest.mark.parametrize("option", ["-output", "-errormap", "-nnf"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [("missing/out", "missing/out cannot be written; its folder does not exist"),
     ("style.png/out", "style.png/out cannot be written; its folder does not exist"),
     ("folder", "folder is a folder; give the name of a file"),
     ("folder/" + "a" * 300, "cannot be written")],
)
def test_output_that_cannot_be_written(
    small: list[str], tmp_path: Path, option: str, path: str, reason: str
) -> None:
    (tmp_path / "folder").mkdir()
    assert reason in refused(INPUT, *small, *FEW, option, path, folder=tmp_path)


def test_full_disk_leaves_nothing(small: list[str], tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("this system has no /dev/full")
    assert "/dev/full cannot be written" in refused(
        INPUT, *small, *FEW, "-output", full, folder=tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_output_through_a_symbolic_link(small: list[str], tmp_path: Path, there: bool) -> None:
    (tmp_path / "folder").mkdir()
    if there:
        (tmp_path / "folder" / "real.png").write_bytes(b"before")
    (tmp_path / "link.png").symlink_to(Path("folder") / "real.png")
    assert start(*small, *FEW, "-output", "link.png", folder=tmp_path).returncode == 0
    assert (tmp_path / "link.png").is_symlink()
    assert decoded(tmp_path / "folder" / "real.png").shape == (34, 40, 3)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["real.png"]


def test_memory_that_ends_while_a_picture_is_read(small: list[str], tmp_path: Path) -> None:
    (tmp_path / "style.png").write_bytes(encoded(np.zeros((6000, 6000, 3), np.uint8)))
    done = start_in_80_mb(*small, folder=tmp_path)
    assert (done.returncode, done.stderr) == (
        INTERNAL, b"ebsynth: memory ran out; use smaller images or fewer threads\n")


def test_patch_too_large_for_the_target(tmp_path: Path) -> None:
    """All patches of the target may use the one pixel of the source."""
    dot, wide = np.zeros((1, 1, 3), np.uint8), np.zeros((1600, 1600, 3), np.uint8)
    words = command(tmp_path, dot, [Guide(dot, wide)])
    said = refused(INPUT, *words, *FEW, "-patchsize", 31, folder=tmp_path)
    assert "patches of 31 are too large for a target of 1600x1600; give a smaller" in said


def test_too_many_channels_for_a_patch(tmp_path: Path) -> None:
    grey = blocks(1, 8, 8, 1)
    words = command(tmp_path, grey, [Guide(grey, grey, 1.0)])
    words = [*words[:2], *words[2:] * 90]
    said = refused(INPUT, *words, "-patchsize", 31, folder=tmp_path)
    assert "94 channels are too many for patches of 31; give fewer guides" in said
    (tmp_path / "out.png").touch()
    assert start(*words, "-patchsize", 15, "-output", "out.png", folder=tmp_path).returncode == 0
    assert decoded(tmp_path / "out.png").shape == (8, 8, 1)
