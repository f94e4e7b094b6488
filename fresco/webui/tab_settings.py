"""The tab's controls of settings: every option once, in sections, and back to settings."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from fresco.errors import SettingsError
from fresco.settings import PRESETS, Entry, FrescoSettings, entries, from_dict
from fresco.webui.control_maker import setting_control
from fresco.webui.hosting import Offer
from fresco.webui.job import ControlUnit, HostOptions
from fresco.webui.tab_gradio import on, unsaved
from fresco.webui.timeline import import_keys, import_words, words_text

LEFT_OUT: Mapping[tuple[str, str], str] = {
    ("sampling", "model"): "the host's own checkpoint is chosen instead",
    ("sampling", "vae"): "the host's own settings choose it",
    ("sampling", "lora"): "written into the prompt, as everywhere in the host",
    ("sampling", "scheduler"): "the host's own samplers are offered instead",
    ("sampling", "control"): "the host's own ControlNet is offered instead",
    ("sampling", "control_model"): "the host's own ControlNet is offered instead",
    ("sampling", "control_weight"): "the host's own ControlNet is offered instead",
    ("sampling", "canny_low"): "a setting of the host's preprocessors",
    ("sampling", "canny_high"): "a setting of the host's preprocessors",
    ("sampling", "device"): "chosen by the host",
    ("sampling", "dtype"): "chosen by the host",
    ("flow", "weights_dir"): "in the host's settings, as it is the same for every job",
    ("flow", "offline"): "in the host's settings, as it is the same for every job",
    ("propagation", "enabled"): "the buttons say how far a job goes",
}
"""Options without a control in the tab, and why."""

LABELS: Mapping[str, str] = {
    "keys": "Keyframes by hand",
    "key_prompts": "Words for single keyframes",
    "estimator": "Optical flow",
    "saliency": "Subject mask",
    "prompt": "Prompt",
    "added_prompt": "Added to every prompt",
    "negative_prompt": "Negative prompt",
    "steps": "Sampling steps",
    "strength": "Denoising strength",
    "guidance_scale": "CFG scale",
    "method": "Propagation method",
    "quality": "Patch quality",
    "workers": "Worker processes",
    "cluster": "Cluster address",
    "histogram": "Histogram blend",
    "gradient": "Gradient blend",
    "crf": "Video quality (CRF)",
    "sound": "Keep the sound",
    "source_size": "Write at the source's size",
    "compare": "Compare with frame by frame",
    "measures": "Measure the result",
    "freeu_b1": "FreeU b1", "freeu_b2": "FreeU b2", "freeu_s1": "FreeU s1", "freeu_s2": "FreeU s2",
}
"""Labels that say more than the option's name; the others are the name itself."""

UNSAVED = {"keys", "key_prompts", "seed", "first_frame", "last_frame"}
"""Options of one job, which are nobody's defaults."""

UNITS = 2
"""ControlNet units offered."""

_NO_CONTROL = "None"
_AS_SAMPLER = "Automatic"
_PARTS = tuple(PRESETS["off"])


def label_of(entry: Entry) -> str:
    """The label of an option's control; users' defaults hang on it."""
    return LABELS.get(entry.name) or entry.name.replace("_", " ").capitalize()


def offered_entries() -> tuple[Entry, ...]:
    """The options that have a control, in their order."""
    return tuple(e for e in entries() if (e.group, e.name) not in LEFT_OUT)


