"""Build the page of the tab: video, keyframes, look, run and results."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

import gradio as gr

from fresco.server.checks import check_installation
from fresco.server.ports import Environment
from fresco.server.service import Service
from fresco.webui.tab.answers import Answers
from fresco.webui.tab.detections import Detections
from fresco.webui.tab.estimate import bind_estimate
from fresco.webui.tab.mask_file import make_mask_file
from fresco.webui.tab.prompt import update_tools
from fresco.webui.tab.restore import make_restore_section
from fresco.webui.tab.results import bind_answers, make_results_section
from fresco.webui.tab.run import bind_run, make_run_section
from fresco.webui.tab.settings import (
    SettingControls,
    make_controlnet_controls,
    make_guidance_controls,
    make_look_controls,
    make_option_sections,
    update_offer,
)
from fresco.webui.tab.source import bind_source, make_keyframe_section, make_source_section
from fresco.webui.tab.text import describe_error, render_checks, render_note
from fresco.webui.widgets.events import on


def build_tab(service: Service) -> gr.Blocks:
    """Make the tab's components and events; the rest is in style.css and javascript/."""
    controls, detections = SettingControls(), Detections()
    offer = service.environment.offer()
    with gr.Blocks(analytics_enabled=False) as blocks, gr.Column(elem_id="fresco_root"):
        _step(1, "Video")
        parts = make_source_section()
        _step(2, "Keyframes")
        detect = make_keyframe_section(controls)
        with gr.Row(elem_id="fresco_work"):
            with gr.Column(scale=6, min_width=320, elem_id="fresco_settings"):
                _step(3, "Look")
                make_look_controls(controls, service.environment)
                with gr.Accordion("FRESCO guidance", open=False, elem_id="fresco_section_parts"):
                    controls.make("keyframes", "batch_size")
                    make_guidance_controls(controls)
                with gr.Accordion("ControlNet", open=False, elem_id="fresco_section_control"):
                    make_controlnet_controls(controls, service.environment)
                make_option_sections(
                    controls, offer, lambda: make_mask_file(service, controls)
                )
                make_restore_section(service, controls)
                _host_buttons(service.environment, controls)
            with gr.Column(scale=5, min_width=320, elem_id="fresco_run"):
                _step(4, "Run")
                estimate = gr.HTML(elem_id="fresco_estimate")
                run = make_run_section()
                gr.HTML('<div id="fresco_wait"></div>')
                gr.HTML('<div id="fresco_jobs"></div>')
                gr.HTML('<div id="fresco_uploads"></div>')
                _step(5, "Result")
                make_results_section(service.page_key)
        bind_source(service, detections, parts, controls, run, detect)
        bind_run(service, run, parts.source, controls)
        bind_estimate(service, estimate, controls)
        bind_answers(Answers(service, detections).answer, parts.source)
    return blocks


def _step(number: int, title: str) -> None:
    gr.HTML(f'<h3 class="fresco_step"><span>{number}</span>{title}</h3>')


def _host_buttons(environment: Environment, controls: SettingControls) -> None:
    """Make the buttons that read the host's lists again and check the installation."""
    with gr.Row(elem_id="fresco_host_buttons"):
        refresh = gr.Button("Refresh lists", elem_id="fresco_refresh", min_width=120)
        check = gr.Button("Check installation", elem_id="fresco_check", min_width=140)
    table = gr.HTML(elem_id="fresco_checked")

    def refreshed() -> list[Any]:
        offer = environment.offer()
        return [*update_offer(offer), *update_tools(offer)]

    on(refresh.click, refreshed, (), [*controls.host.values(), *controls.tools])

    def checked() -> Any:
        try:
            return render_checks(check_installation(environment))
        except Exception as error:
            return render_note(describe_error(error), "bad")

    on(check.click, checked, (), [table])
