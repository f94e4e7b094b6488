"""Texts that nearly follow the grammars of this program: keyframes, ranges, prompts, JSON."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

NUMBERS = ("0", "1", "-1", "+5", "007", "999999999", "1000000000", "9" * 400, "1e5", "1.5", "٣",
           "²", "0x10", "nan", "-", "", "1_000")
SPACES = (" ", "\t", "\n", "\r\n", "\u00a0", "\u2028", "\v")
PREFIXES = ("", "", "key:", "keyframes=", "Keyframe :", "keys", "key" * 3, "KEYS  =")
SEPARATORS = (",", ";", "|", "_", " ", ", ", "\n", "-", ":", ",,")
BRACKETS = ("(", ")", "[", "]", "((", "]]", "\\(", "\\", "{", "}", "<", ">")
WORDS = ("a cat", "BREAK", "AND", "red:1.3", ":", ":1.3)", "#", "--neg", "<lora:x:0.5>",
         "<lora:", "<hypernet:h:1>", "|", "a|b", "from:to:0.5", "\u202e", "\0", "\ud800", "é" * 30,
         "1e999", ":-0", ":+.")
REPEATS = (1, 2, 3, 50, 6000)
LONGEST = 250_000
"""Letters; what is longer than an option may be is refused before it is read."""


class Grammar:
    """Draws texts; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def _join(self, parts: list[str]) -> str:
        """Parts one after the other, at times one of them again and again."""
        if parts and self.chance.random() < 0.3:
            place = self.chance.randrange(len(parts))
            parts[place] *= self.chance.choice(REPEATS)
        return "".join(parts)[:LONGEST]

    def keys(self) -> str:
        """Keyframes by hand."""
        pick = self.chance.choice
        parts = [pick(PREFIXES)]
        if self.chance.random() < 0.3:
            return self._join([pick(PREFIXES), self.json_text()])
        for _ in range(self.chance.randrange(1, 9)):
            parts += [pick(NUMBERS), pick(SEPARATORS)]
            parts += [pick(SPACES)] if self.chance.random() < 0.3 else []
        return self._join(parts)

    def ranges(self) -> str:
        """A header `Range`."""
        pick = self.chance.choice
        parts = [pick(("bytes=", "bytes =", "items=", "BYTES=", "bytes", ""))]
        for _ in range(self.chance.randrange(1, 4)):
            parts += [pick(NUMBERS[:14]), pick(("-", "-", "--", " - ", "")), pick(NUMBERS[:14]),
                      pick((",", ", ", ""))]
        text = self._join(parts)
        return text.encode("latin-1", "ignore").decode("latin-1").replace("\0", "")

    def prompt(self) -> str:
        """A prompt with what the WebUI's syntax knows."""
        pick = self.chance.choice
        return self._join([
            pick((*WORDS, *BRACKETS, *NUMBERS, *SPACES))
            for _ in range(self.chance.randrange(1, 14))
        ])

    def json_text(self) -> str:
        """JSON of some depth, at times cut off."""
        depth = self.chance.choice((1, 2, 15, 16, 17, 900, 20_000))
        opening, closing = self.chance.choice((("[", "]"), ('{"keys":', "}"), ('{"a":[', "]}")))
        inner = self.chance.choice((*NUMBERS, '"x"', "null", "[0,5]", '{"keyframes":[0,3]}'))
        text = opening * depth + inner + closing * depth
        return text[: self.chance.randrange(len(text) + 1)] if self.chance.random() < 0.3 else text

    def value(self, levels: int = 3) -> Any:
        """A value of JSON, as a body may hold anywhere."""
        pick = self.chance.choice
        leaves: tuple[Callable[[], Any], ...] = (
            self.keys, self.prompt, lambda: None, lambda: pick((True, False)),
            lambda: pick((0, -1, 10**9, 2**63, 10**400, 1.5, 1e308, -0.0)),
        )
        kind = self.chance.random()
        if levels and kind < 0.2:
            return [self.value(levels - 1) for _ in range(self.chance.randrange(4))]
        if levels and kind < 0.4:
            names = ("keys", "prompt", "seed", "0", "a", "\0", "")
            return {pick(names): self.value(levels - 1) for _ in range(self.chance.randrange(4))}
        return pick(leaves)()
