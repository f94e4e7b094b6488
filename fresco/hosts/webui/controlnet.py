"""Use the WebUI's ControlNet: its lists, the units of a job, and a hint for each frame.

It is sd-webui-controlnet, or the one that Forge kinds have built in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fresco.control import OWN, ControlUnit
from fresco.errors import HostError, SettingsError
from fresco.hosts.options import Sliders, check_thresholds, complete_unit
from fresco.hosts.webui.controlnet_builtin import BuiltinControl
from fresco.hosts.webui.controlnet_extension import ExtensionControl

_TITLE = "controlnet"
_NO_MODULE = "none"
"""Name of the choice of no preprocessor, in lower case; Forge kinds capitalise it."""
_OWN_IMAGE = (
    "clip", "facexlib", "insightface", "instant_id", "ip-adapter", "reference", "revision",
    "shuffle", "t2ia_style",
)
"""Beginnings of the names of preprocessors that take their look from one image, in small letters.
"""


Given = Sequence[Sequence[Image.Image] | None]
"""Images for each unit in place of the frames; None: the frames. Empty: these for all units."""


class HostControl(Protocol):
    """ControlNet of one kind of WebUI."""

    name: str
    """Name for users."""

    @property
    def on_by_default(self) -> bool:
        """Whether a unit of a request is on if the request does not say so."""
        ...

    def list_models(self) -> Sequence[str]:
        """Names of the models, as ControlNet lists them."""
        ...

    def list_modules(self) -> Sequence[str]:
        """Names of the preprocessors that only make a hint, as ControlNet lists them."""
        ...

    def knows(self, script: Any) -> bool:
        """Whether a script of the WebUI is this ControlNet."""
        ...

    def hinted(
        self, script: Any, p: Any, frames: Sequence[Image.Image], masks: Sequence[Image.Image],
        given: Given = (),
    ) -> AbstractContextManager[None]:
        """Within the context, every active unit without an image gets each frame's hint.

        Args:
            frames: of this batch, as they are encoded.
            masks: of inpainting, one for each frame, or none; white is painted.
            given: hints of the units, made elsewhere.
        """
        ...

    def list_sliders(self, module: str) -> Sliders:
        """Numbers of a preprocessor."""
        ...

    def draw_hint(
        self, script: Any, fields: dict[str, Any], frame: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Make the hint of a frame [H, W, 3].

        Args:
            fields: of the unit, as a program sends them.
        """
        ...

    def forget(self, script: Any) -> None:
        """Clear the state of a call that ended in an error, so that it does not affect the next."""
        ...


_KINDS = (BuiltinControl, ExtensionControl)


def find_control() -> HostControl | None:
    """Find the ControlNet of this WebUI; None if there is none."""
    return next((found for kind in _KINDS if (found := kind.find())), None)


def control_models() -> tuple[str, ...]:
    """Names of ControlNet's models, as it lists them."""
    control = find_control()
    return tuple(name for name in control.list_models() if name != "None") if control else ()


def control_modules() -> tuple[str, ...]:
    """Names of preprocessors that can follow the frames; `none` comes first."""
    control = find_control()
    known = control.list_modules() if control else ()
    following = [name for name in known if not name.lower().startswith(_OWN_IMAGE)]
    return tuple(sorted(following, key=lambda name: (name.lower() != _NO_MODULE, name)))


def resolve_unit(unit: ControlUnit) -> ControlUnit:
    """Replace model and preprocessor of a job's unit by the names that this WebUI uses."""
    modules = control_modules()
    unit = dataclasses.replace(unit, model=_find_model(unit.model, control_models()))
    unit = complete_unit(unit, modules)
    unit = dataclasses.replace(unit, module=_find_module(unit.module, modules))
    return check_thresholds(unit, list_sliders(unit.module))


def list_sliders(module: str) -> Sliders:
    """Numbers of a preprocessor."""
    control = find_control()
    return control.list_sliders(module) if control else {}


def _find_model(asked: str, known: Sequence[str]) -> str:
    for name in known:
        if asked in (name, name.split(" [")[0]):
            return name
    raise SettingsError(
        f"A ControlNet unit's model is {asked!r}; "
        + (f"choose one of {', '.join(known)}." if known else "this WebUI has no ControlNet model.")
    )


def _find_module(asked: str, known: Sequence[str]) -> str:
    if asked in known:
        return asked
    if asked.lower() == _NO_MODULE and known and known[0].lower() == _NO_MODULE:
        return known[0]
    if asked.lower().startswith(_OWN_IMAGE):
        raise SettingsError(
            f"A ControlNet unit's preprocessor is {asked!r}, which takes the look of one image and "
            "cannot follow the frames: IP-Adapter makes no hint of a frame, and reference units "
            "replace the attention that FRESCO guides. Choose another; in img2img a unit "
            "with an image of its own acts on all frames alike."
        )
    raise SettingsError(
        f"A ControlNet unit's preprocessor is {asked!r}; choose one of {', '.join(known)}."
    )


