"""Make the arguments of the WebUI's other scripts for an img2img call of a job."""

# pyright: reportMissingImports=false
from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import gradio as gr
from modules import scripts

from fresco.control import ControlUnit
from fresco.errors import HostError
from fresco.hosts.webui.controlnet import place_units

_PATIENCE = 600
"""Seconds that a job waits for the WebUI to have loaded its scripts."""


class _Page:
    """Whether the WebUI has built its page."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._ready.set()

    def rebuild(self, *_: Any) -> None:
        """Record that the WebUI begins to load its scripts and to build its page."""
        self._ready.clear()

    def built(self, *_: Any) -> None:
        """Record that the page is built; jobs may now ask scripts for their controls."""
        self._ready.set()

    def wait(self) -> None:
        """Wait until the page is built, because scripts have no arguments before."""
        if not self._ready.wait(_PATIENCE):
            raise HostError(
                f"The WebUI has been loading its page for {_PATIENCE} seconds; resume the job "
                "when it is built."
            )


PAGE = _Page()
"""The page of this process."""


def script_arguments(control: Sequence[ControlUnit]) -> tuple[Any, list[Any]]:
    """Get img2img's script runner and the arguments of all its scripts, by position."""
    runner = scripts.scripts_img2img
    arguments = list(_defaults(tuple(runner.scripts)))
    if control:
        place_units(runner, arguments, control)
    return runner, arguments


@functools.lru_cache(maxsize=1)
def _defaults(loaded: tuple[Any, ...]) -> tuple[Any, ...]:
    """Get every script's default arguments, once for each load of the scripts."""
    last = max((script.args_to or 0 for script in loaded), default=0)
    arguments: list[Any] = [None] * max(1, last)
    arguments[0] = 0  # none of the scripts that replace the sampling
    with gr.Blocks():
        for script in loaded:
            # A script that the page left out has no place; one whose controls failed there has none
            # of its own.
            if script.alwayson and script.args_from is not None:
                arguments[script.args_from:script.args_to] = _list_values(script)
    return tuple(arguments)


def _list_values(script: Any) -> list[Any]:
    """Default values of a script's controls, as many as it has arguments."""
    room = script.args_to - script.args_from
    if not room:
        return []
    try:
        values = [control.value for control in script.ui(script.is_img2img) or ()]
    except Exception as error:
        raise HostError(
            f"The script {script.title()} ({script.filename}) fails where its controls are made: "
            f"{error!r}; update it or remove it."
        ) from error
    if len(values) != room:
        raise HostError(
            f"The script {script.title()} ({script.filename}) makes {len(values)} controls, but "
            f"{room} on the page, so its arguments are unknown; update it or remove it."
        )
    return values
