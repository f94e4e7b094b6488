"""sd-webui-controlnet, the extension of the WebUI and of its forks."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco.errors import HostError
from fresco.hosts.patching import pre_hook

_PUBLIC = ("internal_controlnet.external_code", "scripts.external_code")


class ExtensionControl:
    """`HostControl` of sd-webui-controlnet."""

    name = "sd-webui-controlnet"

    @classmethod
    def find(cls) -> ExtensionControl | None:
        """This WebUI's, if it is installed."""
        return cls() if _find_public() else None

    def list_models(self) -> Sequence[str]:
        """As its public module lists them."""
        public = _find_public()
        return public.get_models() if public else ()

    def list_modules(self) -> Sequence[str]:
        """As its public module lists them."""
        public = _find_public()
        return public.get_modules() if public else ()

    def knows(self, script: Any) -> bool:
        """By the attributes that are used here."""
        return hasattr(script, "enabled_units") and hasattr(script, "latest_network")

    @contextmanager
    def hinted(self, script: Any, p: Any, frames: NDArray[np.uint8]) -> Iterator[None]:
        """See `HostControl`."""
        with ExitStack() as stack:
            for unit, parameters in _started_units(script):
                if _has_image(unit):
                    continue
                _require_controlnet(unit, parameters)
                hints = torch.cat([_hint(script, unit, frame, p) for frame in frames])
                stack.enter_context(_hinted(parameters.control_model, hints))
            yield


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
    """Enabled units with what ControlNet made of them; it swallows what goes wrong there."""
    units, network = list(script.enabled_units or ()), script.latest_network
    if network is None or not units:
        raise HostError(
            "ControlNet has units switched on but did not start; the console says why. Correct its "
            "units, or switch them off."
        )
    return list(zip(units, network.control_params, strict=True))


def _has_image(unit: Any) -> bool:
    image = getattr(unit, "image", None)
    if isinstance(image, dict):
        image = image.get("image")
    return image is not None or bool(getattr(unit, "batch_images", None))


def _require_controlnet(unit: Any, parameters: Any) -> None:
    kind = parameters.control_model_type
    if not kind.is_controlnet:
        raise HostError(
            f"ControlNet's unit {unit.module} ({kind.name}) cannot follow the frames; give it an "
            "image of its own, or switch it off."
        )


def _hint(script: Any, unit: Any, frame: NDArray[np.uint8], p: Any) -> Tensor:
    """[1, 3, H, W]: the unit's own preprocessor on one frame."""
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
    return type(script).detectmap_proc(value, unit.module, mode, p.height, p.width)[0]


@contextmanager
def _hinted(model: Any, hints: Tensor) -> Iterator[None]:
    """Within: every row of the ControlNet gets the hint of its frame."""
    sent: dict[tuple[torch.device, torch.dtype], Tensor] = {}  # once a batch, not once a call

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rows = len(kwargs["x"])
        given = kwargs["hint"]
        if rows % len(hints):
            raise HostError(
                f"ControlNet works on {rows} rows, which is not a multiple of the {len(hints)} "
                "frames; switch off extensions that change the batch."
            )
        where = (given.device, given.dtype)
        if where not in sent:
            sent[where] = hints.to(given)
        own = sent[where].repeat(rows // len(hints), 1, 1, 1)
        return args, {**kwargs, "hint": own}

    with pre_hook(model, hook):
        yield
