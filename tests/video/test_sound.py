"""Sound: tried before any work, kept wherever it can be, and never the end of the video."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from fresco.errors import VideoError
from fresco.video import sound_encoder
from fresco.video.reader import open_source
from fresco.video.sound import SoundCopy, SoundSource, read_sound_info
from fresco.video.sound_encoder import choose_rate, encode_sound
from fresco.video.writer import VideoWriter
from tests.helpers.clips import ClipOptions, moving_texture, sound_packets, truncated, write_clip

FRAMES = moving_texture(25)
PART = 1024 / 48_000
"""Seconds of a packet of AAC."""


def write_pcm(
    path: Path, rate: int = 48_000, *, codec: str = "pcm_s16le", layout: str = "stereo",
    seconds: float = 1.0, loud: Sequence[int] | None = None, gap: tuple[float, float] = (0, 0),
) -> Path:
    """A file of 25 frames and a tone of 220 Hz.

    Args:
        loud: channels that have the tone; None: all.
        gap: second at which the tone is left out, and for how long.
    """
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        stream: Any = output.add_stream(codec, rate=rate)
        stream.codec_context.layout = layout
        if not codec.startswith("pcm"):
            stream.codec_context.bit_rate = 128_000
        count = len(av.AudioLayout(layout).channels)
        for number, rgb in enumerate(FRAMES):
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        size = rate // 50
        for start in range(0, round(rate * seconds) - size + 1, size):
            if gap[0] <= start / rate < sum(gap):
                continue
            wave = 8000 * np.sin(2 * np.pi * 220 * np.arange(start, start + size) / rate)
            planes = np.zeros((count, size), np.int16)
            planes[list(range(count)) if loud is None else list(loud)] = wave
            sound = av.AudioFrame.from_ndarray(planes.T.reshape(1, -1), "s16", layout)
            sound.sample_rate, sound.pts, sound.time_base = rate, start, Fraction(1, rate)
            output.mux(stream.encode(sound))
        output.mux(stream.encode(None))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def written(path: Path, source: Path, **more: Any) -> VideoWriter:
    """The writer of a finished file of 25 frames with the sound of a source."""
    info = open_source(source).info
    writer = VideoWriter(
        path, 64, 48, 25, timestamps=[info.timestamps[0] + Fraction(k, 25) for k in range(25)],
        sound_from=source, **more,
    )
    with writer:
        for frame in FRAMES:
            writer.write(frame)
    assert not [name for name in names(path.parent) if ".part" in name]
    return writer


def heard(path: Path) -> tuple[int, np.ndarray]:
    """Rate and samples of a file's sound, [channels, samples], from time 0 on."""
    with av.open(str(path)) as container:
        pieces, start, rate = [], None, 0
        for frame in container.decode(audio=0):
            rate = frame.sample_rate
            if start is None:
                start = round(float(frame.pts * frame.time_base) * rate)
            pieces.append(frame.to_ndarray())
    samples = np.concatenate(pieces, axis=1)
    start = start or 0
    return rate, samples[:, -start:] if start < 0 else np.pad(samples, ((0, 0), (start, 0)))


def loudness(samples: np.ndarray, rate: int, first: float, last: float) -> float:
    return float(np.abs(samples[:, round(first * rate) : round(last * rate)]).mean())


@pytest.mark.parametrize(
    ("rate", "chosen"),
    [(48_000, 48_000), (192_000, 96_000), (37_000, 44_100), (5_512, 7_350), (96_001, 96_000)],
)
def test_rates_that_aac_has(rate: int, chosen: int) -> None:
    assert choose_rate(rate) == chosen
    assert choose_rate(rate) in (av.Codec("aac", "w").audio_rates or [chosen])


