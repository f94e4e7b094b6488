"""List the options; check, read, write and hash their values.

`fresco/settings.py` declares the options. Front ends, files and cache keys use them from here.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import secrets
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fresco.control import list_units
from fresco.errors import SettingsError
from fresco.settings import (
    FORMER_PRESETS,
    JOINING_PRESETS,
    PRESETS,
    SMALLEST_SIDE,
    FlowSettings,
    FrescoSettings,
    MaskSettings,
    Option,
    Value,
)

PRESET = "preset"
"""Name in the group `guidance` that stands for a choice of its switches; it is read, not written.
"""
_SEEDS = 1 << 32
"""Number of seeds from which a random one is drawn; every host accepts these."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One option with its group and name."""

    group: str
    """Field of FrescoSettings."""
    name: str
    """Field of the group."""
    type: type
    """bool, int, float, str, tuple or dict."""
    default: Value
    """Its default."""
    option: Option
    """Its range, help and other facts."""

    @property
    def place(self) -> tuple[str, str]:
        """Group and name, a key for mappings."""
        return self.group, self.name

    @property
    def label(self) -> str:
        """Its label in the tab, under which users' own defaults are stored."""
        return self.option.label or self.name.replace("_", " ").capitalize()


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """List every option, in the order of the classes."""
    groups = typing.get_type_hints(FrescoSettings)
    return tuple(
        Entry(group.name, item.name, type(default), default, item.metadata["option"])
        for group in dataclasses.fields(FrescoSettings)
        for item in dataclasses.fields(groups[group.name])
        for default in [getattr(groups[group.name](), item.name)]
    )


_MOST_PARTS = 100_000
"""Most texts of one list or mapping: one for every frame of an hour."""
_KINDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text",
    tuple: "a list of texts", dict: "a mapping of texts",
}


def _fits(value: Any, default: Value) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, type(default))


def _retyped(value: Any, entry: Entry) -> Any:
    """Convert lists from files to tuples."""
    return tuple(value) if entry.type is tuple and isinstance(value, list) else value


def _parts(value: object) -> list[object]:
    """The texts of a list or mapping."""
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, tuple) else []


def check_value(entry: Entry, value: Any) -> Any:
    """Convert a value to the option's type; SettingsError names option, value and range."""
    name, option = f"{entry.group}.{entry.name}", entry.option
    value = _retyped(value, entry)
    if not _fits(value, entry.default):
        raise SettingsError(
            f"{name} is {value!r}, a {type(value).__name__}; give {_KINDS[entry.type]}."
        )
    _check_lengths(name, value, option.letters)
    if wrong := [part for part in _parts(value) if not isinstance(part, str)]:
        raise SettingsError(f"{name} holds {wrong[0]!r}, a {type(wrong[0]).__name__}; give texts.")
    if entry.type is float:
        value = _to_float(value)
        if not math.isfinite(value):
            raise SettingsError(f"{name} is {value}; give a finite number.")
    if option.choices and value not in option.choices:
        raise SettingsError(f"{name} is {value!r}; choose one of {', '.join(option.choices)}.")
    too_low = option.low is not None and value < option.low
    too_high = option.high is not None and value > option.high
    if too_low or too_high:
        raise SettingsError(f"{name} is {value}; give {range_text(option)}.")
    return value


def _check_lengths(name: str, value: Any, most: int) -> None:
    """Raise SettingsError if a text, or the number of texts, is too large."""
    parts = _parts(value)
    if len(parts) > _MOST_PARTS:
        raise SettingsError(f"{name} holds {len(parts)} texts; give at most {_MOST_PARTS}.")
    for text in (value, *parts):
        if isinstance(text, str) and len(text) > most:
            raise SettingsError(f"{name} has {len(text)} letters; give at most {most}.")


def _to_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer above the range of floats
        return math.inf


def range_text(option: Option) -> str:
    """Describe the range in words, such as `3 to 64`."""
    low = "" if option.low is None else f"{option.low:g}"
    high = "" if option.high is None else f"{option.high:g}"
    if low and high:
        return f"{low} to {high}"
    return f"{low} or more" if low else f"{high} or less" if high else "any value"


