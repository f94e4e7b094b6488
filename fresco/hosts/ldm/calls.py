"""Follow a denoiser call: which rows the UNet's evaluations have, and whether all of it ran."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fresco.errors import HostError
from fresco.guidance.ports import Chunk, Rows, Site

CONDITIONAL_FIRST: tuple[Chunk, ...] = ("positive", "negative")
"""Order of the WebUI's conditionings, in one evaluation or in one after the other."""

_SPLITTERS = (
    "Remove AND from the prompt, and switch off extensions that split the batch or the image, "
    "or that call the model once more a step"
)


class ModelCall:
    """Follows the evaluations of one denoiser call: N rows, 2N rows, or N and then N."""

    def __init__(
        self, frames: int, *, order: Sequence[Chunk], stages: Sequence[int], sites: Sequence[Site]
    ) -> None:
        self._frames = frames
        self._order: tuple[Chunk, ...] = tuple(order)
        self._stages, self._sites = frozenset(stages), frozenset(sites)
        self._rows: Rows | None = None
        self._done: tuple[Chunk, ...] = ()
        self._tokens: dict[int, int] = {}
        self._asked: set[Site] = set()

    @property
    def rows(self) -> Rows | None:
        """Layout of the present evaluation."""
        return self._rows

    def begin(self, count: int, told: Sequence[Chunk] | None = None) -> None:
        """Record that an evaluation with so many rows begins.

        Args:
            told: conditionings of its rows, where the host says them; None: by the call's order.
        """
        self.end()
        chunks, rest = divmod(count, self._frames)
        left: list[Chunk] = [chunk for chunk in self._order if chunk not in self._done]
        named: tuple[Chunk, ...] = tuple(left[:chunks] if told is None else told)
        once = len(set(named)) == len(named) and set(named) <= set(left)
        if rest or not chunks or len(named) != chunks or not once:
            raise HostError(
                f"the UNet was called with {count} rows after {len(self._done) * self._frames} in "
                f"the same step; FRESCO needs the {self._frames} frames of one conditioning, or of "
                f"both, in every call. {_SPLITTERS}."
            )
        self._rows = Rows(self._frames, named)
        self._done += named

    def enter(self, stage: int, h: Tensor) -> Rows:
        """Record that a decoder stage begins, with [rows, C, H, W]."""
        rows = self.follow(stage, h)
        if stage in self._tokens:
            raise HostError(
                f"decoder stage {stage} ran twice in one call of the UNet; FRESCO cannot tell "
                "the passes apart. Switch off ControlNet's reference and style units."
            )
        self._tokens[stage] = h.shape[-2] * h.shape[-1]
        return rows

    def follow(self, stage: int, h: Tensor) -> Rows:
        """Record that a block of a decoder stage begins, with [rows, C, H, W]."""
        rows = self._current()
        if len(h) != rows.count:
            raise HostError(
                f"decoder stage {stage} was given {len(h)} rows in a call of {rows.count}. "
                f"{_SPLITTERS}."
            )
        return rows

    def attend(self, site: Site, x: Tensor) -> Rows:
        """Record that a self-attention layer begins, with [rows, tokens, C]."""
        rows = self._current()
        expected = (rows.count, self._tokens.get(site.stage))
        if x.shape[:2] != expected:
            raise HostError(
                f"self-attention layer {site.index} was given {x.shape[0]} rows of {x.shape[1]} "
                f"tokens instead of {expected[0]} of {expected[1]}; switch off token merging, "
                "hypertile, and extensions that cut the image into tiles."
            )
        self._asked.add(site)
        return rows

    def end(self) -> None:
        """Raise HostError unless the call was complete, so that no guidance was left out."""
        if self._rows is None:
            return
        if missing := self._stages - self._tokens.keys():
            raise HostError(
                f"decoder stages {_list_numbers(missing)} did not run, so another program stands "
                "in for the UNet. Set SD Unet to None, and switch off extensions that skip blocks."
            )
        if missing := {site.index for site in self._sites - self._asked}:
            raise HostError(
                f"self-attention layers {_list_numbers(missing)} were replaced by another "
                "extension, so FRESCO could not guide them; switch that extension off."
            )
        self._rows = None
        self._tokens, self._asked = {}, set()

    def _current(self) -> Rows:
        if self._rows is None:
            raise HostError("a block of the UNet ran outside of any call of the UNet; call that.")
        return self._rows


def _list_numbers(numbers: set[int] | frozenset[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))
