"""Frames by pipe: the messages of ebsynth/README.md, and everything that may be wrong with them."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from tests.helpers.scenes import texture
from tests.helpers.synthesis import (
    RUN_SECONDS,
    Guide,
    Shifted,
    blocks,
    command,
    field_bytes,
    needed_channels,
    painted,
    program,
    refused,
    start,
    voted,
)

INPUT = 3
WITH_FLOW, WANTS_FIELD, ANEW, WITH_TRACK = 1, 2, 4, 8
LARGEST_SIDE = 32767
FEW = ("-searchvoteiters", 1, "-patchmatchiters", 1)


@dataclass(frozen=True)
class Frame:
    output: np.ndarray
    errors: np.ndarray
    field: np.ndarray | None


def pixels(image: np.ndarray, channels: int) -> bytes:
    """The image in so many channels, 1 or 3."""
    if image.ndim == 2:
        image = image[..., None]
    return np.ascontiguousarray(image[..., :channels]).tobytes()


def opening(
    style: np.ndarray, guides: Sequence[Guide], style_weight: float = -1.0,
    channels: Sequence[int] | None = None,
) -> bytes:
    """The message that comes once."""
    counts = channels or [needed_channels(guide.source, guide.target) for guide in guides]
    height, width, depth = style.shape
    data = b"EBSQ" + struct.pack("<4If", 1, width, height, depth, style_weight) + style.tobytes()
    data += struct.pack("<I", len(guides))
    for guide, count in zip(guides, counts, strict=True):
        weight = -1.0 if guide.weight is None else guide.weight
        data += struct.pack("<If", count, weight) + pixels(guide.source, count)
    height, width = guides[0].target.shape[:2]
    return data + struct.pack("<2I", width, height)


def frame(
    targets: Sequence[np.ndarray], flags: int = 0, flow: np.ndarray | None = None,
    track: np.ndarray | None = None,
) -> bytes:
    flags |= (WITH_FLOW if flow is not None else 0) | (WITH_TRACK if track is not None else 0)
    data = b"FRAM" + struct.pack("<I", flags)
    data += b"".join(pixels(target, target.shape[2]) for target in targets)
    return data + b"".join(
        steps.astype("<f4").tobytes() for steps in (flow, track) if steps is not None
    )


def answers(data: bytes, height: int, width: int, depth: int, flags: Sequence[int]) -> list[Frame]:
    """The frames of stdout, which must hold nothing else."""
    frames, place = [], 0

    def take(dtype: str, *shape: int) -> np.ndarray:
        nonlocal place
        values = np.frombuffer(data, dtype, count=int(np.prod(shape)), offset=place)
        place += values.nbytes
        return values.reshape(shape)

    for flag in flags:
        assert take("u1", 4).tobytes() == b"DONE"
        output, errors = take("u1", height, width, depth), take("<f4", height, width)
        field = take("<i4", height, width, 2) if flag & WANTS_FIELD else None
        frames.append(Frame(output, errors, field))
    assert place == len(data)
    return frames


def run(
    folder: Path, style: np.ndarray, guides: Sequence[Guide], frames: Sequence[bytes],
    *options: object, end: bytes = b"STOP",
) -> list[Frame]:
    """A whole sequence that succeeds."""
    done = start("-sequence", *options, folder=folder,
                 given=opening(style, guides) + b"".join(frames) + end)
    assert (done.returncode, done.stderr) == (0, b"")
    height, width = guides[0].target.shape[:2]
    flags = [struct.unpack_from("<I", data, 4)[0] for data in frames]
    return answers(done.stdout, height, width, style.shape[2], flags)


@pytest.fixture
def guides() -> list[Guide]:
    return [Guide(blocks(2, 32, 36), blocks(3, 34, 40), 2.0),
            Guide(blocks(4, 32, 36, 1), blocks(5, 34, 40, 1))]


@pytest.fixture
def style() -> np.ndarray:
    return blocks(1, 32, 36)


@pytest.fixture
def targets(guides: list[Guide]) -> list[np.ndarray]:
    return [guide.target for guide in guides]


@pytest.mark.parametrize("options", [(), ("-seed", 9, "-quality", "best"), ("-extrapass3x3",)])
def test_first_frame_is_that_of_a_single_run(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray],
    options: tuple[object, ...],
) -> None:
    (first,) = run(tmp_path, style, guides, [frame(targets, WANTS_FIELD)], *options)
    single = painted(command(tmp_path, style, guides), *options, folder=tmp_path)
    assert (first.output == single.output).all()
    assert (first.errors == single.errors).all()
    assert (first.field == single.field).all()


def test_start_anew_forgets_the_frame_before(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray]
) -> None:
    other = [blocks(13, 34, 40), blocks(15, 34, 40, 1)]
    kept, flow = frame(targets, WANTS_FIELD), np.zeros((34, 40, 2))
    first, _, third, fourth, fifth = run(tmp_path, style, guides, [
        kept, frame(other), frame(targets, WANTS_FIELD | ANEW),
        frame(targets, WANTS_FIELD | ANEW, flow), kept,
    ])
    for again in (third, fourth):
        assert (again.output == first.output).all()
        assert (again.errors == first.errors).all()
        assert (again.field == first.field).all()
    assert (fifth.field != first.field).any()  # it went on from the fourth


def test_next_frame_starts_from_the_one_before(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray]
) -> None:
    """Without any sweep the second field is the first: coarse resolutions are left out."""
    data = frame(targets, WANTS_FIELD)
    first, second = run(tmp_path, style, guides, [data, data], "-patchmatchiters", 0)
    assert (second.field == first.field).all()
    assert (second.output == voted(style, first.field, 5)).all()


def test_field_of_the_extra_pass_is_moved_inside(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray]
) -> None:
    """Its patches of 3 reach places that a patch of 7 may not lie at."""
    options = ("-patchsize", 7, "-extrapass3x3")
    data = frame(targets, WANTS_FIELD)
    first, second = run(tmp_path, style, guides, [data, data], *options)
    assert first.field is not None
    assert first.field.min() < 3
    (tmp_path / "first.nnf").write_bytes(field_bytes(first.field, style))
    single = painted(
        command(tmp_path, style, guides), *options, "-start", tmp_path / "first.nnf",
        folder=tmp_path,
    )
    assert (second.field == single.field).all()
    (tmp_path / "inside.nnf").write_bytes(
        field_bytes(first.field.clip(3, (36 - 4, 32 - 4)), style))
    inside = painted(
        command(tmp_path, style, guides), *options, "-start", tmp_path / "inside.nnf",
        folder=tmp_path,
    )
    assert (second.field == inside.field).all()


@pytest.mark.parametrize(("dx", "dy"), [(3, -2), (0.4, 0.6), (-100, 1e9), (-0.5, 33)])
def test_flow_says_where_a_pixel_was(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray],
    dx: float, dy: float,
) -> None:
    flow = np.broadcast_to(np.float32([dx, dy]), (34, 40, 2))
    first, second = run(
        tmp_path, style, guides, [frame(targets, WANTS_FIELD), frame(targets, WANTS_FIELD, flow)],
        "-patchmatchiters", 0,
    )
    y, x = np.indices((34, 40)).astype(np.float64)
    before_x = np.clip(np.floor(x + np.float32(dx) + 0.5), 0, 39).astype(int)
    before_y = np.clip(np.floor(y + np.float32(dy) + 0.5), 0, 33).astype(int)
    assert first.field is not None
    assert (second.field == first.field[before_y, before_x]).all()


def test_moving_scene_is_followed_along_its_flow(tmp_path: Path) -> None:
    """The scene slides left by 3; a small search suffices when the field slides with it."""
    scene = Shifted(3, 40, 56)
    image = scene.image(99)
    still = Guide(image[:, :scene.width], image[:, :scene.width], 4.0)
    flow = np.broadcast_to(np.float32([scene.shift, 0]), (scene.height, scene.width, 2))
    _, second = run(tmp_path, scene.style, [still], [
        frame([still.target]), frame([scene.moved(image)], WANTS_FIELD, flow),
    ], "-searchvoteiters", 2)
    y, x = np.indices((scene.height, scene.width))
    known = np.stack([x + scene.shift, y], -1)
    assert (scene.inside(second.field) == scene.inside(known)).all(2).mean() > 0.97
    assert (scene.inside(second.output) == scene.inside(scene.wanted)).mean() > 0.97


@pytest.mark.parametrize(("dx", "dy"), [(3, -2), (0.4, 0.6), (-100, 1e9)])
def test_frame_anew_begins_where_its_track_leads(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray],
    dx: float, dy: float,
) -> None:
    """Without any sweep the field is the track, its patches moved inside; also after others."""
    track = np.broadcast_to(np.float32([dx, dy]), (34, 40, 2))
    first, _, third = run(tmp_path, style, guides, [
        frame(targets, WANTS_FIELD, track=track), frame(targets),
        frame(targets, WANTS_FIELD | ANEW, np.ones((34, 40, 2)), track),
    ], "-patchmatchiters", 0)
    y, x = np.indices((34, 40)).astype(np.float64)
    known = np.stack([np.clip(np.floor(x + np.float32(dx) + 0.5), 2, 36 - 3),
                      np.clip(np.floor(y + np.float32(dy) + 0.5), 2, 32 - 3)], -1)
    for one in (first, third):
        assert one.field is not None
        assert (one.field == known).all()


def test_matches_of_the_track_are_tried(tmp_path: Path) -> None:
    """The frame before is of no use; one sweep finds what the track knows."""
    scene = Shifted(9, 40, 56)
    image = scene.image(99)
    key = image[:, :scene.width]
    still = Guide(key, key, 4.0)
    wrong = np.random.default_rng(0).normal(0, 20, (scene.height, scene.width, 2))
    track = np.broadcast_to(np.float32([scene.shift, 0]), wrong.shape)
    _, second = run(tmp_path, scene.style, [still], [
        frame([key]), frame([scene.moved(image)], WANTS_FIELD, wrong, track),
    ], "-searchvoteiters", 1, "-patchmatchiters", 1)
    y, x = np.indices((scene.height, scene.width))
    known = np.stack([x + scene.shift, y], -1)
    assert (scene.inside(second.field) == scene.inside(known)).all(2).mean() > 0.9


def test_patches_from_far_away_are_found(tmp_path: Path) -> None:
    """Blocks of the guide changed places; random search of a started frame stays near."""
    side, block = 96, 24
    style, source = texture(side, side, 1), texture(side, side, 2)
    order = np.random.default_rng(1).permutation((side // block) ** 2)
    y, x = np.indices((side, side))
    number = order[y // block * (side // block) + x // block]
    known = np.stack([number % (side // block) * block + x % block,
                      number // (side // block) * block + y % block], -1)
    target = source[known[..., 1], known[..., 0]]
    _, second = run(tmp_path, style, [Guide(source, source, 6.0)], [
        frame([source]), frame([target], WANTS_FIELD),
    ])
    assert second.field is not None
    inner = (np.minimum(x % block, y % block) >= 2) & (np.maximum(x % block, y % block) < block - 2)
    assert (second.field == known).all(2)[inner].mean() > 0.85


def test_frames_do_not_depend_on_threads(tmp_path: Path) -> None:
    style, guide = texture(64, 30, 1), Guide(texture(64, 30, 2), texture(200, 30, 3))
    flow = np.random.default_rng(0).normal(0, 2, (200, 30, 2))
    data = opening(style, [guide]) + frame([guide.target])
    data += frame([guide.target], 2, flow, -2 * flow)
    results = {start("-sequence", "-threads", threads, *FEW, folder=tmp_path, given=data).stdout
               for threads in (1, 2, 3, 5)}
    (result,) = results
    assert len(answers(result, 200, 30, 3, [0, 2])) == 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_are_as_declared(tmp_path: Path, channels: int) -> None:
    """Nothing is guessed from the content: a grey picture sent in three channels has three."""
    style = blocks(1, 20, 24, 1).repeat(channels, 2)
    guide = Guide(blocks(2, 20, 24), blocks(3, 22, 26))
    (first,) = run(tmp_path, style, [guide], [frame([guide.target])], *FEW)
    assert first.output.shape == (22, 26, channels)
    assert (first.output == first.output[..., :1]).all()


@pytest.mark.parametrize("end", [b"STOP", b"", b"STOPmore"])
@pytest.mark.parametrize("frames", [0, 1, 3])
def test_end(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray],
    end: bytes, frames: int,
) -> None:
    got = run(tmp_path, style, guides, [frame(targets)] * frames, *FEW, end=end)
    assert len(got) == frames


def test_answer_comes_before_the_next_question(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray]
) -> None:
    size = 4 + 34 * 40 * (3 + 4)
    with subprocess.Popen([program(), "-sequence"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(opening(style, guides))
        for _ in range(2):
            process.stdin.write(frame(targets))
            process.stdin.flush()
            assert process.stdout.read(size)[:4] == b"DONE"
        process.stdin.close()
        assert process.wait(RUN_SECONDS) == 0


def flood(pipe: IO[bytes], data: bytes) -> None:
    """Write more than the program and the pipe hold."""
    for _ in range(400):
        pipe.write(data)


def test_reader_that_is_gone(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray]
) -> None:
    """It ends at once, with a line, and without reading all that comes."""
    with subprocess.Popen([program(), "-sequence", *map(str, FEW)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
                          bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.write(opening(style, guides))
        with pytest.raises(OSError, match=r"[Pp]ipe|Invalid argument"):
            flood(process.stdin, frame(targets))
        assert process.wait(RUN_SECONDS) == INPUT
        assert process.stderr.read().splitlines() == [
            b"ebsynth: stdout cannot be written; the reader is gone"]


def fields(data: bytes, place: int, form: str, value: float) -> bytes:
    """A message with a number in it replaced."""
    packed = struct.pack("<" + form, value)
    return data[:place] + packed + data[place + len(packed):]


STYLE_END = 24 + 32 * 36 * 3
"""Where the number of guides stands."""
TARGET_SIZE = STYLE_END + 4 + 8 + 32 * 36 * 3 + 8 + 32 * 36
FIRST_FRAME = TARGET_SIZE + 8
BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "magic": (lambda data: b"EBSX" + data[4:], "stdin does not begin with EBSQ"),
    "no bytes": (lambda data: b"", "stdin does not begin with EBSQ"),
    "two bytes": (lambda data: data[:2], "stdin ends in the middle of a message"),
    "version": (lambda data: fields(data, 4, "I", 2), "the version of the messages is not 1"),
    "width 0": (lambda data: fields(data, 8, "I", 0), "the style's width is 0; give 1 to 32767"),
    "height 0": (lambda data: fields(data, 12, "I", 0), "the style's height is 0"),
    "huge width": (lambda data: fields(data, 8, "I", 2**32 - 1), "width is 4294967295; give 1"),
    "huge height": (lambda data: fields(data, 12, "I", 32768), "height is 32768; give 1 to 32767"),
    "huge both": (
        lambda data: fields(fields(data, 8, "I", LARGEST_SIDE), 12, "I", LARGEST_SIDE),
        "the style is 32767x32767; give sides of 1 to"),
    "no channels": (lambda data: fields(data, 16, "I", 0), "the style's channels is 0; give 1"),
    "5 channels": (lambda data: fields(data, 16, "I", 5), "the style's channels is 5; give 1"),
    "weight nan": (lambda data: fields(data, 20, "f", np.nan), "a weight is nan; give 0"),
    "weight inf": (lambda data: fields(data, 20, "f", np.inf), "a weight is inf; give 0"),
    "weight 1e7": (lambda data: fields(data, 20, "f", 1e7), "a weight is 10000000"),
    "weight 1e-9": (lambda data: fields(data, 20, "f", 1e-9), "a weight is 0.000000; give 0, or"),
    "no guides": (lambda data: fields(data, STYLE_END, "I", 0), "number of guides is 0; give 1"),
    "65 guides": (lambda data: fields(data, STYLE_END, "I", 65), "number of guides is 65; give"),
    "guide's channels": (
        lambda data: fields(data, STYLE_END + 4, "I", 7), "a guide's channels is 7; give 1 to 4"),
    "guide's weight": (
        lambda data: fields(data, STYLE_END + 8, "f", np.nan), "a weight is nan; give 0"),
    "target's width": (
        lambda data: fields(data, TARGET_SIZE, "I", 0), "the target's width is 0; give 1"),
    "target's height": (
        lambda data: fields(data, TARGET_SIZE + 4, "I", 2**31), "target's height is 2147483648"),
    "huge target": (
        lambda data: fields(fields(data, TARGET_SIZE, "I", 30000), TARGET_SIZE + 4, "I", 30000),
        "a target guide is 30000x30000; give sides of 1 to"),
    "unknown message": (
        lambda data: data[:FIRST_FRAME] + b"MORE" + data[FIRST_FRAME + 4:],
        "a message is neither FRAM nor STOP"),
    "flow nan": (lambda data: fields(data, len(data) - 8, "f", np.nan), "a flow holds a value"),
    "track nan": (
        lambda data: fields(fields(data, FIRST_FRAME + 4, "I", 8), len(data) - 8, "f", np.nan),
        "a track holds a value"),
    "flow inf": (lambda data: fields(data, len(data) - 4, "f", -np.inf), "a flow holds a value"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_message(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray], name: str
) -> None:
    whole = opening(style, guides) + frame(targets, 0, np.zeros((34, 40, 2)))
    assert start("-sequence", *FEW, folder=tmp_path, given=whole).returncode == 0
    change, reason = BROKEN[name]
    assert reason in refused(INPUT, "-sequence", *FEW, folder=tmp_path, given=change(whole))


PARTS = {
    "the version": 6, "the style's width": 10, "the style's height": 13,
    "the style's channels": 18, "a weight": 21, "the style": 100,
    "the number of guides": STYLE_END + 1, "a guide's channels": STYLE_END + 5,
    "a source guide": STYLE_END + 50, "the target's width": TARGET_SIZE + 3,
    "the target's height": TARGET_SIZE + 4, "a message": FIRST_FRAME + 1,
    "a frame's flags": FIRST_FRAME + 5, "a target guide": FIRST_FRAME + 9, "a flow": -1,
}


@pytest.mark.parametrize(("part", "length"), PARTS.items())
def test_message_that_ends_early_names_the_part(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray],
    part: str, length: int,
) -> None:
    whole = opening(style, guides) + frame(targets, 0, np.zeros((34, 40, 2)))
    said = refused(INPUT, "-sequence", *FEW, folder=tmp_path, given=whole[:length])
    assert f"stdin ends in the middle of {part}; send whole messages" in said


def test_error_in_a_later_frame_leaves_whole_answers(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray]
) -> None:
    good = opening(style, guides) + frame(targets)
    done = start("-sequence", *FEW, folder=tmp_path, given=good + frame(targets)[:-1])
    assert done.returncode == INPUT
    assert len(answers(done.stdout, 34, 40, 3, [0])) == 1


def test_weights_below_zero_are_the_defaults(
    tmp_path: Path, style: np.ndarray, guides: list[Guide], targets: list[np.ndarray]
) -> None:
    plain = [Guide(guide.source, guide.target, weight) for guide in guides for weight in (None,)]
    named = [Guide(guide.source, guide.target, 0.5) for guide in guides]
    results = {start("-sequence", *FEW, folder=tmp_path, given=opening(
        style, chosen, weight) + frame(targets)).stdout
        for chosen, weight in ((plain, -1.0), (plain, -np.inf), (named, 1.0))}
    assert len(results) == 1
    assert run(tmp_path, style, guides, [frame(targets)], *FEW)[0].output.tobytes() not in results
