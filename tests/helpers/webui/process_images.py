"""`modules.processing.process_images`: the order of a call, its callbacks and its iterations."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.helpers.webui import devices, scripts, sd_models, shared
from tests.helpers.webui.processing import new_noise


@dataclass
class Processed:
    """What a call gives."""

    images: list[Image.Image] = field(default_factory=list)
    infotexts: list[str] = field(default_factory=list)
    comments: str = ""
    extra_generation_params: dict[str, Any] = field(default_factory=dict)


def process_images(p: Any) -> Processed:
    """One call, with the settings that hold for it alone.

    A setting that was never set before is not given back, as in the WebUI.
    """
    p.scripts.run("before_process", p)
    data = shared.opts.data
    stored = {name: data[name] for name in p.override_settings if name in data}
    try:
        for name, value in p.override_settings.items():
            setattr(shared.opts, name, value)
        sd_models.apply_token_merging(p.sd_model, 0)
        return _process(p)
    finally:
        sd_models.apply_token_merging(p.sd_model, 0)
        data.update(stored)


def _process(p: Any) -> Processed:
    seed, subseed = _fixed_seed(p.seed), _fixed_seed(p.subseed)
    if p.s_min_uncond is None:
        p.s_min_uncond = shared.opts.s_min_uncond
    if p.refiner_checkpoint not in (None, "", "None", "none", shared.CHECKPOINT):
        raise RuntimeError(f"Could not find checkpoint with name {p.refiner_checkpoint}")
    p.setup_prompts()
    places = range(len(p.all_prompts))
    p.all_seeds = seed if isinstance(seed, list) else [
        seed + (0 if p.subseed_strength else place) for place in places
    ]
    p.all_subseeds = [subseed + place for place in places]
    p.scripts.run("process", p)
    result = Processed(extra_generation_params=p.extra_generation_params)
    with torch.no_grad():
        p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
        if shared.state.job_count == -1:
            shared.state.job_count = p.n_iter
        for number in range(p.n_iter):
            p.iteration = number
            shared.state.skipped = False
            if shared.state.interrupted or shared.state.stopping_generation:
                break
            if not _iterate(p, number, result):
                break
    p.color_corrections = None
    result.comments = "".join(f"{text}\n" for text in p.comments)
    p.scripts.run("postprocess", p, result)
    return result


def _fixed_seed(seed: Any) -> Any:
    """A seed for a random one."""
    return int(random.randrange(4294967294)) if seed in (None, "", -1) else seed


def _slices(p: Any, number: int, *names: str) -> None:
    for name in names:
        values = getattr(p, f"all_{name}")
        setattr(p, name, values[number * p.batch_size:(number + 1) * p.batch_size])


def _iterate(p: Any, number: int, result: Processed) -> bool:
    _slices(p, number, "prompts", "negative_prompts", "seeds", "subseeds")
    p.rng = new_noise(p)
    told = {"prompts": p.prompts, "seeds": p.seeds, "subseeds": p.subseeds}
    p.scripts.run("before_process_batch", p, batch_number=number, **told)
    if not p.prompts:
        return False
    p.scripts.run("after_extra_networks_activate", p, batch_number=number, **told)
    told = {"prompts": p.prompts, "seeds": p.seeds, "subseeds": p.subseeds}
    p.scripts.run("process_batch", p, batch_number=number, **told)
    p.setup_conds()
    samples = p.sample(
        conditioning=p.c, unconditional_conditioning=p.uc, seeds=p.seeds, subseeds=p.subseeds,
        subseed_strength=p.subseed_strength, prompts=p.prompts,
    )
    after = scripts.PostSampleArgs(samples)
    p.scripts.run("post_sample", p, after)
    devices.test_for_nans(after.samples, "unet")
    decoded = p.sd_model.decode_first_stage(after.samples.to(devices.dtype_vae))
    decoded = decoded.float().to(devices.cpu)
    pixels = ((decoded + 1) / 2).clamp(0, 1)
    shared.state.nextjob()
    p.scripts.run("postprocess_batch", p, pixels, batch_number=number)
    _slices(p, number, "prompts", "negative_prompts")
    batch = scripts.PostprocessBatchListArgs(list(pixels))
    p.scripts.run("postprocess_batch_list", p, batch, batch_number=number)
    for place, image in enumerate(batch.images):
        p.batch_index = place
        result.images.append(_finished(p, place, image))
        result.infotexts.append(create_infotext(p, place))
        if p.mask_for_overlay is not None and shared.opts.return_mask:
            result.images.append(p.mask_for_overlay.convert("RGB"))
    return True


def _finished(p: Any, place: int, pixels: Tensor) -> Image.Image:
    """One picture, corrected in colour and laid under what the mask keeps."""
    array = (255 * pixels.permute(1, 2, 0).numpy()).astype(np.uint8)
    told = scripts.PostprocessImageArgs(Image.fromarray(array))
    p.scripts.run("postprocess_image", p, told)
    image = told.image
    if p.color_corrections is not None and place < len(p.color_corrections):
        values = np.asarray(image, np.float32)
        values = values - values.mean((0, 1)) + p.color_corrections[place]
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if p.overlay_images is not None and place < len(p.overlay_images):
        image = Image.alpha_composite(image.convert("RGBA"), p.overlay_images[place])
        image = image.convert("RGB")
    told = scripts.PostprocessImageArgs(image)
    p.scripts.run("postprocess_image_after_composite", p, told)
    return told.image


def create_infotext(p: Any, index: int) -> str:
    """What is written into a picture; prompts and seeds must reach as far as pictures do."""
    values = {
        "Steps": p.steps, "Sampler": p.sampler_name, "CFG scale": p.cfg_scale,
        "Seed": p.seeds[index], "Size": f"{p.width}x{p.height}", **p.extra_generation_params,
    }
    values = {
        name: value(p=p, index=index, use_main_prompt=False) if callable(value) else value
        for name, value in values.items()
    }
    texts = [f"{name}: {_quoted(value)}" for name, value in values.items() if value is not None]
    negative = p.negative_prompts[index]
    lines = [p.prompts[index], f"Negative prompt: {negative}" if negative else "",
             ", ".join(texts)]
    return "\n".join(line for line in lines if line)


def _quoted(value: Any) -> str:
    text = str(value)
    return f'"{text}"' if any(sign in text for sign in ",:\n") else text
