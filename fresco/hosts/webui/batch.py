"""One batch of an img2img call: its noise, its encoding and its guided sampling.

The script in img2img and the jobs of the tab share it. `p` is the WebUI's processing object.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from modules import devices, images, rng, shared
from numpy.typing import NDArray
from PIL.Image import Image

from fresco.guidance.ports import BatchCarry, SamplingGuide
from fresco.hosts.webui.controlnet import forget_call, per_frame_hints
from fresco.hosts.webui.model import HostModel, find_latent_channels
from fresco.hosts.webui.sampling import BatchSampling

_LATENT_SCALE = 8


@contextmanager
def guided_batch(
    p: Any, opened: HostModel, guide: SamplingGuide, frames: NDArray[np.uint8], seed: int,
    carry: BatchCarry | None, masks: NDArray[np.uint8] | None = None,
    hints: Sequence[NDArray[np.uint8] | None] = (),
) -> Iterator[BatchSampling]:
    """Within the context, a call samples its batch with guidance and a hint for each frame.

    Args:
        frames: [N, H, W, 3] RGB of this batch, as they are encoded.
        carry: from the batch before.
        masks: [N, H, W, 3] of inpainting, as they are resized; white is painted.
        hints: of ControlNet's units, as in `BatchRequest`.
    """
    work = BatchSampling(opened, p.sampler, guide, p.init_latent, seed, carry)
    with per_frame_hints(p, frames, masks, hints), \
            opened.sampling(p, smooths=guide.wants_smoothing), \
            opened.unet.installed(guide), work.installed():
        yield work


def was_interrupted() -> bool:
    """Whether a user pressed Interrupt or Skip, which ends a batch before its last step."""
    return bool(shared.state.interrupted or shared.state.skipped)


def forget_failed_call(p: Any) -> None:
    """Clear the state of a failed call, so that it does not affect the next one.

    ControlNet marks cached conditionings in place, and clears them only in the model's call.
    """
    forget_call(p)
    for base in type(p).__mro__:
        if "cached_c" in vars(base):
            base.cached_c, base.cached_uc = [None, None], [None, None]


def encode_batch(p: Any, seed: int) -> None:
    """Encode the call's current images by the WebUI's own `p.init`."""
    p.color_corrections = p.overlay_images = None
    torch.manual_seed(seed)  # the VAE draws its noise from torch's own generator
    with devices.autocast():
        p.init(p.all_prompts, p.all_seeds, p.all_subseeds)


def make_noise(p: Any) -> Any:
    """Create the call's own generator of noise for as many frames as it has seeds now."""
    channels = find_latent_channels(p.sd_model)
    return rng.ImageRNG(
        (channels, p.height // _LATENT_SCALE, p.width // _LATENT_SCALE), p.seeds,
        subseeds=p.subseeds, subseed_strength=p.subseed_strength,
        seed_resize_from_h=p.seed_resize_from_h, seed_resize_from_w=p.seed_resize_from_w,
    )


def resize_frames(p: Any, given: Sequence[Image]) -> NDArray[np.uint8]:
    """Get the call's images as the WebUI resizes and encodes them, [N, H, W, 3] RGB."""
    return np.stack([
        np.asarray(images.resize_image(
            p.resize_mode, images.flatten(image, shared.opts.img2img_background_color),
            p.width, p.height,
        ).convert("RGB")) for image in given
    ])
