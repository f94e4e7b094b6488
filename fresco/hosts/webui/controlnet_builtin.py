"""The ControlNet that Forge, reForge and Forge Neo have built in (`lib_controlnet`).

Its `process` makes the hint of the first frame alone. Each unit's parameters are made anew here,
by its own code, from all frames of a batch; its engine takes a hint for each of them.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from fresco.errors import HostError
from fresco.hosts.options import Slider, Sliders
from fresco.hosts.patching import replaced_method
from fresco.hosts.webui.controlnet_start import changed_values, started

_CONDITIONS = (
    "control_cond", "control_cond_for_hr_fix", "control_mask", "control_mask_for_hr_fix",
)
"""Fields of a unit's parameters: tensors with one row for each image."""
_METHODS = (
    "bound_check_params", "get_enabled_units", "get_input_data",
    "process_unit_after_click_generate",
)
"""Methods of the script that are used here."""
_HINTED_INPAINTS = ("inpaint_global_harmonious", "inpaint_noobai")
"""Preprocessors that act during the sampling, but only on the hints."""


class BuiltinControl:
    """`HostControl` for Forge kinds."""

    name = "the built-in ControlNet"
    on_by_default = True

    @classmethod
    def find(cls) -> BuiltinControl | None:
        """Find the ControlNet of this WebUI; None if it has none built in."""
        try:
            lists = importlib.import_module("lib_controlnet.global_state")
        except ImportError:
            return None
        return cls() if hasattr(lists, "get_all_controlnet_names") else None

    def list_models(self) -> Sequence[str]:
        """Names of the models, as its page lists them."""
        return importlib.import_module("lib_controlnet.global_state").get_all_controlnet_names()

    def list_modules(self) -> Sequence[str]:
        """Names of the preprocessors that only make a hint, as its page lists them."""
        lists = importlib.import_module("lib_controlnet.global_state")
        return [
            name for name in lists.get_all_preprocessor_names()
            if not _acts_beyond_hints(lists.get_preprocessor(name))
        ]

    def list_sliders(self, module: str) -> Sliders:
        """See `HostControl`."""
        preprocessor = importlib.import_module("lib_controlnet.global_state").get_preprocessor(
            module
        )
        found = {
            name: getattr(getattr(preprocessor, f"slider_{number}", None),
                          "gradio_update_kwargs", {})
            for number, name in ((1, "threshold_a"), (2, "threshold_b"))
        }
        return {
            name: Slider(str(each["label"]), float(each["minimum"]), float(each["maximum"]),
                         float(each["value"]))
            for name, each in found.items() if each.get("visible")
        }

    def draw_hint(
        self, script: Any, fields: dict[str, Any], frame: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """See `HostControl`."""
        height, width = frame.shape[:2]
        public = importlib.import_module("lib_controlnet.external_code")
        utils = importlib.import_module("lib_controlnet.utils")
        unit = public.ControlNetUnit.from_dict(fields)
        script.bound_check_params(unit)
        mode = public.resize_mode_from_value(unit.resize_mode)
        if unit.pixel_perfect:
            unit.processor_res = public.pixel_perfect_resolution(
                frame, target_H=height, target_W=width, resize_mode=mode
            )
        preprocessor = importlib.import_module("lib_controlnet.global_state").get_preprocessor(
            unit.module
        )
        hint = preprocessor(
            input_image=frame, input_mask=None, resolution=unit.processor_res,
            slider_1=unit.threshold_a, slider_2=unit.threshold_b,
        )
        if not isinstance(hint, np.ndarray) or hint.ndim != 3:
            raise HostError(
                f"ControlNet's preprocessor {unit.module} makes no image of a frame; choose "
                "another."
            )
        fitted = utils.crop_and_resize_image(hint, mode, height, width)
        return np.ascontiguousarray(fitted[..., :3]).astype(np.uint8)

    def knows(self, script: Any) -> bool:
        """See `HostControl`; recognised by the methods that are used here."""
        return all(callable(getattr(script, name, None)) for name in _METHODS)

    def forget(self, script: Any) -> None:
        """Do nothing, because it begins every call with new parameters."""

    @contextmanager
    def hinted(
        self, script: Any, p: Any, frames: Sequence[Image], masks: Sequence[Image],
        given: Sequence[Sequence[Image] | None] = (),
    ) -> Iterator[None]:
        """See `HostControl`."""
        units = () if getattr(p, "control_net_disabled", False) else script.get_enabled_units(
            p.script_args[script.args_from:script.args_to]
        )
        if not units:
            yield
            return
        with ExitStack() as stack:
            for place, made in enumerate(_started_units(script, units)):
                shown = (given[place] if given else None) or frames
                rows = _rows_of(script, p, units[place], made, shown, masks)
                stack.enter_context(changed_values(made, **rows))
            # reForge takes a part of the hints by the number of the iteration: this batch's are
            # all that there are.
            stack.enter_context(started(script, p, iteration=0, batch_size=len(frames)))
            yield


def _started_units(script: Any, units: Sequence[Any]) -> list[Any]:
    """List the units with the parameters that ControlNet made; a missing one is an error."""
    made = getattr(script, "current_params", None) or {}
    parameters = [made.get(place) for place in range(len(units))]
    if any(one is None or one.model is None for one in parameters):
        raise HostError(
            "ControlNet has units switched on but did not start; the console says why. Correct its "
            "units, or switch them off."
        )
    return parameters


def _rows_of(
    script: Any, p: Any, unit: Any, made: Any, frames: Sequence[Image], masks: Sequence[Image]
) -> dict[str, Any]:
    """Hints and masks of a unit, one row for each frame."""
    _require_single_input(unit)
    if not _has_image(unit):
        _require_following(unit, made)
        made = _make_hints(script, p, unit, made, frames, masks)
        _require_hints(unit, made, len(frames))
    # Made for the first batch; in others the number of frames may be another.
    return {name: _repeat(getattr(made, name), len(frames)) for name in _CONDITIONS}


def _repeat(value: Any, count: int) -> Any:
    """Repeat what has a row for an image `count` times; return anything else unchanged."""
    if not isinstance(value, Tensor) or value.ndim != 4 or len(value) == count:
        return value
    return value[torch.arange(count) % len(value)]


def _has_image(unit: Any) -> bool:
    if unit.use_preview_as_input and unit.generated_image is not None:
        return True
    image = unit.image
    return (image.get("image") if isinstance(image, dict) else image) is not None


def _require_single_input(unit: Any) -> None:
    mode = getattr(getattr(unit, "input_mode", None), "name", "SIMPLE")
    if mode != "SIMPLE":
        raise HostError(
            f"A ControlNet unit ({unit.module}) takes several images (input mode {mode}), "
            "which cannot be matched with the frames; use a single image, or none, so that each "
            "frame gives its own hint."
        )
    groups = importlib.import_module("lib_controlnet.controlnet_ui.controlnet_ui_group")
    folder = getattr(groups.ControlNetUiGroup, "GLOBAL_CONTROLNET_BATCH_DIR", "").strip()
    if folder:
        raise HostError(
            f"ControlNet takes its images from the folder {folder}, named in the Batch tab, which "
            "cannot be matched with the frames; clear that field."
        )


def _require_following(unit: Any, made: Any) -> None:
    """Refuse networks that take no image as hint, and preprocessors that do more than a hint."""
    network = getattr(made.model, "model_patcher", None)
    if not hasattr(network, "set_cond_hint"):
        raise HostError(
            f"ControlNet's unit {unit.module} ({type(made.model).__name__}) cannot follow the "
            "frames; give it an image of its own, or switch it off."
        )
    if _acts_beyond_hints(made.preprocessor):
        raise HostError(
            f"ControlNet's preprocessor {unit.module} changes the sampling by one image for all "
            "frames; choose one that only makes hints, or give the unit an image of its own."
        )


def _acts_beyond_hints(preprocessor: Any) -> bool:
    """Whether a preprocessor also changes the sampling or the result by the first frame."""
    base = importlib.import_module("modules_forge.supported_preprocessor").Preprocessor
    own = type(preprocessor)
    if own.process_after_every_sampling is not base.process_after_every_sampling:
        return True
    samples = own.process_before_every_sampling is not base.process_before_every_sampling
    return samples and preprocessor.name not in _HINTED_INPAINTS


def _make_hints(
    script: Any, p: Any, unit: Any, made: Any, frames: Sequence[Image], masks: Sequence[Image]
) -> Any:
    """Make ControlNet's own parameters of a unit, from all frames instead of the first one."""
    own, fresh = copy.copy(unit), copy.copy(made)
    own.save_detected_map = False  # it shows that of the first frame already
    script.bound_check_params(own)  # -1 stands for the preprocessor's own numbers
    for name in _CONDITIONS:
        setattr(fresh, name, None)

    def give_frames(previous: Callable[..., Any]) -> Callable[..., Any]:
        def read(*args: Any) -> Any:
            pairs: list[Any] = []
            mode = None
            for place, frame in enumerate(frames):
                mask = masks[place] if masks else None
                with changed_values(p, init_images=[frame], image_mask=mask):
                    pair, mode = previous(*args)
                pairs += pair
            return pairs, mode

        return read

    with (
        replaced_method(script, "get_input_data", give_frames),
        changed_values(p, batch_size=len(frames), n_iter=1),
        # Its model is loaded already, and would be read from the disk once more.
        changed_values(made.preprocessor, do_not_need_model=True),
    ):
        script.process_unit_after_click_generate(p, own, fresh)
    return fresh


def _require_hints(unit: Any, made: Any, count: int) -> None:
    hints = made.control_cond
    if not isinstance(hints, Tensor) or hints.ndim != 4 or len(hints) != count:
        raise HostError(
            f"ControlNet's preprocessor {unit.module} makes no image of a frame, so the frames "
            "cannot have hints by it; choose another, or give the unit an image of its own."
        )
