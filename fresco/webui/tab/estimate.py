"""Show the estimate of time and memory when settings or keyframes change."""

# pyright: reportMissingImports=false
from __future__ import annotations

import html
import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from fresco.errors import FrescoError
from fresco.server.jobs.estimate import count_workload, describe_estimate, measure_latest
from fresco.server.jobs.runner import check_sizes
from fresco.server.service import Service
from fresco.video.size import working_size
from fresco.webui.tab.settings import SettingControls
from fresco.webui.tab.text import describe_error, render_note, with_labels
from fresco.webui.tab.values import read_values
from fresco.webui.widgets.events import HIDDEN, keep_unsaved, on


def bind_estimate(service: Service, place: Any, controls: SettingControls) -> None:
    """Bind the estimate to a hidden button, which the page presses."""
    plan = keep_unsaved(gr.Textbox(visible=HIDDEN, elem_id="fresco_plan"))
    button = gr.Button("Estimate", visible=HIDDEN, elem_id="fresco_estimate_now")
    on(button.click, _estimator(service), [plan, *controls.all], [place],
       script="fresco.plan")


def _estimator(service: Service) -> Callable[..., str]:
    def estimate(plan: str, *values: Any) -> str:
        """Make the estimate as HTML; empty without a clip."""
        known = json.loads(plan) if plan else {}
        if not known.get("frames"):
            return ""
        try:
            settings, host = read_values(values, int(known["last"]))
            check_sizes(settings, service.environment.limits)
        except FrescoError as error:
            return render_note(describe_error(error), "bad")
        width, height = known["size"]
        size = working_size(width, height, settings.sampling.resolution)
        load = count_workload(settings, host, size, known["keys"], known["frames"])
        lines = describe_estimate(load, measure_latest(service.engine))
        items = "".join(f"<li>{html.escape(with_labels(line))}</li>" for line in lines)
        return f'<ul class="fresco_notes">{items}</ul>'

    return estimate
