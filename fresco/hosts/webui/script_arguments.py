"""Arguments of the WebUI's other scripts in an img2img call of a job: their defaults, and the units
of ControlNet.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import gradio as gr
from modules import scripts

from fresco.errors import HostError, SettingsError
from fresco.hosts.options import ControlUnit

_CONTROLNET = "controlnet"
_PATIENCE = 600
"""Seconds that a job waits for the WebUI to have loaded its scripts."""


class _Page:
    """Whether the WebUI has built its page; where none was ever begun, nothing waits."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._ready.set()

    def rebuild(self, *_: Any) -> None:
        """The WebUI begins to load its scripts and to build its page."""
        self._ready.clear()

    def built(self, *_: Any) -> None:
        """Jobs may ask the scripts for their controls."""
        self._ready.set()

    def wait(self) -> None:
        """Wait until the page is built: before, scripts have no arguments, and controls that a job
        makes would become part of the page."""
        if not self._ready.wait(_PATIENCE):
            raise HostError(
                f"The WebUI has been loading its page for {_PATIENCE} seconds; resume the job "
                "when it is built."
            )


PAGE = _Page()
"""The page of this process."""


def script_arguments(control: Sequence[ControlUnit]) -> tuple[Any, list[Any]]:
    """img2img's script runner and the arguments of all its scripts, by position."""
    runner = scripts.scripts_img2img
    arguments = list(_defaults(tuple(runner.scripts)))
    if control:
        _place_units(runner, arguments, control)
    return runner, arguments


@functools.lru_cache(maxsize=1)
def _defaults(loaded: tuple[Any, ...]) -> tuple[Any, ...]:
    """Every script's default arguments; found out once for each load of the scripts."""
    last = max((script.args_to or 0 for script in loaded), default=0)
    arguments: list[Any] = [None] * max(1, last)
    arguments[0] = 0  # none of the scripts that replace the sampling
    with gr.Blocks():
        for script in (one for one in loaded if one.alwayson):
            controls = script.ui(script.is_img2img)
            if controls:
                arguments[script.args_from:script.args_to] = [item.value for item in controls]
    return tuple(arguments)


def _place_units(runner: Any, arguments: list[Any], control: Sequence[ControlUnit]) -> None:
    script = next(
        (s for s in runner.alwayson_scripts if str(s.title()).lower() == _CONTROLNET), None
    )
    room = script.args_to - script.args_from if script is not None else 0
    if script is None:
        raise SettingsError(
            "ControlNet is not installed in this WebUI; install sd-webui-controlnet, or leave its "
            "units out."
        )
    if len(control) > room:
        raise SettingsError(
            f"{len(control)} ControlNet units are asked for, but this WebUI has {room}. Its "
            "ControlNet settings say how many there are."
        )
    for position, unit in enumerate(control):
        arguments[script.args_from + position] = _unit(unit)


def _unit(unit: ControlUnit) -> dict[str, Any]:
    """As the API would send it, without an image, so that every frame gets its own hint."""
    return {
        "enabled": True, "module": unit.module, "model": unit.model, "weight": unit.weight,
        "guidance_start": unit.start, "guidance_end": unit.end, "pixel_perfect": True,
        "save_detected_map": False,
    }
