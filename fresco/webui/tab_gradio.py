"""The one place that knows how gradio 3.41 and 4.40 differ, and how the tab talks to its page."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

_SCRIPT = "_js" if gr.__version__.startswith("3.") else "js"
"""Name of the argument that holds an event's JavaScript."""


def on(
    event: Any, function: Callable[..., Any] | None, inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (), *, script: str | None = None,
) -> Any:
    """Bind an event past the queue, so that it answers while the WebUI makes pictures.

    Args:
        event: such as `button.click`.
        script: a JavaScript function that gives the inputs, or acts where `function` is None.
    """
    return event(
        fn=function, inputs=list(inputs), outputs=list(outputs), queue=False, api_name=False,
        show_progress="hidden", **{_SCRIPT: script},
    )


def unsaved(component: Any) -> Any:
    """Keep a component's value out of the WebUI's saved defaults: it belongs to one job."""
    component.do_not_save_to_config = True
    return component


def file_path(value: Any) -> str:
    """Path of what a file control gives: gradio 3 an object, gradio 4 a text."""
    return str(getattr(value, "name", value) or "")
