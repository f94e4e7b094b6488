"""What the tab's controls are called, and settings from their values and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fresco.errors import SettingsError
from fresco.hosts.options import ControlUnit, HostOptions
from fresco.settings import Entry, FrescoSettings, entries, from_dict
from fresco.webui.tab.timeline import import_keys, import_words, words_text

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
    ("propagation", "cluster"): "in the host's settings: an address that the server connects to",
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

_UNIT = 5
"""Controls of a unit."""

NO_CONTROL = "None"
"""Choice of a ControlNet unit that is off."""
AS_SAMPLER = "Automatic"
"""Choice of the sampler's own noise schedule."""


def label_of(entry: Entry) -> str:
    """The label of an option's control; users' defaults hang on it."""
    return LABELS.get(entry.name) or entry.name.replace("_", " ").capitalize()


def offered_entries() -> tuple[Entry, ...]:
    """The options that have a control, in their order."""
    return tuple(e for e in entries() if (e.group, e.name) not in LEFT_OUT)


def control_count() -> int:
    """Controls in all: options, then checkpoint, sampler, schedule and ControlNet."""
    return len(offered_entries()) + 3 + UNITS * _UNIT


def read_values(values: Sequence[Any], last: int) -> tuple[FrescoSettings, HostOptions]:
    """Settings and the host's options from the controls' values, options first.

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
    for unit in range(0, len(units), _UNIT):
        name, module, weight, start, end = units[unit:unit + _UNIT]
        if name and name != NO_CONTROL:
            control.append(ControlUnit(name, module or "none", weight, start, end))
    schedule = "" if scheduler in (None, AS_SAMPLER) else scheduler
    return HostOptions(model or "", sampler or "", schedule, tuple(control))


def written_values(settings: FrescoSettings, host: HostOptions) -> list[Any]:
    """What the controls show for a job's settings, in their order; None: as it is."""
    values: list[Any] = []
    for entry in offered_entries():
        value = getattr(getattr(settings, entry.group), entry.name)
        values.append(words_text(value) if entry.type is dict else value)
    values += [host.model, host.sampler, host.scheduler or AS_SAMPLER]
    for number in range(UNITS):
        if number < len(host.control):
            unit = host.control[number]
            values += [unit.model, unit.module, unit.weight, unit.start, unit.end]
        else:
            values += [NO_CONTROL, *(None for _ in range(_UNIT - 1))]
    return values
