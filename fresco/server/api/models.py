"""The bodies that clients send, declared once for reading, JSON schema and docs/api.md.

Everything that a client sends is checked here, once; all later code trusts it. No file is read or
written here.
"""

# A field's type is a call of `checked` and its like.
# pyright: reportInvalidTypeForm=false
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fresco.control import AUTO, CONTROL_MODES, MOST_UNITS, OWN, RESIZE_MODES, ControlUnit
from fresco.errors import SettingsError
from fresco.options import (
    PRESET,
    Entry,
    check_pairs,
    check_value,
    entries,
    expand_preset,
    preset_options,
)
from fresco.planning.parsing import check_key_prompts, parse_frame_number, parse_keys
from fresco.planning.prompts import list_prompts, refuse_composed
from fresco.planning.ranges import parse_ranges
from fresco.server.api.fields import (
    WrongValueError,
    boolean,
    choice,
    encoded,
    nested,
    number,
    one_of,
    read_item,
    read_letters,
    read_object,
    refuse_broken,
    text,
    whole,
)
from fresco.server.api.pydantic_shim import (
    ApiModel,
    Field,
    build_model,
    checked,
    list_given,
    make_schema,
)
from fresco.server.encoded import EncodedFile, restore_integer
from fresco.server.jobs.job import Goal
from fresco.settings import FORMER_PRESETS, PRESETS, FrescoSettings

_M = TypeVar("_M", bound=ApiModel)

_KEYS = re.compile(
    # No \s* before the list of what may follow, which would be tried in every length.
    r"(?:\s*key(?:frame)?s?\s*[:=])?[\d\s,;_|+\[\]-]*", re.IGNORECASE | re.ASCII
)
"""A text with the keyframes themselves; any other text may name a file of the server."""
_MOST_JOBS = 1000
_MOST_STYLES = 100
_MOST_FRAMES = 10**9
_MOST_IMAGES = 10_000
"""Largest number of external keyframes in one request."""
_PATH = 4096
"""Longest path in letters, the limit of Linux."""
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


# Parts of bodies


class HostBody(ApiModel):
    """What the model and its sampling need beyond the settings."""

    model: text() = Field(
        "", description="One of `models` in GET /fresco/models; empty: the one that is loaded."
    )
    sampler: text() = Field(
        "", description="One of `samplers` there; empty: the first."
    )
    scheduler: text() = Field(
        "", description="One of `schedulers` there; empty: the sampler's own."
    )
    upscaler: text() = Field(
        "", description="One of `upscalers` there: enlarges keyframes where "
        "`settings.propagation.resolution` is larger; empty: Lanczos."
    )


class ControlNetUnitBody(ApiModel):
    """A ControlNet unit; each keyframe gives its own hint."""

    model: text() = Field(..., description="One of `control_models` in GET /fresco/models.")
    module: text() = Field(
        AUTO, description="Preprocessor: one of `control_modules` there; auto: by the model's name."
    )
    weight: number(0, 2) = Field(1, description="Strength.")
    start: number(0, 1) = Field(0, description="Share of the steps where it begins.")
    end: number(0, 1) = Field(1, description="Share of the steps where it ends.")
    threshold_a: number(OWN, 100_000) = Field(
        OWN, description="First number of the preprocessor, see `control_sliders` there; -1: its "
        "own."
    )
    threshold_b: number(OWN, 100_000) = Field(OWN, description="Its second number; -1: its own.")
    resolution: whole(0, 4096) = Field(
        0, description="Short side of the frames that the preprocessor sees; 0: as they are."
    )
    control_mode: one_of(CONTROL_MODES) = Field(
        "balanced", description="prompt: the prompt counts more; control: the ControlNet does."
    )
    resize_mode: one_of(RESIZE_MODES) = Field(
        "crop", description="How a hint of other proportions comes to the frames' size."
    )
    hints: text(_PATH) = Field(
        "", description="Folder or video on the server with a hint for every frame, made "
        "elsewhere, instead of a preprocessor."
    )


class NamedImageBody(ApiModel):
    """An image of a list of keyframes."""

    name: text() = Field(
        "", description="Ends with the frame number, such as 000012.png."
    )
    image: encoded() = Field("", description="PNG or JPEG in base64.")


@dataclass(frozen=True, slots=True)
class ExternalKeyframes:
    """Stylised keyframes that a client sends."""

    images: Mapping[int, str | EncodedFile]
    """Images in base64, by frame number."""
    folder: str = ""
    """Or a folder on the server."""


