"""A stand-in for the ControlNet of Forge kinds, `lib_controlnet`: its script, units and lists.

Its script makes the hint of one image, and repeats it for the batch that the call has when it
begins; its engine takes a hint for each frame. Everything else is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.helpers.webui import scripts

MODELS = ("None", "control_canny [0a1b2c3d]", "t2i_style")


class InputMode(Enum):
    """Forge and reForge have it, Neo does not."""

    SIMPLE = "simple"
    BATCH = "batch"


@dataclass
class Unit:
    """What a person set, or a program by the names of its fields."""

    enabled: bool = True
    module: str = "None"
    model: str = "control_canny [0a1b2c3d]"
    weight: float = 1.0
    image: Any = None
    use_preview_as_input: bool = False
    generated_image: Any = None
    pixel_perfect: bool = False
    processor_res: int = -1
    save_detected_map: bool = True
    input_mode: InputMode = InputMode.SIMPLE
    guidance_start: float = 0.0
    guidance_end: float = 1.0


class Preprocessor:
    """The base; it gives the image as it is."""

    name = "None"
    do_not_need_model = False

    def __call__(self, image: NDArray[np.uint8], mask: Any) -> Any:
        """The hint of one image."""
        return image

    def process_before_every_sampling(
        self, p: Any, cond: Any, mask: Any, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """What the network is given."""
        return cond, mask

    def process_after_every_sampling(self, p: Any, params: Any, *args: Any) -> None:
        """Nothing to do."""


class Edges(Preprocessor):
    """White where a row has another colour than the one above it."""

    name = "canny"

    def __call__(self, image: NDArray[np.uint8], mask: Any) -> Any:
        """[H, W, 3]."""
        steps = np.abs(np.diff(image.astype(int), axis=0, prepend=0)).sum(-1, keepdims=True)
        return np.repeat(255 * (steps > 40), 3, axis=-1).astype(np.uint8)


class Inpaint(Preprocessor):
    """Blanks the hint inside the mask, which it cannot do without one."""

    name = "inpaint_global_harmonious"

    def process_before_every_sampling(
        self, p: Any, cond: Any, mask: Any, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Masked hints; the network itself gets no mask."""
        return cond * (1 - mask.round()) - mask.round(), None


class InpaintOnly(Inpaint):
    """Lays the surroundings of one image over all results."""

    name = "inpaint_only"

    def process_after_every_sampling(self, p: Any, params: Any, *args: Any) -> None:
        """Would be wrong for other frames."""


class Embedding(Preprocessor):
    """Looks at an image, but makes none."""

    name = "CLIP-ViT-H (IPAdapter)"

    def __call__(self, image: NDArray[np.uint8], mask: Any) -> Any:
        """As for an IP-Adapter."""
        return {"embeds": image.mean()}


PREPROCESSORS = {made.name: made for made in (Preprocessor(), Edges(), Inpaint(), InpaintOnly(),
                                              Embedding())}


class Network:
    """A ControlNet of the engine."""

    def set_cond_hint(self, hint: Tensor) -> None:
        """By this the engine's networks that take images are known."""


class ControlNetPatcher:
    """A model with its network."""

    def __init__(self) -> None:
        self.model_patcher = Network()


class IPAdapterPatcher:
    """A model of another kind."""

    model_patcher = None


class Slot:
    """The control of one unit."""

    label = ""

    def __init__(self, script: BuiltinControlNet, place: int) -> None:
        self._script, self._place = script, place

    @property
    def value(self) -> Unit:
        """As it is now."""
        units = self._script.units
        return units[self._place] if self._place < len(units) else Unit(enabled=False)


