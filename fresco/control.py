"""ControlNet units: their fields, and how they are written as text."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from fresco.errors import SettingsError
from fresco.settings import SamplingSettings

AUTO = "auto"
"""Means the preprocessor that fits the name of the ControlNet."""
NO_MODULE = "none"
"""Name of the preprocessor that returns the frame itself."""
CONTROL_MODES = ("balanced", "prompt", "control")
"""Whether the prompt or the ControlNet counts more."""
RESIZE_MODES = ("crop", "stretch", "fill")
"""How a hint with other proportions than the frames is brought to their size."""
OWN = -1.0
"""Stands for the preprocessor's own default of a threshold."""
MOST_UNITS = 16
"""Largest number of units of one run."""
_MOST_THRESHOLD, _MOST_SIDE = 100_000.0, 4096
_FIRST_FIELDS = ("model", "module", "weight", "start", "end")
"""Fields that version 0.1 had; cache keys hold them all, and others where they are not usual."""


@dataclass(frozen=True, slots=True)
class ControlUnit:
    """A ControlNet unit; each keyframe has its own hint."""

    model: str
    """Model as the host lists it; on the command line a file, a folder or a hub name."""
    module: str = AUTO
    """Preprocessor, as the host lists it; auto: by the name of the model."""
    weight: float = 1.0
    """Strength, 0 to 2."""
    start: float = 0.0
    """Share of the steps before which it does not act, 0 to 1."""
    end: float = 1.0
    """Share of the steps after which it does not act, 0 to 1."""
    threshold_a: float = OWN
    """First number of the preprocessor, such as canny's lower threshold; -1: its own."""
    threshold_b: float = OWN
    """Its second number, such as canny's upper threshold; -1: its own."""
    resolution: int = 0
    """Short side of the frames that the preprocessor sees; 0: as they are."""
    control_mode: str = "balanced"
    """One of `CONTROL_MODES`."""
    resize_mode: str = "crop"
    """One of `RESIZE_MODES`."""
    hints: str = ""
    """Folder or video with a hint for every frame, made elsewhere; empty: by the preprocessor."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("weight", 0, 2), ("start", 0, 1), ("end", 0, 1),
            ("threshold_a", OWN, _MOST_THRESHOLD), ("threshold_b", OWN, _MOST_THRESHOLD),
        ):
            value = getattr(self, name)
            if not low <= value <= high or math.isnan(value):
                raise SettingsError(f"control.{name} is {value}; give {low:g} to {high:g}.")
        if self.start > self.end:
            raise SettingsError(
                f"control.start is {self.start}, after its end {self.end}; swap them."
            )
        if self.resolution and not 64 <= self.resolution <= _MOST_SIDE:
            raise SettingsError(
                f"control.resolution is {self.resolution}; give 64 to {_MOST_SIDE}, or 0 for that "
                "of the frames."
            )
        for name, known in (("control_mode", CONTROL_MODES), ("resize_mode", RESIZE_MODES)):
            if (value := getattr(self, name)) not in known:
                raise SettingsError(f"control.{name} is {value!r}; choose one of "
                                    f"{', '.join(known)}.")
        if self.hints and self.module.lower() not in (AUTO, NO_MODULE):
            raise SettingsError(
                f"control.module is {self.module!r}, but the hints are those of {self.hints!r}; "
                "leave one of the two out."
            )

    def describe(self) -> str:
        """All that changes images, except the content of the hints; for cache keys."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        named = [
            f"{name}={value!r}" for name, value in dataclasses.asdict(self).items()
            if name in _FIRST_FIELDS or (name != "hints" and value != usual[name])
        ]
        return f"ControlUnit({', '.join(named)})"


# As a text: depth model=depth.safetensors weight=0.4

_NUMBERS = {field.name: field.type for field in dataclasses.fields(ControlUnit)
            if field.type in ("float", "int")}
_NAMES = tuple(field.name for field in dataclasses.fields(ControlUnit))


def parse_unit(text: str) -> ControlUnit:
    """Read a unit from words such as `depth model=depth.safetensors weight=0.4`.

    The first word may be the preprocessor alone.
    """
    values: dict[str, str] = {}
    for place, word in enumerate(_split(text)):
        name, equals, value = word.partition("=")
        if not equals and place == 0:
            name, value = "module", word
        elif name not in _NAMES:
            raise SettingsError(
                f"sampling.control_units has {word!r} in {text!r}; give words of "
                f"{', '.join(f'{each}=...' for each in _NAMES)}."
            )
        if name in values:
            raise SettingsError(f"sampling.control_units names {name} twice in {text!r}.")
        values[name] = value
    if not values.get("model"):
        raise SettingsError(
            f"sampling.control_units has {text!r}, which names no ControlNet; add model=FILE."
        )
    numbers = {name: _read_number(name, value, text) for name, value in values.items()
               if name in _NUMBERS}
    texts = {name: value for name, value in values.items() if name not in _NUMBERS}
    try:
        return ControlUnit(**texts, **numbers)  # type: ignore[arg-type]
    except SettingsError as error:
        raise SettingsError(f"sampling.control_units, {text!r}: {error}") from error


