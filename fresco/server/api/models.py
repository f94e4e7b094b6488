"""What a client asks for, from JSON to the values of a job. Pure: no file is touched."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fresco.errors import SettingsError
from fresco.hosts.options import ControlUnit, HostOptions
from fresco.planning.parsing import check_key_prompts, parse_frame_number
from fresco.planning.prompts import list_prompts, refuse_composed
from fresco.server.encoded import restore_integer
from fresco.server.jobs.job import Goal
from fresco.settings import FrescoSettings, entries, from_dict

_SOURCES = ("video_id", "video", "path")
_WISHES = ("goal", "settings", "host", "controlnet", "keyframes", "preview", "frame",
           "frame_seed", "title")
_UNIT = tuple(field.name for field in dataclasses.fields(ControlUnit))
_KEYS = re.compile(r"\s*(?:key(?:frame)?s?\s*[:=])?[\d\s,;_|+\[\]-]*", re.IGNORECASE | re.ASCII)
"""Keyframes themselves; any other text may name a file of the server."""
_MOST_UNITS = 16
_MOST_PREVIEW = 1000
_MOST_FRAMES = 10**9
_TITLE = 200
_LARGEST = 1 << 63
_DEPTH = 16
"""Levels of JSON; the deepest body has 4."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the frames come from: exactly one of the first three is not empty."""

    video_id: str
    """Of an uploaded video."""
    video: str
    """A file in base64."""
    path: str
    """On the server."""
    name: str
    """Of the file in `video`."""


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """Own stylised keyframes."""

    pictures: Mapping[int, str]
    """Base64 by frame number."""
    path: str = ""
    """Or a folder on the server."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a job shall do; None: left out."""

    goal: Goal | None
    """How far it goes."""
    settings: Mapping[str, Any]
    """Options by group, not yet checked."""
    host: HostOptions | None
    """For the host's sampling; ControlNet units aside."""
    control: tuple[ControlUnit, ...] | None
    """ControlNet units."""
    keys: OwnKeys | None
    """Own keyframes."""
    preview: int | None
    """Keyframes of a preview."""
    frame: int | None
    """The keyframe to translate again."""
    frame_seed: int | None
    """Its seed."""
    title: str | None
    """For people."""


def parse_detection(body: Mapping[str, Any]) -> tuple[Source, FrescoSettings]:
    """The body of POST /fresco/keyframes."""
    checked = _checked(body, (*_SOURCES, "name", "settings"))
    return _source(checked), parse_settings(_mapping("settings", checked.get("settings", {})))


def parse_job(body: Mapping[str, Any]) -> tuple[Source, Wishes]:
    """The body of POST /fresco/jobs."""
    checked = _checked(body, (*_SOURCES, "name", *_WISHES))
    return _source(checked), _wishes(checked)


def parse_resume(body: Mapping[str, Any]) -> Wishes:
    """The body of POST /fresco/jobs/{id}/resume."""
    return _wishes(_checked(body, _WISHES))


def parse_settings(
    values: Mapping[str, Any], base: FrescoSettings | None = None
) -> FrescoSettings:
    """Options over `base`, without those by which a client would reach files or addresses."""
    base = base or FrescoSettings()
    whole = {
        group: _whole(group, items) if isinstance(items, Mapping) else items
        for group, items in values.items()
    }
    settings = from_dict(whole, base)
    for entry in (entry for entry in entries() if entry.option.instead):
        group, name = entry.place
        value = getattr(getattr(settings, group), name)
        if value not in (entry.default, getattr(getattr(base, group), name)):
            raise SettingsError(
                f"{group}.{name} is {value!r}, which the API does not take; "
                f"{entry.option.instead}."
            )
    if settings.keyframes.keys != base.keyframes.keys:
        listed_numbers(settings.keyframes.keys)
    check_key_prompts(settings.sampling.key_prompts, "sampling.key_prompts")
    refuse_composed(list_prompts(settings.sampling))
    return settings


def listed_numbers(text: str) -> str:
    """The text, if it holds keyframes itself; SettingsError otherwise."""
    if not _KEYS.fullmatch(text):
        raise SettingsError(
            f"keyframes.keys is {text!r}; give frame numbers such as 0,11,23, or nothing."
        )
    return text


def _whole(group: str, items: Mapping[str, Any]) -> dict[str, Any]:
    """Whole numbers of JavaScript and of JSON schema may be written 8.0."""
    known = {entry.name: entry for entry in entries() if entry.group == group}
    return {
        name: restore_integer(known[name], value) if name in known else value
        for name, value in items.items()
    }


