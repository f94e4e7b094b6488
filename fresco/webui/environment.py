"""The environment of jobs in a WebUI: models, samplers, ControlNet, folders, settings."""

# pyright: reportMissingImports=false
from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from modules import launch_utils, scripts, sd_models, sd_samplers, shared
from numpy.typing import NDArray

from fresco.control import ControlUnit
from fresco.errors import SettingsError
from fresco.guidance.ports import Host
from fresco.hosts.options import HostOptions
from fresco.hosts.webui.controlnet import (
    control_models,
    control_modules,
    count_units,
    find_control,
    list_sliders,
    resolve_unit,
)
from fresco.hosts.webui.open import find_device, open_host
from fresco.hosts.webui.paths import complete_flow_settings, find_output_folder, require_allowed
from fresco.hosts.webui.prompts import add_styles, count_tokens, list_loras, list_styles
from fresco.hosts.webui.sampling import UNGUIDED_SAMPLERS
from fresco.hosts.webui.upscaling import list_upscalers
from fresco.server.hooks import ADDRESSES
from fresco.server.ports import Check, Limits, Offer, count, require_styles
from fresco.settings import FlowSettings, SamplingSettings
from fresco.webui.obstacles import Part, require_part


def find_jobs_root() -> Path:
    """Find the folder of jobs and uploaded videos, by the settings."""
    chosen = shared.opts.data.get("fresco_jobs_dir") or ""
    return Path(chosen).expanduser() if chosen else find_output_folder() / "fresco"