@pytest.mark.parametrize("rate", [192_000, 37_000, 5_512, 11_025])
def test_every_rate_becomes_aac(tmp_path: Path, rate: int) -> None:
    source = write_pcm(tmp_path / "s.mkv", rate)
    writer = written(tmp_path / "o.mp4", source)
    assert any("re-encoded as AAC" in note for note in writer.notes)
    found, samples = heard(tmp_path / "o.mp4")
    assert found == choose_rate(rate)
    assert samples.shape[1] / found == pytest.approx(1, abs=3 * 1024 / found)
    assert loudness(samples, found, 0.1, 0.8) > 0.1
    spectrum = np.abs(np.fft.rfft(samples[0, : round(0.8 * found)]))
    assert np.argmax(spectrum) / 0.8 == pytest.approx(220, abs=2)


@pytest.mark.parametrize(
    ("name", "codec", "target"),
    [("s.avi", "adpcm_ima_wav", "o.mkv"), ("s.wmv", "wmav2", "o.mkv"), ("s.wmv", "wmav2", "o.mp4"),
     ("s.avi", "adpcm_ms", "o.mov"), ("s.mkv", "mp2", "o.mov")],
)
def test_the_container_is_asked(tmp_path: Path, name: str, codec: str, target: str) -> None:
    source = write_pcm(tmp_path / name, codec=codec)
    writer = written(tmp_path / target, source)
    assert any("re-encoded as AAC" in note for note in writer.notes)
    rate, samples = heard(tmp_path / target)
    assert samples.shape[1] / rate == pytest.approx(1, abs=0.1)
    assert loudness(samples, rate, 0.2, 0.7) > 0.1


