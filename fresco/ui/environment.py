"""The environment of jobs in `fresco ui`, with models of diffusers."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fresco import __version__
from fresco.control import MOST_UNITS, ControlUnit, list_units, place_units
from fresco.errors import FrescoError, HostError, SettingsError
from fresco.guidance.ports import Host
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.load import check_model, check_request, load_host, pick_device
from fresco.hosts.diffusers.preprocessors import (
    MODULES,
    SLIDERS,
    complete_units,
    create_preprocessor,
)
from fresco.hosts.diffusers.schedulers import SCHEDULERS, find_scheduler
from fresco.hosts.options import HostOptions
from fresco.server.ports import Check, Limits, Offer, count, require_styles
from fresco.settings import FlowSettings, SamplingSettings
from fresco.ui.models import list_models
from fresco.weights import is_offline

_KARRAS = "karras"
_SCHEDULES = (_KARRAS, "leading", "linspace", "trailing")
"""Noise schedules: Karras' own, or where a scheduler's steps lie."""
_LORA_ENDINGS = frozenset({".safetensors", ".pt", ".ckpt"})
_LISTED = 5
"""Largest number of names that a message lists."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What `fresco ui` was started with, for all jobs."""

    models: tuple[str, ...] = ()
    """Checkpoints by name; the first is the default."""
    models_dir: str = ""
    """Folder with further ones."""
    control_models: tuple[str, ...] = ()
    """ControlNets by name."""
    control_dir: str = ""
    """Folder with further ones."""
    sampling: SamplingSettings = dataclasses.field(default_factory=SamplingSettings)
    """Device, number format, VAE, folders of LoRA files and embeddings."""
    flow: FlowSettings = dataclasses.field(default_factory=FlowSettings)
    """Folder of weights, and whether downloads are allowed."""
    limits: Limits = dataclasses.field(default_factory=Limits)
    """Limits of a job."""
    open_folders: tuple[Path, ...] = ()
    """Folders whose files a client may name."""
    only_own: bool = True
    """Whether only this machine can reach the page, so that any file may be named."""


