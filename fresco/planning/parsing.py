"""Keyframes and their prompts as people and other tools write them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fresco.errors import SettingsError

_SEPARATORS = re.compile(r"[\s,;_|]+")
_PREFIX = re.compile(r"^\s*key(?:frame)?s?\s*[:=]", re.IGNORECASE)
_KEYS_ONLY = re.compile(r"^[\d\s,;_|+-]+$")
_ENTRY = re.compile(
    r"""(?:
        (?:^|\n)[ \t]*,?[ \t]*(?P<q1>["']?)(?P<line>-?\w+)(?P=q1)    # a line of its own
        | [|;]\s*(?P<q2>["']?)(?P<mark>-?\d+)(?P=q2)                  # after a bar or semicolon
        | ,\s*(?P<q3>["'])(?P<comma>-?\d+)(?P=q3)                     # after a comma, in quotes
    )[ \t]*:[ \t]*""",
    re.VERBOSE,
)
_LISTS = ("keyframes", "keys", "key_ind")
"""Names under which a JSON object may hold a list of keyframes."""
_FILES = (".txt", ".json")
"""Endings of a text that is taken for a file's name."""
_ANY_FRAME = 10**9
"""Above every frame number that is understood."""
_WEIGHT_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Endings of files of weights."""
_NEGATIVE_MARK = "--neg"
"""Deforum's mark of a negative prompt inside a prompt."""


def parse_keys(text: str, frames: int, *, first: int = 0) -> tuple[int, ...]:
    """Keyframes by hand, rising, each once.

    Understands `0,11,23`, `0 11 23`, `0_12_30`, `keyframe:0,5,10`, one a line, a JSON list, a
    JSON object with such a list, and the path of a text or JSON file of any of these.

    Args:
        text: what was written.
        frames: keyframes must be below it.
        first: keyframes must not be below it.
    """
    content, where = _read_content(text, _KEYS_ONLY)
    words = _split_keys(content, where)
    if not words:
        raise SettingsError(f"{where} names no keyframe; give frame numbers such as 0,11,23.")
    keys = {parse_frame_number(word, where) for word in words}
    for key in sorted(keys):
        if not first <= key < frames:
            raise SettingsError(
                f"Keyframe {key} in {where} is outside the frames used, {first} to {frames - 1}; "
                "leave it out or use more frames."
            )
    return tuple(sorted(keys))


def write_keys_inline(text: str) -> str:
    """Keyframes by hand in one form, `0,11,23`, whatever form or file they were given in."""
    if not text.strip():
        return ""
    return ",".join(map(str, parse_keys(text, _ANY_FRAME)))


def parse_frame_number(word: object, where: str = "sampling.key_prompts") -> int:
    """A frame number, or SettingsError naming the word and where it stands."""
    whole = re.fullmatch(r"\s*\d{1,9}\s*", str(word), re.ASCII)
    if isinstance(word, bool) or not whole:
        raise SettingsError(
            f"{word!r} in {where} is not a frame number; give whole numbers from 0, such as 38."
        )
    return int(str(word))


def _read_content(text: str, inline: re.Pattern[str]) -> tuple[str, str]:
    """What was written or what the file it names holds, and words for where that stands."""
    path = Path(text.strip()).expanduser()
    if not inline.match(text) and _is_file(path):
        try:
            return path.read_text(encoding="utf-8-sig"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} cannot be read as text: {error}.") from error
    if path.suffix.lower() in _FILES and "\n" not in text and '"' not in text:
        raise SettingsError(f"{path} does not exist; give the path of a text or JSON file.")
    return text, repr(text)


def find_named_file(keys: str) -> Path | None:
    """The file that a text of keyframes names instead of holding them; it need not be there."""
    path = Path(keys.strip()).expanduser()
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
    """JSON of a text; SettingsError names the line that is broken."""
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"{where} is broken JSON at line {error.lineno}, column {error.colno}: {error.msg}."
        ) from error


def parse_key_prompts(text: str) -> dict[str, str]:
    """Words for single keyframes, by frame number.

    Understands `38: closed eyes` (one a line, or with | or ; between), JSON `{"38": "..."}`,
    the schedules of Deforum and AnimateDiff, and the path of a text or JSON file of these.
    """
    content, where = _read_content(text, re.compile(r"^\s*(?:\{|[\"']?\d+[\"']?\s*:)"))
    if content.lstrip().startswith("{"):
        value = read_json_text(content, where)
        pairs: Iterable[tuple[object, object]] = value.items()
    else:
        pairs = _split_entries(content, where)
    return check_key_prompts(dict(pairs), where)


def check_key_prompts(pairs: Mapping[Any, object], where: str) -> dict[str, str]:
    """Words by frame number after each number and text was checked."""
    result: dict[str, str] = {}
    for frame, words in pairs.items():
        number = parse_frame_number(frame, where)
        if not isinstance(words, str):
            raise SettingsError(f"Frame {number} in {where} has {words!r}; give it words.")
        if _NEGATIVE_MARK in words:
            raise SettingsError(
                f"Frame {number} in {where} has {words!r}; {_NEGATIVE_MARK} is not understood. "
                "Negative words are for all frames: sampling.negative_prompt."
            )
        result[str(number)] = words.strip()
    return result


def _split_entries(content: str, where: str) -> list[tuple[object, object]]:
    """Entries of `38: closed eyes` form; words may hold commas, colons and brackets."""
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
    """Words without the quotes or brackets of a schedule around them."""
    words = words.strip().rstrip(",").strip()
    for pair in ('""', "''", "()"):
        inside = words[1:-1]
        whole = len(words) > 1 and words[0] == pair[0] and words[-1] == pair[1]
        if whole and not set(pair) & set(inside):
            return inside.strip()
    return words


def split_lora(text: str) -> tuple[Path, float]:
    """A LoRA of the settings, FILE or FILE:WEIGHT, as path and weight.

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
    """A finite number, or SettingsError saying where it stands."""
    try:
        weight = float(word)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise SettingsError(f"{where}; its weight {word!r} is not a number. Give one such as 0.8.")
    return weight
