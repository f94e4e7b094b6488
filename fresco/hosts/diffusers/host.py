"""The host of the command line and of `fresco ui`: models of diffusers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from fresco.control import list_units, parse_unit
from fresco.errors import HostError
from fresco.guidance.ports import BatchCarry, BatchRequest, BatchResult, SamplingGuide
from fresco.hosts.diffusers.denoiser import Control, Denoiser
from fresco.hosts.diffusers.preprocessors import Preprocessor, complete_units
from fresco.hosts.diffusers.sampling import (
    Sampling,
    capture_reference,
    draw_noise,
    make_start_latents,
    place_reference,
)
from fresco.hosts.diffusers.schedulers import (
    create_scheduler,
    plan_timesteps,
)
from fresco.hosts.diffusers.text import PromptEncoder
from fresco.hosts.diffusers.unet import DiffusersUNet
from fresco.hosts.diffusers.vae import LatentCodec, to_pixels, to_tensor
from fresco.hosts.noise import compute_model_sigmas, interpolate_sigmas
from fresco.hosts.preview import LatentPreview
from fresco.options import cache_settings, entries
from fresco.planning.prompts import list_composed
from fresco.progress import Stage
from fresco.settings import FrescoSettings, SamplingSettings


@dataclass(frozen=True, slots=True)
class ModelParts:
    """The networks of a Stable Diffusion model, on their device."""

    unet: Any
    """UNet2DConditionModel."""
    vae: Any
    """AutoencoderKL."""
    text_encoder: Any
    """CLIPTextModel."""
    tokenizer: Any
    """CLIPTokenizer."""
    schedule: Any
    """Configuration of the model's own scheduler."""
    controls: tuple[Any, ...] = ()
    """ControlNetModel of each unit."""
    text_encoder_2: Any = None
    """SDXL's second one, CLIPTextModelWithProjection."""
    tokenizer_2: Any = None
    """Its CLIPTokenizer."""
    zero_empty: bool = False
    """Whether an empty negative prompt is conditioning of zeros."""

    def networks(self) -> Iterable[Any]:
        """Every network that changes images."""
        every = (self.unet, self.vae, self.text_encoder, *self.controls, self.text_encoder_2)
        return (network for network in every if network is not None)


_FORMER_OPTIONS = (
    "scheduler", "steps", "strength", "guidance_scale", "seed", "control", "control_weight",
    "canny_low", "canny_high", "dtype",
)
"""Options in the fingerprint of version 0.1."""


def compute_fingerprint(
    parts: ModelParts, settings: SamplingSettings, *, syntax: str = ""
) -> str:
    """Hash weights, configurations and options.

    The number format is the one asked for, and weights are hashed as float16: by default a device
    has its own, and a run that is moved to another one goes on.

    Args:
        syntax: digest of what the syntax of the prompts leads to, embeddings included.
    """
    used = cache_settings(FrescoSettings(sampling=settings), "sampling")["sampling"]
    options = {
        entry.name: used[entry.name] for entry in entries()
        if entry.name in used and entry.group == "sampling" and not entry.option.by_host
    } | _describe_units(settings)
    return _hash_parts(parts, options, syntax, lambda tensor: (
        tensor.half() if tensor.dtype == torch.float32 else tensor
    ))


def compute_former_fingerprint(
    parts: ModelParts, settings: SamplingSettings, device: torch.device, *, syntax: str = ""
) -> str:
    """Compute the fingerprint as version 0.1 did."""
    options = {name: getattr(settings, name) for name in _FORMER_OPTIONS}
    options |= _describe_units(settings)
    return _hash_parts(parts, options | {"device": device.type}, syntax, lambda tensor: tensor)


def _describe_units(settings: SamplingSettings) -> dict[str, Any]:
    """Describe further units for the fingerprint; their networks are hashed by their weights."""
    units = complete_units([parse_unit(text) for text in settings.control_units])
    told = [dataclasses.replace(unit, model="").describe() for unit in units]
    return {"control_units": told} if told else {}


def _hash_parts(
    parts: ModelParts, options: dict[str, Any], syntax: str, normalise: Callable[[Tensor], Tensor]
) -> str:
    digest = hashlib.sha256()
    # diffusers lists which values are its defaults in an order that differs between processes.
    schedule = {
        name: sorted(value) if name == "_use_default_values" else value
        for name, value in dict(parts.schedule).items()
    }
    facts = options | {"schedule": schedule}
    if parts.text_encoder_2 is not None:
        facts |= {"zero_empty": parts.zero_empty}
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    for network in parts.networks():
        digest.update(type(network).__name__.encode())
        for name, weights in sorted(network.state_dict().items()):
            tensor = normalise(weights.detach()).cpu()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    digest.update(syntax.encode())
    return digest.hexdigest()


