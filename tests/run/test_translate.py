"""The whole run: every frame comes out, any interruption is resumed to the byte."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fresco.errors import Cancelled, FrescoError, SettingsError, VideoError
from fresco.guidance.ports import Host
from fresco.hosts.diffusers.load import load_host
from fresco.options import from_dict
from fresco.progress import CancelToken, Progress, StageStatus
from fresco.run.compare import compare_videos
from fresco.run.translate import RunResult, propagate_keys, translate
from fresco.settings import FrescoSettings
from fresco.video.folder import ImageFolderWriter
from fresco.video.reader import open_source
from fresco.workspace import write_image
from tests.helpers.clips import (
    ClipOptions,
    moving_texture,
    sound_packets,
    truncated,
    write_clip,
)

FRAMES = 12
CUT = 7
"""First frame of the second shot."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shots with sound: a dark texture, then a bright one."""
    dark = [frame // 3 for frame in moving_texture(CUT, 64, 80)]
    bright = [255 - frame // 3 for frame in moving_texture(FRAMES - CUT, 64, 80, seed=5)]
    path = tmp_path_factory.mktemp("clip") / "two shots.mp4"
    return write_clip(path, dark + bright, ClipOptions(sound=("aac",)))


@pytest.fixture(scope="module")
def settings(demo_model: Path) -> FrescoSettings:
    return from_dict({
        "sampling": {
            "model": str(demo_model), "resolution": 64, "steps": 4, "strength": 0.5,
            "prompt": "a painting",
        },
        "guidance": {"optimization_iterations": 2},
        "keyframes": {"min_interval": 2, "max_interval": 3, "batch_size": 3,
                      "shot_min_length": 2},
        "flow": {"estimator": "dis"},
        "propagation": {"workers": 1},
        "output": {"compare": True},
    })


@pytest.fixture(scope="module")
def host(settings: FrescoSettings) -> Host:
    return load_host(settings.sampling, offline=True)


@dataclasses.dataclass(frozen=True)
class Whole:
    """An uninterrupted run."""

    result: RunResult
    statuses: list[StageStatus]


@pytest.fixture(scope="module")
def whole(
    clip: Path, settings: FrescoSettings, host: Host, tmp_path_factory: pytest.TempPathFactory
) -> Whole:
    statuses: list[StageStatus] = []
    output = tmp_path_factory.mktemp("whole") / "result.mp4"
    result = translate(clip, output, settings, lambda: host, Progress(statuses.append))
    return Whole(result, statuses)


def _artefacts(folder: Path) -> dict[str, bytes]:
    """Every picture and carry of a workspace, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.suffix in (".png", ".safetensors", ".json")
    }


def test_every_frame_comes_out_with_the_sound(whole: Whole, clip: Path) -> None:
    with open_source(clip) as source, open_source(whole.result.output) as result:
        assert result.info.frames == source.info.frames == FRAMES
        assert result.info.timestamps == source.info.timestamps
        assert (result.info.width, result.info.height) == (80, 64)
    assert sound_packets(whole.result.output) == sound_packets(clip)


def test_the_cut_is_found_and_not_crossed(whole: Whole) -> None:
    assert whole.result.report is not None
    report = json.loads(whole.result.report.read_text())
    assert report["shots"] == [[0, CUT - 1], [CUT, FRAMES - 1]]
    carries = [path.name for path in whole.result.workspace.rglob("carry-*")]
    for name in carries:
        first, last = (int(part) for part in name.split(".")[0].split("-")[1:])
        assert (first < CUT) == (last < CUT)


def test_the_report_holds_results_and_floors(whole: Whole) -> None:
    assert whole.result.report is not None
    report = json.loads(whole.result.report.read_text())
    frames = report["measures"]["frames"]
    assert set(frames) == {"fresco", "frame_by_frame", "flow_propagation", "source", "vae"}
    assert frames["flow_propagation"] != frames["fresco"]
    assert report["propagation"].startswith("patch (ebsynth ")
    assert frames["source"]["warp_error"] <= frames["fresco"]["warp_error"]
    assert set(report["measures"]["keyframes"]) == {"fresco", "frame_by_frame"}
    assert set(frames["fresco"]) <= set(report["definitions"])


def test_the_comparison_shows_three_panels(whole: Whole) -> None:
    assert whole.result.comparison is not None
    with open_source(whole.result.comparison) as comparison:
        assert comparison.info.frames == FRAMES
        assert comparison.info.width == 3 * 80


def test_stages_report_whole_counts(whole: Whole) -> None:
    ended = {s.stage: s for s in whole.statuses if s.finished}
    for name in ("scan", "keyframes", "propagate", "write", "measure"):
        assert ended[name].done == ended[name].total > 0


def test_a_second_run_makes_no_new_picture(
    whole: Whole, clip: Path, settings: FrescoSettings, host: Host
) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.result.workspace.rglob("*.png")}
    again = translate(clip, whole.result.output, settings, lambda: host, Progress())
    assert again.output == whole.result.output
    assert {p: p.stat().st_mtime_ns for p in whole.result.workspace.rglob("*.png")} == before


@pytest.mark.parametrize("share", [0.45, 0.95])
def test_cancelled_anywhere_it_resumes_to_the_same_bytes(
    whole: Whole, clip: Path, settings: FrescoSettings, host: Host, tmp_path: Path, share: float
) -> None:
    token, seen = CancelToken(), []
    limit = int(len(whole.statuses) * share)

    def report(status: StageStatus) -> None:
        seen.append(status)
        if len(seen) >= limit:
            token.cancel()

    output = tmp_path / "result.mp4"
    with pytest.raises(Cancelled):
        translate(clip, output, settings, lambda: host, Progress(report, token))
    if output.exists():  # nothing half-written ever bears the result's name
        assert output.read_bytes() == whole.result.output.read_bytes()
    result = translate(clip, output, settings, lambda: host, Progress())
    assert _artefacts(result.workspace) == _artefacts(whole.result.workspace)
    assert output.read_bytes() == whole.result.output.read_bytes()


def test_a_preview_stops_after_the_first_keyframes(
    clip: Path, settings: FrescoSettings, host: Host, tmp_path: Path
) -> None:
    result = translate(
        clip, tmp_path / "result.mp4", settings, lambda: host, Progress(), preview=1
    )
    assert result.output.is_dir()
    assert [path.name for path in result.output.glob("*.png")] == ["000000.png"]
    assert not (tmp_path / "result.mp4").exists()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shortest_clips_work(
    count: int, settings: FrescoSettings, host: Host, tmp_path: Path
) -> None:
    source = write_clip(tmp_path / "short.mp4", moving_texture(count, 64, 64))
    result = translate(source, tmp_path / "r.mp4", settings, lambda: host, Progress())
    with open_source(result.output) as written:
        assert written.info.frames == count


def test_a_title_is_drawn_above_unless_its_letters_cannot_be(clip: Path, tmp_path: Path) -> None:
    def rows(title: str) -> list[np.ndarray]:
        compare_videos([clip, clip], ["a", "b"], tmp_path / "c.mp4", Progress(), title=title)
        with open_source(tmp_path / "c.mp4") as comparison:
            return list(comparison.frames())

    plain, titled = rows(""), rows("prompt: \N{LATIN SMALL LETTER A WITH ACUTE}")
    bar = titled[0].shape[0] - plain[0].shape[0]
    assert bar == plain[0].shape[0] - 64 > 0
    assert titled[0][:bar].max() > 150
    assert rows("\N{CYRILLIC SMALL LETTER A}")[0].shape == plain[0].shape


def test_only_the_first_frames_are_compared(
    whole: Whole, clip: Path, settings: FrescoSettings, host: Host
) -> None:
    part = from_dict({"output": {"compare_frames": 5}}, settings)
    report = json.loads((whole.result.report or Path()).read_text())
    output = whole.result.output.with_name("part.mp4")
    result = translate(
        clip, output, part, lambda: host, Progress(), workspace=whole.result.workspace
    )
    assert output.read_bytes() == whole.result.output.read_bytes()
    assert result.report is not None
    assert result.comparison is not None
    with open_source(result.comparison) as comparison:
        frames, turns = list(comparison.frames()), comparison.info.frames // 5
        assert (comparison.info.frames, comparison.info.width) == (5 * turns, 3 * 80)
        assert 8 <= comparison.info.seconds < 8 + 5 / comparison.info.rate
    to_end, to_start = (
        [np.abs(frame.astype(float) - frames[place]).mean() for frame in (frames[5], frames[9])]
        for place in (4, 0)
    )
    assert to_end[0] < to_end[1]  # to and fro: the second turn begins where the first ended
    assert to_start[1] < to_start[0]
    found = json.loads(result.report.read_text())
    assert (found["frames"], found["measured_frames"]) == (FRAMES, 5)
    assert (report["frames"], report["measured_frames"]) == (FRAMES, FRAMES)
    assert set(found["measures"]["frames"]) == {"fresco", "frame_by_frame", "source", "vae"}
    assert found["measures"]["frames"]["fresco"] != report["measures"]["frames"]["fresco"]


def test_equal_frames_stay_equal(settings: FrescoSettings, host: Host, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "still.mp4", moving_texture(1, 64, 64) * 8)
    result = translate(source, tmp_path / "r.mp4", settings, lambda: host, Progress())
    with open_source(result.output) as written:
        assert written.info.frames == 8


def test_a_range_and_a_folder_of_images(
    clip: Path, settings: FrescoSettings, host: Host, tmp_path: Path
) -> None:
    ranged = from_dict({"output": {"first_frame": 2, "last_frame": 9, "compare": False}}, settings)
    result = translate(clip, tmp_path / "frames", ranged, lambda: host, Progress())
    assert result.output.is_dir()
    with open_source(result.output) as written:
        assert written.info.frames == 8


@pytest.mark.parametrize(("first", "last", "words"), [
    (0, FRAMES, f"has {FRAMES} frames"), (FRAMES, -1, "first_frame"),
])
def test_a_range_outside_the_clip_is_refused(
    clip: Path, settings: FrescoSettings, tmp_path: Path, first: int, last: int, words: str
) -> None:
    wrong = from_dict({"output": {"first_frame": first, "last_frame": last}}, settings)

    def never() -> Any:
        raise AssertionError("the model was loaded")

    with pytest.raises(SettingsError, match=words):
        translate(clip, tmp_path / "r.mp4", wrong, never, Progress())


@pytest.mark.parametrize(("output", "words"), [
    ("late.avi", "ends in .avi"), ("v1.2", "ends in .2"), ("mine", "not an earlier result"),
    ("a folder.mp4", "is a folder"),
])
def test_a_result_that_cannot_be_written_is_refused_before_all_work(
    clip: Path, settings: FrescoSettings, tmp_path: Path, output: str, words: str
) -> None:
    write_image(tmp_path / "mine" / "0001.png", np.zeros((64, 80, 3), np.uint8))
    (tmp_path / "a folder.mp4").mkdir()
    before = sorted(tmp_path.rglob("*"))

    def never() -> Any:
        raise AssertionError("the model was loaded")

    with pytest.raises(VideoError, match=words):
        translate(clip, tmp_path / output, settings, never, Progress())
    with pytest.raises(VideoError, match=words):
        propagate_keys(clip, tmp_path / "mine", tmp_path / output, settings, Progress())
    assert sorted(tmp_path.rglob("*")) == before


def test_names_and_places_are_tried_before_all_work(
    clip: Path, settings: FrescoSettings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    fits = "x" * 251 + ".mp4"

    def never() -> Any:
        raise AssertionError("the model was loaded")

    for output, words in (
        (tmp_path / fits, "-frame-by-frame.mp4 cannot be written: the name is too long"),
        (tmp_path / "file" / "r.mp4", "cannot be written"),
    ):
        with pytest.raises(FrescoError, match=words):
            translate(clip, output, settings, never, Progress(), workspace=tmp_path / "space")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["file"], ["file", "space"])


@pytest.mark.parametrize("first", [0, 3])
def test_sound_that_cannot_be_kept_costs_no_frame(
    settings: FrescoSettings, tmp_path: Path, first: int
) -> None:
    how = ClipOptions(codec="mpeg4", options={"b": "1M"}, sound=("adpcm_ima_wav",))
    source = write_clip(tmp_path / "s.avi", moving_texture(8, 64, 80), how)
    data = bytearray(source.read_bytes())
    place = data.index(b"strf", data.index(b"auds")) + 8
    data[place:place + 2] = b"\x34\xf2"  # the number of no codec
    source.write_bytes(data)
    for number in (first, 7):
        write_image(tmp_path / "keys" / f"{number}.png", np.zeros((64, 80, 3), np.uint8))
    part = from_dict({"output": {"first_frame": first}}, settings)
    result = propagate_keys(source, tmp_path / "keys", tmp_path / "r.mp4", part, Progress())
    with open_source(result.output) as written:
        assert (written.info.frames, written.info.has_sound) == (8 - first, False)
    assert any(note.startswith("The sound is left out") for note in result.notes)


def test_keyframes_are_never_replaced_by_their_result(
    clip: Path, settings: FrescoSettings, tmp_path: Path
) -> None:
    """Not even in a folder that an earlier run wrote."""
    with ImageFolderWriter(tmp_path / "keys") as writer:
        writer.write(np.zeros((64, 80, 3), np.uint8))
    with pytest.raises(SettingsError, match="folder of the keyframes"):
        propagate_keys(clip, tmp_path / "keys", tmp_path / "keys", settings, Progress())
    assert (tmp_path / "keys" / "0000.png").exists()


def test_a_file_cut_off_behind_the_frames_used_is_compared_too(
    clip: Path, settings: FrescoSettings, host: Host, tmp_path: Path
) -> None:
    how = ClipOptions(sound=("aac",))
    whole = write_clip(tmp_path / "whole.mkv", moving_texture(40, 64, 80), how)
    broken = truncated(whole, tmp_path / "broken.mkv", 0.8)
    part = from_dict({"output": {"last_frame": 5}, "keyframes": {"detect_shots": False}}, settings)
    result = translate(broken, tmp_path / "r.mp4", part, lambda: host, Progress())
    assert result.comparison is not None
    with open_source(result.comparison) as comparison:
        assert comparison.info.frames == 6


@pytest.mark.parametrize("numbers", [(0, CUT - 1, CUT, FRAMES - 1), (2, CUT + 2)])
def test_own_keyframes_are_carried_to_all_frames(
    clip: Path, settings: FrescoSettings, tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    keys = tmp_path / "keys"
    with open_source(clip) as source:
        for number in numbers:
            write_image(keys / f"key_{number}.png", 255 - source.frame(number))
        inverted = [255 - frame for frame in source.frames()]
    result = propagate_keys(clip, keys, tmp_path / "r.mp4", settings, Progress())
    with open_source(result.output) as written:
        assert written.info.frames == FRAMES
        error = [np.abs(a.astype(int) - b).mean()
                 for a, b in zip(written.frames(), inverted, strict=True)]
    assert max(error) < 12


def test_a_shot_without_own_keyframe_is_named(
    clip: Path, settings: FrescoSettings, tmp_path: Path
) -> None:
    with open_source(clip) as source:
        write_image(tmp_path / "keys" / "0.png", source.frame(0))
    with pytest.raises(SettingsError, match=f"frames {CUT} to {FRAMES - 1} has no keyframe"):
        propagate_keys(clip, tmp_path / "keys", tmp_path / "r.mp4", settings, Progress())


def test_sound_stays_with_the_pictures_and_pixels_keep_their_shape(
    settings: FrescoSettings, host: Host, tmp_path: Path
) -> None:
    """A video that starts late, with pixels that are not square."""
    late = tuple(Fraction(1, 5) + Fraction(k, 24) for k in range(6))
    how = ClipOptions(sound=("aac",), timestamps=late, aspect=Fraction(4, 3))
    source = write_clip(tmp_path / "late.mkv", moving_texture(6, 64, 64), how)
    plain = from_dict({"output": {"compare": False}}, settings)
    result = translate(source, tmp_path / "r.mp4", plain, lambda: host, Progress())

    def gap(path: Path) -> Fraction:
        with open_source(path) as video:
            return video.info.timestamps[0] - sound_packets(path)[0][1]

    assert abs(gap(result.output) - gap(source)) < Fraction(1, 100)
    with open_source(result.output) as written:
        assert written.info.pixel_aspect == Fraction(4, 3)


def test_words_for_frames_that_are_no_keyframes_are_not_lost_silently(
    clip: Path, settings: FrescoSettings, host: Host, tmp_path: Path
) -> None:
    worded = from_dict({"sampling": {"key_prompts": {"1": "closed eyes"}}}, settings)
    result = translate(clip, tmp_path / "r.mp4", worded, lambda: host, Progress(), preview=1)
    assert any("words for frame 1 are not used" in note for note in result.notes)
