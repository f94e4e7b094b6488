"""Create schedulers of diffusers by name, and find the noise levels of their calls."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import diffusers
import torch
from diffusers.utils import is_torchsde_available
from torch import Tensor

from fresco.errors import HostError, SettingsError

_LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
"""951, 901, ... 1 for 20 steps: what FRESCO's figures were made with."""
_FREE = {"clip_sample": False}
"""Latents exceed 1; some classes would clip them, unless the model's own file forbids it."""
_LINEAR = {"timestep_spacing": "linspace"}
_MULTI = "DPMSolverMultistepScheduler"
_SINGLE = "DPMSolverSinglestepScheduler"

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm": ("DDPMScheduler", _LEADING | _FREE),
    "ddim": ("DDIMScheduler", _LEADING | _FREE),
    "pndm": ("PNDMScheduler", _LEADING | {"skip_prk_steps": True}),
    "plms": ("PNDMScheduler", _LEADING | {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", _LINEAR),
    "euler-a": ("EulerAncestralDiscreteScheduler", _LINEAR),
    "heun": ("HeunDiscreteScheduler", _LINEAR),
    "lms": ("LMSDiscreteScheduler", _LINEAR),
    "dpm2": ("KDPM2DiscreteScheduler", _LINEAR),
    "dpm2-a": ("KDPM2AncestralDiscreteScheduler", _LINEAR),
    "dpm++-2m": (_MULTI, _LINEAR | {"algorithm_type": "dpmsolver++"}),
    "dpm++-2m-sde": (_MULTI, _LINEAR | {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++-2s": (_SINGLE, {"algorithm_type": "dpmsolver++", "lower_order_final": True}),
    "dpm++-3m": (_MULTI, _LINEAR | {"algorithm_type": "dpmsolver++", "solver_order": 3}),
    "dpm++-sde": ("DPMSolverSDEScheduler", _LINEAR),
    "deis": ("DEISMultistepScheduler", _LINEAR),
    "unipc": ("UniPCMultistepScheduler", _LINEAR),
    "lcm": ("LCMScheduler", _FREE),
    "tcd": ("TCDScheduler", _FREE),
}
"""Our name -> class of diffusers and what is changed of the model's own configuration."""

_KARRAS = "-karras"
_NEEDS_TORCHSDE = ("DPMSolverSDEScheduler",)
"""Classes that draw their noise by the package torchsde, which diffusers does not bring along."""
_TRAILING = ("lcm", "tcd")
"""Schedulers whose timesteps always begin at the noisiest, whatever their class is told."""


def find_scheduler(name: str, timesteps: str = "auto") -> tuple[Any, dict[str, Any]]:
    """Find the class of a scheduler, and what its name changes in the model's configuration.

    Refuses what cannot be had; it needs no model, so it can be asked before one is loaded.

    Args:
        name: such as `ddpm`, `euler-a`, `DPM++ 2M Karras`
        timesteps: where its steps lie, as the option of that name says it
    """
    wanted = "-".join(name.lower().replace("_", " ").split())
    plain = wanted.removesuffix(_KARRAS)
    if plain not in SCHEDULERS:
        close = difflib.get_close_matches(plain, SCHEDULERS, 1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(SCHEDULERS)}."
        raise SettingsError(f"sampling.scheduler is {name!r}; {hint}")
    title, changes = SCHEDULERS[plain]
    if title in _NEEDS_TORCHSDE and not is_torchsde_available():
        raise HostError(
            f"sampling.scheduler is {name!r}, which needs the package torchsde, and that is not "
            'installed; install it (pip install "torchsde>=0.2.6"), or choose dpm++-2m-sde.'
        )
    cls = getattr(diffusers, title)
    if wanted != plain:
        if not _takes(cls, "use_karras_sigmas"):
            raise SettingsError(f"sampling.scheduler is {name!r}; {plain} has no Karras form.")
        changes = changes | {"use_karras_sigmas": True}
    return cls, changes | _place_timesteps(plain, cls, timesteps)


def _place_timesteps(plain: str, cls: Any, timesteps: str) -> dict[str, Any]:
    """What the option sampling.timesteps changes in a scheduler's configuration."""
    if timesteps == "auto" or (plain in _TRAILING and timesteps == "trailing"):
        return {}
    if plain in _TRAILING or not _takes(cls, "timestep_spacing"):
        own = "which are trailing" if plain in _TRAILING else "that cannot be moved"
        raise SettingsError(
            f"sampling.timesteps is {timesteps!r}; {plain} has timesteps of its own, {own}. "
            "Choose auto, or another sampling.scheduler."
        )
    return _LEADING if timesteps == "leading" else {"timestep_spacing": timesteps}


def _takes(cls: Any, argument: str) -> bool:
    return argument in inspect.signature(cls.__init__).parameters


def create_scheduler(name: str, config: Any, *, timesteps: str = "auto") -> Any:
    """Create a scheduler by its name, with the noise schedule of the model.

    Args:
        name: see `find_scheduler`
        config: configuration of the model's own scheduler
        timesteps: see `find_scheduler`
    """
    cls, changes = find_scheduler(name, timesteps)
    if dict(config).get("rescale_betas_zero_snr") and not _takes(cls, "rescale_betas_zero_snr"):
        known = [each for each, (title, _) in SCHEDULERS.items()
                 if _takes(getattr(diffusers, title), "rescale_betas_zero_snr")]
        raise SettingsError(
            f"sampling.scheduler is {name!r}, which cannot begin at pure noise, as this model does "
            f"(zero terminal SNR); choose one of {', '.join(known)}."
        )
    return cls.from_config(config, **changes)


def plan_timesteps(scheduler: Any, steps: int, strength: float) -> Tensor:
    """List the timesteps of every model call for a strength, on the CPU; empty if it has no step.

    Raises:
        SettingsError: The scheduler cannot take so many steps.
    """
    try:
        scheduler.set_timesteps(steps, device="cpu")
    except ValueError as error:
        raise SettingsError(f"sampling.steps is {steps}; take fewer: {error}") from error
    first = (steps - round(steps * strength)) * scheduler.order
    if round(steps * strength) == 0:
        return scheduler.timesteps[:0]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    timesteps = scheduler.timesteps[first:]
    trained = scheduler.config.num_train_timesteps
    if int(timesteps.max()) >= trained:
        raise SettingsError(
            f"sampling.steps is {steps}; take fewer: they begin at timestep {int(timesteps.max())} "
            f"and the model knows those below {trained}."
        )
    return timesteps


def find_exact_sigma(scheduler: Any, timestep: Tensor, by_timestep: float) -> float:
    """Find the noise level that the scheduler itself uses for the next call.

    Schedulers round their timesteps, so a denoised estimate must use their own figure.

    Args:
        scheduler: as `plan_timesteps` left it, its numbers on the CPU.
    """
    scale = float(scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), timestep))
    if scale < 1:  # latents of the variance-exploding kind, scaled by 1 / sqrt(sigma^2 + 1)
        return (scale**-2 - 1) ** 0.5
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None:
        return by_timestep
    index = scheduler.step_index  # None before the first step
    return float(sigmas[scheduler.begin_index if index is None else index])


def draw_own_noise_on_cpu(scheduler: Any, like: Tensor) -> None:
    """Let a scheduler with its own source of noise draw it on the CPU, as all others do.

    Without it torchsde draws on the device, and every kind of device gets other images.

    Args:
        scheduler: its timesteps set, which forgets an earlier source.
        like: latents.
    """
    if not hasattr(scheduler, "noise_sampler"):
        return
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    levels = scheduler.sigmas[scheduler.sigmas > 0]
    draw = BrownianTreeNoiseSampler(
        torch.zeros(like.shape, dtype=like.dtype), float(levels.min()), float(levels.max()),
        scheduler.noise_sampler_seed,
    )
    scheduler.noise_sampler = lambda before, after: draw(before, after).to(like)


def pick_step_options(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """Choose the arguments that this kind of scheduler takes for a step."""
    known = inspect.signature(scheduler.step).parameters
    return {"generator": generator} if "generator" in known else {}
