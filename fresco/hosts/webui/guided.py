"""The WebUI's model under guidance for one batch, whether img2img's script or a job asks for it."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from modules import sd_models, shared
from modules.hypernetworks import hypernetwork

from fresco.guidance.ports import BatchCarry, SamplingGuide
from fresco.hosts.detection import find_guidable_unet
from fresco.hosts.ldm.unet import LdmUNet, Sources
from fresco.hosts.webui.sampling import BatchSampling


def model_unet(model: Any) -> LdmUNet:
    """The seam on the UNet of the WebUI's model."""
    return LdmUNet(find_guidable_unet(model), sources=_hypernetworks())


def _hypernetworks() -> Sources | None:
    """What keys and values of attention are made of, if hypernetworks are loaded."""
    loaded = shared.loaded_hypernetworks
    if not loaded:
        return None
    return lambda x: hypernetwork.apply_hypernetworks(loaded, x)


@contextmanager
def guided_sampling(
    p: Any, unet: LdmUNet, guide: SamplingGuide, sigmas: Sequence[float], seed: int,
    carry: BatchCarry | None,
) -> Iterator[BatchSampling]:
    """Within: the sampler of a call samples its batch guided.

    Args:
        sigmas: noise level of every training timestep, rising.
        carry: from the batch before.
    """
    work = BatchSampling(p.sd_model, p.sampler, unet, guide, sigmas, p.init_latent, seed, carry)
    # Merged tokens have no motion path; the WebUI sets its ratio anew at the next call.
    sd_models.apply_token_merging(p.sd_model, 0)
    with unet.installed(guide), work.installed():
        yield work


def forget_conditionings(p: Any) -> None:
    """ControlNet marks cached conditionings in place, and clears them only in the model's call."""
    for base in type(p).__mro__:
        if "cached_c" in vars(base):
            base.cached_c, base.cached_uc = [None, None], [None, None]
