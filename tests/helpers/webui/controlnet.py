"""A stand-in for sd-webui-controlnet: units, preprocessors and networks as it shows them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.helpers.webui import scripts
from tests.helpers.webui.processing import StableDiffusionProcessing
from tests.helpers.webui.prompt_parser import ScheduledPromptConditioning

_MARK = 1024.0


@dataclass
class Unit:
    """What a person set."""

    enabled: bool = True
    image: Any = None
    module: str = "canny"
    kind: str = "ControlNet"
    model: str = "control_canny"
    processor_res: int = 64
    threshold_a: float = 10.0
    threshold_b: float = 20.0
    resize_mode: str = "Crop and Resize"


class Preprocessor:
    """Finds the edges of a picture, or takes it as it is to inpaint."""

    def __init__(self, name: str = "canny") -> None:
        self.name = name

    @classmethod
    def get_preprocessor(cls, name: str) -> Preprocessor | None:
        """By its name; None if there is none."""
        return cls(name) if name in ("canny", "inpaint_global_harmonious") else None

    def cached_call(self, image: NDArray[np.uint8], *, resolution: int, slider_1: float,
                    slider_2: float, low_vram: bool, model: str) -> Any:
        """An edge where neighbours differ enough."""
        if self.name != "canny":
            return SimpleNamespace(value=image)
        steps = np.abs(np.diff(image.astype(int).sum(-1), axis=1, prepend=0))
        return SimpleNamespace(value=(255 * (steps > slider_2)).astype(np.uint8))


class Network(nn.Module):
    """Hints to eight times smaller features, added to what the UNet is given."""

    def __init__(self) -> None:
        super().__init__()
        self.hint = nn.Conv2d(3, 4, 8, stride=8)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """[rows, 4, h, w]; one hint is for all rows."""
        self.seen.append(hint.clone())
        return self.hint(hint).expand(len(x), -1, -1, -1)


def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make importable what the extension's files are while it is loaded."""
    preprocessors, external = ModuleType("scripts.supported_preprocessor"), ModuleType("external")
    vars(preprocessors)["Preprocessor"] = Preprocessor
    vars(external)["resize_mode_from_value"] = lambda value: value
    monkeypatch.setattr(ControlNet, "detectmap_proc", ControlNet.resized, raising=False)
    package = ModuleType("scripts")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "scripts", package)
    monkeypatch.setitem(sys.modules, "scripts.supported_preprocessor", preprocessors)
    monkeypatch.setitem(sys.modules, "scripts.external_code", external)


def _marked(entry: ScheduledPromptConditioning, mark: float) -> ScheduledPromptConditioning:
    """One more token before the others, once."""
    if bool((entry.cond[0].abs() == _MARK).all()):
        return entry
    token = torch.full_like(entry.cond[:1], mark)
    return ScheduledPromptConditioning(entry.end_at_step, torch.cat([token, entry.cond]))


class Slot:
    """The control of one unit."""

    label = ""

    def __init__(self, script: ControlNet, place: int) -> None:
        self._script, self._place = script, place

    @property
    def value(self) -> Unit:
        """As it is now."""
        units = self._script.units
        return units[self._place] if self._place < len(units) else Unit(enabled=False)


class ControlNet(scripts.Script):
    """Starts in `process`, acts in the UNet's forward, undoes itself in `postprocess`."""

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self.enabled_units: list[Unit] = []
        self.latest_network: Any = None
        self.networks: list[Network] = []
        self.broken = False

    def title(self) -> str:
        """Its name."""
        return "ControlNet"

    def show(self, is_img2img: bool) -> Any:
        """Always."""
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        """Three units."""
        return [Slot(self, place) for place in range(3)]

    @classmethod
    def resized(cls, detected: NDArray[np.uint8], module: str, resize_mode: str, h: int, w: int
                ) -> tuple[Tensor, NDArray[np.uint8]]:
        """[1, 3, H, W] in 0..1; a fourth channel to inpaint."""
        channels = detected.transpose(2, 0, 1) if detected.ndim == 3 else np.stack([detected] * 3)
        hint = torch.from_numpy(channels.copy()).float()[None] / 255
        return nn.functional.interpolate(hint, (h, w)), detected

    def hint_of(self, image: NDArray[np.uint8]) -> Tensor:
        """[1, 3, H, W] of one picture."""
        found = Preprocessor().cached_call(
            image, resolution=64, slider_1=10.0, slider_2=20.0, low_vram=False, model=""
        )
        return self.resized(found.value, "canny", "", 64, 64)[0]

    def process(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Networks with their hints; one picture is for all frames."""
        self.latest_network = None
        self.enabled_units = [unit for unit in args if unit.enabled]
        if self.broken:
            raise RuntimeError("broken")
        with torch.random.fork_rng():
            torch.manual_seed(1)
            shared = {unit.model: Network() for unit in self.enabled_units}
            self.networks = [shared[unit.model] for unit in self.enabled_units]
        parameters = []
        for unit, network in zip(self.enabled_units, self.networks, strict=True):
            picture = unit.image["image"] if unit.image else np.asarray(p.init_images[0])
            kind = SimpleNamespace(is_controlnet=unit.kind == "ControlNet", name=unit.kind)
            parameters.append(SimpleNamespace(
                control_model=network, control_model_type=kind, hint_cond=self.hint_of(picture)
            ))
        self.latest_network = SimpleNamespace(control_params=parameters)

        if self.networks:
            self._mark_in(p)

    def _mark_in(self, p: Any) -> None:
        """Around the call's sampling: prompts tell the networks which conditioning they are."""
        before = p.sample

        def sample(*args: Any, **kwargs: Any) -> Any:
            for prompts in kwargs["conditioning"].batch:
                for part in prompts:
                    part.schedules[:] = [_marked(entry, _MARK) for entry in part.schedules]
            for schedule in kwargs["unconditional_conditioning"]:
                schedule[:] = [_marked(entry, -_MARK) for entry in schedule]
            return before(*args, **kwargs)

        p.sample = sample

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Into the UNet's forward, once a sampling."""
        unet, parameters = p.sd_model.model.diffusion_model, self.latest_network.control_params
        plain = type(unet).forward

        def forward(x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
            StableDiffusionProcessing.cached_c = [None, None]  # what was marked is not for others
            StableDiffusionProcessing.cached_uc = [None, None]
            assert bool((context[:, 0].abs() == _MARK).all())
            context = context[:, 1:]
            for unit in parameters:
                x = x + unit.control_model(
                    x=x, hint=unit.hint_cond, timesteps=timesteps, context=context
                )
            return plain(unet, x, timesteps, context)

        vars(unet).pop("forward", None)
        if parameters:
            unet.forward = forward

    def postprocess(self, p: Any, processed: Any, *args: Any, **kwargs: Any) -> None:
        """As it was."""
        vars(p.sd_model.model.diffusion_model).pop("forward", None)
