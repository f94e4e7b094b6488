"""The WebUI's syntax of prompts, for hosts that read prompts themselves.

    (word)  ((word))  (word:1.3)  [word]     more or less weight; \\( \\) \\[ \\] are plain brackets
    BREAK                                    what follows begins a new chunk of the text encoder
    <lora:NAME>  <lora:NAME:0.8>             a LoRA file, with its weight; taken out of the text
    # words                                  a comment, to the end of the line
    [from:to:when]  [a|b]  <hypernet:NAME>   known, and refused
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from fresco.errors import SettingsError
from fresco.planning.prompts import list_prompts
from fresco.settings import SamplingSettings

ROUND, SQUARE = 1.1, 1 / 1.1
"""Weights of round and of square brackets."""

_NETWORK = re.compile(r"<(\w+):([^<>]+)>")
_COMMENT = re.compile(r"#[^\n]*")
_LORAS = ("lora", "lyco")
"""Kinds of extra networks that name a LoRA file."""
_TOKEN = re.compile(
    r"\\(?P<escaped>[()\[\]\\])|(?P<lone>\\)|(?P<bracket>[(\[\])])|:\s*(?P<weight>[+-]?[.\d]+)\s*\)"
    r"|(?P<text>[^\\()\[\]:]+|:)"
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


@dataclass(frozen=True, slots=True)
class Fragment:
    """Consecutive words of one weight."""

    text: str
    """The words, without brackets."""
    weight: float = 1.0
    """Their weight."""


@dataclass(frozen=True, slots=True)
class LoraTag:
    """A LoRA that a prompt names."""

    name: str
    """The file's name without its ending, or the name in its metadata."""
    text: float = 1.0
    """Weight in the text encoder."""
    unet: float = 1.0
    """Weight in the UNet."""


def read_fragments(prompt: str) -> tuple[tuple[Fragment, ...], ...]:
    """Split a prompt into words with weights; each BREAK starts a new group.

    Brackets that are not closed count to the end, and ones that were not opened are words.
    """
    pieces: list[Fragment | None] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for match in _TOKEN.finditer(_NETWORK.sub("", _drop_comments(prompt))):
        bracket = match["bracket"]
        if bracket in opened:
            opened[bracket].append(len(pieces))
        elif match["weight"] is not None and opened["("]:
            _multiply(pieces, opened["("].pop(), _read_number(match["weight"]))
        elif bracket == ")" and opened["("]:
            _multiply(pieces, opened["("].pop(), ROUND)
        elif bracket == "]" and opened["["]:
            _multiply(pieces, opened["["].pop(), SQUARE)
        elif match["escaped"]:
            pieces.append(Fragment(match["escaped"]))
        elif not match["lone"]:
            _add_text(pieces, match[0])
    for start in opened["("]:
        _multiply(pieces, start, ROUND)
    for start in opened["["]:
        _multiply(pieces, start, SQUARE)
    return _group(pieces)


def _drop_comments(prompt: str) -> str:
    return _COMMENT.sub("", prompt)


def _read_number(word: str) -> float:
    if not _NUMBER.fullmatch(word):
        raise SettingsError(
            f"A prompt has the weight {word!r}, which is not a number; write one such as 1.2."
        )
    return float(word)


def _add_text(pieces: list[Fragment | None], text: str) -> None:
    """Append words; None means a BREAK."""
    for number, words in enumerate(_BREAK.split(text)):
        pieces += [None] if number else []
        pieces += [Fragment(words)] if words else []


def _multiply(pieces: list[Fragment | None], start: int, weight: float) -> None:
    pieces[start:] = [piece and Fragment(piece.text, piece.weight * weight)
                      for piece in pieces[start:]]


def _group(pieces: Iterable[Fragment | None]) -> tuple[tuple[Fragment, ...], ...]:
    """Group by BREAKs, and join neighbours of one weight."""
    groups: list[list[Fragment]] = [[]]
    for piece in pieces:
        if piece is None:
            groups.append([])
        elif groups[-1] and groups[-1][-1].weight == piece.weight:
            groups[-1][-1] = Fragment(groups[-1][-1].text + piece.text, piece.weight)
        else:
            groups[-1].append(piece)
    return tuple(map(tuple, groups))


def list_loras(settings: SamplingSettings) -> tuple[LoraTag, ...]:
    """List the LoRAs that the prompts of all frames name, after `check_syntax`."""
    return tuple(_read_lora(tag[2]) for tag in _list_tags(settings))


