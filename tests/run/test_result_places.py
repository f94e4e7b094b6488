"""Where a result is written: what is in the way is said before the work, a link is followed."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fresco.config.run_file import write_run_file
from fresco.errors import FrescoError, VideoError, WorkspaceError
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.run.measure import write_report
from fresco.run.translate import translate
from fresco.settings import FrescoSettings
from fresco.video.folder import ImageFolderWriter
from fresco.video.writer import VideoWriter
from fresco.writing import explain, write_bytes
from tests.helpers.clips import moving_texture, write_clip

FRAME = np.zeros((48, 64, 3), np.uint8)
SETTINGS = from_dict({"output": {"compare": True, "measures": True}})


def refuse_model() -> object:
    raise AssertionError("the model was loaded before the places of results were looked at")


@pytest.mark.parametrize("end", ["comparison.mp4", "frame-by-frame.mp4", "report.json"])
def test_a_folder_in_the_way_of_what_is_written_beside_a_result(tmp_path: Path, end: str) -> None:
    source = write_clip(tmp_path / "clip.mp4", moving_texture(3, 64, 64))
    (tmp_path / f"result-{end}").mkdir()
    with pytest.raises(WorkspaceError, match=f"result-{end}.*folder"):
        translate(source, tmp_path / "result.mp4", SETTINGS, refuse_model, Progress())  # type: ignore[arg-type]
    assert not (tmp_path / "result.fresco").exists()


def test_a_file_in_the_way_of_the_folder_of_keyframes(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "clip.mp4", moving_texture(3, 64, 64))
    (tmp_path / "result-keys").write_text("mine")
    with pytest.raises(WorkspaceError, match="result-keys"):
        translate(
            source, tmp_path / "result.mp4", SETTINGS, refuse_model, Progress(), preview=1,  # type: ignore[arg-type]
        )


def _write_frames(path: Path, frames: Sequence[np.ndarray]) -> None:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, width, height, 25) as writer:
        for frame in frames:
            writer.write(frame)


def _write_video(path: Path) -> None:
    _write_frames(path, [FRAME])


def _write_run_file(path: Path) -> None:
    write_run_file(path, FrescoSettings(), source=Path("a"), output=Path("b"), host="")


@pytest.mark.parametrize("write", [
    _write_video, _write_run_file, lambda path: write_report(path, {}, {}),
])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_as_result_is_written_through(
    tmp_path: Path, write: Callable[[Path], object], there: bool
) -> None:
    target = tmp_path / "elsewhere" / "real.mp4"
    target.parent.mkdir()
    if there:
        target.write_bytes(b"old")
    link = tmp_path / "result.mp4"
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert target.stat().st_size > 3
    assert list(target.parent.iterdir()) == [target]
    assert sorted(tmp_path.iterdir()) == [target.parent, link]


def test_a_link_to_a_folder_of_images_is_written_through(tmp_path: Path) -> None:
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "real")
    for count in (3, 2):
        with ImageFolderWriter(link) as writer:
            for _ in range(count):
                writer.write(FRAME)
    assert link.is_symlink()
    assert len(list((tmp_path / "real").glob("*.png"))) == 2


def test_a_link_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    link = tmp_path / "result.mp4"
    link.symlink_to(link)
    with pytest.raises(FrescoError, match=r"result\.mp4"):
        _write_video(link)


def test_a_file_that_grows_too_large_is_named(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(VideoError, match="larger than the file system"):
            _write_frames(tmp_path / "result.mp4", [noise] * 8)
        with pytest.raises(WorkspaceError, match="larger than the file system"):
            write_bytes(tmp_path / "big", bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    assert "larger" in str(explain(OSError(errno.EFBIG, "File too large"), tmp_path))
