"""Reference material: golden vectors in the repository, more of them and clips beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.drawn import PREFIX, draw_all, from_table

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
"""Golden vectors small enough to travel with the repository; its README says what they are."""
SHARED = Path(os.environ.get("FRESCO_SHARED", ROOT.parent / "shared"))
"""Folder of all golden vectors and of clips; absent on most machines."""
FULL = "full/"
"""Before the name of a case: the one beside the repository, whole."""

Arrays = dict[str, NDArray[Any]]
Note = dict[str, Any]


def shared(*parts: str) -> Path:
    """A path inside the shared folder; skips the test, saying so, where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"reference material {'/'.join(parts)} is not here (set FRESCO_SHARED)")
    return path


def golden_path(folder: str, name: str) -> Path:
    """The file of a case, which need not be there."""
    root = SHARED / "golden" if name.startswith(FULL) else GOLDEN
    return root / folder / f"{name.removeprefix(FULL)}.npz"


def golden_cases(folder: str, *names: str) -> list[str]:
    """The cases that are here, to give a test: reduced in the repository, whole beside it."""
    every = [*names, *(FULL + name for name in names)]
    return [name for name in every if golden_path(folder, name).exists()]


def golden(folder: str, name: str) -> tuple[Arrays, Note]:
    """Arrays and description of one golden case; float16 storage is cast to float32."""
    path = golden_path(folder, name)
    note: Note = {}
    if path.with_suffix(".json").exists():
        note = json.loads(path.with_suffix(".json").read_text("utf-8"))
    arrays = _load(path)
    for array, slices in note.get("elsewhere", {}).items():
        arrays[array] = _joined(arrays.get(array), slices, arrays, f"{folder}/{name}")
    half = {k: v.astype(np.float32) for k, v in arrays.items() if v.dtype == np.float16}
    return arrays | half, note


def kept(note: Note, name: str, result: NDArray[Any]) -> NDArray[Any]:
    """The part of a whole result that the case has of it: every few pixels, tokens or channels."""
    return result[tuple(slice(*axis) for axis in note.get("kept", {}).get(name, ()))]


def _load(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        stored = {key: archive[key] for key in archive.files}
    plain = {key: array for key, array in stored.items() if not key.startswith(PREFIX)}
    return plain | draw_all(from_table(stored))


def _joined(
    own: NDArray[Any] | None, slices: list[list[Any] | None], arrays: Arrays, case: str
) -> NDArray[Any]:
    """An array of which some slices along the first axis are stored with another one."""
    rest = iter(() if own is None else own)
    files = {case: arrays}
    result = []
    for place in slices:
        if place is None:
            result.append(next(rest))
            continue
        other, name, index = place
        if other not in files:
            files[other] = _load(GOLDEN / f"{other}.npz")
        result.append(files[other][name][index])
    return np.stack(result)