class WebuiEnvironment:
    """`Environment` of a WebUI."""

    @property
    def name(self) -> str:
        """Program and version, as shown to the user."""
        return _find_name()

    @property
    def device(self) -> str:
        """Device of the WebUI's model."""
        return find_device()

    @property
    def limits(self) -> Limits:
        """The limits that the settings have now."""
        usual, options = Limits(), shared.opts.data

        def number(name: str, otherwise: int) -> int:
            value = options.get(name)
            return otherwise if value is None else int(value)  # None: the field was emptied

        return Limits(
            number("fresco_upload_megabytes", usual.upload_megabytes),
            number("fresco_most_frames", usual.frames),
            number("fresco_most_resolution", usual.resolution),
            number("fresco_workers", usual.workers),
            str(options.get("fresco_cluster") or ""),
            number("fresco_most_waiting", usual.waiting_jobs),
            number("fresco_free_megabytes", usual.free_megabytes),
            str(options.get("fresco_webhooks") or os.environ.get(ADDRESSES, "")),
        )

    def offer(self) -> Offer:
        """The models and options that can be chosen now."""
        current = _current_model()
        models = [info.title for info in sd_models.checkpoints_list.values()]
        first = [current] if current in models else []
        return Offer(
            models=tuple(first + [title for title in models if title != current]),
            samplers=tuple(_samplers()),
            schedulers=tuple(_schedulers()),
            control_models=control_models(),
            control_modules=(modules := control_modules()),
            control_units=count_units(scripts.scripts_img2img),
            control_sliders={
                name: found for name in modules if (found := list_sliders(name))
            },
            loras=list_loras(),
            styles=list_styles(),
            upscalers=list_upscalers(),
        )

    def resolve(self, options: HostOptions) -> HostOptions:
        """Fill in every empty option with its current value."""
        require_part(Part.JOBS)
        offer = self.offer()
        model = _found_model(options.model or next(iter(offer.models), ""))
        sampler = _one_of("sampler", options.sampler, offer.samplers)
        scheduler = _one_of("scheduler", options.scheduler, offer.schedulers)
        control = tuple(map(resolve_unit, options.control))
        if control and len(control) > offer.control_units:
            raise SettingsError(
                f"{len(control)} ControlNet units are asked for, but this WebUI has "
                f"{offer.control_units}. Its ControlNet settings say how many there are."
            )
        upscaler = options.upscaler and _one_of("upscaler", options.upscaler, offer.upscalers)
        return HostOptions(model, sampler, scheduler, control, upscaler)

    def draw_hint(self, unit: ControlUnit, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Make a hint by the WebUI's ControlNet."""
        from fresco.hosts.webui.hint import draw_hint

        return draw_hint(unit, frame)

    def add_styles(self, names: Sequence[str], prompt: str, negative: str) -> tuple[str, str]:
        """Add styles as the WebUI adds them to its own prompts."""
        require_styles(names, list_styles())
        return add_styles(names, prompt, negative)

    def count_tokens(self, prompt: str) -> tuple[int, int] | None:
        """Count as the WebUI does, without extra networks and schedules."""
        return count_tokens(prompt)

    def open(self, options: HostOptions, sampling: SamplingSettings) -> Host:
        """Open the WebUI's model for one job."""
        return open_host(self.resolve(options), sampling)

    def complete_flow(self, settings: FlowSettings) -> FlowSettings:
        """Fill in the WebUI's folder of weights, and whether it allows downloads."""
        return complete_flow_settings(settings)

    def require_allowed(self, path: str) -> None:
        """Raise SettingsError unless a client may name this path of the server."""
        require_allowed(path)

    def list_versions(self) -> Mapping[str, str]:
        """Versions of packages and programs, by name."""
        return {"webui": _find_name() if _find_forge() else launch_utils.git_tag()}

    def run_checks(self) -> tuple[Check, ...]:
        """Check the WebUI's model and ControlNet."""
        return (_model_check(), _controlnet_check())


def _find_forge() -> Any:
    """Find the module with the version of a Forge kind; None in A1111."""
    try:
        return importlib.import_module("modules_forge.forge_version")
    except ImportError:
        return None


def _find_name() -> str:
    """Name and release of the program, such as Forge Neo 2.26."""
    if (forge := _find_forge()) is None:
        return f"Stable Diffusion WebUI {launch_utils.git_tag()}"
    version = str(forge.version)
    if version.isalpha():
        return f"Forge {version.capitalize()} {getattr(forge, 'release', '')}".strip()
    # Forge and reForge tell themselves apart by the names of their settings alone.
    labels = getattr(shared.opts, "data_labels", {})
    kind = "reForge" if any(name.startswith("reforge") for name in labels) else "Forge"
    return f"{kind} {version}"


def _current_model() -> str:
    info = sd_models.get_closet_checkpoint_match(shared.opts.sd_model_checkpoint or "")
    return info.title if info else ""


def _found_model(name: str) -> str:
    info = sd_models.get_closet_checkpoint_match(name) if name else None
    if info is None:
        raise SettingsError(
            f"host.model is {name!r}, which this WebUI does not have; choose one of "
            f"{', '.join(i.title for i in sd_models.checkpoints_list.values()) or 'none'}."
        )
    return info.title


def _samplers() -> list[str]:
    # Before 1.9 only the names are available.
    return [name for name in sd_samplers.visible_sampler_names() if name not in UNGUIDED_SAMPLERS]


def _schedulers() -> list[str]:
    """Labels of noise schedules; before 1.9 they were part of a sampler's name."""
    try:
        module = importlib.import_module("modules.sd_schedulers")
    except ImportError:
        return []
    return [scheduler.label for scheduler in module.schedulers]


def _one_of(what: str, name: str, known: Sequence[str]) -> str:
    if not name:
        return next(iter(known), "")
    if name not in known:
        raise SettingsError(
            f"host.{what} is {name!r}; choose one of {', '.join(known) or 'none: there is none'}."
        )
    return name


def _model_check() -> Check:
    titles = list(sd_models.checkpoints_list.values())
    if not titles:
        return Check("Checkpoint", False, "There is none; put one into models/Stable-diffusion.")
    chosen = _current_model() or "none"
    return Check("Checkpoint", True, f"{len(titles)} found; {chosen} is chosen.")


def _controlnet_check() -> Check:
    if (control := find_control()) is None:
        return Check(
            "ControlNet", True, "Not installed; FRESCO works without. To keep the source's lines, "
            "install sd-webui-controlnet.",
        )
    models = control_models()
    if not models:
        return Check(
            "ControlNet", False,
            f"There is {control.name}, but it has no model; put one into models/ControlNet.",
        )
    return Check("ControlNet", True, f"{control.name}, {count(len(models), 'model')}.")