class DiffusersEnvironment:
    """`Environment` with diffusers. The model of the last job stays loaded."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._device = str(pick_device(choices.sampling.device))
        self._loaded: tuple[SamplingSettings, str, DiffusersHost] | None = None

    @property
    def name(self) -> str:
        """Program and version, as shown to the user."""
        return f"fresco ui {__version__}, diffusers {importlib.metadata.version('diffusers')}"

    @property
    def device(self) -> str:
        """Device of the model."""
        return self._device

    @property
    def limits(self) -> Limits:
        """The limits given at the start."""
        return self._choices.limits

    def require_models(self) -> None:
        """Raise an error if a model that was named cannot be used, or if there is none."""
        models = self._list_models()
        if not models:
            raise SettingsError(
                f"--models-dir is {self._choices.models_dir!r}, where there is no model; put one "
                "there, or name one by --model."
            )
        for _, path in zip(self._choices.models, models.values(), strict=False):
            self._check_model(path)
        self._list_controls()

    def _check_model(self, path: str) -> None:
        check_model(path, with_vae=not self._choices.sampling.vae)

    def offer(self) -> Offer:
        """The models and options that can be chosen now."""
        return Offer(
            models=tuple(self._list_models()), samplers=_list_samplers(), schedulers=_SCHEDULES,
            control_models=tuple(controls := self._list_controls()),
            control_modules=MODULES if controls else (),
            control_units=MOST_UNITS if controls else 0,
            control_sliders=SLIDERS if controls else {},
            loras=_list_loras(self._choices.sampling.lora_dir),
        )

    def _list_models(self) -> dict[str, str]:
        chosen = self._choices
        return list_models(chosen.models, chosen.models_dir, what="--models-dir")

    def _list_controls(self) -> dict[str, str]:
        chosen = self._choices
        return list_models(chosen.control_models, chosen.control_dir, what="--control-dir")

    def resolve(self, options: HostOptions) -> HostOptions:
        """Fill in every empty option."""
        models = self._list_models()
        model = _choose("host.model", options.model, tuple(models),
                        "put it into the folder of --models-dir, or start with --model FILE")
        self._check_model(models[model])
        sampler = _choose("host.sampler", options.sampler, _list_samplers(), "")
        scheduler = options.scheduler and _choose(
            "host.scheduler", options.scheduler, _SCHEDULES, "")
        find_scheduler(*_read_schedule(sampler, scheduler))
        control = tuple(map(self._resolve_unit, options.control))
        if options.upscaler:
            raise SettingsError(
                f"host.upscaler is {options.upscaler!r}; fresco ui has none. Leave it empty: "
                "keyframes are enlarged by Lanczos."
            )
        return HostOptions(model, sampler, scheduler, control)

    def _resolve_unit(self, unit: ControlUnit) -> ControlUnit:
        _choose("A ControlNet unit's model", unit.model, tuple(self._list_controls()),
                "start with --control-model FILE or --control-dir FOLDER")
        return complete_units([unit])[0]

    def draw_hint(self, unit: ControlUnit, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Make a hint by the preprocessor, whose network is loaded for it."""
        own = create_preprocessor(
            self._resolve_unit(unit), torch.device(self._device),
            offline=is_offline(self._choices.flow.offline),
        )
        return np.rint(own(frame[None])[0] * 255).astype(np.uint8)

    def open(self, options: HostOptions, sampling: SamplingSettings) -> Host:
        """Open the model; it is loaded if the previous job used another one."""
        settings = self._complete(self.resolve(options), sampling)
        loaded, state = _key_of(settings), _describe_files(settings)
        if self._loaded and self._loaded[:2] == (loaded, state):
            return self._loaded[2].with_settings(settings)
        self._loaded = None  # freed before another one is loaded
        host = load_host(settings, offline=self._choices.flow.offline)
        self._loaded = loaded, state, host
        return host

    def _complete(self, options: HostOptions, sampling: SamplingSettings) -> SamplingSettings:
        """Add what was chosen for all jobs to a job's settings, and the host's own options."""
        own = self._choices.sampling
        scheduler, timesteps = _read_schedule(options.sampler, options.scheduler)
        settings = dataclasses.replace(
            sampling, model=self._list_models()[options.model], scheduler=scheduler,
            timesteps=timesteps, vae=own.vae, prediction=own.prediction,
            lora=own.lora, lora_dir=own.lora_dir, embeddings_dir=own.embeddings_dir,
            device=own.device, dtype=own.dtype,
        )
        controls = self._list_controls() if options.control else {}
        return place_units(settings, [
            dataclasses.replace(unit, model=controls[unit.model]) for unit in options.control
        ])

    def add_styles(self, names: Sequence[str], prompt: str, negative: str) -> tuple[str, str]:
        """Return the prompts unchanged, because there are no styles."""
        require_styles(names, ())
        return prompt, negative

    def count_tokens(self, prompt: str) -> tuple[int, int] | None:
        """Count by the loaded model's tokenizer; None before a job has loaded one."""
        loaded = self._loaded
        try:
            return loaded[2].count_tokens(prompt) if loaded else None
        except (FrescoError, RuntimeError):  # such as a tokenizer that another thread uses
            return None

    def complete_flow(self, settings: FlowSettings) -> FlowSettings:
        """Fill in the folder of weights, and whether downloads are allowed."""
        own = self._choices.flow
        return dataclasses.replace(settings, weights_dir=own.weights_dir, offline=own.offline)

    def require_allowed(self, path: str) -> None:
        """Raise SettingsError if others can reach the page and the path is in no allowed folder."""
        if self._choices.only_own:
            return
        try:
            place = Path(path).resolve()
        except (OSError, ValueError):  # longer than a path can be
            place = Path()
        if not any(place.is_relative_to(each.resolve()) for each in self._choices.open_folders):
            raise SettingsError(
                f"path is {path[:200]!r}, outside of the folders that others may name; upload the "
                "file, or start fresco ui with --allow FOLDER."
            )

    def list_versions(self) -> Mapping[str, str]:
        """Versions of packages, by name."""
        names = ("diffusers", "transformers", "torch", "gradio")
        return {name: importlib.metadata.version(name) for name in names}

    def run_checks(self) -> tuple[Check, ...]:
        """Check the models, the device and ControlNet."""
        return (self._check_models(), self._check_controls(),
                Check("Device", True, f"{self._device}; another one by --device."))

    def _check_models(self) -> Check:
        try:
            models = tuple(self._list_models())
        except FrescoError as error:
            return Check("Checkpoint", False, str(error))
        if not models:
            return Check("Checkpoint", False, "There is none; start with --model FILE.")
        return Check("Checkpoint", True, f"{len(models)} found; {models[0]} is the default.")

    def _check_controls(self) -> Check:
        try:
            controls = tuple(self._list_controls())
        except FrescoError as error:
            return Check("ControlNet", False, str(error))
        if not controls:
            return Check("ControlNet", True, "None; FRESCO works without. To keep the source's "
                         "lines, start with --control-model FILE or --control-dir FOLDER.")
        return Check("ControlNet", True, f"{count(len(controls), 'model')}.")