@dataclass(slots=True)
class SettingControls:
    """The controls as they are made, in whatever section they stand."""

    made: dict[tuple[str, str], Any] = field(default_factory=dict)
    """(group, name) -> control."""
    host: dict[str, Any] = field(default_factory=dict)
    """Name -> control of what the host itself offers."""

    def make(self, group: str, *names: str, **further: Any) -> list[Any]:
        """Make the controls of some options here."""
        known = {(e.group, e.name): e for e in offered_entries()}
        controls = []
        for name in names:
            entry = known[group, name]
            control = setting_control(
                entry, label_of(entry), f"fresco_{group}_{name}", **further
            )
            if name in UNSAVED:
                unsaved(control)
            self.made[group, name] = control
            controls.append(control)
        return controls

    def rest(self, group: str, *but: str) -> None:
        """Make the controls of a group that are not there yet."""
        self.make(group, *(e.name for e in offered_entries() if e.group == group
                           and (group, e.name) not in self.made and e.name not in but))

    @property
    def all(self) -> list[Any]:
        """Every control, options first: the inputs of `read_values`."""
        return [*(self.made[e.group, e.name] for e in offered_entries()), *self.host.values()]

    def named(self, *places: tuple[str, str]) -> list[Any]:
        """The controls of some options."""
        return [self.made[place] for place in places]


def look_controls(controls: SettingControls, offer: Offer) -> None:
    """What the result looks like: prompts, model, sampling."""
    controls.make("sampling", "prompt", "negative_prompt", lines=2)
    with gr.Row():
        controls.host["model"] = gr.Dropdown(
            label="Checkpoint", choices=list(offer.models), value=_first(offer.models),
            elem_id="fresco_host_model", info="Stable Diffusion 1.x, 2.x or SDXL.",
        )
        controls.host["sampler"] = gr.Dropdown(
            label="Sampler", choices=list(offer.samplers), value=_first(offer.samplers),
            elem_id="fresco_host_sampler", info="The samplers that can be guided.",
        )
        controls.host["scheduler"] = gr.Dropdown(
            label="Noise schedule", choices=[_AS_SAMPLER, *offer.schedulers], value=_AS_SAMPLER,
            elem_id="fresco_host_scheduler", visible=bool(offer.schedulers),
            info="Automatic: the sampler's own.",
        )
    for name in ("model", "sampler", "scheduler"):
        unsaved(controls.host[name])
    with gr.Row():
        controls.make("sampling", "steps", "strength")
    with gr.Row():
        controls.make("sampling", "guidance_scale", "resolution")
    with gr.Row():
        controls.make("sampling", "seed", "added_prompt")


def control_net_controls(controls: SettingControls, offer: Offer) -> None:
    """The host's ControlNet."""
    if not offer.control_models:
        gr.HTML(
            '<p class="fresco_hint">No ControlNet was found in this host. Install it, put its '
            "models into place, then press Refresh.</p>"
        )
    for number in range(1, UNITS + 1):
        with gr.Row():
            make: dict[str, Any] = {
                "model": gr.Dropdown(
                    label=f"ControlNet {number} model", value=_NO_CONTROL,
                    choices=[_NO_CONTROL, *offer.control_models],
                    elem_id=f"fresco_control_{number}_model",
                    info="Every keyframe gives its own hint.",
                ),
                "module": gr.Dropdown(
                    label=f"ControlNet {number} preprocessor",
                    choices=list(offer.control_modules) or ["none"],
                    value=_first(offer.control_modules) or "none",
                    elem_id=f"fresco_control_{number}_module", info="Makes the hint of a frame.",
                ),
            }
        with gr.Row():
            for name, high, value, info in (
                ("weight", 2, 0.7, "Strength."), ("start", 1, 0, "Share of the steps before it."),
                ("end", 1, 1, "Share of the steps after which it is off."),
            ):
                make[name] = gr.Slider(
                    label=f"ControlNet {number} {name}", minimum=0, maximum=high, value=value,
                    step=0.05, elem_id=f"fresco_control_{number}_{name}", info=info,
                )
        for name, control in make.items():
            controls.host[f"control {number} {name}"] = control
        for name in ("model", "module"):
            unsaved(make[name])


def guidance_controls(controls: SettingControls) -> None:
    """The parts of FRESCO, and presets of them."""
    preset: Any = unsaved(gr.Radio(
        label="Guidance preset", choices=list(PRESETS), value="full", elem_id="fresco_preset",
        info="full: as published; attention: faster, without optimisation; off: plain img2img.",
    ))
    controls.make("guidance", *_PARTS)
    targets = controls.named(*(("guidance", part) for part in _PARTS))
    full = {e.name: bool(e.default) for e in offered_entries() if e.name in _PARTS}

    def choose(name: str) -> list[Any]:
        chosen = {**full, **PRESETS.get(name, {})}
        return [gr.update(value=chosen[part]) for part in _PARTS]

    on(preset.input, choose, [preset], targets)
    with gr.Accordion("Guidance in detail", open=False, elem_id="fresco_guidance_detail"):
        controls.rest("guidance")


