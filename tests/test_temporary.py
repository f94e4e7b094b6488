"""Temporary folders of killed processes are removed by who makes the next one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from fresco.temporary import open_temporary_folder
from fresco.workspace import Workspace


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def leave(path: Path, *names: str) -> Path:
    """A folder as a killed process leaves it, long ago."""
    path.mkdir()
    for name in names:
        (path / name).mkdir() if name == "files" else (path / name).write_text("")
    os.utime(path, (1, 1))
    return path


def test_it_is_empty_and_gone_afterwards(place: Path) -> None:
    with open_temporary_folder() as folder:
        assert list(folder.iterdir()) == []
        (folder / "a").write_text("x")
        assert list(place.iterdir())
    assert list(place.iterdir()) == []


def test_what_nobody_holds_is_removed(place: Path) -> None:
    left = [leave(place / "fresco-a", "lock", "files"), leave(place / "fresco-b"),
            leave(place / "fresco-c", "lock")]
    (left[0] / "files" / "frame.png").write_bytes(b"x")
    with open_temporary_folder():
        assert not any(path.exists() for path in left)


def test_what_is_held_young_or_of_somebody_else_stays(place: Path) -> None:
    held = leave(place / "fresco-held", "lock", "files")
    young = place / "fresco-young"
    young.mkdir()
    others = [leave(place / "fresco-other", "lock", "results"), leave(place / "other", "lock")]
    (place / "fresco-file").write_text("")
    (place / "fresco-link").symlink_to(others[0])
    with Workspace(held):
        os.utime(held, (1, 1))
        with open_temporary_folder() as outer, open_temporary_folder() as inner:
            assert outer.is_dir()
            assert inner.is_dir()
        assert held.is_dir()
    assert young.is_dir()
    assert all(path.is_dir() for path in others)
    assert (place / "fresco-file").exists()
    assert (place / "fresco-link").is_symlink()
