"""`modules.sd_samplers`: samplers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.helpers.webui import sampling
from tests.helpers.webui.sd_samplers_common import Sampler
from tests.helpers.webui.sd_samplers_kdiffusion import KDiffusionSampler, LCMSampler
from tests.helpers.webui.sd_samplers_timesteps import CompVisSampler

SAMPLERS: dict[str, tuple[type[Any], Callable[..., Any]]] = {
    "Euler": (KDiffusionSampler, sampling.sample_euler),
    "Euler a": (KDiffusionSampler, sampling.sample_euler_ancestral),
    "Heun": (KDiffusionSampler, sampling.sample_heun),
    "DPM++ 2M": (KDiffusionSampler, sampling.sample_dpmpp_2m),
    "DPM adaptive": (KDiffusionSampler, sampling.sample_dpm_adaptive),
    "DDIM": (CompVisSampler, sampling.ddim),
    "LCM": (LCMSampler, sampling.sample_lcm),
}


def visible_sampler_names() -> list[str]:
    """Those that the settings do not hide."""
    return list(SAMPLERS)


def create_sampler(name: str) -> Sampler:
    """A new one."""
    kind, function = SAMPLERS[name]
    return kind(function)
