"""The workspace: whole files or none, one run at a time, sentences for errors."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fresco import digests, workspace, writing
from fresco.errors import WorkspaceError
from tests.helpers.shared import ROOT


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    workspace.write_json(path, {"a": 1})

    def fail() -> None:
        with writing.write_atomically(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError):
        fail()
    assert workspace.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EIO, "Choose another folder"),
    ],
)
def test_errors_of_the_disk_become_sentences(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(WorkspaceError, match=words), writing.write_atomically(tmp_path / "x.png"):
        raise OSError(number, os.strerror(number))


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(WorkspaceError, match="run"), workspace.Workspace(tmp_path / "run"):
        pass


@given(
    stem=st.text(st.sampled_from("aü字😀. "), min_size=1, max_size=250),
    suffix=st.sampled_from(["", ".mp4", ".png", ".a suffix that is none at all"]),
    tag=st.sampled_from(["12345.part", "0a1b2c3d"]),
)
def test_a_part_has_no_longer_name_than_the_file(stem: str, suffix: str, tag: str) -> None:
    path = Path("folder") / f"x{stem}{suffix}"
    part = writing.name_part(path, tag)
    assert part.parent == path.parent
    assert part != path
    assert part.name.startswith(".")
    assert f".{tag}" in part.name
    assert writing.is_part(part)
    assert not writing.is_part(path)
    if suffix in (".mp4", ".png"):
        assert part.suffix == suffix
    for code in ("utf-8", "utf-16-le"):
        shortest = len(f".{tag}{part.suffix}".encode(code))
        assert len(part.name.encode(code)) <= max(len(path.name.encode(code)), shortest)


def test_the_longest_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 125 + ".json")
    workspace.write_json(path, {"a": 1})
    assert workspace.read_json(path) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1
    writing.require_names(path)
    with pytest.raises(WorkspaceError, match="too long"):
        writing.require_names(path, tmp_path / ("ü" * 126 + ".json"))


def test_images_and_tensors_come_back_exactly(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    workspace.write_image(tmp_path / "a b é.png", image)
    np.testing.assert_array_equal(workspace.read_image(tmp_path / "a b é.png"), image)
    tensors = {"x": torch.randn(3, 4, dtype=torch.float64).half()}
    workspace.write_tensors(tmp_path / "t.safetensors", tensors)
    known = workspace.read_tensors(tmp_path / "t.safetensors")
    assert known is not None
    assert known["x"].dtype == torch.float16
    assert torch.equal(known["x"], tensors["x"])


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"{"])
def test_damaged_files_read_as_absent(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    assert workspace.read_image(path) is None
    assert workspace.read_json(path) is None
    assert workspace.read_tensors(path) is None


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        workspace.Workspace(tmp_path),
        pytest.raises(WorkspaceError, match="in use"),
        workspace.Workspace(tmp_path),
    ):
        pass
    with workspace.Workspace(tmp_path):
        pass


def test_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from fresco.workspace import Workspace\n"
        "with Workspace(pathlib.Path(sys.argv[1])) as w:\n"
        "    (w.root / 'ready').write_text('')\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    try:
        limit = time.monotonic() + 30
        while not (tmp_path / "ready").exists() and time.monotonic() < limit:
            time.sleep(0.02)
        with pytest.raises(WorkspaceError), workspace.Workspace(tmp_path):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with workspace.Workspace(tmp_path):
        pass


def test_identities_differ_with_any_input(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    first = digests.digest_content(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert digests.digest_content(tmp_path) != first
    assert digests.digest("ab", "c") != digests.digest("a", "bc")
    assert digests.digest({"x": 1, "y": 2}) == digests.digest({"y": 2, "x": 1})
