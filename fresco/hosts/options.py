"""Options of a host's own model and sampling, besides the settings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fresco.control import AUTO, NO_MODULE, OWN, ControlUnit
from fresco.errors import SettingsError


@dataclass(frozen=True, slots=True)
class HostOptions:
    """The host's own model and sampling options; an empty one means the host's present choice."""

    model: str = ""
    """Checkpoint, as the host lists it; empty: the one that is loaded."""
    sampler: str = ""
    """Sampler, as the host lists it; empty: the host's first."""
    scheduler: str = ""
    """Noise schedule, as the host lists it; empty: the sampler's own."""
    control: tuple[ControlUnit, ...] = ()
    """ControlNet units."""
    upscaler: str = ""
    """Upscaler for keyframes, as the host lists it; empty: Lanczos."""


@dataclass(frozen=True, slots=True)
class Slider:
    """A number of a preprocessor."""

    label: str
    """Its name in the host."""
    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    usual: float
    """Its default."""


Sliders = Mapping[str, Slider]
"""Those of one preprocessor, by the fields of a unit: `threshold_a`, `threshold_b`."""

_THRESHOLDS = ("threshold_a", "threshold_b")


def check_thresholds(unit: ControlUnit, sliders: Sliders) -> ControlUnit:
    """Return the unit; SettingsError if a threshold does not fit its preprocessor."""
    for name in _THRESHOLDS:
        value, slider = getattr(unit, name), sliders.get(name)
        if value == OWN:
            continue
        if slider is None:
            raise SettingsError(
                f"control.{name} is {value:g}, but the preprocessor {unit.module} has no such "
                f"number; leave it out ({OWN:g})."
            )
        if not slider.low <= value <= slider.high:
            raise SettingsError(
                f"control.{name} ({slider.label} of {unit.module}) is {value:g}; give "
                f"{slider.low:g} to {slider.high:g}."
            )
    if unit.module == "canny":
        low, high = (_read(unit, sliders, name) for name in _THRESHOLDS)
        if low > high:
            raise SettingsError(
                f"control.threshold_a of canny is {low:g}, above threshold_b, which is {high:g}; "
                "swap them."
            )
    return unit


def _read(unit: ControlUnit, sliders: Sliders, name: str) -> float:
    value = getattr(unit, name)
    return sliders[name].usual if value == OWN and name in sliders else value


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
    "tile": (),
    "ip2p": (),
}
"""What names of ControlNets say of the hints that they were trained on -> preprocessors that make
such hints, the usual one first. The names are those of sd-webui-controlnet. Empty: the frame itself
is the hint."""


def find_hint_kind(model: str) -> str:
    """Kind of hint that a ControlNet was trained on, by its name; empty if unknown."""
    whole = model.replace("\\", "/")
    for name in (whole.rstrip("/").rpartition("/")[2], whole):  # of the file, else of its folders
        words = f"_{re.sub(r'[^a-z0-9]+', '_', name.lower())}_"
        for kind in _HINTS:
            if f"_{kind}_" in words or f"_{kind}bae_" in words:
                return kind
    return ""


def choose_module(model: str, modules: Sequence[str]) -> str:
    """Choose the preprocessor that makes the hints of a ControlNet; empty if none is known."""
    kind = find_hint_kind(model)
    if kind and not _HINTS[kind]:
        return next((name for name in modules if name.lower() == NO_MODULE), NO_MODULE)
    usual = [name for name in _HINTS.get(kind, ()) if name in modules]
    related = [name for name in modules if kind and name.startswith(kind)]
    return next(iter((*usual, *related)), "")


def complete_unit(unit: ControlUnit, modules: Sequence[str]) -> ControlUnit:
    """Choose the preprocessor of a unit by the name of its model, if it is left open.

    Args:
        modules: the preprocessors that there are.
    """
    plain = next((name for name in modules if name.lower() == NO_MODULE), NO_MODULE)
    if unit.hints:
        return dataclasses.replace(unit, module=plain)
    if unit.module != AUTO:
        return unit
    kind = find_hint_kind(unit.model)
    module = choose_module(unit.model, modules) if kind else plain
    if not module:
        raise SettingsError(
            f"ControlNet {unit.model} was trained on hints of the kind {kind}, by its name, and "
            f"no preprocessor here makes those: there are {', '.join(modules)}. Make the hints "
            "elsewhere and name their folder or video as hints, or choose a preprocessor."
        )
    return dataclasses.replace(unit, module=module)


def find_control_notes(units: Sequence[ControlUnit]) -> tuple[str, ...]:
    """List notes for the user about units, before they run."""
    return tuple(
        f"ControlNet {unit.model} gets every frame itself as its hint, because its preprocessor is "
        f"none; {_explain(unit.model)}" for unit in units
        if unit.module.lower() == NO_MODULE and not unit.hints
        and find_hint_kind(unit.model) not in ("tile", "ip2p")
    )


def _explain(model: str) -> str:
    if kind := find_hint_kind(model):
        return (f"by its name it was trained on hints of the kind {kind}. Choose a preprocessor "
                f"such as {_HINTS[kind][0]}, unless the source shows such hints already.")
    return "its name does not tell what hints it was trained on."