def _read_unit(value: object) -> ControlUnit:
    return ControlUnit(**list_given(read_object(ControlNetUnitBody, value)))


def read_units(value: object) -> tuple[ControlUnit, ...]:
    """Read ControlNet units from a list of objects; WrongValueError says what is wrong."""
    if not isinstance(value, list) or len(value) > MOST_UNITS:
        raise WrongValueError(f" is {value!r}; give a list of at most {MOST_UNITS} units.")
    return tuple(
        ControlUnit(**list_given(read_item(ControlNetUnitBody, place, item)))
        for place, item in enumerate(value)
    )


def _read_keyframes(value: object) -> ExternalKeyframes:
    if isinstance(value, str) and len(value) <= _PATH:
        return ExternalKeyframes({}, value.strip())
    return _read_images(value, "keyframes")


def _read_masks(value: object) -> ExternalKeyframes:
    return _read_images(value, "masks")


def _read_images(value: object, what: str) -> ExternalKeyframes:
    pairs: list[tuple[int, str | EncodedFile]] = []
    if isinstance(value, Mapping | list) and len(value) > _MOST_IMAGES:
        raise WrongValueError(f" holds {len(value)} images; give at most {_MOST_IMAGES}.")
    if isinstance(value, Mapping):
        for key, image in value.items():
            if not isinstance(image, str | EncodedFile):
                raise WrongValueError(f".{key} is {image!r}; give a text.")
            image = image.strip() if isinstance(image, str) else image
            pairs.append((parse_frame_number(key, what), image))
    elif isinstance(value, list):
        pairs = [_read_named_image(place, item) for place, item in enumerate(value)]
    if not pairs:
        raise WrongValueError(
            ' holds no image; give base64 PNG or JPEG by frame number, such as {"0": "...", '
            '"12": "..."}.'
        )
    times = Counter(frame for frame, _ in pairs)
    if twice := [frame for frame, count in times.items() if count > 1]:
        raise WrongValueError(f" holds frame {twice[0]} twice; leave one out.")
    return ExternalKeyframes(dict(pairs))


def _read_named_image(place: int, item: object) -> tuple[int, str | EncodedFile]:
    named = read_item(NamedImageBody, place, item)
    numbers = re.findall(r"\d{1,9}", named.name.rpartition(".")[0] or named.name, re.ASCII)
    if not numbers:
        raise WrongValueError(
            f"[{place}].name is {named.name!r}; give a frame number, such as 000012.png."
        )
    return int(numbers[-1]), named.image


# Options, from settings.py


def require_numbers(text: str) -> str:
    """Return the text if it has keyframes itself; SettingsError otherwise."""
    if not _KEYS.fullmatch(text):
        raise SettingsError(
            f"keyframes.keys is {text!r}; give frame numbers such as 0,11,23, or nothing."
        )
    if text.strip():
        parse_keys(text, _MOST_FRAMES, read_files=False)
    return text


_FURTHER: Mapping[tuple[str, str], Callable[[Any], object]] = {
    ("keyframes", "keys"): require_numbers,
    ("sampling", "ranges"): parse_ranges,
    ("sampling", "key_prompts"): lambda value: check_key_prompts(value, "sampling.key_prompts"),
}
"""Further checks of options in the API, in addition to their type and range."""


def _check_option(entry: Entry, value: object) -> object:
    """Return the value; SettingsError if it is wrong, or names what no client may name."""
    value = check_value(entry, restore_integer(entry, _read_option(entry, value)))
    if entry.option.instead and value != entry.default:
        raise SettingsError(
            f"{entry.group}.{entry.name} is {value!r}, which the API does not take; "
            f"{entry.option.instead}."
        )
    if further := _FURTHER.get(entry.place):
        further(value)
    return value


def _read_option(entry: Entry, value: object) -> object:
    """Return the value; for a text that only looks like a file, the text."""
    most = entry.option.letters
    if isinstance(value, EncodedFile):
        try:
            return read_letters(value, most)
        except WrongValueError as error:
            raise SettingsError(f"{entry.group}.{entry.name}{error}") from error
    if isinstance(value, Mapping):
        return {name: _read_option(entry, item) for name, item in value.items()}
    return [_read_option(entry, item) for item in value] if isinstance(value, list) else value


