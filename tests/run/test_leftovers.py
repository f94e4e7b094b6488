"""What a killed run leaves half written is removed by the next run of the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fresco.errors import VideoError
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.run.translate import propagate_keys
from fresco.video.folder import ImageFolderWriter
from fresco.video.writer import VideoWriter
from fresco.workspace import Workspace, write_image
from fresco.writing import claim_part, clear_parts, is_claimed, name_part
from tests.helpers.clips import moving_texture, write_clip
from tests.helpers.shared import ROOT

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows removes no file that is open")
FRAME = np.zeros((48, 64, 3), np.uint8)


def grow_old(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"half")
        os.utime(path, (1, 1))


@pytest.mark.parametrize("name", ["result.mp4", "r.mp4", "ü" * 120 + ".mp4", "no suffix"])
@pytest.mark.parametrize("tag", ["4242.part", "0a1b2c3d"])
def test_a_part_is_removed_by_who_writes_the_file(tmp_path: Path, name: str, tag: str) -> None:
    target = tmp_path / name
    part = name_part(target, tag)
    grow_old(part)
    clear_parts(target)
    assert not part.exists()


def test_what_merely_looks_like_a_part_stays(tmp_path: Path) -> None:
    target = tmp_path / "the result of a long run.mp4"
    part = name_part(target, "4242.part").name
    other = name_part(tmp_path / "another result of a run.mp4", "4242.part").name
    alike = [tmp_path / name for name in (
        part[1:], part.replace("4242", "42x2"), part.replace(".part", ""), other,
        part.replace("mp4", "mkv"), ".4242.part.mp4", target.name,
        name_part(target, "0a1b2c3d").name.replace("0a1b2c3d", "0A1B2C3D"),
    )]
    grow_old(*alike)
    folder = name_part(target, "77.part")
    folder.mkdir()
    link = name_part(target, "78.part")
    link.symlink_to(target)
    young = name_part(target, "0a1b2c3d")
    young.write_bytes(b"just now")
    clear_parts(target)
    assert all(path.exists() for path in (*alike, folder, link, young))


@posix_only
def test_a_part_that_a_running_process_writes_stays(tmp_path: Path) -> None:
    target = tmp_path / "result.mp4"
    writer = VideoWriter(target, 64, 48, 25)
    with writer:
        writer.write(FRAME)
        (part,) = tmp_path.glob(".*.part.mp4")
        grow_old(part)
        clear_parts(target)
        assert part.exists()
        assert is_claimed(part)
    assert target.exists()
    assert not part.exists()


@posix_only
def test_a_killed_process_claims_nothing(tmp_path: Path) -> None:
    part = name_part(tmp_path / "result.mp4", "99.part")
    code = (
        "import sys, time, pathlib; from fresco.writing import claim_part\n"
        "claim = claim_part(pathlib.Path(sys.argv[1])); print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(part)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            clear_parts(tmp_path / "result.mp4")
            assert part.exists()
        finally:
            process.send_signal(signal.SIGKILL)
    clear_parts(tmp_path / "result.mp4")
    assert not part.exists()


@posix_only
def test_a_folder_that_another_run_writes_is_refused(tmp_path: Path) -> None:
    first = ImageFolderWriter(tmp_path / "out")
    with first:
        first.write(FRAME)
        with pytest.raises(VideoError, match="by another run"), ImageFolderWriter(tmp_path / "out"):
            pass
    assert (tmp_path / "out" / "0000.png").exists()
    with ImageFolderWriter(tmp_path / "out") as again:  # replaced, as ever
        again.write(FRAME)


@posix_only
def test_a_claim_is_of_the_file_that_lies_there(tmp_path: Path) -> None:
    claim = claim_part(tmp_path / "part")
    assert claim is not None
    assert os.path.samestat(os.fstat(claim.fileno()), (tmp_path / "part").stat())
    claim.close()
    assert is_claimed(tmp_path / "part") is False
    assert is_claimed(tmp_path / "absent") is False


def test_a_workspace_is_tidied_of_its_own_parts_alone(tmp_path: Path) -> None:
    key = "0123456789abcdef"
    parts = [
        tmp_path / f"frames-{key}" / ".000001.0a1b2c3d.png", tmp_path / "flow" / ".ab.0a1b2c3d",
        name_part(tmp_path / f"scan1-{key}.json", "0a1b2c3d"),
        name_part(tmp_path / f"sound-{key}.m4a", "4242.part"),
    ]
    nameless = name_part(tmp_path / "plan.json", "0a1b2c3d")
    kept = [tmp_path / f"frames-{key}" / "000002.png", tmp_path / "plan.json"]
    grow_old(*parts, nameless, *kept)
    stranger = tmp_path / "mine.txt"
    grow_old(stranger)
    with Workspace(tmp_path) as space:
        space.tidy()
        assert not any(path.exists() for path in parts)
        assert nameless.exists()  # somebody else's, perhaps, in a folder of several things
        stranger.unlink()
        space.tidy()
    assert not nameless.exists()
    assert all(path.exists() for path in kept)


def test_the_next_run_leaves_nothing_half_written(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "clip.mp4", moving_texture(4, 64, 64))
    write_image(tmp_path / "keys" / "000001.png", np.full((64, 64, 3), 90, np.uint8))
    output = tmp_path / "out" / "result.mp4"
    settings = from_dict({
        "sampling": {"resolution": 64}, "flow": {"estimator": "dis"},
        "propagation": {"method": "flow", "workers": 1},
    })
    grow_old(
        name_part(output, "4242.part"), output.parent / "result.fresco" / ".0a1b2c3d.json",
        output.parent / "result.fresco" / "frames-0123456789abcdef" / ".000001.0a1b2c3d.png",
    )
    start = time.time()
    propagate_keys(source, tmp_path / "keys", output, settings, Progress())
    assert not [path for path in output.parent.rglob(".*") if path.stat().st_mtime < start]
    assert not list(output.parent.rglob(".*.part*"))
    assert output.exists()


def test_the_rest_of_a_filled_segment_is_removed(tmp_path: Path) -> None:
    """As an error of the disk leaves it, when all frames are there."""
    source = write_clip(tmp_path / "clip.mp4", moving_texture(4, 64, 64))
    for number in (0, 3):
        write_image(tmp_path / "keys" / f"{number}.png", np.full((64, 64, 3), 90, np.uint8))
    settings = from_dict({
        "sampling": {"resolution": 64}, "flow": {"estimator": "dis"},
        "propagation": {"method": "flow", "workers": 1},
    })
    output = tmp_path / "result.mp4"
    propagate_keys(source, tmp_path / "keys", output, settings, Progress())
    (folder,) = tmp_path.glob("result.fresco/frames-*")
    grow_old(folder / ".segment-000000-000003" / "forward-000001.npz")
    propagate_keys(source, tmp_path / "keys", output, settings, Progress())
    assert not list(folder.glob(".*"))
