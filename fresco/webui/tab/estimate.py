"""The estimate of the tab, anew whenever the settings or the keyframes change."""

# pyright: reportMissingImports=false
from __future__ import annotations

import html
import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from fresco.errors import FrescoError
from fresco.settings import FrescoSettings
from fresco.video.size import working_size
from fresco.webui.gradio_events import on, unsaved
from fresco.webui.jobs.estimate import Rates, Workload, estimate_lines, rates_of, slowest
from fresco.webui.jobs.job import State
from fresco.webui.jobs.service import Service
from fresco.webui.tab.settings import SettingControls
from fresco.webui.tab.values import read_values

_JOBS = 5
"""Latest finished jobs that are looked at."""


def bind_estimate(service: Service, place: Any, controls: SettingControls) -> None:
    """The page presses a hidden button and says what is on its timeline."""
    plan = unsaved(gr.Textbox(visible=False, elem_id="fresco_plan"))
    button = gr.Button("Estimate", visible=False, elem_id="fresco_estimate_now")
    on(button.click, _estimator(service), [plan, *controls.all], [place],
       script="fresco.plan")


def _estimator(service: Service) -> Callable[..., str]:
    def estimate(plan: str, *values: Any) -> str:
        """The estimate as HTML; empty while there is no clip."""
        known = json.loads(plan) if plan else {}
        if not known.get("frames"):
            return ""
        try:
            settings, host = read_values(values, int(known["last"]))
        except FrescoError as error:
            lines: tuple[str, ...] = (str(error),)
        else:
            width, height = known["size"]
            size = working_size(width, height, settings.sampling.resolution)
            load = _workload(settings, len(host.control), size, known["keys"], known["frames"])
            lines = estimate_lines(load, slowest(_rates(service)))
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        return f'<ul class="fresco_notes">{items}</ul>'

    return estimate


def _workload(
    settings: FrescoSettings, controls: int, size: tuple[int, int], keys: int, frames: int
) -> Workload:
    guidance, sampling = settings.guidance, settings.sampling
    return Workload(
        keys, frames, *size, settings.keyframes.batch_size, sampling.steps, sampling.strength,
        controls, guidance.spatial_optimization or guidance.temporal_optimization,
    )


def _rates(service: Service) -> list[Rates]:
    """Of the latest finished jobs; their frames are taken as square, as only the scale counts."""
    done = [job.id for job in service.engine.jobs() if job.state is State.DONE][:_JOBS]
    found = []
    for job in done:
        request = service.engine.request(job)
        side = request.settings.sampling.resolution
        load = _workload(request.settings, len(request.host.control), (side, side), 0, 0)
        found.append(rates_of(service.engine.log(job), load))
    return found
