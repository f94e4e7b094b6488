"""Arrays put aside on disk and read back."""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fresco.errors import WorkspaceError
from fresco.propagation.scratch import Scratch, load_arrays, save_arrays
from fresco.workspace import read_arrays


class _Cycle:
    """Garbage whose end runs Python code, in the middle of whatever is at work."""

    def __init__(self) -> None:
        self.own = self

    def __del__(self) -> None:
        sum(range(50))


def test_threads_read_side_by_side(tmp_path: Path) -> None:
    """numpy reads heads by `ast`, in which CPython 3.11 raises SystemError when threads meet."""
    path = tmp_path / "a.npz"
    save_arrays(path, {"a": np.zeros((4, 5), np.uint8)})

    def read(_: int) -> None:
        for _ in range(300):
            _Cycle()
            load_arrays(path)
            assert read_arrays(path) is not None

    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5, 1, 1)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, range(4)))
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path: Path) -> None:
    stands = tmp_path / "stands here"
    stands.write_text("")
    with Scratch(tmp_path / "own", "key") as scratch:
        scratch.put("source", 1, image=np.zeros(3))
        with pytest.raises(WorkspaceError, match="stands here"):
            scratch.give("source", 1, stands / "folder")
