"""Make the places of the tab's results, which the page fills, and the event for its questions."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from fresco.webui.widgets.events import HIDDEN, keep_unsaved, on

_PARTS = ("gallery", "compare", "result", "files", "measures", "log")
"""Keyframes, before and after, video, files, measures and log of the selected job. The page has
the video and the files from the routes of the API, which ask who it is."""


def make_results_section(page_key: str) -> None:
    """Make places that the page fills.

    Args:
        page_key: by which the API knows the page, see `Service`.
    """
    gr.HTML(f'<div id="fresco_page_key" data-key="{page_key}" hidden></div>')
    for part in _PARTS:
        gr.HTML(f'<div id="fresco_{part}"></div>')


def bind_answers(answer: Callable[[str, str], str], source: Any) -> None:
    """Bind the answers to a hidden button, which the page presses with a question as input."""
    question, answered = (
        keep_unsaved(gr.Textbox(visible=HIDDEN, elem_id=f"fresco_{name}"))
        for name in ("question", "answer")
    )
    ask = gr.Button("Ask", visible=HIDDEN, elem_id="fresco_ask")

    def reply(text: str, known: Any) -> str:
        return answer(text, known.path if known else "")

    replied = on(ask.click, reply, [question, source], [answered],
                 script="fresco.question")
    on(replied.then, None, [answered], script="fresco.answered")