def place_units(scripts: Any, arguments: list[Any], control: Sequence[ControlUnit]) -> None:
    """Put a job's units among the arguments of all scripts.

    They have no image, so every frame gets its own hint.

    Args:
        scripts: the WebUI's script runner
    """
    script = require_control(scripts)
    room = script.args_to - script.args_from
    if len(control) > room:
        raise SettingsError(
            f"{len(control)} ControlNet units are asked for, but this WebUI has {room}. Its "
            "ControlNet settings say how many there are."
        )
    for position, unit in enumerate(control):
        arguments[script.args_from + position] = list_fields(unit)


def require_control(scripts: Any) -> Any:
    """Find the script of ControlNet; HostError if there is none, or several.

    Args:
        scripts: the WebUI's script runner
    """
    found = _list_controlnets(scripts)
    if not found:
        raise SettingsError(
            "ControlNet is not installed in this WebUI; install sd-webui-controlnet, or leave its "
            "units out."
        )
    _require_one(found)
    return found[0]


def count_units(scripts: Any) -> int:
    """Number of units that the WebUI's ControlNet has by its settings; 0 without ControlNet.

    Args:
        scripts: the WebUI's script runner
    """
    found = _list_controlnets(scripts)
    return (found[0].args_to or 0) - (found[0].args_from or 0) if found else 0


_MODES = {"prompt": "My prompt is more important", "control": "ControlNet is more important"}
_RESIZES = {"stretch": "Just Resize", "fill": "Resize and Fill"}
"""ControlNet's names of the resize modes that are not its default."""


def list_fields(unit: ControlUnit) -> dict[str, Any]:
    """Describe a resolved unit by ControlNet's own fields, as a program sends them."""
    fields: dict[str, Any] = {
        "enabled": True, "module": unit.module, "model": unit.model, "weight": unit.weight,
        "guidance_start": unit.start, "guidance_end": unit.end,
        "pixel_perfect": not unit.resolution, "save_detected_map": False,
    }
    for name, value in (("threshold_a", unit.threshold_a), ("threshold_b", unit.threshold_b)):
        if value != OWN:
            fields[name] = value
    if unit.resolution:
        fields["processor_res"] = unit.resolution
    if unit.control_mode in _MODES:
        fields["control_mode"] = _MODES[unit.control_mode]
    if unit.resize_mode in _RESIZES:
        fields["resize_mode"] = _RESIZES[unit.resize_mode]
    return fields


@contextmanager
def per_frame_hints(
    p: Any, frames: NDArray[np.uint8], masks: NDArray[np.uint8] | None = None,
    hints: Sequence[NDArray[np.uint8] | None] = (),
) -> Iterator[None]:
    """Within the context, every active ControlNet unit without an image gets each frame's hint.

    Args:
        frames: [N, H, W, 3] RGB of this batch, as they are encoded.
        masks: [N, H, W, 3] of inpainting, white is painted; None: nothing is inpainted.
        hints: of each unit, made elsewhere, as in `BatchRequest`.
    """
    scripts = [one for one in _list_controlnets(p.scripts) if _is_used(one, p.script_args)]
    if not scripts:
        yield
        return
    _require_one(_list_controlnets(p.scripts))
    (script,) = scripts
    images = [Image.fromarray(frame) for frame in frames]
    shown = [Image.fromarray(mask).convert("L") for mask in masks] if masks is not None else []
    given = [None if own is None else [Image.fromarray(hint) for hint in own] for own in hints]
    with find_adapter(script).hinted(script, p, images, shown, given):
        yield


def forget_call(p: Any) -> None:
    """Clear ControlNet's state after a call that ended in an error."""
    for script in _list_controlnets(p.scripts):
        if control := _find_adapter(script):
            control.forget(script)


def _list_controlnets(runner: Any) -> list[Any]:
    listed = runner.alwayson_scripts if runner is not None else ()
    return [one for one in listed if str(one.title()).lower() == _TITLE]


def _is_used(script: Any, arguments: Sequence[Any]) -> bool:
    """Whether a unit is on, by the script's arguments."""
    given = arguments[script.args_from:script.args_to]
    control = _find_adapter(script)
    usual = control is None or control.on_by_default
    return any(
        unit.get("enabled", usual) if isinstance(unit, Mapping) else getattr(unit, "enabled", False)
        for unit in given
    )


def _require_one(scripts: Sequence[Any]) -> None:
    if len(scripts) > 1:
        files = " and ".join(str(script.filename) for script in scripts)
        raise HostError(
            f"This WebUI has {len(scripts)} ControlNets, {files}; remove one of them. Forge kinds "
            "have theirs built in."
        )


def _find_adapter(script: Any) -> HostControl | None:
    return next((control for kind in _KINDS if (control := kind()).knows(script)), None)


def find_adapter(script: Any) -> HostControl:
    """Find the adapter for a script of ControlNet; HostError if there is none."""
    if control := _find_adapter(script):
        return control
    raise HostError(
        f"The ControlNet of this WebUI ({script.filename}) is not one that FRESCO can give hints "
        "to; switch its units off."
    )