def to_dict(settings: FrescoSettings) -> dict[str, dict[str, Any]]:
    """Convert settings to a plain nested dict, for JSON and YAML."""
    return dataclasses.asdict(settings)


def _unknown(name: str, known: list[str], where: str) -> SettingsError:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."
    return SettingsError(f"{name!r} is not an option of {where}; {hint}")


def preset_options(name: object) -> dict[str, bool]:
    """The options of a preset: all parts of guidance that are on by default, then its own.

    So `paper` also undoes what a configuration switched off.
    """
    known = FORMER_PRESETS.get(name, name) if isinstance(name, str) else ""
    if known not in PRESETS:
        raise SettingsError(
            f"guidance.{PRESET} is {name!r}; choose one of {', '.join(PRESETS)}."
        )
    concerned = {part for preset in PRESETS.values() for part in preset}
    on = {e.name: True for e in entries()
          if e.group == "guidance" and e.name in concerned and e.default is True}
    return on | dict(PRESETS[known])


def find_preset(guidance: Mapping[str, Any]) -> str | None:
    """Find the preset with the same switches as these options of guidance; None if there is none.
    """
    for name in PRESETS:
        if all(guidance[part] == value for part, value in preset_options(name).items()):
            return name
    return None


def expand_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace `guidance.preset`, in options by group, by its options; those given as well stay."""
    guidance = values.get("guidance")
    if not isinstance(guidance, Mapping) or PRESET not in guidance:
        return dict(values)
    name = guidance[PRESET]
    switches = preset_options(name) | {k: v for k, v in guidance.items() if k != PRESET}
    join = {"join_keyframes": name in JOINING_PRESETS}
    propagation = values.get("propagation", {})
    if isinstance(propagation, Mapping):
        propagation = join | dict(propagation)
    return {**values, "guidance": switches, "propagation": propagation}


def from_dict(values: Mapping[str, Any], base: FrescoSettings | None = None) -> FrescoSettings:
    """Make settings from a nested dict over `base`; SettingsError if a name or value is wrong.

    `guidance.preset` is expanded; options named beside it count more.
    """
    base = base or FrescoSettings()
    values = expand_preset(values)
    known = {(e.group, e.name): e for e in entries()}
    groups = [f.name for f in dataclasses.fields(FrescoSettings)]
    changed: dict[str, Any] = {}
    for group, items in values.items():
        if group not in groups:
            raise _unknown(group, groups, "the settings")
        if not isinstance(items, Mapping):
            raise SettingsError(f"{group} is {items!r}; give a mapping of options.")
        names = [name for g, name in known if g == group]
        for name in items:
            if name not in names:
                raise _unknown(str(name), names, group)
        checked = {name: check_value(known[group, name], v) for name, v in items.items()}
        changed[group] = dataclasses.replace(getattr(base, group), **checked)
    return validated(dataclasses.replace(base, **changed))


def validated(settings: FrescoSettings) -> FrescoSettings:
    """Return the settings after every value and every pair of values was checked."""
    for entry in entries():
        check_value(entry, getattr(getattr(settings, entry.group), entry.name))
    return check_pairs(settings)


def check_pairs(settings: FrescoSettings) -> FrescoSettings:
    """Return the settings after every pair of values that must fit was checked."""
    keys, out, sampling = settings.keyframes, settings.output, settings.sampling
    if keys.min_interval > keys.max_interval:
        raise SettingsError(
            f"keyframes.min_interval is {keys.min_interval}, above keyframes.max_interval, which "
            f"is {keys.max_interval}; lower the one or raise the other."
        )
    if out.last_frame != -1 and out.last_frame < out.first_frame:
        raise SettingsError(
            f"output.last_frame is {out.last_frame}, before output.first_frame, which is "
            f"{out.first_frame}; give a later one, or -1 for the last."
        )
    if 0 < settings.propagation.resolution < SMALLEST_SIDE:
        raise SettingsError(
            f"propagation.resolution is {settings.propagation.resolution}; give 0, or "
            f"{SMALLEST_SIDE} to 4320."
        )
    if sampling.control != "none" and not sampling.control_model:
        raise SettingsError(
            f"sampling.control is {sampling.control!r} but sampling.control_model is empty; "
            "name a ControlNet, or choose none."
        )
    list_units(sampling)
    if sampling.canny_low > sampling.canny_high:
        raise SettingsError(
            f"sampling.canny_low is {sampling.canny_low}, above sampling.canny_high, which is "
            f"{sampling.canny_high}; swap them."
        )
    return settings


def require_paths(*, mask: MaskSettings | None = None, flow: FlowSettings | None = None) -> None:
    """Raise SettingsError if masks or motion come from files and no file is named."""
    if mask and mask.source in ("drawing", "files") and not mask.path.strip():
        raise SettingsError(
            f"mask.source is {mask.source!r} but mask.path is empty; name the image, folder or "
            "video, or choose another mask."
        )
    if flow and flow.estimator == "files" and not flow.path.strip():
        raise SettingsError(
            "flow.estimator is 'files' but flow.path is empty; name the folder of motion, or "
            "choose another estimator."
        )


def needs_alpha(settings: FrescoSettings) -> bool:
    """Whether a transparent result has no mask, so its source must have transparent parts."""
    return settings.output.background == "transparent" and settings.mask.source == "none"


def require_transparent(settings: FrescoSettings, *, source: bool) -> None:
    """Raise SettingsError if a result should be transparent, but nothing is.

    Args:
        source: whether its source has transparent parts.
    """
    if needs_alpha(settings) and not source:
        raise SettingsError(
            "output.background is 'transparent', but mask.source is 'none' and the source has no "
            "transparent parts; choose a mask, which says what is seen, or set output.background "
            "to source."
        )


def image_settings(settings: FrescoSettings, *groups: str) -> dict[str, dict[str, Any]]:
    """The settings of some groups that change images: the input of a cache key."""
    result: dict[str, dict[str, Any]] = {}
    for entry in entries():
        if entry.group in groups and entry.option.images:
            value = getattr(getattr(settings, entry.group), entry.name)
            result.setdefault(entry.group, {})[entry.name] = value
    return result


def draw_seed() -> int:
    """Draw a random seed, which is stored with the run."""
    return secrets.randbelow(_SEEDS)


def cache_settings(settings: FrescoSettings, *groups: str) -> dict[str, dict[str, Any]]:
    """The part of `image_settings` that a cache key needs: options that have an effect here."""
    values = image_settings(settings, *groups)
    for entry in entries():
        needs, chosen = entry.option.needs, values.get(entry.group, {})
        if entry.option.held or (needs is not None and not needs(settings)):
            chosen.pop(entry.name, None)
    return values


def list_named_paths(settings: FrescoSettings) -> tuple[str, ...]:
    """List files and folders in the options that a server's clients may name."""
    values = [
        getattr(getattr(settings, entry.group), entry.name)
        for entry in entries() if entry.option.file and not entry.option.instead
    ]
    named = [text for value in values for text in ([value] if isinstance(value, str) else value)]
    return tuple(_drop_weight(text.strip()) for text in named if text.strip())


_WEIGHT = re.compile(r":[\d.eE+-]+$")


def _drop_weight(text: str) -> str:
    """Remove the weight from PATH:WEIGHT."""
    return _WEIGHT.sub("", text)


_NAMED = re.compile(r"\b([a-z]+)\.([a-z][a-z0-9_]*)\b")


def rename_options(text: str, name_of: Callable[[Entry], str]) -> str:
    """Replace the names of options in a message by those of a front end.

    Messages of the core name an option by group and name, such as `sampling.seed`.

    Args:
        name_of: what the front end calls an option, such as its flag or the label of its control.
    """
    known = {entry.place: entry for entry in entries()}

    def rename(match: re.Match[str]) -> str:
        entry = known.get((match[1], match[2]))
        return name_of(entry) if entry else match[0]

    return _NAMED.sub(rename, text)
