"""sd-webui-controlnet, the extension of the WebUI and of its forks."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from PIL import ImageFilter, ImageOps
from PIL.Image import Image
from torch import Tensor

from fresco.errors import HostError
from fresco.hosts.options import Slider, Sliders
from fresco.hosts.webui.controlnet_start import changed_values

_ACTING = ("colorfix", "inpaint_only", "recolor")
"""Parts of names of preprocessors that put the first frame's colours over all images."""
_INPAINT = "inpaint"
"""Parts of names of preprocessors that take a mask."""
_PUBLIC = ("internal_controlnet.external_code", "scripts.external_code")


class ExtensionControl:
    """`HostControl` for sd-webui-controlnet."""

    name = "sd-webui-controlnet"

    @classmethod
    def find(cls) -> ExtensionControl | None:
        """Find the extension in this WebUI; None if it is not installed."""
        return cls() if _find_public() else None

    @property
    def on_by_default(self) -> bool:
        """See `HostControl`: on in old versions, off in newer ones."""
        unit = getattr(_find_public(), "ControlNetUnit", None)
        return bool(unit().enabled) if unit is not None else True

    def list_models(self) -> Sequence[str]:
        """Names of the models, as its public module lists them."""
        public = _find_public()
        return public.get_models() if public else ()

    def list_modules(self) -> Sequence[str]:
        """Names of the preprocessors that only make a hint, as its public module lists them."""
        public = _find_public()
        return [name for name in public.get_modules() if not _acts_beyond_hints(name)] \
            if public else ()

    def list_sliders(self, module: str) -> Sliders:
        """See `HostControl`; empty if this version does not tell."""
        try:
            known = importlib.import_module("scripts.supported_preprocessor")
        except ImportError:
            return {}
        preprocessor = known.Preprocessor.get_preprocessor(module)
        found = {name: getattr(preprocessor, f"slider_{number}", None)
                 for number, name in ((1, "threshold_a"), (2, "threshold_b"))}
        return {
            name: Slider(str(each.label), float(each.minimum), float(each.maximum),
                         float(each.value))
            for name, each in found.items() if each is not None and each.visible
        }

    def draw_hint(
        self, script: Any, fields: dict[str, Any], frame: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """See `HostControl`."""
        height, width = frame.shape[:2]
        unit = _find_public().ControlNetUnit(**fields)
        external = importlib.import_module("scripts.external_code")
        if unit.pixel_perfect:
            unit.processor_res = external.pixel_perfect_resolution(
                frame, target_H=height, target_W=width,
                resize_mode=external.resize_mode_from_value(unit.resize_mode),
            )
        size = SimpleNamespace(height=height, width=width)
        shown = _as_input(unit, size, PIL.Image.fromarray(frame), None)
        hint = _hint(script, unit, shown, size)[0].float().clamp(0, 1).mul(255).round().byte()
        return np.ascontiguousarray(hint.permute(1, 2, 0).cpu().numpy())

    def knows(self, script: Any) -> bool:
        """See `HostControl`; recognised by the attributes that are used here."""
        return hasattr(script, "enabled_units") and hasattr(script, "latest_network")

    def forget(self, script: Any) -> None:
        """See `HostControl`."""
        for name, value in _LEFT.items():
            if hasattr(script, name):
                setattr(script, name, copy.copy(value))

    @contextmanager
    def hinted(
        self, script: Any, p: Any, frames: Sequence[Image], masks: Sequence[Image],
        given: Sequence[Sequence[Image] | None] = (),
    ) -> Iterator[None]:
        """See `HostControl`."""
        with ExitStack() as stack:
            for place, (unit, parameters) in enumerate(_started_units(script)):
                if _has_image(unit):
                    continue
                _require_following(unit, parameters)
                shown = (given[place] if given else None) or frames
                inputs = [_as_input(unit, p, *pair) for pair in _pair(shown, masks)]
                hints = torch.cat([_hint(script, unit, image, p) for image in inputs])
                network = _PerFrame(parameters.control_model, hints)
                stack.enter_context(changed_values(parameters, control_model=network))
            yield


_LEFT: dict[str, Any] = {"post_processors": [], "noise_modifier": None}
"""What it does to images and noise of a call. It clears both after a call that ends well, and
otherwise applies them to the next."""


def _find_public() -> Any:
    for name in _PUBLIC:
        try:
            public = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(public, "get_models") and hasattr(public, "get_modules"):
            return public
    return None


def _started_units(script: Any) -> Sequence[tuple[Any, Any]]:
    """List the enabled units with the parameters that ControlNet made; a missing one is an error.
    """
    units, network = list(script.enabled_units or ()), script.latest_network
    made = getattr(network, "control_params", None) or ()
    if not units or len(made) != len(units):
        raise HostError(
            "ControlNet has units switched on but did not start; the console says why. Correct its "
            "units, or switch them off."
        )
    return list(zip(units, made, strict=True))


def _has_image(unit: Any) -> bool:
    image = getattr(unit, "image", None)
    if isinstance(image, dict):
        image = image.get("image")
    return image is not None or bool(getattr(unit, "batch_images", None))


def _acts_beyond_hints(module: str) -> bool:
    """Whether a preprocessor also changes the sampling or the result by the first frame."""
    return any(part in module for part in _ACTING)


def _require_following(unit: Any, parameters: Any) -> None:
    """Refuse units that are not ControlNets, and preprocessors that do more than a hint."""
    kind = parameters.control_model_type
    if not kind.is_controlnet:
        raise HostError(
            f"ControlNet's unit {unit.module} ({kind.name}) cannot follow the frames; give it an "
            "image of its own, or switch it off."
        )
    if _acts_beyond_hints(unit.module):
        raise HostError(
            f"ControlNet's preprocessor {unit.module} changes the sampling by one image for all "
            "frames; choose one that only makes hints, or give the unit an image of its own."
        )


def _pair(frames: Sequence[Image], masks: Sequence[Image]) -> list[tuple[Image, Image | None]]:
    return list(zip(frames, masks or [None] * len(frames), strict=True))


def _as_input(unit: Any, p: Any, frame: Image, mask: Image | None) -> NDArray[np.uint8]:
    """Make a preprocessor's input: [H, W, 3], for inpainting [H, W, 4] with the mask as 255."""
    colors = np.asarray(frame)
    if _INPAINT not in unit.module:
        return colors
    if mask is None:
        return np.dstack([colors, np.zeros(colors.shape[:2], np.uint8)])
    # As ControlNet takes img2img's mask.
    if getattr(p, "inpainting_mask_invert", False):
        mask = ImageOps.invert(mask)
    if blur := getattr(p, "mask_blur", 0):
        mask = mask.filter(ImageFilter.GaussianBlur(blur))
    return np.dstack([colors, np.asarray(mask)])


def _hint(script: Any, unit: Any, frame: NDArray[np.uint8], p: Any) -> Tensor:
    """Run the unit's own preprocessor on one frame, [1, 3, H, W]."""
    module = importlib.import_module("scripts.supported_preprocessor")
    preprocessor = module.Preprocessor.get_preprocessor(unit.module)
    if preprocessor is None:
        raise HostError(f"ControlNet has no preprocessor {unit.module!r}; choose another.")
    result = preprocessor.cached_call(
        frame, resolution=unit.processor_res, slider_1=unit.threshold_a,
        slider_2=unit.threshold_b, low_vram=getattr(unit, "low_vram", False), model=unit.model,
    )
    external = importlib.import_module("scripts.external_code")
    mode = external.resize_mode_from_value(unit.resize_mode)
    value = getattr(result, "value", result)
    hint = type(script).detectmap_proc(value, unit.module, mode, p.height, p.width)[0]
    if hint.shape[1] == 3:
        return hint
    # A ControlNet for inpainting sees -1 where something is painted.
    painted = (hint[:, 3:] > 0.5).to(hint)
    return hint[:, :3] * (1 - painted) - painted


class _PerFrame:
    """A unit's network that is called with the hint of each row's frame.

    Several units may share one network, so nothing is put on the network itself.
    """

    def __init__(self, network: Any, hints: Tensor) -> None:
        """
        Args:
            hints: [N, 3, H, W]
        """
        self._network, self._hints = network, hints
        # Converted once a batch, not at each call.
        self._sent: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *, x: Tensor, hint: Tensor, **further: Any) -> Any:
        count, rows = len(self._hints), len(x)
        if rows % count:
            raise HostError(
                f"ControlNet works on {rows} rows, which is not a multiple of the {count} frames; "
                "switch off extensions that change the batch."
            )
        where = (hint.device, hint.dtype)
        if where not in self._sent:
            self._sent[where] = self._hints.to(hint)
        own = self._sent[where].repeat(rows // count, 1, 1, 1)
        return self._network(x=x, hint=own, **further)
