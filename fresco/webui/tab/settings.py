"""Make the tab's controls of the settings, in sections."""

# pyright: reportMissingImports=false
from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from fresco.server.ports import Environment, Offer
from fresco.webui.tab.prompt import bind_img2img, make_prompt_tools
from fresco.webui.tab.text import HOST_LABELS
from fresco.webui.tab.values import (
    AS_SAMPLER,
    LANCZOS,
    list_entries,
)
from fresco.webui.widgets.events import HIDDEN, keep_unsaved, on
from fresco.webui.widgets.preset import PARTS, bind_preset, make_preset_control
from fresco.webui.widgets.setting import make_setting_control


@dataclass(slots=True)
class SettingControls:
    """The controls made so far, of all sections."""

    made: dict[tuple[str, str], Any] = field(default_factory=dict)
    """(group, name) -> control."""
    host: dict[str, Any] = field(default_factory=dict)
    """Controls of the host's own options, by name."""
    drawings: Any = None
    """Masks drawn in the page."""
    tools: list[Any] = field(default_factory=list)
    """Lists of styles and of LoRA files, which are not values of settings."""

    def make(self, group: str, *names: str, **further: Any) -> list[Any]:
        """Make the controls of some options at this place."""
        known = {entry.place: entry for entry in list_entries()}
        controls = []
        for name in names:
            entry = known[group, name]
            control = make_setting_control(entry, entry.label, f"fresco_{group}_{name}", **further)
            if entry.option.one_clip:
                keep_unsaved(control)
            self.made[group, name] = control
            controls.append(control)
        return controls

    def rest(self, group: str, *but: str) -> None:
        """Make the controls of a group that are not made yet."""
        self.make(group, *(e.name for e in list_entries() if e.group == group
                           and e.place not in self.made and e.name not in but))

    @property
    def all(self) -> list[Any]:
        """Every control, options first: the inputs of `read_values`."""
        return [*(self.made[e.place] for e in list_entries()), *self.host.values()]

    def named(self, *places: tuple[str, str]) -> list[Any]:
        """The controls of some options."""
        return [self.made[place] for place in places]


def make_look_controls(controls: SettingControls, environment: Environment) -> None:
    """Make the controls of prompts, model and sampling."""
    offer = environment.offer()
    prompts = controls.make("sampling", "prompt", "negative_prompt", lines=2)
    told, controls.tools = make_prompt_tools(environment, *prompts)
    with gr.Row():
        controls.host["model"] = gr.Dropdown(
            label=HOST_LABELS["host.model"], choices=list(offer.models), value=_first(offer.models),
            elem_id="fresco_host_model", info="Stable Diffusion 1.x, 2.x or SDXL.",
        )
        controls.host["sampler"] = gr.Dropdown(
            label=HOST_LABELS["host.sampler"], choices=list(offer.samplers),
            value=_first(offer.samplers), elem_id="fresco_host_sampler",
            info="The samplers that can be guided.",
        )
        controls.host["scheduler"] = gr.Dropdown(
            label=HOST_LABELS["host.scheduler"], choices=_schedules(offer), value=AS_SAMPLER,
            elem_id="fresco_host_scheduler", visible=bool(offer.schedulers),
            info="Automatic: the sampler's own.",
        )
    for name in ("model", "sampler", "scheduler"):
        keep_unsaved(controls.host[name])
    with gr.Row():
        controls.make("sampling", "steps", "strength")
    with gr.Row():
        controls.make("sampling", "guidance_scale", "resolution")
    with gr.Row():
        controls.make("sampling", "seed", "added_prompt")
    with gr.Accordion(
        "Prompt, strength and seed of a shot or range", open=False, elem_id="fresco_section_ranges"
    ):
        gr.HTML('<div id="fresco_ranges"></div>')
        controls.make("sampling", "ranges", lines=2, placeholder=(
            "48-95 strength=0.6 seed=7 prompt=a castle in snow"
        ))
    bind_img2img(environment, controls, told)


def make_controlnet_controls(controls: SettingControls, environment: Environment) -> None:
    """Make the place for ControlNet units, which the page makes (fresco_control.js)."""
    offer = environment.offer()
    if not offer.control_models:
        # Each environment knows what to do there.
        told = (check.text for check in environment.run_checks() if check.name == "ControlNet")
        hint = html.escape(next(told, "There is no ControlNet."))
        gr.HTML(f'<p class="fresco_hint">{hint}</p>')
    gr.HTML('<div id="fresco_control_board"></div>')
    units = keep_unsaved(gr.Textbox(visible=HIDDEN, elem_id="fresco_control_units"))
    on(units.change, None, [units], script="fresco.control.show")
    controls.host["control"] = units


def make_guidance_controls(controls: SettingControls) -> None:
    """Make the controls of the parts of FRESCO, and of its presets."""
    preset = make_preset_control("Guidance preset", "fresco_preset")
    parts = dict(zip(PARTS, controls.make("guidance", *PARTS), strict=True))
    bind_preset(preset, parts, *controls.make("propagation", "join_keyframes"))
    with gr.Accordion("Guidance in detail", open=False, elem_id="fresco_guidance_detail"):
        controls.rest("guidance")


def make_option_sections(
    controls: SettingControls, offer: Offer, make_mask_file: Callable[[], None]
) -> None:
    """Make the sections of propagation, blending, flow, mask and output.

    Args:
        make_mask_file: makes the upload of masks, in its place.
    """
    with gr.Accordion("Propagation and blending", open=False, elem_id="fresco_section_frames"):
        controls.rest("propagation")
        controls.host["upscaler"] = keep_unsaved(gr.Dropdown(
            label=HOST_LABELS["host.upscaler"], choices=[LANCZOS, *offer.upscalers], value=LANCZOS,
            elem_id="fresco_host_upscaler", visible=bool(offer.upscalers),
            info="Enlarges keyframes where the propagation resolution is larger.",
        ))
        controls.rest("blend")
    with gr.Accordion("Optical flow", open=False, elem_id="fresco_section_flow"):
        controls.rest("flow")
    with gr.Accordion("Mask", open=False, elem_id="fresco_section_mask"):
        controls.rest("mask")
        make_mask_file()
        controls.drawings = _make_drawing_board()
    with gr.Accordion("Output", open=False, elem_id="fresco_section_output"):
        controls.rest("output")


def update_offer(offer: Offer) -> list[Any]:
    """Make new choices of the host's own controls, in order; chosen values stay."""
    updates = [gr.update(choices=list(offer.models)), gr.update(choices=list(offer.samplers)),
               gr.update(choices=_schedules(offer), visible=bool(offer.schedulers))]
    return [*updates, gr.update(), gr.update(choices=[LANCZOS, *offer.upscalers],
                                            visible=bool(offer.upscalers))]


def _schedules(offer: Offer) -> list[str]:
    """List the host's schedules after the sampler's own, which some hosts list, too."""
    return list(dict.fromkeys([AS_SAMPLER, *offer.schedulers]))


def _first(names: Sequence[str]) -> str | None:
    return names[0] if names else None


def _make_drawing_board() -> Any:
    """Make the place where masks are drawn (javascript/fresco_mask.js), and its text."""
    gr.HTML('<div id="fresco_mask_board"></div>')
    return keep_unsaved(gr.Textbox(visible=HIDDEN, elem_id="fresco_mask_drawings"))
