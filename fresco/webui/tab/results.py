"""The tab's results: keyframes, video, comparison, measures and log of the selected job."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from fresco.server.service import Service
from fresco.webui.tab.text import describe_error, render_note
from fresco.webui.widgets.events import keep_unsaved, on


def make_results_section() -> tuple[Any, Any]:
    """What the page fills, and the video and files that gradio serves."""
    gr.HTML('<div id="fresco_gallery"></div>')
    gr.HTML('<div id="fresco_compare"></div>')
    video = gr.Video(label="Result", elem_id="fresco_result", interactive=False, visible=False)
    files = gr.File(
        label="Files", file_count="multiple", interactive=False, elem_id="fresco_files",
        visible=False,
    )
    gr.HTML('<div id="fresco_measures"></div>')
    gr.HTML('<div id="fresco_log"></div>')
    return video, files


def bind_results(service: Service, chosen: Any, video: Any, files: Any) -> None:
    """The page presses a hidden button when the selected job has a new result."""
    show = gr.Button("Show", visible=False, elem_id="fresco_show")
    message = gr.HTML(elem_id="fresco_result_message")
    on(show.click, _shower(service), [chosen], [video, files, message],
       script="fresco.with_job")


def _shower(service: Service) -> Callable[[str], tuple[Any, Any, str]]:
    def show(job: str) -> tuple[Any, Any, str]:
        try:
            outcome = service.engine.outcome(job)
            there = [str(path) for path in (outcome.output, outcome.comparison, outcome.report)
                     if path and Path(path).is_file()]
            output = str(outcome.output) if outcome.output and outcome.output.is_file() else None
            return (gr.update(value=output, visible=output is not None),
                    gr.update(value=there or None, visible=bool(there)), "")
        except Exception as error:
            hidden = gr.update(value=None, visible=False)
            return hidden, hidden, render_note(describe_error(error), "bad")

    return show


def bind_answers(answer: Callable[[str, str], str], source: Any) -> None:
    """Answer the page's questions: it presses a hidden button, with the question as input."""
    question, answered = (
        keep_unsaved(gr.Textbox(visible=False, elem_id=f"fresco_{name}"))
        for name in ("question", "answer")
    )
    ask = gr.Button("Ask", visible=False, elem_id="fresco_ask")

    def reply(text: str, known: Any) -> str:
        return answer(text, known.path if known else "")

    replied = on(ask.click, reply, [question, source], [answered],
                 script="fresco.question")
    on(replied.then, None, [answered], script="fresco.answered")
