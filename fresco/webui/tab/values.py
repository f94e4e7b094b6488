"""Convert the values of the tab's controls to settings, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fresco.errors import SettingsError
from fresco.hosts.options import HostOptions
from fresco.options import Entry, entries, from_dict
from fresco.planning.ranges import parse_ranges
from fresco.server.ports import Offer
from fresco.settings import FrescoSettings
from fresco.webui.tab.control import read_control, write_control
from fresco.webui.tab.timeline import format_words, import_keys, import_words

AS_SAMPLER = "Automatic"
"""Choice of the sampler's own noise schedule."""
LANCZOS = "Lanczos (none)"
"""Choice of no upscaler; some hosts list a Lanczos of their own."""


TAKEN_NUMBERS = {
    "steps": (int, 1, 1000), "strength": (float, 0, 1), "guidance_scale": (float, 0, 50),
    "seed": (int, -1, 2**63 - 1),
}
"""Options that are taken from img2img, with their types and ranges there."""


def list_entries() -> tuple[Entry, ...]:
    """List the options that have a control, in order."""
    return tuple(entry for entry in entries() if not entry.option.instead)


def count_controls() -> int:
    """Number of controls: options, then checkpoint, sampler, schedule, ControlNet, upscaler."""
    return len(list_entries()) + 5


def read_values(values: Sequence[Any], last: int) -> tuple[FrescoSettings, HostOptions]:
    """Read settings and the host's options from the controls' values, options first.

    Args:
        last: last frame of the source.
    """
    offered = list_entries()
    groups: dict[str, dict[str, Any]] = {}
    for entry, value in zip(offered, values, strict=False):
        groups.setdefault(entry.group, {})[entry.name] = _typed(entry, value)
    output = groups["output"]
    end = last if output["last_frame"] < 0 else min(last, output["last_frame"])
    keys, words = import_keys(groups["keyframes"]["keys"], output["first_frame"], end)
    groups["keyframes"]["keys"] = ",".join(map(str, keys))
    groups["sampling"]["key_prompts"] = words | import_words(groups["sampling"]["key_prompts"])
    settings = from_dict(groups)
    parse_ranges(settings.sampling.ranges)
    return settings, _host_options(values[len(offered):])


def _typed(entry: Entry, value: Any) -> Any:
    """Convert a control's value to the option's type; SettingsError for a field without a number.
    """
    if entry.type in (int, float):
        if value is None or value == "":
            raise SettingsError(f"{entry.label} is empty; give a number.")
        return int(value) if entry.type is int and float(value).is_integer() else value
    if entry.type is dict:
        return value or ""
    if entry.type is tuple:
        return tuple(line.strip() for line in (value or "").splitlines() if line.strip())
    return (value or "") if entry.type is str else value


def _host_options(values: Sequence[Any]) -> HostOptions:
    model, sampler, scheduler, control, upscaler = values
    schedule = "" if scheduler in (None, AS_SAMPLER) else scheduler
    larger = "" if upscaler in (None, LANCZOS) else upscaler
    return HostOptions(model or "", sampler or "", schedule, read_control(control), larger)


def write_values(settings: FrescoSettings, host: HostOptions) -> list[Any]:
    """Make the controls' values from a job's settings, in order; None: unchanged."""
    values: list[Any] = []
    for entry in list_entries():
        value = getattr(getattr(settings, entry.group), entry.name)
        if entry.type is tuple:
            values.append("\n".join(value))
        else:
            values.append(format_words(value) if entry.type is dict else value)
    values += [host.model, host.sampler, host.scheduler or AS_SAMPLER]
    return [*values, write_control(host.control), host.upscaler or LANCZOS]


def read_img2img(
    found: Mapping[str, Any], offer: Offer
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Read options and host options from the page of img2img; also return what is not offered."""
    values: dict[str, Any] = {
        name: str(found.get(name) or "") for name in ("prompt", "negative_prompt")
    }
    for name, (kind, low, high) in TAKEN_NUMBERS.items():
        try:
            number = kind(float(found[name])) if kind is float else int(found[name])
        except (KeyError, TypeError, ValueError):
            continue
        values[name] = min(high, max(low, number))
    host, missing = {}, []
    for name, names in (("model", offer.models), ("sampler", offer.samplers),
                        ("scheduler", (AS_SAMPLER, *offer.schedulers))):
        wanted = str(found.get(name) or "")
        if wanted in names:
            host[name] = wanted
        elif wanted:
            missing.append(wanted)
    return values, host, missing