def _checked(body: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The body without null, after every name and text in it was looked at."""
    names = list(known)
    for name in body:
        if name not in names:
            close = difflib.get_close_matches(name[:100], names, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}."
            raise SettingsError(f"{name!r} is not known here; {hint}")
    _refuse_broken(body)
    return {name: value for name, value in body.items() if value is not None}


def _refuse_broken(value: Any, depth: int = 0) -> None:
    """Texts that no file can hold and no path may, and numbers beyond every range."""
    if depth > _DEPTH:
        raise SettingsError(f"The request is nested deeper than {_DEPTH} levels; flatten it.")
    if isinstance(value, str):
        if "\0" in value or not _writable(value):
            raise SettingsError(
                f"{value[:60]!r} holds a character that is none (null, or half a pair); remove it."
            )
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise SettingsError(f"{value} is beyond the range of every option; give a smaller number.")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _refuse_broken(name, depth + 1)
            _refuse_broken(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _refuse_broken(item, depth + 1)


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _source(body: Mapping[str, Any]) -> Source:
    texts = {name: _text(name, body.get(name, "")) for name in (*_SOURCES, "name")}
    given = [name for name in _SOURCES if texts[name]]
    if len(given) != 1:
        found = f"{' and '.join(given)} are given" if given else "No video is given"
        raise SettingsError(f"{found}; give exactly one of {', '.join(_SOURCES)}.")
    return Source(**texts)


def _wishes(body: Mapping[str, Any]) -> Wishes:
    host, control, keys = body.get("host"), body.get("controlnet"), body.get("keyframes")
    title = None if "title" not in body else _text("title", body["title"])
    if title is not None and len(title) > _TITLE:
        raise SettingsError(f"title has {len(title)} letters; give at most {_TITLE}.")
    return Wishes(
        goal=_goal(body["goal"]) if "goal" in body else None,
        settings=_mapping("settings", body.get("settings", {})),
        host=None if host is None else _host(_mapping("host", host)),
        control=None if control is None else _control(control),
        keys=None if keys is None else _own_keys(keys),
        preview=_whole_number(body, "preview", 1, _MOST_PREVIEW),
        frame=_whole_number(body, "frame", 0, _MOST_FRAMES),
        frame_seed=_whole_number(body, "frame_seed", 0, _LARGEST - 1),
        title=title,
    )


def _goal(value: Any) -> Goal:
    known = [goal.value for goal in Goal]
    if not isinstance(value, str) or value not in known:
        raise SettingsError(f"goal is {value!r}; choose one of {', '.join(known)}.")
    return Goal(value)


def _whole_number(body: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = body.get(name)
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if whole is None:
        return None
    if isinstance(whole, bool) or not isinstance(whole, int) or not low <= whole <= high:
        raise SettingsError(f"{name} is {value!r}; give a whole number, {low} to {high}.")
    return whole


def _host(values: Mapping[str, Any]) -> HostOptions:
    names = ("model", "sampler", "scheduler")
    checked = _checked(values, names)
    model, sampler, scheduler = (_text(f"host.{name}", checked.get(name, "")) for name in names)
    return HostOptions(model, sampler, scheduler)


def _control(value: Any) -> tuple[ControlUnit, ...]:
    if not isinstance(value, list) or len(value) > _MOST_UNITS:
        raise SettingsError(
            f"controlnet is {value!r}; give a list of at most {_MOST_UNITS} units."
        )
    units: list[ControlUnit] = []
    for number, item in enumerate(value):
        where = f"controlnet[{number}]"
        checked = _checked(_mapping(where, item), _UNIT)
        if not checked.get("model"):
            raise SettingsError(f"{where} has no model; name one, see GET /fresco/models.")
        for name, given in checked.items():
            known = _text if name in ("model", "module") else _number
            checked[name] = known(f"{where}.{name}", given)
        units.append(ControlUnit(**checked))
    return tuple(units)


def _own_keys(value: Any) -> OwnKeys:
    if isinstance(value, str):
        return OwnKeys({}, _text("keyframes", value))
    pairs: list[tuple[int, str]] = []
    if isinstance(value, Mapping):
        pairs = [
            (parse_frame_number(number, "keyframes"), _text(f"keyframes.{number}", picture))
            for number, picture in value.items()
        ]
    elif isinstance(value, list):
        pairs = [_named_picture(number, item) for number, item in enumerate(value)]
    if not pairs:
        raise SettingsError(
            "keyframes holds no picture; give base64 PNG or JPEG by frame number, such as "
            '{"0": "...", "12": "..."}.'
        )
    times = Counter(number for number, _ in pairs)
    if twice := [number for number, count in times.items() if count > 1]:
        raise SettingsError(f"keyframes holds frame {twice[0]} twice; leave one away.")
    return OwnKeys(dict(pairs))


def _named_picture(place: int, item: Any) -> tuple[int, str]:
    where = f"keyframes[{place}]"
    checked = _checked(_mapping(where, item), ("name", "image"))
    name = _text(f"{where}.name", checked.get("name", ""))
    numbers = re.findall(r"\d{1,9}", name.rpartition(".")[0] or name, re.ASCII)
    if not numbers:
        raise SettingsError(f"{where}.name is {name!r}; give a frame number, such as 000012.png.")
    return int(numbers[-1]), _text(f"{where}.image", checked.get("image", ""))


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{name} is {value!r}; give an object.")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{name} is {value!r}; give a text.")
    return value.strip()


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SettingsError(f"{name} is {value!r}; give a number.")
    return float(value)
