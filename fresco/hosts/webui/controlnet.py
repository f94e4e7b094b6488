"""ControlNet of the WebUI around, whichever it has: sd-webui-controlnet, the one that Forge kinds
have built in, or none. Its lists, its units of a job, and a hint for each frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fresco.errors import HostError, SettingsError
from fresco.hosts.options import ControlUnit
from fresco.hosts.webui.controlnet_builtin import BuiltinControl
from fresco.hosts.webui.controlnet_extension import ExtensionControl

_TITLE = "controlnet"
_NO_MODULE = "none"
"""Name of no preprocessor, in small letters: Forge kinds begin it with a capital."""
_OWN_IMAGE = (
    "clip", "facexlib", "insightface", "instant_id", "ip-adapter", "reference", "revision",
    "shuffle", "t2ia_style",
)
"""Beginnings of the names of preprocessors that take their look from one image, in small letters.
"""


class HostControl(Protocol):
    """ControlNet as one kind of WebUI has it."""

    name: str
    """As a person knows it."""

    @property
    def on_by_default(self) -> bool:
        """Whether a unit of a request that does not say so is on."""
        ...

    def list_models(self) -> Sequence[str]:
        """Models, as it lists them."""
        ...

    def list_modules(self) -> Sequence[str]:
        """Preprocessors, as it lists them; only those that do no more than make a hint."""
        ...

    def knows(self, script: Any) -> bool:
        """Whether a script of the WebUI is this ControlNet."""
        ...

    def hinted(
        self, script: Any, p: Any, frames: Sequence[Image.Image], masks: Sequence[Image.Image]
    ) -> AbstractContextManager[None]:
        """Within: every unit of a call that is on and has no image sees each frame's hint.

        Args:
            frames: of this batch, as they are encoded.
            masks: of inpainting, one for each frame, or none; white is painted.
        """
        ...

    def forget(self, script: Any) -> None:
        """A call ended in an error: nothing of it may act on the next one."""
        ...


_KINDS = (BuiltinControl, ExtensionControl)


def find_control() -> HostControl | None:
    """The ControlNet of this WebUI, or None where there is none."""
    return next((found for kind in _KINDS if (found := kind.find())), None)


def control_models() -> tuple[str, ...]:
    """ControlNet's models, as it lists them."""
    control = find_control()
    return tuple(name for name in control.list_models() if name != "None") if control else ()


def control_modules() -> tuple[str, ...]:
    """Preprocessors that can follow the frames, none of them first: not those that look at an image
    of their own."""
    control = find_control()
    known = control.list_modules() if control else ()
    following = [name for name in known if not name.lower().startswith(_OWN_IMAGE)]
    return tuple(sorted(following, key=lambda name: (name.lower() != _NO_MODULE, name)))


def resolve_unit(unit: ControlUnit) -> ControlUnit:
    """A job's unit with model and preprocessor as this WebUI names them."""
    model = _find_model(unit.model, control_models())
    module = _find_module(unit.module, control_modules())
    return ControlUnit(model, module, unit.weight, unit.start, unit.end)


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
    raise SettingsError(
        f"A ControlNet unit's preprocessor is {asked!r}; choose one of {', '.join(known)}."
    )


def place_units(scripts: Any, arguments: list[Any], control: Sequence[ControlUnit]) -> None:
    """Put a job's units among the arguments of all scripts, without an image, so that every frame
    gets its own hint.

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
    (script,) = found
    room = script.args_to - script.args_from
    if len(control) > room:
        raise SettingsError(
            f"{len(control)} ControlNet units are asked for, but this WebUI has {room}. Its "
            "ControlNet settings say how many there are."
        )
    for position, unit in enumerate(control):
        arguments[script.args_from + position] = {
            "enabled": True, "module": unit.module, "model": unit.model, "weight": unit.weight,
            "guidance_start": unit.start, "guidance_end": unit.end, "pixel_perfect": True,
            "save_detected_map": False,
        }


@contextmanager
def per_frame_hints(
    p: Any, frames: NDArray[np.uint8], masks: NDArray[np.uint8] | None = None
) -> Iterator[None]:
    """Within: every ControlNet unit that is on and has no image sees each frame's hint.

    Args:
        frames: [N, H, W, 3] RGB of this batch, as they are encoded.
        masks: [N, H, W, 3] of inpainting, white is painted; None: nothing is inpainted.
    """
    scripts = [one for one in _list_controlnets(p.scripts) if _is_used(one, p.script_args)]
    if not scripts:
        yield
        return
    _require_one(_list_controlnets(p.scripts))
    (script,) = scripts
    images = [Image.fromarray(frame) for frame in frames]
    shown = [Image.fromarray(mask).convert("L") for mask in masks] if masks is not None else []
    with _adapter(script).hinted(script, p, images, shown):
        yield


def forget_call(p: Any) -> None:
    """A call ended in an error: ControlNet must not do to the next one what it began for this."""
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


def _adapter(script: Any) -> HostControl:
    if control := _find_adapter(script):
        return control
    raise HostError(
        f"The ControlNet of this WebUI ({script.filename}) is not one that FRESCO can give hints "
        "to; switch its units off."
    )