def _option_schema(entry: Entry) -> dict[str, Any]:
    option = entry.option
    if entry.type is tuple:
        schema: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    elif entry.type is dict:
        schema = {"type": "object", "additionalProperties": {"type": "string"},
                  "propertyNames": {"pattern": "^[0-9]{1,9}$"}}
    else:
        schema = {"type": _JSON_TYPES[entry.type]}
    for name, bound in (("minimum", option.low), ("maximum", option.high)):
        if bound is not None:
            schema[name] = bound if entry.type is float else int(bound)
    allowed = (entry.default,) if option.instead else option.choices
    return {**schema, "enum": list(allowed)} if allowed else schema


def _option_field(entry: Entry) -> tuple[Any, Any]:
    option = entry.option
    about = f"Not over the API: {option.instead}." if option.instead else option.help
    kind = checked(partial(_check_option, entry), _option_schema(entry))
    return kind, Field(entry.default, description=about)


def _check_preset(value: object) -> object:
    preset_options(value)
    return value


def _build_settings_body() -> type[ApiModel]:
    groups: dict[str, dict[str, tuple[Any, Any]]] = {}
    for entry in entries():
        groups.setdefault(entry.group, {})[entry.name] = _option_field(entry)
    groups["guidance"][PRESET] = checked(_check_preset, {
        "type": "string", "enum": [*PRESETS, *FORMER_PRESETS],
    }), Field(None, description="Parts of guidance that are on; options beside it override it.")
    abouts = {group: getattr(FrescoSettings(), group).__doc__ for group in groups}
    return build_model("SettingsBody", {
        group: (
            nested(build_model(f"{group.capitalize()}Body", fields)),
            Field(None, description=abouts[group]),
        )
        for group, fields in groups.items()
    })


SettingsBody = _build_settings_body()


# Bodies

_ABOUT_SETTINGS = "Options by group. Left out: the defaults; when resuming, as they were."


class VideoBody(ApiModel):
    """A video, named by exactly one of the first three fields."""

    video_id: text() = Field("", description="The id that POST /fresco/videos answered.")
    video: encoded() = Field(
        "", description="A video file in base64; upload large ones instead."
    )
    path: text(_PATH) = Field(
        "", description="A video, or a folder of images, on the server, where it allows that."
    )
    name: text() = Field("", description="Name of the file in `video`, to be shown.")


class DetectionBody(VideoBody):
    """The body of POST /fresco/keyframes."""

    settings: nested(SettingsBody) = Field(None, description=_ABOUT_SETTINGS)


class ResumeBody(ApiModel):
    """The body of POST /fresco/jobs/{id}/resume: the changes."""

    goal: choice(Goal) = Field(
        None,
        description="preview: the first keyframes; keyframes: all of them; all: every frame; "
        "keyframe: one keyframe again, alone with its neighbours; propagation: external keyframes, "
        "propagated to every frame. Left out: all; when resuming, as it was.",
    )
    settings: nested(SettingsBody) = Field(None, description=_ABOUT_SETTINGS)
    host: nested(HostBody) = Field(
        None, description="What the model and its sampling need beyond the settings."
    )
    controlnet: checked(read_units, {
        "type": "array", "items": make_schema(ControlNetUnitBody), "maxItems": MOST_UNITS,
    }) = Field(None, description="ControlNet units; each keyframe gives its own hint.")
    keyframes: checked(_read_keyframes, {"anyOf": [
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "array", "items": make_schema(NamedImageBody)},
        {"type": "string"},
    ]}) = Field(
        None,
        description="External keyframes, for the goal propagation: an object of base64 PNG or JPEG "
        "by frame number, or a list of {name, image} whose names hold the numbers, or a folder on "
        "the server, where it allows that.",
    )
    masks: checked(_read_masks, {"anyOf": [
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "array", "items": make_schema(NamedImageBody)},
    ]}) = Field(
        None,
        description="Masks, white where the frame is translated: an object of base64 PNG or JPEG "
        "by frame number, or a list of {name, image}. They are drawings, which are tracked to the "
        "other frames, unless settings.mask.source is files: then there is one for every frame.",
    )
    preview: whole(1, 1000) = Field(
        None, description="Keyframes of the goal preview; left out: 1."
    )
    frame: whole(0, _MOST_FRAMES) = Field(
        None, description="Number of the keyframe of the goal keyframe."
    )
    frame_seed: whole(-1, 2**63 - 1) = Field(
        None, description="Seed of the goal keyframe; -1: a random one; left out: as of the others."
    )
    title: text(200) = Field(None, description="Shown in lists; empty: the video's name.")
    webhook: text(2000) = Field(
        None, description="Address that gets a POST when the job ends: one of `webhooks` of "
        "the limits in GET /fresco/version, or below one."
    )


