"""`modules.script_callbacks`: what extensions asked to be told of; their errors are swallowed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tests.helpers.webui import errors

_listeners: dict[str, list[Callable[..., Any]]] = defaultdict(list)


@dataclass
class CFGDenoiserParams:
    """Before the model is called; a replaced field is what it is called with."""

    x: Tensor
    image_cond: Tensor
    sigma: Tensor
    sampling_step: int
    total_sampling_steps: int
    text_cond: Tensor
    text_uncond: Tensor
    denoiser: Any


@dataclass
class AfterCFGCallbackParams:
    """What goes back to the sampler."""

    x: Tensor
    sampling_step: int
    total_sampling_steps: int


def _listening(event: str) -> Callable[..., None]:
    def listen(callback: Callable[..., Any], *, name: str | None = None) -> None:
        _listeners[event].append(callback)

    return listen


on_cfg_denoiser = _listening("cfg_denoiser")
on_cfg_after_cfg = _listening("cfg_after_cfg")
on_ui_settings = _listening("ui_settings")
on_before_ui = _listening("before_ui")
on_ui_tabs = _listening("ui_tabs")
on_app_started = _listening("app_started")
on_before_image_saved = _listening("before_image_saved")
on_infotext_pasted = _listening("infotext_pasted")
on_script_unloaded = _listening("script_unloaded")


def tell(event: str, *args: Any) -> list[Any]:
    """What every listener answers."""
    answers = []
    for callback in list(_listeners[event]):
        with errors.swallowed(f"callback {event}"):
            answers.append(callback(*args))
    return answers


def clear() -> None:
    """Nobody listens; so it is at every load of the scripts."""
    _listeners.clear()
