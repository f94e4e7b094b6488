"""Samples that version 0.1 made, and a host that stands in for the one it had."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresco.guidance.ports import BatchRequest, BatchResult, GuidedUNet, Host, SamplingGuide
from fresco.progress import Stage

SAMPLES = Path(__file__).resolve().parents[1] / "compat" / "samples"
_PLACE = "@FOLDER@"
_OLD = 1_600_000_000
"""Time of every file of a copy, in seconds since 1970: what is written anew is newer."""


@dataclass(frozen=True)
class Samples:
    """A copy of the samples."""

    root: Path

    def stored(self, folder: str) -> list[Path]:
        """The images, carries and plans of a workspace or job, by path within the copy."""
        kinds = (".png", ".safetensors", ".npz")
        found = [path for path in sorted((self.root / folder).rglob("*")) if path.suffix in kinds]
        assert found
        return found

    def stored_frames(self, folder: str) -> list[Path]:
        """Those of them that were carried from keyframes; own keyframes are copied every time."""
        return [path for path in self.stored(folder) if path.parent.name.startswith("frames-")]

    def require_untouched(self, paths: list[Path]) -> None:
        """These files are the very files of the copy."""
        changed = [path for path in paths if not path.exists() or path.stat().st_mtime != _OLD]
        assert not changed


def place_samples(root: Path) -> Samples:
    """Copy the samples, and name the copy wherever they named their folder."""
    shutil.copytree(SAMPLES, root)
    for path in root.rglob("*"):
        if path.suffix in (".json", ".txt"):
            text = path.read_text("utf-8")
            path.write_text(text.replace(_PLACE, json.dumps(str(root))[1:-1]), "utf-8")
        os.utime(path, (_OLD, _OLD))
    return Samples(root)


def holds(found: Any, stored: Any) -> bool:
    """Whether a value says all that a stored one says; it may say more."""
    if isinstance(stored, Mapping):
        return all(name in found and holds(found[name], value) for name, value in stored.items())
    if isinstance(stored, list):
        return len(found) == len(stored) and all(map(holds, found, stored))
    return type(found) is type(stored) and found == stored


@dataclass
class KnownHost:
    """A host whose former fingerprint is that of the one that the samples were made with."""

    host: Host
    former_fingerprint: str
    sampled: list[int] = field(default_factory=list)
    """Frames of every batch that was translated."""

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def fingerprint(self) -> str:
        return f"{self.host.fingerprint}, known"

    def digest_prompts(self, prompts: Sequence[str]) -> str:
        return self.host.digest_prompts(prompts)

    @property
    def model_sigmas(self) -> tuple[float, ...]:
        return self.host.model_sigmas

    @property
    def device(self) -> str:
        return self.host.device

    @property
    def unet(self) -> GuidedUNet:
        return self.host.unet

    def sample(
        self, request: BatchRequest, guide: SamplingGuide | None, stage: Stage
    ) -> BatchResult:
        self.sampled.append(len(request.frames))
        return self.host.sample(request, guide, stage)

    def reconstruct(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self.host.reconstruct(frames)
