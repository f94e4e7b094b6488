"""Hide the differences between gradio 3.41 and 6, and call functions of the page."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

_MAJOR = int(gr.__version__.partition(".")[0])
_THREE = _MAJOR == 3
HIDDEN: Any = "hidden" if _MAJOR >= 5 else False
"""Value of `visible` for hidden components; gradio 5 would leave out invisible ones."""
_SCRIPT = "_js" if _THREE else "js"
"""Name of the argument that holds an event's JavaScript."""
_REPEATED: dict[str, Any] = {} if _THREE else {"trigger_mode": "multiple"}
"""Gradio 4 drops a press while it still ends the one before."""


def on(
    event: Any, function: Callable[..., Any] | None, inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (), *, script: str | None = None,
) -> Any:
    """Bind an event without gradio's queue, so that it answers while the WebUI makes images.

    Args:
        event: such as `button.click`.
        script: name of a function of the page. It takes the list of inputs and answers the list
            that is sent, or takes them one by one and acts where `function` is None.
    """
    code = None
    if script:
        # Gradio gives the outputs too, and would send them back.
        values = f"values.slice(0, {len(inputs)})"
        code = (f"(...values) => {script}({values})" if function
                else f"(...values) => {{ {script}(...{values}); return []; }}")
    return event(
        fn=function, inputs=list(inputs), outputs=list(outputs), queue=False, api_name=False,
        show_progress="hidden", **{_SCRIPT: code, **_REPEATED},
    )


def keep_unsaved(component: Any) -> Any:
    """Leave a component out of the WebUI's saved defaults, because its value belongs to one job."""
    component.do_not_save_to_config = True
    return component


def get_path(value: Any) -> str:
    """Path of a file control's value: gradio 3 gives an object, gradio 4 a text."""
    return str(getattr(value, "name", value) or "")
