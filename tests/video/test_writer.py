"""Writing: colours, times and sound come back; nothing half-written stays."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fresco.errors import VideoError
from fresco.video.reader import open_source
from fresco.video.writer import VideoWriter
from tests.helpers.clips import (
    ClipOptions,
    Frames,
    moving_texture,
    package_clip,
    sound_packets,
    write_clip,
)
from tests.helpers.tolerances import COLOR_BIAS, COLOR_MEAN


def written_by(writer: VideoWriter, frames: Frames) -> None:
    """Send frames through a writer."""
    with writer:
        for frame in frames:
            writer.write(frame)


def sound_bytes(path: Path) -> bytes:
    """All sound as it is stored; containers may group raw samples otherwise."""
    with av.open(str(path)) as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0))


FRAMES = moving_texture(10)


def written(
    path: Path, frames: Frames, rate: Fraction = Fraction(25), *, spoil: bool = False,
    **more: object,
) -> Path:
    """The finished file; with `spoil`, an exception after the last frame."""
    height, width = frames[0].shape[:2]
    with VideoWriter(path, width, height, rate, **more) as writer:  # type: ignore[arg-type]
        for frame in frames:
            writer.write(frame)
        if spoil:
            raise KeyError
    assert [p.name for p in path.parent.iterdir() if "part" in p.name] == []
    return path


def test_colours_survive(tmp_path: Path) -> None:
    frames = moving_texture(6, 96, 128)
    with open_source(written(tmp_path / "a.mp4", frames)) as source:
        change = np.stack(list(source.frames())).astype(int) - np.stack(frames)
    assert np.abs(change).mean() < COLOR_MEAN
    assert abs(change.mean()) < COLOR_BIAS
    assert np.abs(change.mean((0, 1, 2))).max() < 2 * COLOR_BIAS


def test_other_software_sees_the_same_colours(tmp_path: Path) -> None:
    patches = np.array([[[200, 30, 40], [30, 190, 60]], [[40, 50, 210], [220, 140, 20]]], np.uint8)
    path = written(tmp_path / "a.mp4", [patches.repeat(32, 0).repeat(32, 1)], crf=5)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert frame.colorspace == 1
    # By name, since PyAV 12 obeys the tag only where the two differ.
    theirs = frame.to_ndarray(
        format="rgb24", src_colorspace="ITU709", dst_colorspace="ITU601"
    ).astype(int)
    # FFmpeg's fast path is up to 3 levels off; the wrong matrix or range would be 15 and more.
    assert np.abs(theirs[16::32, 16::32] - patches).max() <= 4


def test_many_generations_do_not_darken(tmp_path: Path) -> None:
    first = frames = moving_texture(2, 96, 128)
    for generation in range(5):
        with open_source(written(tmp_path / f"{generation}.mp4", frames, crf=5)) as source:
            frames = list(source.frames())
    change = np.stack(frames).astype(int) - np.stack(first)
    assert np.abs(change.mean((0, 1, 2))).max() < 2 * COLOR_BIAS


def test_the_file_is_tagged(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", FRAMES, pixel_aspect=Fraction(4, 3))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        tags = (context.colorspace, context.color_range, context.color_primaries, context.color_trc)
        assert tags == (1, 1, 1, 1)
        assert context.sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(10)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_rate_is_kept(tmp_path: Path, rate: Fraction, name: str) -> None:
    info = open_source(written(tmp_path / name, FRAMES, rate)).info
    assert (info.rate, info.frames, info.variable_rate) == (rate, 10, False)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(st.integers(1, 9000), min_size=1, max_size=6),
    start=st.fractions(0, 5, max_denominator=1000), clock=st.sampled_from([90_000, 1000, 12_800]),
)
def test_any_times_are_kept_exactly(
    tmp_path: Path, steps: list[int], start: Fraction, clock: int
) -> None:
    times = [start + Fraction(sum(steps[:k]), clock) for k in range(len(steps) + 1)]
    frames = moving_texture(len(times), 16, 16)
    info = open_source(written(tmp_path / "v.mp4", frames, timestamps=times)).info
    assert [time - info.timestamps[0] for time in info.timestamps] == [t - start for t in times]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize("steps", [[1] * 19, [1, 2] * 9])
def test_a_held_last_frame_is_held(tmp_path: Path, name: str, steps: list[int]) -> None:
    times = [Fraction(sum(steps[:k]), 10) for k in range(len(steps) + 1)]
    frames = moving_texture(len(times), 16, 16)
    path = written(tmp_path / name, frames, timestamps=times, end=times[-1] + 3)
    assert open_source(path).info.seconds == times[-1] + 3
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(float(times[-1] + 3) * av.time_base, abs=1100)
    short = open_source(written(tmp_path / f"short {name}", frames, timestamps=times)).info
    assert short.seconds < times[-1] + 1


def test_times_finer_than_the_container(tmp_path: Path) -> None:
    times = [Fraction(0), Fraction(1, 99_991), Fraction(2, 99_989)]
    writer = VideoWriter(tmp_path / "v.mp4", 64, 48, 25, timestamps=times)
    assert any("finer" in note for note in writer.notes)


def test_odd_sizes_are_padded_and_said(tmp_path: Path) -> None:
    frames = [frame[:47, :63] for frame in FRAMES]
    writer = VideoWriter(tmp_path / "odd.mp4", 63, 47, 25)
    written_by(writer, frames)
    assert any("64x48" in note for note in writer.notes)
    with open_source(tmp_path / "odd.mp4") as source:
        assert (source.info.width, source.info.height) == (64, 48)
        got = source.frame(0).astype(int)
    assert np.abs(got[:47, :63] - frames[0]).mean() < COLOR_MEAN
    assert np.abs(got[:, 63] - got[:, 62]).mean() < 3 * COLOR_MEAN


def test_sound_is_bit_identical(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "s.mp4", moving_texture(25), ClipOptions(sound=("aac",)))
    path = written(tmp_path / "o.mp4", moving_texture(25), sound_from=source)
    assert sound_packets(path) == sound_packets(source)
    assert len(sound_packets(path)) > 40


def test_sound_of_a_real_clip_is_bit_identical(tmp_path: Path) -> None:
    source = package_clip("bigbuckbunny.mp4")
    path = written(tmp_path / "o.mp4", moving_texture(132, 16, 16), sound_from=source)
    assert sound_packets(path) == sound_packets(source)


def test_sound_is_trimmed_and_shifted(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "s.mp4", moving_texture(50), ClipOptions(sound=("aac",)))
    first, last = Fraction(12, 25), Fraction(32, 25)
    times = [Fraction(k, 25) for k in range(12, 32)]
    path = written(
        tmp_path / "o.mp4", moving_texture(20), timestamps=times, sound_from=source,
        sound_range=(first, last),
    )
    packet = Fraction(1024, 48_000)
    expected = [
        (name, time - first) for name, time in sound_packets(source)
        if time + packet > first and time < last
    ]
    got = sound_packets(path)
    assert [name for name, _ in got] == [name for name, _ in expected]
    shift = {a - b for (_, a), (_, b) in zip(got, expected, strict=True)}
    assert max(abs(s) for s in shift) <= Fraction(1, 48_000)
    assert 38 <= len(got) <= 39  # 0.8 s of packets of 1024 samples, the first begun before


@pytest.mark.parametrize(
    ("source", "codec", "target", "copied"),
    [
        ("s.mkv", "pcm_s16le", "o.mp4", False), ("s.mkv", "pcm_s16le", "o.mov", True),
        ("s.mkv", "mp2", "o.mp4", False), ("s.mkv", "mp2", "o.mkv", True),
        ("s.mkv", "libopus", "o.mp4", True), ("s.mkv", "libmp3lame", "o.mp4", True),
        ("s.mkv", "ac3", "o.mov", True), ("s.mkv", "flac", "o.mp4", True),
    ],
)
def test_sound_that_fits_is_copied_and_the_rest_encoded(
    tmp_path: Path, source: str, codec: str, target: str, copied: bool
) -> None:
    how = ClipOptions(sound=(codec,))
    origin = write_clip(tmp_path / source, moving_texture(25), how)
    writer = VideoWriter(tmp_path / target, 64, 48, 25, sound_from=origin)
    written_by(writer, moving_texture(25))
    if copied:
        assert sound_bytes(tmp_path / target) == sound_bytes(origin)
        assert not writer.notes
    else:
        assert any("re-encoded as AAC" in note for note in writer.notes)
        with av.open(str(tmp_path / target)) as container:
            assert container.streams.audio[0].codec_context.name == "aac"
            samples = sum(frame.samples for frame in container.decode(audio=0))
        assert samples == pytest.approx(48_000, abs=4 * 1024)


def test_aac_of_a_broadcast_stream(tmp_path: Path) -> None:
    how = ClipOptions(sound=("aac",))
    source = write_clip(tmp_path / "s.ts", moving_texture(25), how)
    info = open_source(source).info
    assert info.timestamps[0] > 0  # such streams do not begin at 0
    path = written(
        tmp_path / "o.mp4", moving_texture(25), timestamps=info.timestamps, sound_from=source
    )
    with av.open(str(path)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples == pytest.approx(48_000, abs=4 * 1024)
    gap = sound_packets(source)[5][1] - info.timestamps[0]
    assert abs(sound_packets(path)[5][1] - gap) < Fraction(1, 1000)


def test_several_sound_streams(tmp_path: Path) -> None:
    how = ClipOptions(sound=("aac", "aac"))
    source = write_clip(tmp_path / "s.mp4", moving_texture(25), how)
    writer = VideoWriter(tmp_path / "o.mp4", 64, 48, 25, sound_from=source)
    written_by(writer, FRAMES)
    assert any("2 sound streams; number 1" in note for note in writer.notes)
    assert sound_packets(tmp_path / "o.mp4") == sound_packets(source, 0)


def test_a_silent_source_is_fine(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "s.mp4", FRAMES)
    info = open_source(written(tmp_path / "o.mp4", FRAMES, sound_from=source)).info
    assert not info.has_sound


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    a, b = (written(tmp_path / name, FRAMES) for name in ("a.mp4", "b.mp4"))
    assert a.read_bytes() == b.read_bytes()


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "o.mp4"
    with pytest.raises(KeyError):
        written(path, FRAMES, spoil=True)
    assert list(path.parent.iterdir()) == []


def test_an_exception_keeps_the_older_result(tmp_path: Path) -> None:
    path = written(tmp_path / "o.mp4", FRAMES)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        written(path, FRAMES[:2], spoil=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("count", [0, 1, 3])
def test_counts_must_agree(tmp_path: Path, count: int) -> None:
    times = [Fraction(0), Fraction(1, 25)]
    with pytest.raises(VideoError):
        written_by(VideoWriter(tmp_path / "o.mp4", 64, 48, 25, timestamps=times), FRAMES[:count])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("o.avi", 64, 48, 25), "o.avi"), (("o", 64, 48, 25), "nothing"),
        (("o.mp4", 0, 48, 25), "0x48"), (("o.mp4", 64, 48, 0), "rate is 0"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: tuple, word: str) -> None:
    with pytest.raises(VideoError, match=word):
        VideoWriter(tmp_path / arguments[0], *arguments[1:])


def test_times_must_rise(tmp_path: Path) -> None:
    times = [Fraction(0), Fraction(1), Fraction(1)]
    with pytest.raises(VideoError, match="Timestamp 2"):
        VideoWriter(tmp_path / "o.mp4", 64, 48, 25, timestamps=times)


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="Frame 0"):
        written_by(VideoWriter(tmp_path / "o.mp4", 32, 32, 25), FRAMES)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(VideoError, match=r"o\.mp4 cannot be written"):
        written(tmp_path / "file" / "o.mp4", FRAMES)


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from fresco.errors import VideoError
from fresco.video.writer import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = np.random.default_rng(0).integers(0, 256, (8, 96, 128, 3), dtype=np.uint8)
try:
    with VideoWriter(Path(sys.argv[1]), 128, 96, 25, crf=0) as writer:
        for frame in noise:
            writer.write(frame)
except VideoError as error:
    sys.stdout.write(str(error))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "o.mp4")],
        capture_output=True, text=True, check=False, cwd=root, timeout=120,
    )
    assert "o.mp4" in done.stdout, done.stderr
    assert "larger than the file system" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_same_frames_give_the_same_bytes_each_time(tmp_path: Path) -> None:
    frames = moving_texture(20, 64, 80)
    made = set()
    for _ in range(60):
        path = tmp_path / "out.mp4"
        with VideoWriter(path, 80, 64, Fraction(25)) as writer:
            for frame in frames:
                writer.write(frame)
        made.add(path.read_bytes())
    assert len(made) == 1
