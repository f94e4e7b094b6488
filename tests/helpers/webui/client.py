"""What a test of img2img asks of a WebUI, be it the double or a real one over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """An answer other than 200."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status, self.detail = status, detail


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with pictures."""

    images: tuple[Image.Image, ...]
    """In the order of the WebUI."""
    infotexts: tuple[str, ...]
    """Of every picture."""
    facts: dict[str, Any]
    """`extra_generation_params` of the API's info."""

    @property
    def infotext(self) -> str:
        """Of the first picture."""
        return self.infotexts[0]


class Host(Protocol):
    """A WebUI with FRESCO."""

    def img2img(
        self, frames: Sequence[Image.Image], options: dict[str, Any] | Sequence[Any] | None = None,
        **payload: Any,
    ) -> Answer:
        """One request of `/sdapi/v1/img2img`.

        Args:
            options: one object, or values of the script's controls in order; None: not mentioned
            payload: other fields of the request, over those of `REQUEST`
        """
        ...


REQUEST: dict[str, Any] = {
    "prompt": "a red car", "negative_prompt": "blurry", "steps": 4, "denoising_strength": 0.75,
    "sampler_name": "Euler", "cfg_scale": 4.0, "seed": 7, "width": 64, "height": 64,
}
"""A short request."""


def script_arguments(options: dict[str, Any] | Sequence[Any] | None) -> dict[str, Any]:
    """`alwayson_scripts` of a request."""
    if options is None:
        return {}
    return {"FRESCO": {"args": [options] if isinstance(options, dict) else list(options)}}
