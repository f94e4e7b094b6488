"""Read the script's arguments of an img2img call.

Arguments are one dict by name, or values by position. Nothing of the WebUI is imported here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fresco.errors import SettingsError
from fresco.options import PRESET, Entry, entries, from_dict
from fresco.planning.parsing import check_key_prompts
from fresco.planning.ranges import parse_ranges
from fresco.server.encoded import decode_base64, restore_integer
from fresco.settings import FrescoSettings

SOURCES = ("video", "path", "masks")
"""Arguments that name the frames: an uploaded file (base64 in the API) or a path on the server, and
their masks."""
_WORDS = ("key_prompts", "ranges")
"""Arguments of programs that say what single keyframes and ranges have of their own."""
PRESET_PLACE = f"guidance.{PRESET}"
"""Argument that stands for several options, see `fresco.options.expand_preset`."""
POSITIONS = (
    "video", "path",
    "keyframes.min_interval", "keyframes.max_interval", "keyframes.batch_size", "keyframes.keys",
    "keyframes.detect_shots", "keyframes.shot_threshold", "keyframes.shot_min_length",
    "flow.estimator",
    "guidance.spatial_attention", "guidance.cross_frame_attention", "guidance.temporal_attention",
    "guidance.spatial_optimization", "guidance.temporal_optimization",
    "guidance.background_smoothing", "guidance.saliency", "guidance.optimization_iterations",
    "guidance.optimization_rate", "guidance.spatial_weight", "guidance.optimization_end",
    "guidance.temporal_attention_end", "guidance.plain_statistics",
    "guidance.freeu_b1", "guidance.freeu_b2", "guidance.freeu_s1", "guidance.freeu_s2",
    "output.first_frame", "output.last_frame",
    "masks", "guidance.consensus", PRESET_PLACE, "mask.source",
)
"""Arguments by position, behind `enabled`: sources by name, options as group.name. Programs rely on
these positions, so none ever moves; a new option is added at the end, behind the masks."""


FOUND = ("motion", "u2netp")
"""Values of mask.source that need no masks."""
_MOST_DIGITS = 9
"""Most digits of a frame number."""


@dataclass(frozen=True, slots=True)
class Request:
    """The request of one call."""

    settings: FrescoSettings
    """All options; those of other stages at their defaults."""
    video: Path | None = None
    """An uploaded file."""
    data: bytes = b""
    """A video file's bytes, sent by a program."""
    path: str = ""
    """Video or folder of images on the server."""
    masks: tuple[bytes, ...] = ()
    """Files of masks, sent by a program: one for all frames, or one for each."""
    masks_path: str = ""
    """The same as an image or a folder of images on the server."""
    drawings: Mapping[int, bytes] = field(default_factory=dict)
    """Files of masks drawn on some frames, by number, sent by a program."""

    @property
    def has_masks(self) -> bool:
        """Whether FRESCO was given masks, or finds them."""
        return self.finds_masks or bool(self.masks or self.masks_path or self.drawings)

    @property
    def finds_masks(self) -> bool:
        """Whether the masks are found in the frames."""
        return self.settings.mask.source in FOUND

    @property
    def has_source(self) -> bool:
        """Whether frames come from a video or folder; else they are the call's init images."""
        return bool(self.video or self.data or self.path)


def list_options() -> tuple[Entry, ...]:
    """List the options of the script, in the order in which the page shows them."""
    return tuple(entry for entry in entries() if entry.option.img2img)


def name_flat(entry: Entry) -> str:
    """Name of an option without its group."""
    # `source` alone would look like the source of the frames.
    return f"{entry.group}_{entry.name}" if entry.group == "mask" else entry.name


def list_arguments() -> tuple[str, ...]:
    """Names of all arguments after `enabled`, by position: `POSITIONS`, then other options."""
    options = [".".join(entry.place) for entry in list_options()]
    return (*POSITIONS, *(name for name in options if name not in POSITIONS))


