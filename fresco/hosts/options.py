"""What a host's own model and sampling take beyond the settings. Nothing of a host is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fresco.errors import SettingsError


@dataclass(frozen=True, slots=True)
class ControlUnit:
    """One ControlNet unit of the host, fed with each keyframe's own hint."""

    model: str
    """As the host lists it."""
    module: str = "none"
    """Preprocessor, as the host lists it."""
    weight: float = 1.0
    """Strength, 0 to 2."""
    start: float = 0.0
    """Share of the schedule where it begins, 0 to 1."""
    end: float = 1.0
    """Share of the schedule where it ends, 0 to 1."""

    def __post_init__(self) -> None:
        for name, value, high in (("weight", self.weight, 2), ("start", self.start, 1),
                                  ("end", self.end, 1)):
            if not 0 <= value <= high:
                raise SettingsError(f"control.{name} is {value}; give 0 to {high}.")
        if self.start > self.end:
            raise SettingsError(
                f"control.start is {self.start}, after its end {self.end}; swap them."
            )


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What the host's own model and sampling need beyond the settings. Empty: as the host is."""

    model: str = ""
    """Checkpoint, as the host lists it; empty: the one that is loaded."""
    sampler: str = ""
    """Sampler, as the host lists it; empty: the host's first."""
    scheduler: str = ""
    """Noise schedule, as the host lists it; empty: the sampler's own."""
    control: tuple[ControlUnit, ...] = ()
    """ControlNet units."""
    upscaler: str = ""
    """What enlarges keyframes, as the host lists it; empty: Lanczos."""


_HINTS: Mapping[str, tuple[str, ...]] = {
    "canny": ("canny",),
    "depth": ("depth_midas", "depth"),
    "openpose": ("openpose_full", "openpose"),
    "lineart_anime": ("lineart_anime",),
    "lineart": ("lineart_realistic", "lineart"),
    "softedge": ("softedge_pidinet", "softedge_hed", "pidinet", "hed"),
    "hed": ("softedge_hed", "hed"),
    "mlsd": ("mlsd",),
    "normal": ("normal_bae", "normal_midas"),
    "scribble": ("scribble_pidinet", "scribble_hed"),
    "seg": ("seg_ofade20k", "seg_ufade20k", "segmentation"),
}
"""What names of ControlNets say of the hints that they were trained on -> preprocessors that make
such hints, the usual one first. The names are those of sd-webui-controlnet."""


def find_hint_kind(model: str) -> str:
    """The kind of hint that a ControlNet was trained on, as its name tells it; empty: unknown."""
    words = f"_{re.sub(r'[^a-z0-9]+', '_', model.lower())}_"
    return next((kind for kind in _HINTS if f"_{kind}_" in words or f"_{kind}bae_" in words), "")


def choose_module(model: str, modules: Sequence[str]) -> str:
    """The preprocessor offered that makes the hints of a ControlNet; empty: none is known."""
    kind = find_hint_kind(model)
    usual = [name for name in _HINTS.get(kind, ()) if name in modules]
    related = [name for name in modules if kind and name.startswith(kind)]
    return next(iter((*usual, *related)), "")


def find_control_notes(units: Sequence[ControlUnit]) -> tuple[str, ...]:
    """What a person should know of units before they run."""
    return tuple(
        f"ControlNet {unit.model} gets every frame itself as its hint, because its preprocessor is "
        f"none; by its name it was trained on hints of the kind {kind}. Choose a preprocessor such "
        f"as {_HINTS[kind][0]}, unless the source shows such hints already."
        for unit in units
        if unit.module.lower() == "none" and (kind := find_hint_kind(unit.model))
    )