@pytest.mark.parametrize(("name", "layout"), [
    ("s.mov", "6.1"), ("s.mov", "7.1"), ("s.mov", "5.1"), ("s.mov", "octagonal"), ("s.mkv", "7.1"),
    ("s.mkv", "hexadecagonal"),
])
def test_many_channels(tmp_path: Path, name: str, layout: str) -> None:
    source = write_pcm(tmp_path / name, 16_000, layout=layout, loud=[0])
    written(tmp_path / "o.mp4", source)
    rate, samples = heard(tmp_path / "o.mp4")
    assert samples.shape[0] == 2
    assert samples.shape[1] / rate == pytest.approx(1, abs=0.2)
    left, right = np.abs(samples[:, rate // 4 : rate // 2]).mean(1)
    assert left > 0.02  # the tone is on the front left channel
    assert right < left / 10


def test_the_program_outlives_a_decoder_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_pcm(tmp_path / "s.mkv")
    crash = "import os; os.abort()"

    def popen(words: list[str], **more: Any) -> Any:
        return subprocess.Popen([sys.executable, "-c", crash], **more)

    fake = type("fake", (), {name: getattr(subprocess, name) for name in ("PIPE", "DEVNULL")})
    fake.Popen = staticmethod(popen)  # type: ignore[attr-defined]
    monkeypatch.setattr(sound_encoder, "subprocess", fake)
    writer = written(tmp_path / "o.mp4", source)
    assert writer.notes[-1].startswith("The sound is left out: its decoder crashed")
    assert open_source(tmp_path / "o.mp4").info.frames == 25


@pytest.mark.parametrize("target", ["o.mp4", "o.mkv"])
def test_sound_of_an_unknown_kind_is_left_out(tmp_path: Path, target: str) -> None:
    source = write_clip(tmp_path / "s.avi", FRAMES, ClipOptions(
        codec="mpeg4", options={"b": "1M"}, sound=("adpcm_ima_wav",)
    ))
    data = bytearray(source.read_bytes())
    place = data.index(b"strf", data.index(b"auds")) + 8
    data[place : place + 2] = b"\x34\xf2"  # the number of no codec
    source.write_bytes(data)
    writer = VideoWriter(tmp_path / target, 64, 48, 25, sound_from=source)
    writer.rehearse()
    assert writer.notes[-1] == (
        f"The sound is left out: PyAV {av.__version__} does not know its codec."
    )
    assert names(tmp_path) == [source.name]
    with writer:
        for frame in FRAMES:
            writer.write(frame)
    info = open_source(tmp_path / target).info
    assert (info.frames, info.has_sound) == (25, False)


def test_sound_that_no_attempt_can_write_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by the muxer when it is copied, and again when it was encoded."""
    source = write_clip(tmp_path / "s.mp4", FRAMES, ClipOptions(sound=("aac",)))

    def refuse(*_: object) -> None:
        raise av.FFmpegError(22, "Invalid argument")

    pump = SoundCopy.pump
    monkeypatch.setattr(SoundCopy, "pump", refuse)
    writer = written(tmp_path / "o.mp4", source)
    assert writer.notes == ("The sound is left out: Invalid argument.",)
    info = open_source(tmp_path / "o.mp4").info
    assert (info.frames, info.has_sound) == (25, False)

    def refuse_later(self: SoundCopy, until: Fraction | None) -> None:
        if until is None or until > Fraction(1, 2):
            raise av.FFmpegError(22, "Invalid argument")
        pump(self, until)

    monkeypatch.setattr(SoundCopy, "pump", pump)
    writer = VideoWriter(tmp_path / "p.mp4", 64, 48, 25, sound_from=source)
    writer.rehearse()
    monkeypatch.setattr(SoundCopy, "pump", refuse_later)
    with writer:
        for frame in FRAMES:
            writer.write(frame)
    assert writer.notes == ("The sound ends at 0.47 s: Invalid argument.",)
    info = open_source(tmp_path / "p.mp4").info
    assert (info.frames, info.has_sound) == (25, True)


def test_a_gap_is_silence(tmp_path: Path) -> None:
    source = write_pcm(tmp_path / "s.mkv", gap=(0.4, 0.3))
    written(tmp_path / "o.mp4", source)
    rate, samples = heard(tmp_path / "o.mp4")
    assert samples.shape[1] / rate == pytest.approx(1, abs=3 * PART)
    assert loudness(samples, rate, 0.1, 0.35) > 0.1
    assert loudness(samples, rate, 0.45, 0.65) < 0.005
    assert loudness(samples, rate, 0.75, 0.95) > 0.1


def test_encoded_sound_is_cut_to_the_sample(tmp_path: Path) -> None:
    source = write_pcm(tmp_path / "s.mkv", gap=(0.4, 0.3))
    sound = SoundSource(
        source, (Fraction(1, 5), Fraction(9, 10)), Fraction(1, 5)
    )
    rate, samples = heard(encode_sound(sound, tmp_path))
    assert samples.shape[1] / rate == pytest.approx(0.7, abs=2 * PART)
    assert loudness(samples, rate, 0.02, 0.18) > 0.1
    assert loudness(samples, rate, 0.23, 0.47) < 0.005
    assert loudness(samples, rate, 0.53, 0.68) > 0.1


def test_encoded_sound_is_made_once(tmp_path: Path) -> None:
    source = write_pcm(tmp_path / "s.mkv")
    path = encode_sound(SoundSource(source), tmp_path)
    made = path.stat().st_mtime_ns
    time.sleep(0.01)
    assert encode_sound(SoundSource(source), tmp_path) == path
    assert path.stat().st_mtime_ns == made
    source.write_bytes(source.read_bytes() + b"\0")
    assert encode_sound(SoundSource(source), tmp_path) != path


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_sound_of_a_joined_stream_stays_in_step(tmp_path: Path, codec: str) -> None:
    how = ClipOptions(sound=(codec,))
    part = write_clip(tmp_path / "part.ts", FRAMES[:12], how)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    info = open_source(joined).info
    assert info.frames == 24
    with open_source(part) as source:
        start = source.info.timestamps[0]
    path = tmp_path / "o.mp4"
    writer = VideoWriter(
        path, 64, 48, 25, timestamps=info.timestamps, sound_from=joined,
        clock_shifts=info.clock_shifts,
    )
    with writer:
        for frame in FRAMES[:24]:
            writer.write(frame)
    rate, samples = heard(path)
    assert samples.shape[1] / rate == pytest.approx(0.96, abs=0.12)
    if codec == "aac":  # copied: each packet of both parts, at its own part's time
        got = sound_packets(path)
        once = sound_packets(part)
        assert len(got) == 2 * len(once)
        true = [stamp - start for _, stamp in once]
        true += [stamp + Fraction(12, 25) for stamp in true]
        off = [abs(a - b) for (_, a), b in zip(got, true, strict=True)]
        assert max(off) < 2 * PART
        assert off[-1] < 0.001
        assert all(a[1] < b[1] for a, b in pairwise(got))


def test_a_packet_without_timestamp_follows_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_clip(tmp_path / "s.mkv", FRAMES, ClipOptions(sound=("aac",)))
    with av.open(str(source)) as container:
        true = [packet.pts for packet in container.demux(audio=0) if packet.size]
    info = read_sound_info(SoundSource(source))
    assert info is not None
    assert list(info.stamps) == true
    time.sleep(0.01)
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        payload = bytes([p for p in container.demux(audio=0) if p.size][9])
    place = data.index(payload)
    data[place - 3 : place - 1] = (0).to_bytes(2, "big")
    source.write_bytes(data)
    info = read_sound_info(SoundSource(source))
    assert info is not None
    assert np.abs(np.array(info.stamps) - true).max() <= 1  # milliseconds


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_of_a_file_that_is_cut_off_goes_as_far(tmp_path: Path, codec: str) -> None:
    whole = write_pcm(tmp_path / "whole.mkv", codec=codec)
    source = truncated(whole, tmp_path / "cut.mkv", 0.7)
    assert open_source(source, last_frame=3).info.has_sound
    writer = VideoWriter(tmp_path / "o.mp4", 64, 48, 25, sound_from=source)
    with writer:
        for frame in FRAMES[:4]:
            writer.write(frame)
    assert not any("left out" in note for note in writer.notes)
    assert open_source(tmp_path / "o.mp4").info.has_sound


def test_a_rehearsal_leaves_nothing_and_keeps_what_is_there(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "s.mp4", FRAMES, ClipOptions(sound=("aac",)))
    (tmp_path / "o.mp4").write_text("older")
    VideoWriter(tmp_path / "o.mp4", 64, 48, 25, sound_from=source).rehearse()
    assert names(tmp_path) == ["o.mp4", "s.mp4"]
    assert (tmp_path / "o.mp4").read_text() == "older"


def test_what_the_encoder_refuses_is_not_the_disk(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="refuses 40000x16") as caught:
        VideoWriter(tmp_path / "o.mp4", 40_000, 16, 25).rehearse()
    assert "space" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_place_that_cannot_be_written_is_found_by_a_rehearsal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(VideoError, match=r"o\.mp4 cannot be written .*check the space"):
        VideoWriter(tmp_path / "file" / "o.mp4", 64, 48, 25).rehearse()


@pytest.mark.parametrize("letter", ["x", "ü", "字"])
def test_the_longest_name_is_written(tmp_path: Path, letter: str) -> None:
    stem = letter * ((255 - 4) // len(letter.encode()))
    path = tmp_path / f"{stem}.mp4"
    with VideoWriter(path, 64, 48, 25) as writer:
        for frame in FRAMES[:3]:
            writer.write(frame)
    assert names(tmp_path) == [path.name]
    with pytest.raises(Exception, match="too long"):
        VideoWriter(tmp_path / f"{letter * 252}.mp4", 64, 48, 25)


def test_the_encoder_ends_with_the_program_that_asked(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", (
            "import sys, threading, time\n"
            "from fresco.video import sound_encoder\n"
            "threading.Thread(target=sound_encoder._end_with_parent, daemon=True).start()\n"
            "time.sleep(60)"
        )],
        stdin=subprocess.PIPE, cwd=root,
    )
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 2