def parse_arguments(args: Sequence[Any]) -> Request | None:
    """Read the request of a call; None if FRESCO is off.

    Args:
        args: `[{...}]`, or enabled and then the values of `list_arguments`; those left out at the
            end are at their defaults.
    """
    if args and isinstance(args[0], Mapping):
        return _from_mapping(args[0])
    if not args or not args[0]:
        return None
    if not isinstance(args[0], bool):
        raise SettingsError(
            f"The first argument of FRESCO is {args[0]!r}; give true, or one object of options."
        )
    values = dict(zip(list_arguments(), args[1:], strict=False))
    groups: dict[str, dict[str, Any]] = {}
    for entry in list_options():
        value = values.get(".".join(entry.place))
        if value is not None:
            groups.setdefault(entry.group, {})[entry.name] = restore_integer(entry, value)
    if (preset := values.get(PRESET_PLACE)) is not None:
        groups.setdefault("guidance", {})[PRESET] = preset
    # A file object became a path; a text can only come from a program, and is base64.
    video, path, masks = (values.get(name) for name in SOURCES)
    uploaded = video if isinstance(video, Path) else None
    data = b"" if uploaded else _decoded("video", _text("video", video))
    return Request(
        from_dict(groups), video=uploaded, data=data, path=_text("path", path), **_masks(masks)
    )


def _from_mapping(values: Mapping[Any, Any]) -> Request | None:
    """Read options by name, alone or by group."""
    rest = dict(values)
    enabled = rest.pop("enabled", True)
    if not isinstance(enabled, bool):
        raise SettingsError(f"enabled is {enabled!r}; give true or false.")
    if not enabled:
        return None
    data = _decoded("video", _text("video", rest.pop("video", "")))
    path = _text("path", rest.pop("path", ""))
    masks = _masks(rest.pop("masks", ""))
    words = {name: rest.pop(name) for name in _WORDS if name in rest}
    by_name = {name_flat(entry): entry for entry in list_options()}
    offered_groups = {entry.group for entry in list_options()}
    groups: dict[str, dict[str, Any]] = {"sampling": words}
    for name, value in rest.items():
        if name in offered_groups:
            groups.setdefault(name, {}).update(_group(name, value))
        elif name == PRESET:
            groups.setdefault("guidance", {})[PRESET] = value
        elif name in by_name:
            entry = by_name[name]
            groups.setdefault(entry.group, {})[entry.name] = restore_integer(entry, value)
        else:
            known = [*by_name, *sorted(offered_groups), *SOURCES, "enabled", *_WORDS]
            raise _unknown(str(name), known)
    request = Request(from_dict(groups), data=data, path=path, **masks)
    check_key_prompts(request.settings.sampling.key_prompts, "key_prompts")
    parse_ranges(request.settings.sampling.ranges)
    return request


def _group(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{name} is {value!r}; give an object of options.")
    known = {entry.name: entry for entry in list_options() if entry.group == name}
    presets = (PRESET,) if name == "guidance" else ()
    for key in value:
        if key not in known and key not in presets:
            raise _unknown(str(key), list(known))
    return {key: restore_integer(known[key], item) if key in known else item
            for key, item in value.items()}


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SettingsError(f"{name} is {type(value).__name__}; give a text.")
    return value.strip()


def _masks(value: Any) -> dict[str, Any]:
    """Read the masks of a request: a path on the server, a list of files, or an object of files."""
    if not isinstance(value, list | Mapping):
        return {"masks_path": _text("masks", value)}
    sent = value if isinstance(value, Mapping) else dict(enumerate(value))
    masks: dict[int, bytes] = {}
    for number, item in sent.items():
        name = f"masks[{number}]"
        if not str(number).isdecimal() or len(str(number)) > _MOST_DIGITS:
            raise SettingsError(f"{name} is not of a frame; name masks by frame numbers.")
        masks[int(number)] = _decoded(name, _text(name, item))
        if not masks[int(number)]:
            raise SettingsError(f"{name} is empty; send every mask as base64 of an image.")
    return {"drawings": masks} if isinstance(value, Mapping) else {"masks": tuple(masks.values())}


def _decoded(name: str, text: str) -> bytes:
    return decode_base64(name, text, "encode the file's bytes, or name a path.")


def _unknown(name: str, known: Sequence[str]) -> SettingsError:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."
    return SettingsError(f"{name!r} is not an option of FRESCO; {hint}")
