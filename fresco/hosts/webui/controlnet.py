"""ControlNet through the public parts of sd-webui-controlnet: its lists, and a hint a frame."""

from __future__ import annotations

import contextlib
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

_TITLE = "controlnet"
_OWN_IMAGE = ("clip_vision", "instant_id", "ip-adapter", "reference", "revision", "shuffle")
"""Beginnings of the names of preprocessors that take their look from one image."""


def find_controlnet() -> Any:
    """ControlNet's public module, or None where it is not installed."""
    for name in ("internal_controlnet.external_code", "scripts.external_code"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def control_models() -> tuple[str, ...]:
    """ControlNet's models, as it lists them."""
    control = find_controlnet()
    return tuple(name for name in control.get_models() if name != "None") if control else ()


def control_modules() -> tuple[str, ...]:
    """Preprocessors that can follow the frames: not those that look at an image of their own."""
    control = find_controlnet()
    known = control.get_modules() if control else []
    following = [name for name in known if not name.startswith(_OWN_IMAGE)]
    return tuple(sorted(following, key=lambda name: (name != "none", name)))


@contextmanager
def per_frame_hints(p: Any, frames: NDArray[np.uint8]) -> Iterator[None]:
    """Within: every enabled unit without an image of its own sees each frame's hint.

    Args:
        frames: [N, H, W, 3] RGB of this batch, as they are encoded.
    """
    script = _script(p)
    with ExitStack() as stack:
        for unit, parameters in _units(script):
            if _has_image(unit):
                continue
            _require_controlnet(unit, parameters)
            hints = torch.cat([_hint(script, unit, frame, p) for frame in frames])
            stack.enter_context(_hinted(parameters.control_model, hints))
        yield


def _script(p: Any) -> Any:
    scripts = p.scripts.alwayson_scripts if p.scripts is not None else ()
    return next((s for s in scripts if str(s.title()).lower() == _TITLE), None)


def _units(script: Any) -> Sequence[tuple[Any, Any]]:
    """Enabled units with what ControlNet made of them."""
    units = list(getattr(script, "enabled_units", None) or ())
    if not units:
        return ()
    network = getattr(script, "latest_network", None)
    if network is None:
        raise HostError(
            f"ControlNet has {len(units)} units switched on but did not start; the console says "
            "why. Correct its units, or switch them off."
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


@contextlib.contextmanager
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
