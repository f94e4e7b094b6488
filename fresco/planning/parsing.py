"""Read keyframes and their prompts as people and other tools write them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco.errors import SettingsError

_SEPARATORS = re.compile(r"[\s,;_|]+")
_PREFIX = re.compile(r"^\s*key(?:frame)?s?\s*[:=]", re.IGNORECASE)
_KEYS_ONLY = re.compile(r"^[\d\s,;_|+-]+$")
_ENTRY = re.compile(
    r"""(?:
        (?:^|\n)[ \t]*(?:,[ \t]*)?(?P<q1>["']?)(?P<line>-?\w+)(?P=q1)    # a line of its own
        | [|;]\s*(?P<q2>["']?)(?P<mark>-?\d+)(?P=q2)                  # after a bar or semicolon
        | ,\s*(?P<q3>["'])(?P<comma>-?\d+)(?P=q3)                     # after a comma, in quotes
    )[ \t]*:[ \t]*""",
    re.VERBOSE,
)
_WORDS = re.compile(r"^\s*(?:\{|[\"']?\d+[\"']?\s*:)")
"""How words for single keyframes begin when they are written out."""
_LISTS = ("keyframes", "keys", "key_ind")
"""Names under which a JSON object may hold a list of keyframes."""
_FILES = (".txt", ".json")
"""Endings by which a text counts as the name of a file."""
_ANY_FRAME = 10**9
"""Larger than every valid frame number."""
_WEIGHTED = re.compile(r":\s*[+-]?[.\d]+\s*$")
"""The end of words in brackets that have a weight, as in (eyes:1.3)."""
_WEIGHT_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Endings of files of weights."""
_MOST_BYTES = 1 << 20
"""Largest size of a file of keyframes or their prompts."""
_DEPTH = 16
"""Most levels of JSON; keyframes and their prompts need two."""
_NEGATIVE_MARK = "--neg"
"""Deforum's mark of a negative prompt inside a prompt."""


@dataclass(frozen=True, slots=True)
class _Written:
    """A text, and how errors describe it.

    The content of a file is never quoted: a client that names a file to a server may not be allowed
    to read it.
    """

    content: str
    where: str
    """The text itself, or the path of the file that holds it."""
    is_file: bool = False

    def name_word(self, place: int, word: object) -> str:
        """Describe the word at a place, counted from 1."""
        return f"Entry {place}" if self.is_file else repr(word)

    def read_number(self, place: int, word: object) -> int:
        """Read a word as the number of a frame."""
        return _read_number(word, self.name_word(place, word), self.where)


def parse_keys(
    text: str, frames: int, *, first: int = 0, read_files: bool = True
) -> tuple[int, ...]:
    """Read keyframes written by hand; return them in ascending order, each once.

    Understands `0,11,23`, `0 11 23`, `0_12_30`, `keyframe:0,5,10`, one a line, a JSON list, a
    JSON object with such a list, and the path of a text or JSON file of any of these.

    Args:
        text: what was written.
        frames: keyframes must be below it.
        first: keyframes must not be below it.
        read_files: take a text that is the path of a file for that file.
    """
    written = _read_content(text, _KEYS_ONLY) if read_files else _Written(text, repr(text))
    words = _split_keys(written.content, written.where)
    if not words:
        raise SettingsError(
            f"{written.where} names no keyframe; give frame numbers such as 0,11,23."
        )
    keys: dict[int, int] = {}
    for place, word in enumerate(words, 1):
        keys.setdefault(written.read_number(place, word), place)
    for key in sorted(keys):
        if not first <= key < frames:
            name = f"Entry {keys[key]}" if written.is_file else f"Keyframe {key}"
            raise SettingsError(
                f"{name} in {written.where} is outside the frames used, {first} to {frames - 1}; "
                "leave it out or use more frames."
            )
    return tuple(sorted(keys))


def write_keys_inline(text: str) -> str:
    """Write keyframes as `0,11,23`, whatever form they were given in."""
    if not text.strip():
        return ""
    return ",".join(map(str, parse_keys(text, _ANY_FRAME)))


def parse_frame_number(word: object, where: str = "sampling.key_prompts") -> int:
    """Read the number of a frame; SettingsError names the word and its place."""
    return _read_number(word, repr(word), where)


def _read_number(word: object, name: str, where: str) -> int:
    whole = re.fullmatch(r"\s*\d{1,9}\s*", str(word), re.ASCII)
    if isinstance(word, bool) or not whole:
        raise SettingsError(
            f"{name} in {where} is not a frame number; give whole numbers from 0, such as 38."
        )
    return int(str(word))


def _read_content(text: str, inline: re.Pattern[str]) -> _Written:
    """The text itself, or the content of the file that it names."""
    path = _find_path(text)
    if not inline.match(text) and _is_file(path):
        return _Written(_read_file(path), str(path), is_file=True)
    if path.suffix.lower() in _FILES and "\n" not in text and '"' not in text:
        raise SettingsError(f"{path} does not exist; give the path of a text or JSON file.")
    return _Written(text, repr(text))


def _find_path(text: str) -> Path:
    path = Path(text.strip())
    try:
        return path.expanduser()
    except RuntimeError:  # ~ of an unknown user
        return path


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise SettingsError(
                f"{path} is larger than {_MOST_BYTES} bytes, so it is not a list of keyframes; "
                "give a text or JSON file."
            )
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} cannot be read as text; save it as UTF-8.") from error
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read as text ({error.strerror}); check its rights."
        ) from error


def find_named_file(keys: str) -> Path | None:
    """Find the file that a text names instead of keyframes; it need not exist."""
    path = _find_path(keys)
    if not keys.strip() or _KEYS_ONLY.match(keys):
        return None
    named = _is_file(path) or (path.suffix.lower() in _FILES and "\n" not in keys)
    return path if named else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a path can be, or with a null byte
        return False


def _split_keys(content: str, where: str) -> list[object]:
    content = "\n".join(line for line in content.splitlines() if not line.lstrip().startswith("#"))
    if content.lstrip()[:1] in ("[", "{"):
        value = read_json_text(content, where)
        if isinstance(value, dict):
            value = next((value[name] for name in _LISTS if name in value), None)
        if not isinstance(value, list):
            raise SettingsError(
                f"{where} holds no list of keyframes; give [0, 11, 23] or "
                '{"keyframes": [0, 11, 23]}.'
            )
        return list(value)
    return [word for word in _SEPARATORS.split(_PREFIX.sub("", content)) if word]


def read_json_text(content: str, where: str) -> Any:
    """Parse JSON; SettingsError names the line that is wrong."""
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"{where} is broken JSON at line {error.lineno}, column {error.colno}: {error.msg}."
        ) from error
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:  # a number of thousands of digits
        raise SettingsError(f"{where} holds a number that is too long; shorten it.") from error
    if not _is_shallow(value, _DEPTH):
        raise _too_deep(where)
    return value


def _too_deep(where: str) -> SettingsError:
    return SettingsError(f"{where} is nested deeper than {_DEPTH} levels; flatten it.")


def _is_shallow(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested at most this number of levels deep."""
    if not isinstance(value, list | dict):
        return True
    items = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in items)


def parse_key_prompts(text: str, *, read_files: bool = True) -> dict[str, str]:
    """Read prompt texts of single keyframes, by frame number.

    Understands `38: closed eyes` (one a line, or with | or ; between), JSON `{"38": "..."}`,
    the schedules of Deforum and AnimateDiff, and the path of a text or JSON file of these.

    Args:
        read_files: take a text that is the path of a file for that file.
    """
    written = _read_content(text, _WORDS) if read_files else _Written(text, repr(text))
    if written.content.lstrip().startswith("{"):
        value = read_json_text(written.content, written.where)
        pairs: Iterable[tuple[object, object]] = value.items()
    else:
        pairs = _split_entries(written.content, written.where)
    return _check_words(dict(pairs), written)


def check_key_prompts(pairs: Mapping[Any, object], where: str) -> dict[str, str]:
    """Check each number and text, and return the texts by frame number."""
    return _check_words(pairs, _Written("", where))


def _check_words(pairs: Mapping[Any, object], written: _Written) -> dict[str, str]:
    result: dict[str, str] = {}
    for place, (frame, words) in enumerate(pairs.items(), 1):
        number = written.read_number(place, frame)
        name = f"Entry {place} in {written.where}"
        if not written.is_file:
            name = f"Frame {number} in {written.where} has {words!r}"
        if not isinstance(words, str):
            raise SettingsError(f"{name}{' is not a text' if written.is_file else ''}; give it "
                                "words.")
        if _NEGATIVE_MARK in words:
            raise SettingsError(
                f"{name}{' holds ' + _NEGATIVE_MARK if written.is_file else ''}; {_NEGATIVE_MARK} "
                "is not understood. Negative words are for all frames: sampling.negative_prompt."
            )
        result[str(number)] = words.strip()
    return result


def _split_entries(content: str, where: str) -> list[tuple[object, object]]:
    """Split entries of the form `38: closed eyes`; texts may have commas, colons and brackets."""
    lines = (line for line in content.splitlines() if not line.lstrip().startswith("#"))
    content = "\n".join(lines)
    starts = list(_ENTRY.finditer(content))
    if not starts or content[:starts[0].start()].strip():
        raise SettingsError(
            f"{where} names no frame; give a frame number, a colon and words, such as "
            "38: closed eyes."
        )
    ends = [match.start() for match in starts[1:]] + [len(content)]
    return [
        (match["line"] or match["mark"] or match["comma"], _unquote(content[match.end():end]))
        for match, end in zip(starts, ends, strict=True)
    ]


def _unquote(words: str) -> str:
    """Remove the quotes or brackets of a schedule around a text."""
    words = words.strip().rstrip(",").strip()
    for pair in ('""', "''", "()"):
        inside = words[1:-1]
        whole = len(words) > 1 and words[0] == pair[0] and words[-1] == pair[1]
        whole = whole and not (pair == "()" and _WEIGHTED.search(inside))
        if whole and not set(pair) & set(inside):
            return inside.strip()
    return words


def split_lora(text: str) -> tuple[Path, float]:
    """Split a LoRA of the settings, FILE or FILE:WEIGHT, into path and weight.

    Raises:
        SettingsError: what stands behind the last colon is not a finite number.
    """
    path = Path(text).expanduser()
    name, colon, weight = text.rpartition(":")
    of_path = "/" in weight or "\\" in weight or weight.lower().endswith(_WEIGHT_FILES)
    if not colon or not name or of_path or _is_file(path):
        return path, 1.0
    return Path(name).expanduser(), parse_weight(weight, f"sampling.lora is {text!r}")


def parse_weight(word: str, where: str) -> float:
    """Read a finite number; SettingsError names its place."""
    try:
        weight = float(word)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise SettingsError(f"{where}; its weight {word!r} is not a number. Give one such as 0.8.")
    return weight