def _choose(what: str, name: str, known: Sequence[str], remedy: str) -> str:
    """Choose a name of the list; empty means the first."""
    if not name and known:
        return known[0]
    if name in known:
        return name
    some = ", ".join(known[:_LISTED]) + (", ..." if len(known) > _LISTED else "")
    choice = f"choose one of {some}" if known else "there is none"
    raise SettingsError(
        f"{what} is {name!r}, which is not here; {choice}{', or ' + remedy if remedy else ''}."
    )


def _list_loras(folder: str) -> tuple[str, ...]:
    """Names of the files in the folder of --lora-dir."""
    place = Path(folder).expanduser()
    if not folder or not place.is_dir():
        return ()
    names = {path.stem for path in place.rglob("*") if path.suffix.lower() in _LORA_ENDINGS}
    return tuple(sorted(names, key=str.lower))


def _list_samplers() -> tuple[str, ...]:
    """Names of diffusers' schedulers that can be used here."""
    def has(name: str) -> bool:
        try:
            find_scheduler(name)
        except HostError:  # needs a package that is not installed
            return False
        return True

    return tuple(filter(has, SCHEDULERS))


def _read_schedule(sampler: str, schedule: str) -> tuple[str, str]:
    """Convert sampler and noise schedule to the command line's scheduler and timesteps."""
    if schedule == _KARRAS:
        return f"{sampler}-{_KARRAS}", "auto"
    return sampler, schedule or "auto"


def _key_of(settings: SamplingSettings) -> SamplingSettings:
    """The settings on which a loaded model depends; all others have their defaults."""
    return SamplingSettings(
        model=settings.model, vae=settings.vae, prediction=settings.prediction,
        control=settings.control, control_units=settings.control_units,
        control_model=settings.control_model, device=settings.device, dtype=settings.dtype,
        embeddings_dir=settings.embeddings_dir,
        canny_low=settings.canny_low, canny_high=settings.canny_high,
    )


def _describe_files(settings: SamplingSettings) -> str:
    """Facts that show whether files of a model, or its LoRA files, have changed."""
    loras = check_request(settings)
    names = [settings.model, settings.vae, *(unit.model for unit in list_units(settings)),
             *(str(x.path) for x in loras)]
    states = []
    for name in filter(None, names):  # an empty path would be the current folder
        path = Path(name).expanduser()
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        files = (file for file in found if file.is_file())
        states += [(str(file), (at := file.stat()).st_mtime_ns, at.st_size) for file in files]
    return repr((states, loras))