def _list_tags(settings: SamplingSettings) -> list[re.Match[str]]:
    """List the LoRA tags in the prompts of all frames."""
    return [match for text in (settings.prompt, settings.added_prompt)
            for match in _NETWORK.finditer(_drop_comments(text)) if match[1] in _LORAS]


def check_syntax(settings: SamplingSettings) -> None:
    """Refuse syntax of the WebUI that is not supported here.

    Raises:
        SettingsError: all of it in one message, each with what to write instead.
    """
    faults = [f"{name} holds {fault}" for name, text in list_prompts(settings).items()
              for fault in _find_faults(name, text)]
    if not settings.lora_dir and (named := _list_tags(settings)):
        faults.append(
            f"{named[0][0]} names a LoRA, but sampling.lora_dir is empty; name the folder that "
            "holds it, or give its file as sampling.lora and take it out of the prompt."
        )
    if faults:
        raise SettingsError(" ".join(faults))


def _find_faults(name: str, text: str) -> list[str]:
    """List what is not supported in a prompt, as ends of a sentence."""
    text = _drop_comments(text)
    faults = [fault for match in _NETWORK.finditer(text)
              if (fault := _find_network_fault(name, match))]
    text = _NETWORK.sub("", text)
    faults += _find_changes(text)
    for match in _TOKEN.finditer(text):
        if match["weight"] and not _NUMBER.fullmatch(match["weight"]):
            faults.append(
                f"the weight {match['weight']!r}, which is not a number; write one such as 1.2."
            )
    return faults


def _find_network_fault(name: str, match: re.Match[str]) -> str:
    kind, whole = match[1], match[0]
    if kind not in _LORAS:
        return f"{whole}, which only the WebUI can use; leave it out."
    if name == "sampling.negative_prompt":
        return f"{whole}, which acts on a whole model; write it into sampling.prompt."
    if name not in ("sampling.prompt", "sampling.added_prompt"):
        return f"{whole}, which acts on all frames; write it into sampling.prompt."
    try:
        _read_lora(match[2])
    except ValueError as error:
        return f"{whole}, {error}."
    return ""


def _read_lora(words: str) -> LoraTag:
    """Read NAME, NAME:WEIGHT, NAME:TEXT:UNET, or with te= and unet=."""
    name, *rest = words.split(":")
    named = dict(word.split("=", 1) for word in rest if "=" in word)
    given = [word for word in rest if "=" not in word]
    unknown = [key for key in named if key.strip() not in ("te", "unet")]
    if unknown or len(given) > 2 or not name.strip():
        raise ValueError("of which only a name and weights are understood, as in <lora:NAME:0.8>")
    text = _read_weight(named.get("te", given[0] if given else "1"))
    unet = named.get("unet", given[1] if len(given) > 1 else "")
    return LoraTag(name.strip(), text, _read_weight(unet) if unet else text)


def _read_weight(word: str) -> float:
    weight = float(word) if _NUMBER.fullmatch(word) else math.nan
    if not math.isfinite(weight):
        raise ValueError(f"whose weight {word!r} is not a number")
    return weight


@dataclass(slots=True)
class _Open:
    """A bracket that is not closed yet."""

    bracket: str
    start: int
    bars: bool = False
    colon: int = -1
    """Place of its last colon that is not inside another bracket."""


def _find_changes(text: str) -> list[str]:
    """Find schedules and alternations, which change the words between steps."""
    faults: list[str] = []
    stack: list[_Open] = []
    for match in re.finditer(r"\\.|[()\[\]:|]", text, re.DOTALL):
        sign, place = match[0], match.start()
        if sign in "([":
            stack.append(_Open(sign, place))
        elif stack and sign == "|":
            stack[-1].bars = True
        elif stack and sign == ":":
            stack[-1].colon = place
        elif sign in ")]" and stack and stack[-1].bracket == "(["[")]".index(sign)]:
            fault = _find_change(stack.pop(), text, place)
            faults += [fault] if fault else []
    return faults


def _find_change(opened: _Open, text: str, end: int) -> str:
    whole = text[opened.start:end + 1]
    if opened.bracket != "[":
        return ""
    if opened.bars:
        return f"{whole}, which alternates between steps, and only the WebUI does that; write one."
    if opened.colon >= 0 and _NUMBER.fullmatch(text[opened.colon + 1:end]):
        return (f"{whole}, which changes the words between steps, and only the WebUI does that; "
                "write one of them, or (word:0.7) for less weight.")
    return ""