class HintBody(VideoBody):
    """The body of POST /fresco/hint."""

    frame: whole(0, _MOST_FRAMES) = Field(..., description="Number of the frame.")
    unit: checked(_read_unit, make_schema(ControlNetUnitBody)) = Field(
        ..., description="A unit as in `controlnet` of a job."
    )
    settings: nested(SettingsBody) = Field(None, description=_ABOUT_SETTINGS)


class KeyframeBody(ApiModel):
    """The body of POST /fresco/jobs/{id}/keyframes/{number}."""

    image: encoded() = Field("", description="PNG or JPEG in base64, of any size.")


class TitleBody(ApiModel):
    """The body of POST /fresco/jobs/{id}/title."""

    title: text(200) = Field("", description="Shown in lists; empty: the video's name.")


class PlaceBody(ApiModel):
    """The body of POST /fresco/jobs/{id}/place."""

    before: text() = Field("", description="A waiting job that comes next; empty: the last place.")


def _read_texts(value: object, *, least: int, most: int, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        count = f"{least} to {most}" if least else f"at most {most}"
        raise WrongValueError(f" is {value!r}; give a list of {count} {what}.")
    for each in value:
        if not isinstance(each, str):
            raise WrongValueError(f" holds {each!r}; give {what}.")
    return tuple(value)


def _texts(what: str, *, least: int, most: int) -> Any:
    """Type of a list of texts.

    Args:
        what: the word for such texts.
    """
    return checked(partial(_read_texts, least=least, most=most, what=what), {
        "type": "array", "items": {"type": "string"}, "minItems": least, "maxItems": most,
    })


class DeletionBody(ApiModel):
    """The body of POST /fresco/jobs/delete."""

    jobs: _texts("ids of jobs", least=1, most=_MOST_JOBS) = Field(
        ..., description="Ids of the jobs."
    )
    video: boolean() = Field(
        False, description="Delete their uploaded videos too, where no other job needs them."
    )


class EmptyingBody(ApiModel):
    """The body of POST /fresco/space/empty."""

    days: number(0, 36500) = Field(..., description="Only what is older than so many days.")
    jobs: boolean() = Field(True, description="Jobs, by when they ended.")
    videos: boolean() = Field(True, description="Uploaded videos that no other job needs.")
    dry_run: boolean() = Field(False, description="Only answer what would be deleted.")


class JobBody(ResumeBody, VideoBody):
    """The body of POST /fresco/jobs."""

    styles: _texts("names of styles", least=0, most=_MOST_STYLES) = Field(
        None, description="Styles of GET /fresco/models; they are added to the prompts as the "
        "WebUI does it, and kept as that."
    )


# Reading


def read_body(model: type[_M], payload: Any) -> _M:
    """Check what a client sent; SettingsError says what is wrong and what to do."""
    if payload is None:
        raise SettingsError("The request has no body; send a JSON object, see /fresco/schema.")
    refuse_broken(payload)
    try:
        body = read_object(model, payload)
    except WrongValueError as error:
        told = str(error)
        raise SettingsError(told[1:] if told.startswith(".") else f"The body{told}") from error
    if isinstance(body, VideoBody):
        _require_one_video(body)
    return body


def _require_one_video(body: VideoBody) -> None:
    names = ("video_id", "video", "path")
    given = [name for name in names if getattr(body, name)]
    if len(given) != 1:
        found = f"{' and '.join(given)} are given" if given else "No video is given"
        raise SettingsError(f"{found}; give exactly one of {', '.join(names)}.")


def merge_settings(
    given: ApiModel | None, base: FrescoSettings | None = None
) -> FrescoSettings:
    """Put the options that a client gave over `base` or over the defaults.

    Args:
        given: a `SettingsBody`, of which only combinations of options remain to be checked.
    """
    base = base or FrescoSettings()
    found = {} if given is None else {
        group: list_given(options) for group, options in list_given(given).items()
    }
    groups = {group: dataclasses.replace(getattr(base, group), **options)
              for group, options in expand_preset(found).items()}
    settings = check_pairs(dataclasses.replace(base, **groups))
    refuse_composed(list_prompts(settings.sampling))
    return settings