def option_sections(controls: SettingControls) -> None:
    """Everything behind the keyframes: propagation, blending, flow, output."""
    with gr.Accordion("Propagation and blending", open=False, elem_id="fresco_section_frames"):
        controls.rest("propagation")
        controls.rest("blend")
    with gr.Accordion("Optical flow", open=False, elem_id="fresco_section_flow"):
        controls.rest("flow")
    with gr.Accordion("Output", open=False, elem_id="fresco_section_output"):
        controls.rest("output")


def offer_updates(offer: Offer) -> list[Any]:
    """New choices of the host's own controls, in their order; what is chosen is kept."""
    updates = [gr.update(choices=list(offer.models)), gr.update(choices=list(offer.samplers)),
               gr.update(choices=[_AS_SAMPLER, *offer.schedulers], visible=bool(offer.schedulers))]
    for _ in range(UNITS):
        updates += [gr.update(choices=[_NO_CONTROL, *offer.control_models]),
                    gr.update(choices=list(offer.control_modules) or ["none"]),
                    *(gr.update() for _ in range(3))]
    return updates


def read_values(values: Sequence[Any], last: int) -> tuple[FrescoSettings, HostOptions]:
    """Settings and the host's options from the controls' values, in the order of `all`.

    Args:
        last: last frame of the source.
    """
    offered = offered_entries()
    groups: dict[str, dict[str, Any]] = {}
    for entry, value in zip(offered, values, strict=False):
        groups.setdefault(entry.group, {})[entry.name] = _typed(entry, value)
    output = groups["output"]
    end = last if output["last_frame"] < 0 else min(last, output["last_frame"])
    keys, words = import_keys(groups["keyframes"]["keys"], output["first_frame"], end)
    groups["keyframes"]["keys"] = ",".join(map(str, keys))
    groups["sampling"]["key_prompts"] = words | import_words(groups["sampling"]["key_prompts"])
    return from_dict(groups), _host_options(values[len(offered):])


def _typed(entry: Entry, value: Any) -> Any:
    """A control's value as the option's type; a cleared field is no number."""
    if entry.type in (int, float):
        if value is None or value == "":
            raise SettingsError(f"{label_of(entry)} is empty; give a number.")
        return int(value) if entry.type is int and float(value).is_integer() else value
    if entry.type is dict:
        return value or ""
    return (value or "") if entry.type is str else value


def _host_options(values: Sequence[Any]) -> HostOptions:
    model, sampler, scheduler, *units = values
    control = []
    for unit in range(0, len(units), 5):
        name, module, weight, start, end = units[unit:unit + 5]
        if name and name != _NO_CONTROL:
            control.append(ControlUnit(name, module or "none", weight, start, end))
    schedule = "" if scheduler in (None, _AS_SAMPLER) else scheduler
    return HostOptions(model or "", sampler or "", schedule, tuple(control))


def written_values(settings: FrescoSettings, host: HostOptions) -> list[Any]:
    """What the controls show for a job's settings, in the order of `all`."""
    values: list[Any] = []
    for entry in offered_entries():
        value = getattr(getattr(settings, entry.group), entry.name)
        values.append(words_text(value) if entry.type is dict else value)
    values += [host.model, host.sampler, host.scheduler or _AS_SAMPLER]
    for number in range(UNITS):
        if number < len(host.control):
            unit = host.control[number]
            values += [unit.model, unit.module, unit.weight, unit.start, unit.end]
        else:
            values += [_NO_CONTROL, *(gr.update() for _ in range(4))]
    return values


def _first(names: Sequence[str]) -> str | None:
    return names[0] if names else None


