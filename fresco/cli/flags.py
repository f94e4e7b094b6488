"""Make the flags of the command line and the table of options from `fresco/settings.py`."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fresco.control import anchor_unit
from fresco.errors import SettingsError
from fresco.options import (
    PRESET,
    Entry,
    check_value,
    entries,
    from_dict,
    range_text,
    rename_options,
)
from fresco.planning.parsing import parse_key_prompts
from fresco.settings import FrescoSettings

RESERVED = frozenset(
    {"help", "version", "config", "preset", "preview", "workspace", "output", "quiet", "verbose",
     "json"}
)
"""Names of flags that are not settings."""


def flag_names() -> dict[tuple[str, str], str]:
    """Flag of every option, by group and name; equal names get the group in front."""
    result: dict[tuple[str, str], str] = {}
    taken = set(RESERVED)
    for entry in entries():
        name = entry.option.flag or entry.name.replace("_", "-")
        name = f"{entry.group}-{name}" if name in taken else name
        taken.add(name)
        result[entry.place] = name
    return result


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """Add to the parser of a command the flags of all options that it uses."""
    names = flag_names()
    sections: dict[str, Any] = {}
    hints = typing.get_type_hints(FrescoSettings)
    known = [entry for entry in entries() if command in entry.option.commands]
    taken = {names[entry.place] for entry in known}
    for entry in known:
        flags = [f"--{names[entry.place]}"]
        if entry.option.alias and entry.option.alias not in taken:
            flags.append(f"--{entry.option.alias}")
        if entry.group not in sections:
            sections[entry.group] = parser.add_argument_group(
                entry.group, (hints[entry.group].__doc__ or "").splitlines()[0]
            )
        sections[entry.group].add_argument(*flags, **_arguments(entry))


def with_flags(text: str) -> str:
    """Replace the names of options in a message by their flags."""
    names = flag_names()
    renamed = rename_options(text, lambda entry: f"--{names[entry.place]}")
    return renamed.replace(f"guidance.{PRESET}", "--preset")


def _arguments(entry: Entry) -> dict[str, Any]:
    """Keywords of an option for argparse; values are checked later by `fresco.options`."""
    common: dict[str, Any] = {
        "dest": f"{entry.group}.{entry.name}",
        "default": argparse.SUPPRESS,
        "help": f"{entry.option.help} [{_facts(entry)}]".replace("%", "%%"),
    }
    if entry.type is bool:
        return common | {"action": argparse.BooleanOptionalAction}
    if entry.type in (tuple, dict):
        return common | {"action": "append", "metavar": "TEXT"}
    metavar = {int: "N", float: "X"}.get(entry.type, "TEXT")
    choices = entry.option.choices
    return common | {"metavar": "{" + ",".join(choices) + "}" if choices else metavar}


def _facts(entry: Entry) -> str:
    ranged = entry.option.low is not None or entry.option.high is not None
    facts = [f"default {_shown(entry)}"]
    facts += [range_text(entry.option)] if ranged else []
    facts += ["may be repeated"] if entry.type in (tuple, dict) else []
    return "; ".join(facts)


def _shown(entry: Entry) -> str:
    if entry.type is bool:
        return "on" if entry.default else "off"
    if entry.type is float:
        return f"{entry.default:g}"
    return str(entry.default) if entry.default or entry.type is int else "empty"


def given_flags(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The options given on the command line, converted and checked, as a nested dict."""
    result = dict[str, dict[str, Any]]()
    for entry in entries():
        value = vars(arguments).get(f"{entry.group}.{entry.name}")
        if value is not None:
            checked = check_value(entry, _converted(entry, value))
            result.setdefault(entry.group, {})[entry.name] = checked
    return result


def _converted(entry: Entry, value: Any) -> Any:
    if entry.type is tuple:
        anchor = anchor_unit if entry.name == "control_units" else _anchored
        return tuple(anchor(text) for text in value)
    if entry.type is dict:
        return {number: words for text in value for number, words in
                parse_key_prompts(text).items()}
    if entry.type in (int, float):
        try:
            return entry.type(value)
        except ValueError as error:
            kind = "a whole number" if entry.type is int else "a number"
            raise SettingsError(
                f"{entry.group}.{entry.name} is {value!r}; give {kind}, "
                f"{range_text(entry.option)}."
            ) from error
    return _anchored(value) if entry.option.file else value


def _anchored(text: str) -> str:
    """Make a path absolute if it exists, so that a run file works from any folder.

    Hub names stay, and so does the weight in FILE:WEIGHT.
    """
    if text and _is_there(text):
        return str(Path(text).expanduser().absolute())
    file, colon, weight = text.rpartition(":")
    if colon and file and _is_there(file):
        return f"{Path(file).expanduser().absolute()}:{weight}"
    return text


def _is_there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError):  # words that are no path: too long, or ~ of an unknown user
        return False


def combined(
    base: FrescoSettings, preset: str | None, flags: Mapping[str, Mapping[str, Any]]
) -> FrescoSettings:
    """Combine settings: a file's or the defaults, over these a preset, over these the flags."""
    changes = {group: dict(items) for group, items in flags.items()}
    if preset is not None:
        changes["guidance"] = {PRESET: preset} | changes.get("guidance", {})
    return from_dict(changes, base)


def options_table() -> str:
    """All options as Markdown, a table for each group: the body of docs/options.md."""
    hints = typing.get_type_hints(FrescoSettings)
    return "\n".join(
        line for field in dataclasses.fields(FrescoSettings)
        for line in _group_lines(field.name, (hints[field.name].__doc__ or "").splitlines()[0])
    )


def _group_lines(group: str, description: str) -> Iterator[str]:
    names = flag_names()
    yield from (f"## {group}", "", description, "")
    yield "| option | flag | also in | default | values | what it does |"
    yield "|---|---|---|---|---|---|"
    for entry in entries():
        if entry.group == group:
            flag = names[entry.place]
            shown = f"`--{flag}`, `--no-{flag}`" if entry.type is bool else f"`--{flag}`"
            yield (f"| `{entry.name}` | {shown} | {_front_ends(entry)} | {_shown(entry)} "
                   f"| {_values(entry)} | {entry.option.help} |")
    yield ""


def _front_ends(entry: Entry) -> str:
    places = ([] if entry.option.instead else ["tab", "API"])
    places += ["img2img"] if entry.option.img2img else []
    return ", ".join(places) or "-"


def _values(entry: Entry) -> str:
    if entry.option.choices:
        return ", ".join(entry.option.choices)
    if entry.type in (int, float):
        return range_text(entry.option)
    return {bool: "on, off", dict: "frame: words", tuple: "repeatable"}.get(entry.type, "text")
