"""Where frames come from, and sources that are not as they should be."""

from __future__ import annotations

import base64
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.broken_videos import broken_videos, huge_png
from tests.helpers.clips import ClipOptions, moving_texture, truncated, write_clip
from tests.helpers.webui import shared
from tests.helpers.webui.client import Host, Refused
from tests.helpers.webui.double import DoubleHost
from tests.helpers.webui.requests import NONE, frames

FEW: dict[str, Any] = NONE | {"min_interval": 1, "max_interval": 10, "detect_shots": False}


def by_path(path: Path) -> dict[str, Any]:
    return FEW | {"path": str(path)}


def by_bytes(path: Path) -> dict[str, Any]:
    return FEW | {"video": base64.b64encode(path.read_bytes()).decode()}


BOTH = pytest.mark.parametrize("given", [by_path, by_bytes])
Given = Callable[[Path], dict[str, Any]]


def refusal(host: Host, options: dict[str, Any]) -> str:
    with pytest.raises(Refused) as caught:
        host.img2img([], options)
    assert caught.value.status == 422
    return caught.value.detail


@BOTH
def test_video(host: Host, tmp_path: Path, given: Given) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_texture(7))
    answer = host.img2img([], given(clip) | {"keys": "0,3,6"})
    assert len(answer.images) == 3
    assert {image.size for image in answer.images} == {(64, 64)}


@BOTH
def test_video_that_ends_early(host: Host, tmp_path: Path, given: Given) -> None:
    """How far it can be read is said; as far as that it is taken."""
    how = ClipOptions(options={"g": "10", "crf": "20", "preset": "ultrafast"}, rate=Fraction(10))
    whole = write_clip(tmp_path / "whole.mkv", moving_texture(40), how)
    options = given(truncated(whole, tmp_path / "cut.mkv", 0.6))
    said = refusal(host, options)
    assert "frames can be read" in said
    last = int(said.split(" frames can be read")[0].split()[-1]) - 1
    assert f"last frame to {last}" in said
    answer = host.img2img([], options | {"last_frame": last, "keys": f"0,{last}"})
    assert len(answer.images) == 2
    assert f"FRESCO last frame: {last}" in answer.infotext


@BOTH
def test_video_of_one_frame(host: Host, tmp_path: Path, given: Given) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_texture(1))
    assert len(host.img2img([], given(clip)).images) == 1


def test_video_without_a_frame(host: Host, tmp_path: Path) -> None:
    empty = tmp_path / "clip.mp4"
    empty.touch()
    assert "is empty (0 bytes)" in refusal(host, by_path(empty))


@pytest.mark.parametrize("name", ["secret", "secret.txt", "secret.json", "not there.txt"])
def test_lists_of_keys_are_read_only_where_a_reachable_webui_serves(
    double: DoubleHost, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch, name: str,
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_texture(3))
    served, secret = tmp_path / "served", tmp_path_factory.mktemp("elsewhere") / name
    served.mkdir()
    if "not there" not in name:
        secret.write_text("hunter2")
    (served / "keys.txt").write_text("0 2")
    monkeypatch.setattr(shared.cmd_opts, "listen", True, raising=False)
    monkeypatch.setattr(shared.cmd_opts, "gradio_allowed_path", [str(served)], raising=False)
    said = refusal(double, by_bytes(clip) | {"keys": str(secret)})
    assert "outside of the folders" in said
    assert "hunter2" not in said
    answer = double.img2img([], by_bytes(clip) | {"keys": str(served / "keys.txt")})
    assert len(answer.images) == 2


@pytest.mark.parametrize("name", ["secret", "secret.txt", "secret.json", "secret.env"])
def test_no_word_of_a_file_is_told(
    double: DoubleHost, tmp_path: Path, name: str
) -> None:
    """Also where only this machine can ask, since other users and pages may."""
    clip = write_clip(tmp_path / "clip.mp4", moving_texture(3))
    (tmp_path / name).write_text("hunter2 is the word\n")
    said = refusal(double, by_bytes(clip) | {"keys": str(tmp_path / name)})
    assert name in said
    assert "hunter2" not in said


@pytest.mark.parametrize("data", [
    b"ffconcat version 1.0\nfile clip.mp4\n", b"#EXTM3U\n#EXTINF:1,\nclip.mp4\n",
    huge_png(16), b"<?xml version='1.0'?><MPD><Period/></MPD>",
])
def test_a_program_sends_a_video_and_nothing_else(
    double: DoubleHost, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "clip").write_bytes(data)
    assert "video" in refusal(double, by_bytes(tmp_path / "clip"))


def test_frames_above_every_size_are_not_decoded(double: DoubleHost, tmp_path: Path) -> None:
    good = write_clip(tmp_path / "good.mp4", moving_texture(24))
    path = tmp_path / "clip.mp4"
    path.write_bytes(broken_videos(good, tmp_path)["huge header.ivf"])
    assert "pixels are read" in refusal(double, by_bytes(path))


def test_range_behind_the_end(host: Host, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", moving_texture(3))
    said = refusal(host, by_path(clip) | {"last_frame": 3})
    assert "output.last_frame is 3" in said
    assert "give at most 2." in said


def test_folder_of_different_sizes(host: Host, tmp_path: Path) -> None:
    for number, width in enumerate([64, 64, 80]):
        Image.new("RGB", (width, 64)).save(tmp_path / f"{number}.png")
    said = refusal(host, by_path(tmp_path))
    assert "2.png is 80x64, 0.png is 64x64" in said


def test_one_frame_is_noted(double: DoubleHost) -> None:
    double.img2img(frames(1), NONE)
    assert "FRESCO was given one frame, so there is nothing to share" in double.comments


def test_fewer_words_than_frames(host: Host) -> None:
    """Frames without words of their own have the prompt alone."""
    answer = host.img2img(frames(4), NONE | {"key_prompts": {"2": "at night"}})
    said = [text.partition("\n")[0] for text in answer.infotexts]
    assert said == ["a red car", "a red car", "a red car, at night", "a red car"]


def test_words_for_a_frame_that_is_none(double: DoubleHost) -> None:
    double.img2img(frames(3), NONE | {"key_prompts": {"7": "at night"}})
    assert "The words for frame 7 are not used, because it is not a keyframe" in double.comments
