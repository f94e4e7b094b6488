"""An environment for jobs: tiny diffusers models that run in a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from fresco.control import ControlUnit, list_units, place_units
from fresco.errors import SettingsError
from fresco.guidance.ports import Host
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.load import load_host
from fresco.hosts.diffusers.preprocessors import SLIDERS, complete_units, create_preprocessor
from fresco.hosts.options import HostOptions
from fresco.options import from_dict
from fresco.server.ports import Check, Limits, Offer, require_styles
from fresco.settings import FlowSettings, FrescoSettings, SamplingSettings
from tests.helpers.tiny_models import build_tiny_pipeline

MODELS = {"tiny": 0, "tiny two": 1}
"""Name -> seed of the weights."""
SAMPLERS = ("ddpm", "euler", "dpm++-2m")
CONTROL = "tiny control"
CANNY = "tiny canny"
"""A ControlNet whose name tells what hints it wants."""
BLOCKS = "Blocks"
"""An upscaler."""


LORAS = ("fine lines", "soft light")
STYLES = {"oil": "oil painting", "ink": "ink drawing"}

TINY: Mapping[str, Any] = {
    "sampling": {"resolution": 64, "steps": 4, "strength": 0.5, "prompt": "a painting"},
    "guidance": {"optimization_iterations": 1},
    "keyframes": {"min_interval": 2, "max_interval": 3, "batch_size": 3},
    "flow": {"estimator": "dis"},
    "propagation": {"workers": 1, "method": "flow"},
    "output": {"measures": False},
}
"""Options of a job that ends within seconds."""


def tiny_settings(changes: Mapping[str, Any] | None = None) -> FrescoSettings:
    """Settings of a job that ends within seconds."""
    return from_dict(changes or {}, from_dict(TINY))


class BlocksHost(DiffusersHost):
    """A host with an upscaler that makes blocks."""

    upscaler = BLOCKS

    def enlarge(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), np.uint8)


class TinyEnvironment:
    """`Environment` over diffusers. Models are made once in `folder` and loaded once."""

    def __init__(
        self, folder: Path, limits: Limits | None = None, forbidden: tuple[str, ...] = ()
    ) -> None:
        """
        Args:
            forbidden: starts of paths that no client may name.
        """
        self.folder, self.limits, self.forbidden = folder, limits or Limits(), forbidden
        self.opened: list[HostOptions] = []
        self._hosts: dict[tuple[str, tuple[tuple[str, int], ...]], DiffusersHost] = {}
        for name, seed in MODELS.items():
            if not (folder / name / "model_index.json").exists():
                build_tiny_pipeline(folder / name, seed)

    device = "cpu"

    @property
    def name(self) -> str:
        return "a test with diffusers"

    def offer(self) -> Offer:
        return Offer(
            tuple(MODELS), SAMPLERS, (), (CONTROL, CANNY), ("none", "canny"), (BLOCKS,), LORAS,
            tuple(STYLES), 3, SLIDERS,
        )

    def add_styles(self, names: Sequence[str], prompt: str, negative: str) -> tuple[str, str]:
        require_styles(names, tuple(STYLES))
        for name in names:
            prompt, negative = f"{prompt}, {STYLES[name]}", f"{negative}, no {STYLES[name]}"
        return prompt, negative

    def count_tokens(self, prompt: str) -> tuple[int, int] | None:
        words = len(prompt.split())
        return words, 75 * max(1, -(-words // 75))

    def resolve(self, options: HostOptions) -> HostOptions:
        offer = self.offer()
        model = options.model or offer.models[0]
        sampler = options.sampler or offer.samplers[0]
        asked = [("model", model, offer.models), ("sampler", sampler, offer.samplers),
                 ("scheduler", options.scheduler, ("", *offer.schedulers)),
                 ("upscaler", options.upscaler, ("", *offer.upscalers))]
        control = complete_units(options.control)
        for unit in control:
            asked += [("control.model", unit.model, offer.control_models),
                      ("control.module", unit.module, offer.control_modules)]
        for what, value, known in asked:
            if value not in known:
                raise SettingsError(f"{what} is {value!r}; choose one of {', '.join(known)}.")
        return dataclasses.replace(options, model=model, sampler=sampler, control=control)

    def draw_hint(self, unit: ControlUnit, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        (unit,) = self.resolve(HostOptions(control=(unit,))).control
        own = create_preprocessor(unit, torch.device("cpu"), offline=True)
        return np.rint(own(frame[None])[0] * 255).astype(np.uint8)

    def open(self, options: HostOptions, sampling: SamplingSettings) -> Host:
        options = self.resolve(options)
        self.opened.append(options)
        changes: dict[str, Any] = {
            "model": str(self.folder / options.model), "scheduler": options.sampler,
            "device": "cpu",
        }
        settings = dataclasses.replace(sampling, **changes)
        if options.control:
            folder = self._make_control(options.model)
            settings = place_units(settings, [
                dataclasses.replace(unit, model=str(folder)) for unit in options.control
            ])
        units = list_units(settings)
        key = options.model, tuple((unit.module, unit.resolution) for unit in units)
        if key not in self._hosts:
            self._hosts[key] = load_host(settings, offline=True)
        loaded = self._hosts[key]
        kind = BlocksHost if options.upscaler else DiffusersHost
        return kind(
            loaded._parts, settings, name=loaded.name, preprocessors=loaded._preprocessors
        )

    def _make_control(self, model: str) -> Path:
        folder = self.folder / f"{CONTROL} for {model}"
        if not (folder / "config.json").exists():
            unet = diffusers.UNet2DConditionModel.from_pretrained(
                self.folder / model / "unet", local_files_only=True
            )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(5)
                control: Any = diffusers.ControlNetModel.from_unet(unet)
                for block in control.controlnet_down_blocks:
                    torch.nn.init.normal_(block.weight, std=0.1)
            control.save_pretrained(folder)
        return folder

    def complete_flow(self, settings: FlowSettings) -> FlowSettings:
        return dataclasses.replace(settings, offline=True)

    def require_allowed(self, path: str) -> None:
        for start in self.forbidden:
            if Path(path).resolve().is_relative_to(Path(start).resolve()):
                raise SettingsError(
                    f"path is {path!r}, which no client may name; upload the video instead."
                )

    def list_versions(self) -> Mapping[str, str]:
        return {"diffusers": diffusers.__version__, "torch": torch.__version__}

    def run_checks(self) -> tuple[Check, ...]:
        return (Check("model", True, f"{len(MODELS)} tiny models are here."),
                Check("network", False, "There is none; put files into place by hand."))
