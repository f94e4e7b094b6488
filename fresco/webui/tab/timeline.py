"""Data of the tab's timeline, and import and export of keyframes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco.errors import SettingsError
from fresco.planning.parsing import (
    check_key_prompts,
    parse_key_prompts,
    parse_keys,
    read_json_text,
)

_WRITTEN = re.compile(r"\s*(?:[\[{\"'\d#+-]|key)", re.IGNORECASE)
"""How keyframes or their words begin when they are written out."""
_DIGITS = 6
"""Digits of a change score, more than the curve can show."""
_MOST_POINTS = 20_000
"""Points of the curve; of longer clips the largest change of each stretch is drawn."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The data of a clip's timeline. Frames are numbered as in the source."""

    first: int
    """First frame used."""
    last: int
    """Last frame used, included."""
    rate: float
    """Frames a second; the mean where it varies."""
    changes: tuple[float, ...]
    """Change of every frame used against the one before."""
    shots: tuple[tuple[int, int], ...]
    """First and last frame of every shot."""
    keys: tuple[int, ...]
    """Keyframes as they were found, rising."""
    notes: tuple[str, ...] = ()
    """Notes for the user."""

    @property
    def ends(self) -> tuple[int, ...]:
        """Keyframes that cannot be removed: the ends of the shots."""
        return tuple(sorted({end for shot in self.shots for end in shot}))


def dump_timeline(timeline: Timeline) -> dict[str, Any]:
    """Convert a timeline for JSON."""
    changes, stride = sample_curve(timeline.changes)
    return {
        "first": timeline.first, "last": timeline.last, "rate": timeline.rate,
        "changes": changes, "stride": stride,
        "shots": [list(shot) for shot in timeline.shots],
        "keys": list(timeline.keys), "ends": list(timeline.ends), "notes": list(timeline.notes),
    }


def sample_curve(changes: Sequence[float]) -> tuple[list[float], int]:
    """Sample a curve, and keep its peaks; also return how many frames each point stands for."""
    stride = -(-len(changes) // _MOST_POINTS) or 1
    points = [max(changes[i:i + stride]) for i in range(0, len(changes), stride)]
    return [round(point, _DIGITS) for point in points], stride


def import_keys(text: str, first: int, last: int) -> tuple[tuple[int, ...], dict[str, str]]:
    """Read keyframes and their texts from a text; empty if it has none.

    The words are those of an object of `export_keys`, or of any schedule of prompts, whose frames
    then are the keyframes. No file of the server is ever read: the text comes from a client.
    """
    if not text.strip():
        return (), {}
    require_written(text, "Keyframes")
    if text.lstrip().startswith("{"):
        value = read_json_text(text, "the keyframes")
        if isinstance(value, Mapping) and "keyframes" in value:
            words = check_key_prompts(dict(value.get("prompts") or {}), "the keyframes")
            keys = parse_keys(
                json.dumps(value["keyframes"]), last + 1, first=first, read_files=False
            )
            return keys, words
    if re.search(r"\d[\"']?\s*:\s*\S", text):
        words = parse_key_prompts(text, read_files=False)
        return parse_keys(",".join(words), last + 1, first=first), words
    return parse_keys(text, last + 1, first=first, read_files=False), {}


def import_words(text: str) -> dict[str, str]:
    """Read texts for single keyframes; no file of the server is read."""
    if not text.strip():
        return {}
    require_written(text, "Words for keyframes")
    return parse_key_prompts(text, read_files=False)


def require_written(text: str, what: str) -> None:
    """Raise SettingsError if a text names a file instead of its content."""
    path = Path(text.strip().splitlines()[0]) if text.strip() else Path()
    if not _WRITTEN.match(text) or path.suffix.lower() in (".txt", ".json"):
        raise SettingsError(
            f"{what} are {text.strip()[:60]!r}; write them out, such as 0,11,23 or 38: closed "
            "eyes. Load a file with Import."
        )


def export_keys(keys: Sequence[int], words: Mapping[str, str]) -> str:
    """Write keyframes and their texts as JSON that `import_keys` and the command line read."""
    return json.dumps({"keyframes": list(keys), "prompts": dict(words)}, ensure_ascii=False)


def format_words(words: Mapping[str, str]) -> str:
    """Write texts for keyframes as they are written by hand, one frame a line."""
    ordered = sorted(words.items(), key=lambda pair: int(pair[0]))
    return "\n".join(f"{number}: {text}" for number, text in ordered if text)
