"""Reference material beside the repository: golden vectors and clips."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FRESCO_SHARED", ROOT.parent / "shared"))
"""Folder of golden vectors and clips; absent on most machines."""


def shared(*parts: str) -> Path:
    """A path inside the shared folder; skips the test, saying so, where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"reference material {'/'.join(parts)} is not here (set FRESCO_SHARED)")
    return path


def golden(folder: str, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and description of one golden case; float16 storage is cast to float32."""
    path = shared("golden", folder, f"{name}.npz")
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    half = {k: v.astype(np.float32) for k, v in arrays.items() if v.dtype == np.float16}
    note = path.with_suffix(".json")
    return arrays | half, json.loads(note.read_text()) if note.exists() else {}
