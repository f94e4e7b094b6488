"""Refuse calls that cannot be guided, before anything is sampled."""

from __future__ import annotations

import sys
from typing import Any

from fresco.errors import SettingsError
from fresco.hosts.webui.sampling import UNGUIDED_SAMPLERS

_BATCH_TAB = "process_batch"
"""The WebUI's function that goes through the files of the Batch tab; the same in all versions."""
_LATENT_RESIZE = 3
"""The WebUI's `Just resize (latent upscale)`."""


def refuse_unsupported(p: Any, *, masked: bool) -> None:
    """Raise an error if a call asks the WebUI for something that FRESCO cannot do.

    Args:
        masked: FRESCO was given masks of its own
    """
    own_mask = getattr(p, "image_mask", None) is not None
    inpaints = masked or own_mask
    refusals = (
        (in_batch_tab(),
         "The Batch tab calls FRESCO for one file at a time, so there is nothing to share between "
         "frames. Give the folder as FRESCO path, in the img2img tab."),
        (p.n_iter != 1, f"Batch count is {p.n_iter}; FRESCO puts the frames into "
                        "batches itself. Set it to 1."),
        (p.batch_size not in (1, len(p.init_images or ())),
         f"Batch size is {p.batch_size}; FRESCO sets it itself (keyframes.batch_size says how "
         "many frames are sampled together). Set it to 1."),
        (p.resize_mode == _LATENT_RESIZE,
         "Resize mode is latent upscale, whose frames cannot be matched with the source's; choose "
         "another resize mode."),
        (masked and own_mask,
         "There is a mask of img2img, and there are masks of FRESCO; leave one of them out."),
        (inpaints and bool(p.inpaint_full_res),
         "Inpaint area is Only masked, which crops the frames; choose Whole picture "
         "(inpaint_full_res: false)."),
        (inpaints and _switched_on(p, "soft inpainting"),
         "Soft inpainting takes masks by their place in a batch, which FRESCO's anchors change; "
         "switch it off."),
        (p.sampler_name in UNGUIDED_SAMPLERS,
         f"The sampler is {p.sampler_name}, whose number of steps differs from batch to batch; "
         "choose another, such as Euler a or DPM++ 2M."),
        (getattr(p, "refiner_checkpoint", None) not in (None, "", "None", "none"),
         f"The refiner {getattr(p, 'refiner_checkpoint', '')} would change the model while it is "
         "guided; switch the refiner off."),
    )
    for refused, sentence in refusals:
        if refused:
            raise SettingsError(sentence)


def in_batch_tab() -> bool:
    """Whether img2img's Batch tab makes this call, by the call stack."""
    tab = sys.modules.get("modules.img2img")
    frame = sys._getframe()
    while frame is not None and tab is not None:
        if frame.f_code.co_name == _BATCH_TAB and frame.f_globals is vars(tab):
            return True
        frame = frame.f_back
    return False


def _switched_on(p: Any, title: str) -> bool:
    """Whether another script of the call is on, by its first argument."""
    scripts = p.scripts.alwayson_scripts if p.scripts is not None else ()
    script = next((s for s in scripts if str(s.title()).lower() == title), None)
    return script is not None and bool(p.script_args[script.args_from])
