"""Uploaded videos: nothing bad is kept, nothing kept is lost; and looks into a video."""

from __future__ import annotations

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from fresco.errors import Cancelled, SettingsError, VideoError
from fresco.options import from_dict
from fresco.progress import CancelToken, Progress
from fresco.run.translate import detect_keyframes
from fresco.server.ports import Limits
from fresco.server.videos import (
    TooLargeError,
    UnknownVideoError,
    VideoStore,
    detect,
    make_thumbnails,
    read_frame,
)
from fresco.settings import FrescoSettings
from fresco.video.reader import open_source
from tests.helpers.clips import ClipOptions, moving_texture, write_clip

FRAMES = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "a clip.mov"
    return write_clip(path, moving_texture(FRAMES, 64, 96), ClipOptions(sound=("aac",)))


@pytest.fixture
def store(tmp_path: Path) -> VideoStore:
    return VideoStore(tmp_path / "videos", lambda: Limits(upload_megabytes=1))


def test_a_video_is_kept_with_what_is_in_it(store: VideoStore, clip: Path) -> None:
    with clip.open("rb") as file:
        kept = store.add(file, "C:\\films\\a clip.mov")
    assert kept.name == "a clip.mov"
    assert kept.path.read_bytes() == clip.read_bytes()
    assert kept.path.suffix == ".mov"
    with open_source(kept.path) as source:
        assert kept.info == source.info
    assert store.get(kept.id) == kept
    assert store.list_videos() == (kept,)


def test_a_restart_knows_it_without_reading_it_again(
    store: VideoStore, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with clip.open("rb") as file:
        kept = store.add(file, "a.mp4")
    monkeypatch.setattr("fresco.server.videos.open_source", None)
    again = VideoStore(tmp_path / "videos", Limits)
    assert again.get(kept.id) == kept


def test_the_same_file_is_kept_once(store: VideoStore, clip: Path, tmp_path: Path) -> None:
    """Under the name that it had last; other bytes of that name are another video."""
    data = clip.read_bytes()
    first = store.add(io.BytesIO(data), "a.mov")
    again = VideoStore(tmp_path / "videos", Limits).add(io.BytesIO(data), "holiday.mov")
    assert (again.id, again.path, again.name) == (first.id, first.path, "holiday.mov")
    assert again.size == len(data)
    other = write_clip(tmp_path / "other.mov", moving_texture(3, 32, 32))
    assert store.add(io.BytesIO(other.read_bytes()), "holiday.mov").id != first.id
    assert len(store.list_videos()) == len(list((tmp_path / "videos").iterdir())) == 2


def test_the_same_file_sent_twice_at_once_is_kept_once(
    store: VideoStore, clip: Path, tmp_path: Path
) -> None:
    data = clip.read_bytes()
    with ThreadPoolExecutor(6) as pool:
        kept = list(pool.map(lambda name: store.add(io.BytesIO(data), name), "abcdef"))
    assert len({video.id for video in kept}) == 1
    assert len(list((tmp_path / "videos").iterdir())) == 1


def test_a_video_of_version_0_1_is_known_again(
    store: VideoStore, clip: Path, tmp_path: Path
) -> None:
    kept = store.add(io.BytesIO(clip.read_bytes()), "a.mov")
    facts = kept.path.with_name("clip.json")
    values = json.loads(facts.read_text())
    del values["content"]
    facts.write_text(json.dumps(values))
    again = VideoStore(tmp_path / "videos", Limits)
    assert again.add(io.BytesIO(clip.read_bytes()), "a.mov").id == kept.id


def test_what_a_failed_request_added_is_taken_back(
    store: VideoStore, clip: Path, tmp_path: Path
) -> None:
    """But nothing that was here before, or that another request has added too."""
    data = clip.read_bytes()
    first = store.add(io.BytesIO(data), "a.mov")
    store.add(io.BytesIO(data), "a.mov")
    store.take_back(first.id)
    assert store.list_videos()
    store.take_back(first.id)
    assert store.list_videos() == ()
    kept = store.add(io.BytesIO(data), "a.mov")
    restarted = VideoStore(tmp_path / "videos", Limits)
    restarted.add(io.BytesIO(data), "a.mov")
    restarted.take_back(kept.id)
    assert restarted.get(kept.id)


def test_the_newest_is_listed_first(store: VideoStore, tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{n}.mp4", moving_texture(2 + n, 32, 32)) for n in range(3)]
    kept = [store.add(io.BytesIO(path.read_bytes()), path.name) for path in clips]
    for age, item in enumerate(kept):
        os.utime(item.path, (1000 + age, 1000 + age))
    assert [item.name for item in store.list_videos()] == ["2.mp4", "1.mp4", "0.mp4"]


def test_a_removed_one_is_gone_with_its_scan(store: VideoStore, clip: Path) -> None:
    with clip.open("rb") as file:
        kept = store.add(file, "a.mp4")
    detect(kept.path, FrescoSettings(), store.scan_folder(kept.path), Progress())
    store.delete(kept.id)
    assert store.list_videos() == ()
    assert not kept.path.parent.exists()
    with pytest.raises(UnknownVideoError, match=kept.id):
        store.delete(kept.id)


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "0123456789abcdef", "0123456789ABCDEF", "scans", "a\0b", "x" * 999]
)
def test_other_ids_are_unknown(store: VideoStore, name: str) -> None:
    with pytest.raises(UnknownVideoError, match="upload it first"):
        store.get(name)