class BuiltinControlNet(scripts.Script):
    """Makes hints in `process`, gives them to the engine right before the sampling."""

    filename = "extensions-builtin/sd_forge_controlnet/scripts/controlnet.py"

    def __init__(self, *, splits: bool = False) -> None:
        """
        Args:
            splits: hints of all iterations are made at once and split, as in reForge
        """
        self.splits = splits
        self.units: list[Unit] = []
        self.current_params: dict[int, Any] = {}
        self.loads = 0
        """How often a model was loaded."""
        self.seen: list[list[Tensor]] = []
        """Of each unit, the hints by rows of every model call."""
        self.masks: list[Any] = []
        """Of each unit, the mask of every sampling."""

    def title(self) -> str:
        """Its name."""
        return "ControlNet"

    def show(self, is_img2img: bool) -> Any:
        """Always."""
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        """Three units."""
        return [Slot(self, place) for place in range(3)]

    def get_enabled_units(self, units: Sequence[Any]) -> list[Unit]:
        """Those that are on; a program gives dicts."""
        made = [Unit(**unit) if isinstance(unit, dict) else unit for unit in units]
        return [unit for unit in made if unit.enabled]

    def get_input_data(
        self, p: Any, unit: Unit, preprocessor: Any, h: int, w: int
    ) -> tuple[list[list[Any]], Any]:
        """Pairs of image and mask, and how they are resized."""
        mask = getattr(p, "image_mask", None)
        if unit.image is not None:
            return [[unit.image, None]], "Crop and Resize"
        given = None if mask is None else np.array(mask.convert("L"))
        return [[np.array(p.init_images[0].convert("RGB")), given]], p.resize_mode

    def bound_check_params(self, unit: Unit) -> None:
        """The preprocessor's own number where none was set."""
        if unit.processor_res < 0:
            unit.processor_res = 512

    def process_unit_after_click_generate(
        self, p: Any, unit: Unit, params: Any, *args: Any, **kwargs: Any
    ) -> None:
        """A unit's hints, masks and model."""
        preprocessor = PREPROCESSORS[unit.module]
        pairs, _ = self.get_input_data(p, unit, preprocessor, p.height, p.width)
        if unit.pixel_perfect:
            unit.processor_res = p.height
        assert unit.processor_res > 0, "no such resolution"
        outputs = [preprocessor(image, mask) for image, mask in pairs]
        count = p.batch_size * (p.n_iter if self.splits else 1)
        rows = [place % len(outputs) for place in range(count)]
        params.control_cond = outputs[-1]
        if isinstance(outputs[-1], np.ndarray):
            hints = torch.stack([torch.from_numpy(hint).float() / 255 for hint in outputs])
            params.control_cond = hints.movedim(-1, 1)[rows]
        params.control_cond_for_hr_fix = params.control_cond
        masks = [torch.from_numpy(mask).float()[None] / 255 for _, mask in pairs
                 if mask is not None]
        if masks:
            params.control_mask = params.control_mask_for_hr_fix = torch.stack(masks)[rows]
        if unit.save_detected_map:
            p.comment("map")
        params.preprocessor = preprocessor
        if preprocessor.do_not_need_model:
            params.model = IPAdapterPatcher()
        else:
            self.loads += 1
            assert unit.model in MODELS[1:], "no such model"
            params.model = ControlNetPatcher() if "canny" in unit.model else IPAdapterPatcher()

    def process(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """All units of a call."""
        self.current_params = {}
        units = self.get_enabled_units(args)
        self.seen, self.masks = [[] for _ in units], [[] for _ in units]
        for place, unit in enumerate(units):
            params = SimpleNamespace(
                preprocessor=None, model=None, control_cond=None, control_cond_for_hr_fix=None,
                control_mask=None, control_mask_for_hr_fix=None,
            )
            self.bound_check_params(unit)
            self.process_unit_after_click_generate(p, unit, params)
            self.current_params[place] = params

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Into the UNet's forward."""
        unet = p.sd_model.model.diffusion_model
        plain = type(unet).forward
        given: list[tuple[int, float, Tensor]] = []
        for place, unit in enumerate(self.get_enabled_units(args)):
            params = self.current_params[place]
            cond = params.control_cond
            if self.splits and isinstance(cond, Tensor):
                cond = torch.split(cond, p.batch_size)[p.iteration]
            cond, mask = params.preprocessor.process_before_every_sampling(
                p, cond, params.control_mask
            )
            self.masks[place].append(mask)
            if isinstance(cond, Tensor):
                given.append((place, unit.weight, cond))

        def forward(x: Tensor, *rest: Any, **further: Any) -> Tensor:
            for place, weight, cond in given:
                rows = broadcast(cond, len(x), 2)
                self.seen[place].append(rows)
                small = nn.functional.interpolate(rows.to(x), x.shape[2:])
                x = x + weight * small.mean(1, keepdim=True)
            return plain(unet, x, *rest, **further)

        if given:
            unet.forward = forward

    def postprocess(self, p: Any, processed: Any, *args: Any, **kwargs: Any) -> None:
        """As it was."""
        vars(p.sd_model.model.diffusion_model).pop("forward", None)
        self.current_params = {}


def broadcast(hints: Tensor, rows: int, chunks: int) -> Tensor:
    """Hints for all rows, as the engine does it: cut or repeated to a chunk, for each chunk."""
    chunk = rows // chunks
    hints = hints[:chunk]
    hints = hints[torch.arange(chunk) % len(hints)]
    return torch.cat([hints] * chunks)


def offered(monkeypatch: pytest.MonkeyPatch, folder: str = "") -> None:
    """Make importable what the built-in extension's modules are in a running host.

    Args:
        folder: of hints, named in the Batch tab
    """
    names = (
        "lib_controlnet", "lib_controlnet.global_state", "lib_controlnet.controlnet_ui",
        "lib_controlnet.controlnet_ui.controlnet_ui_group", "modules_forge",
        "modules_forge.supported_preprocessor",
    )
    made = {name: ModuleType(name) for name in names}
    lists, groups = made["lib_controlnet.global_state"], made[names[3]]
    vars(lists)["get_all_controlnet_names"] = lambda: list(MODELS)
    vars(lists)["get_all_preprocessor_names"] = lambda: list(PREPROCESSORS)
    vars(lists)["get_preprocessor"] = PREPROCESSORS.get
    vars(groups)["ControlNetUiGroup"] = type(
        "ControlNetUiGroup", (), {"GLOBAL_CONTROLNET_BATCH_DIR": folder}
    )
    vars(made["modules_forge.supported_preprocessor"])["Preprocessor"] = Preprocessor
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