class DiffusersHost:
    """`Host` with a model of diffusers."""

    def __init__(
        self, parts: ModelParts, settings: SamplingSettings, *, name: str,
        preprocessors: Sequence[Preprocessor] = (),
    ) -> None:
        """
        Args:
            preprocessors: of each unit of ControlNet.
        """
        self._parts, self._settings, self._name = parts, settings, name
        self._preprocessors = tuple(preprocessors)
        self._units = complete_units(list_units(settings))
        self._device = torch.device(parts.unet.device)
        second = None if parts.text_encoder_2 is None else (parts.tokenizer_2, parts.text_encoder_2)
        self._text = PromptEncoder(
            parts.tokenizer, parts.text_encoder, second=second, zero_empty=parts.zero_empty,
            embeddings_dir=settings.embeddings_dir,
        )
        self._syntax = self._text.digest(list_composed(settings))
        self._fingerprint = compute_fingerprint(parts, settings, syntax=self._syntax)
        self._adapter = DiffusersUNet(parts.unet)
        self._codec = LatentCodec(parts.vae)
        scheduler = self._make_scheduler(settings.seed)
        self._model_sigmas = compute_model_sigmas(scheduler.alphas_cumprod)
        self._one_call = True

    def with_settings(self, settings: SamplingSettings) -> DiffusersHost:
        """The same networks with other options, none of which needs another model."""
        return DiffusersHost(
            self._parts, settings, name=self._name, preprocessors=self._preprocessors
        )

    @property
    def name(self) -> str:
        """Model and host, as shown to the user."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Hash of everything that changes images."""
        return self._fingerprint

    @property
    def former_fingerprint(self) -> str:
        """The same hash as version 0.1 computed it."""
        return compute_former_fingerprint(
            self._parts, self._settings, self._device, syntax=self._syntax
        )

    @property
    def model_sigmas(self) -> tuple[float, ...]:
        """Noise level of every training timestep, rising."""
        return self._model_sigmas

    @property
    def device(self) -> str:
        """Device for the tensors of the guide."""
        return str(self._device)

    @property
    def unet(self) -> DiffusersUNet:
        """The guided UNet."""
        return self._adapter

    def digest_prompts(self, prompts: Sequence[str]) -> str:
        """Hash of what the syntax of prompts refers to."""
        return self._text.digest(prompts)

    def count_tokens(self, prompt: str) -> tuple[int, int]:
        """Number of tokens in a prompt, and how many its chunks of 75 can have."""
        return self._text.count_tokens(prompt)

    def reconstruct(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Encode and decode [N, H, W, 3] with the VAE."""
        return to_pixels(self._codec.decode(self._encode(frames, self._settings.seed)))

    def sample(
        self, request: BatchRequest, guide: SamplingGuide | None, stage: Stage
    ) -> BatchResult:
        """Translate one batch; every batch starts from the same seed, unless it has its own."""
        settings = request.apply_to(self._settings)
        scheduler = self._make_scheduler(settings.seed)
        timesteps = plan_timesteps(scheduler, settings.steps, settings.strength)
        stage.expect(len(timesteps))
        start = self._encode(request.frames, settings.seed)
        if not len(timesteps):
            return BatchResult(to_pixels(self._codec.decode(start)), BatchCarry(()))
        denoiser = self._make_denoiser(request)
        generator = torch.Generator().manual_seed(settings.seed)
        noise = draw_noise(start, generator)
        with self._adapter.installed(guide) if guide is not None else nullcontext():
            if guide is not None:
                sigmas = interpolate_sigmas(timesteps, self._model_sigmas)
                guide.begin(sigmas)
                last = place_reference(timesteps[-1:], len(self._model_sigmas))
                (level,) = interpolate_sigmas(last, self._model_sigmas)
                capture_reference(denoiser, guide, start, noise, last[0], level)
            latents = make_start_latents(scheduler, timesteps, start, noise)
            sampling = Sampling(
                scheduler, timesteps, self._model_sigmas, denoiser, self._codec, generator,
                denoiser.begin_call,
            )
            preview = LatentPreview(request.frames, start)
            stage.show(preview.draw)
            latents, carry = sampling.run(latents, guide, request.carry, stage, preview=preview)
        self._one_call = denoiser.one_call
        return BatchResult(to_pixels(self._codec.decode(latents)), carry)

    def _make_denoiser(self, request: BatchRequest) -> Denoiser:
        height, width = request.frames.shape[1:3]
        positive = self._text.encode(request.prompts)
        negative = self._text.encode(request.negative_prompts, negative=True)
        return Denoiser(
            self._adapter, positive.sized(height, width), negative.sized(height, width),
            scale=self._settings.guidance_scale, controls=self._make_controls(request),
            one_call=self._one_call,
        )

    def _make_controls(self, request: BatchRequest) -> list[Control]:
        """Make the ControlNets with a hint for every frame."""
        given = request.hints or (None,) * len(self._units)
        made = []
        for unit, network, preprocessor, own in zip(
            self._units, self._parts.controls, self._preprocessors, given, strict=True
        ):
            if unit.hints and own is None:
                raise HostError(f"There are no hints of {unit.hints}; this is a fault of the run.")
            hints = preprocessor(request.frames if own is None else own)
            hints = torch.from_numpy(hints).to(self._device)
            made.append(Control(network, rearrange(hints, "n h w c -> n c h w"), unit))
        return made

    def _encode(self, frames: NDArray[np.uint8], seed: int) -> Tensor:
        """Encode frames to latents; those of a frame do not depend on other frames."""
        generator = torch.Generator().manual_seed(seed)
        return self._codec.encode(to_tensor(frames, self._device), generator)

    def _make_scheduler(self, seed: int) -> Any:
        """Create a new scheduler, so that no state of another batch is left."""
        scheduler = create_scheduler(
            self._settings.scheduler, self._parts.schedule, timesteps=self._settings.timesteps
        )
        if hasattr(scheduler, "noise_sampler_seed"):  # takes no generator
            scheduler.noise_sampler_seed = seed
        return scheduler