def test_an_upload_above_the_limit_leaves_nothing(store: VideoStore, tmp_path: Path) -> None:
    read = 0

    class Endless:
        def read(self, size: int = -1, /) -> bytes:
            nonlocal read
            read += 100_000
            return bytes(100_000)

    with pytest.raises(TooLargeError, match="1 MB"):
        store.add(Endless(), "a.mp4")
    assert read == 1_100_000
    assert list((tmp_path / "videos").iterdir()) == []


def test_a_bad_file_leaves_nothing(store: VideoStore, clip: Path, tmp_path: Path) -> None:
    cut = clip.read_bytes()[:2000]
    with pytest.raises(VideoError, match=r"^b\.mov cannot be read") as caught:
        store.add(io.BytesIO(cut), "b.mov")
    assert str(tmp_path) not in str(caught.value)

    class Broken:
        def read(self, size: int = -1, /) -> bytes:
            raise ConnectionResetError("gone")

    with pytest.raises(Exception, match="gone"):
        store.add(Broken(), "a.mp4")
    assert list((tmp_path / "videos").iterdir()) == []


def test_a_list_of_other_files_is_never_followed(
    store: VideoStore, clip: Path
) -> None:
    """FFmpeg reads such lists gladly, wherever they point."""
    text = f"ffconcat version 1.0\nfile '{clip}'\n".encode()
    for before in (b"", b"\n", b"\xef\xbb\xbf"):
        with pytest.raises(VideoError):
            store.add(io.BytesIO(before + text), "a.mp4")


def test_detection_is_that_of_the_run(clip: Path, tmp_path: Path) -> None:
    settings = from_dict({
        "keyframes": {"min_interval": 2, "max_interval": 4},
        "output": {"first_frame": 1, "last_frame": 9}})
    found = detect(clip, settings, tmp_path / "one", Progress())
    known, scan, plans, notes = detect_keyframes(clip, settings, Progress(), tmp_path / "two")
    assert found.plans == plans
    assert found.changes == scan.changes
    assert found.notes == notes
    assert (found.first, found.last, found.size) == (1, 9, known.frames.size)
    assert found.keyframes[0] == 1
    assert found.keyframes[-1] == 9


def test_a_detection_stops_when_told(clip: Path, tmp_path: Path) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        detect(clip, FrescoSettings(), tmp_path, Progress(token=token))
    assert detect(clip, FrescoSettings(), tmp_path, Progress()).last == FRAMES - 1


def test_thumbnails_are_the_frames_made_small(clip: Path) -> None:
    small = make_thumbnails(clip, [11, 3, 3], 32)
    assert list(small) == [3, 11]
    for number, data in small.items():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert image.shape == (32, 48, 3)
        exact = cv2.resize(read_frame(clip, number), (48, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(image[:, :, ::-1].astype(int) - exact).mean() < 6
    with pytest.raises(VideoError, match="12"):
        make_thumbnails(clip, [FRAMES], 32)


def test_a_frame_is_the_sources(clip: Path) -> None:
    with open_source(clip) as source:
        assert np.array_equal(read_frame(clip, 5), source.frame(5))
    with pytest.raises(VideoError):
        read_frame(clip, -1)


def test_errors_are_of_the_projects_tree() -> None:
    assert issubclass(UnknownVideoError, SettingsError)
    assert issubclass(TooLargeError, SettingsError)
