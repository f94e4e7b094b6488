"""JSON schemas of what the API takes, from settings.py: an option exists once."""

from __future__ import annotations

from typing import Any

from fresco.server.jobs.job import Goal
from fresco.settings import Entry, entries

Schema = dict[str, Any]

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}

def settings_schema() -> Schema:
    """Groups of options."""
    groups: dict[str, Schema] = {}
    for entry in entries():
        group = groups.setdefault(entry.group, _object({}))
        group["properties"][entry.name] = _option(entry)
    return _object(groups, "Options; what is left out is at its default.")


def _option(entry: Entry) -> Schema:
    option, schema = entry.option, _of_type(entry)
    if entry.type in (int, float):
        bounds = {"minimum": option.low, "maximum": option.high}
        schema |= {name: entry.type(bound) for name, bound in bounds.items() if bound is not None}
    if option.choices:
        schema["enum"] = list(option.choices)
    instead = option.instead
    if instead:
        schema["enum"] = [schema["default"]]
    text = f"Not over the API: {instead}." if instead else option.help
    return {**schema, "description": text}


def _of_type(entry: Entry) -> Schema:
    if entry.type is tuple:
        return {"type": "array", "items": {"type": "string"}, "default": []}
    if entry.type is dict:
        return {
            "type": "object", "additionalProperties": {"type": "string"},
            "propertyNames": {"pattern": "^[0-9]{1,9}$"}, "default": {},
        }
    return {"type": _TYPES[entry.type], "default": entry.default}


def source_schema() -> dict[str, Schema]:
    """How a video is named: by exactly one of these."""
    return {
        "video_id": _text("The id that POST /fresco/videos answered."),
        "video": _text("A video file in base64; large ones are better uploaded."),
        "path": _text("A video, or a folder of pictures, on the server, where it allows that."),
        "name": _text("Name of the file in `video`, for people."),
    }


def keyframes_schema() -> Schema:
    """The body of POST /fresco/keyframes."""
    return _object({**source_schema(), "settings": settings_schema()})


def job_schema() -> Schema:
    """The body of POST /fresco/jobs."""
    return _object({**source_schema(), **_wishes()})


def resume_schema() -> Schema:
    """The body of POST /fresco/jobs/{id}/resume: what shall be different."""
    return _object(_wishes())


def _wishes() -> dict[str, Schema]:
    goals = [goal.value for goal in Goal]
    return {
        "goal": {
            "type": "string", "enum": goals, "default": Goal.ALL.value,
            "description": "preview: the first keyframes; keyframes: all of them; all: every "
            "frame; keyframe: one keyframe again, alone with its neighbours; propagation: own "
            "keyframes, carried to every frame.",
        },
        "settings": settings_schema(),
        "host": _object({
            "model": _text("As in GET /fresco/models; empty: the one that is loaded."),
            "sampler": _text("As in GET /fresco/models; empty: the first."),
            "scheduler": _text("As in GET /fresco/models; empty: the sampler's own."),
        }, "What the model and its sampling need beyond the settings."),
        "controlnet": {
            "type": "array", "items": _unit(), "maxItems": 16,
            "description": "ControlNet units; each keyframe gives its own hint.",
        },
        "keyframes": {
            "description": "Own stylised keyframes, for the goal propagation: an object of base64 "
            "PNG or JPEG by frame number, or a list of {name, image} whose names hold the "
            "numbers, or a folder on the server, where it allows that.",
            "anyOf": [
                {"type": "object", "additionalProperties": {"type": "string"}},
                {"type": "array", "items": _object({
                    "name": _text("Holds the frame number last, such as 000012.png."),
                    "image": _text("PNG or JPEG in base64."),
                })},
                {"type": "string"},
            ],
        },
        "preview": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1,
                    "description": "Keyframes of the goal preview."},
        "frame": {"type": "integer", "minimum": 0, "maximum": 10**9,
                  "description": "Number of the keyframe of the goal keyframe."},
        "frame_seed": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1,
                       "description": "Seed of the goal keyframe; left out: as of the others."},
        "title": {**_text("For people; empty: the video's name."), "maxLength": 200},
    }


def _unit() -> Schema:
    share = {"type": "number", "minimum": 0, "maximum": 1}
    return {**_object({
        "model": _text("As in GET /fresco/models."),
        "module": {**_text("Preprocessor, as in GET /fresco/models."), "default": "none"},
        "weight": {"type": "number", "minimum": 0, "maximum": 2, "default": 1,
                   "description": "Strength."},
        "start": {**share, "default": 0, "description": "Share of the schedule where it begins."},
        "end": {**share, "default": 1, "description": "Share of the schedule where it ends."},
    }), "required": ["model"]}


def _object(properties: dict[str, Schema], description: str = "") -> Schema:
    schema: Schema = {
        "type": "object", "properties": properties, "additionalProperties": False,
    }
    return {**schema, "description": description} if description else schema


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}