def _split(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True)
    # On Windows backslashes separate folders.
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    try:
        return list(lexer)
    except ValueError as error:
        raise SettingsError(
            f"sampling.control_units has {text!r}, where a quote is not closed; close it."
        ) from error


def _read_number(name: str, value: str, text: str) -> float | int:
    try:
        return int(value) if _NUMBERS[name] == "int" else float(value)
    except ValueError as error:
        raise SettingsError(
            f"sampling.control_units has {name}={value} in {text!r}; give a number."
        ) from error


def write_unit(unit: ControlUnit) -> str:
    """Write a unit as a text that `parse_unit` reads; defaults are left out."""
    words = [unit.module] if unit.module != AUTO else []
    for field in dataclasses.fields(unit):
        value = getattr(unit, field.name)
        if field.name != "module" and value != field.default:
            shown = repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
            words.append(f"{field.name}={_quote(shown)}")
    return " ".join(words)


def _quote(text: str) -> str:
    if not any(letter.isspace() or letter in "\"'" for letter in text):
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'


def anchor_unit(text: str) -> str:
    """Make the paths in a unit's text absolute if they exist; hub names stay."""
    unit = parse_unit(text)
    found = {
        name: str(path.absolute()) for name in ("model", "hints")
        if (value := getattr(unit, name)) and (path := Path(value).expanduser()).exists()
    }
    return write_unit(dataclasses.replace(unit, **found))


def hide_folders(text: str) -> str:
    """Remove folders from the paths in a unit's text, so that only names remain."""
    unit = parse_unit(text)
    model, hints = (PurePath(path.replace("\\", "/")).name for path in (unit.model, unit.hints))
    return write_unit(dataclasses.replace(unit, model=model, hints=hints))


# In the settings

_SHORT = ("canny", "hed", "depth")
"""Preprocessors that the options of one unit can name."""


def list_units(sampling: SamplingSettings) -> tuple[ControlUnit, ...]:
    """The units of the settings: first that of the options of one unit, then the others."""
    units = [parse_unit(text) for text in sampling.control_units if text.strip()]
    if sampling.control != NO_MODULE:
        canny = sampling.control == "canny"
        units.insert(0, ControlUnit(
            sampling.control_model, sampling.control, sampling.control_weight,
            threshold_a=sampling.canny_low if canny else OWN,
            threshold_b=sampling.canny_high if canny else OWN,
        ))
    if len(units) > MOST_UNITS:
        raise SettingsError(
            f"{len(units)} ControlNet units are asked for; give at most {MOST_UNITS}."
        )
    return tuple(units)


def place_units(sampling: SamplingSettings, units: Sequence[ControlUnit]) -> SamplingSettings:
    """Put units into settings.

    The first one goes into the options of one unit if they can express it, so that cache keys of
    earlier jobs stay valid.
    """
    usual = SamplingSettings()
    plain = dataclasses.replace(
        sampling, control=NO_MODULE, control_model="", control_weight=usual.control_weight,
        canny_low=usual.canny_low, canny_high=usual.canny_high, control_units=(),
    )
    if units and (short := _shorten(plain, units[0])):
        plain, units = short, units[1:]
    return dataclasses.replace(plain, control_units=tuple(map(write_unit, units)))


def _shorten(sampling: SamplingSettings, unit: ControlUnit) -> SamplingSettings | None:
    """Put a single unit into the options of one unit; None if these cannot express it."""
    changes: dict[str, Any] = {
        "control": unit.module, "control_model": unit.model, "control_weight": unit.weight,
    }
    if unit.module == "canny":
        low, high = (
            own if value == OWN else value for value, own in (
                (unit.threshold_a, sampling.canny_low), (unit.threshold_b, sampling.canny_high))
        )
        if not (float(low).is_integer() and float(high).is_integer()):
            return None
        unit = dataclasses.replace(unit, threshold_a=low, threshold_b=high)
        changes |= {"canny_low": int(low), "canny_high": int(high)}
    elif unit.module not in _SHORT:
        return None
    short = dataclasses.replace(sampling, **changes)
    return short if list_units(short) == (unit,) else None
