"""The loaded model of a Forge kind: Forge, Forge Neo, reForge, forge-classic.

UNet, VAE and text models are in `forge_objects`, behind patchers that are copied for every call.
All copies share the same modules, so FRESCO's hooks on modules stay. Of a patcher only its memory
management is used.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules import shared
from torch import Tensor

from fresco.errors import HostError
from fresco.guidance.ports import Chunk
from fresco.hosts.coding import LATENT_SIDE, code_in_parts
from fresco.hosts.detection import find_guidable_unet
from fresco.hosts.ldm.unet import LdmUNet
from fresco.hosts.patching import replaced_method
from fresco.hosts.webui.model import ReferencePoint

_NUMBERS: Mapping[Chunk, int] = {"positive": 0, "negative": 1}
"""Numbers of the conditionings in Forge kinds."""
_MEMORY = ("backend.memory_management", "ldm_patched.modules.model_management")
"""Modules that keep models on the card: of Forge and Neo, of reForge and forge-classic."""
_UNCOMPILED = "_orig_apply_model"
"""Attribute in which Neo's torch.compile stores the original method."""


@dataclass(frozen=True, slots=True)
class ForgeModel:
    """`HostModel` for a Forge kind."""

    model: Any
    """The host's own model object."""
    unet: LdmUNet
    """Its guided UNet."""
    sigmas: Sequence[float]
    """Noise level of every training timestep, rising."""

    @classmethod
    def of(cls, model: Any) -> ForgeModel:
        """Open a loaded model; HostError if it cannot be guided."""
        unet = LdmUNet(find_guidable_unet(model))
        return cls(model, unet, _read_sigmas(model.forge_objects.unet.model))

    def evaluate(
        self, denoiser: Any, point: ReferencePoint, text: Any, image_cond: Any, chunk: Chunk
    ) -> None:
        """Call the model around the UNet, which uses noise levels for every sampler."""
        x = point.clean + point.noise * point.sigma
        sigma = x.new_full((len(x),), point.sigma)
        options = {"cond_or_uncond": [_NUMBERS[chunk]], "sigmas": sigma}
        self._patcher.model.apply_model(
            x, sigma, transformer_options=options, **_make_condition(text)
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Decode [N, C, h, w] to images [N, 3, H, W] in [-1, 1]."""
        images = code_in_parts(
            lambda part: self.model.decode_first_stage(part).float(), latents, LATENT_SIDE
        )
        self._load_again(latents.shape)
        return images

    def encode(self, images: Tensor) -> Tensor:
        """Encode images [N, 3, H, W] in [-1, 1] to [N, C, h, w]; the mean, without noise.

        The host's own encoding draws a sample with torch's generator of the CPU.
        """
        vae = self.model.forge_objects.vae.first_stage_model
        with replaced_method(vae, "encode", lambda _: lambda x, *args, **kwargs: _mean(vae, x)):
            latents = code_in_parts(self.model.encode_first_stage, images)
        self._load_again(latents.shape)
        return latents

    @contextmanager
    def sampling(self, p: Any, *, smooths: bool) -> Iterator[None]:
        """Within the context, no merged tokens, no compiled UNet, and memory for the VAE.

        `p.sample` copies its patcher and lets scripts change it, and then calls the sampler. So the
        patcher is inspected when the sampler is called.
        """
        with ExitStack() as stack:
            if hasattr(p, "get_token_merging_ratio"):
                # Merged tokens have no motion path.
                stack.enter_context(replaced_method(
                    p, "get_token_merging_ratio", lambda _: lambda *args, **kwargs: 0.0
                ))
            stack.enter_context(replaced_method(
                p.sampler, "sample_img2img", lambda previous: self._prepared(previous, smooths)
            ))
            stack.enter_context(_uncompiled(self._patcher.model))
            yield

    def list_facts(self) -> Mapping[str, Any]:
        """List the files beside the checkpoint, and how weights are stored."""
        modules = shared.opts.data.get("forge_additional_modules") or []
        return {
            "modules": [_describe_file(Path(path)) for path in modules],
            "storage": shared.opts.data.get("forge_unet_storage_dtype"),
        }

    @property
    def _patcher(self) -> Any:
        """The UNet's current patcher."""
        return self.model.forge_objects.unet

    def _prepared(self, previous: Callable[..., Any], smooths: bool) -> Callable[..., Any]:
        def sample(*args: Any, **kwargs: Any) -> Any:
            patcher = self._patcher
            refuse_replaced_layers(patcher)
            if not smooths:
                return previous(*args, **kwargs)
            with _kept_beside(patcher, self.model.forge_objects.vae, args[1].shape):
                return previous(*args, **kwargs)

        return sample

    def _load_again(self, shape: Sequence[int]) -> None:
        """Load the UNet to the card again, because the VAE may have moved it off.

        Args:
            shape: [N, C, h, w] of the latents
        """
        patcher = self._patcher
        models = [patcher, *patcher.extra_model_patchers_during_sampling]
        if (control := patcher.controlnet_linked_list) is not None:
            models += control.get_models()
        rows = [2 * shape[0], *shape[1:]]
        _find_memory().load_models_gpu(models, memory_required=patcher.memory_required(rows))


def _read_sigmas(model: Any) -> tuple[float, ...]:
    """Read the noise levels of the model; a host changes them for a batch (zero terminal SNR)."""
    # Forge and Neo have a predictor; reForge and forge-classic have a sampling.
    schedule = getattr(model, "predictor", None) or model.model_sampling
    return tuple(schedule.sigmas.detach().cpu().double().tolist())


def _make_condition(text: Any) -> dict[str, Tensor]:
    """Make the conditioning for the model: tokens, and the added conditioning of SDXL."""
    if isinstance(text, dict):
        return {"c_crossattn": text["crossattn"], "y": text["vector"]}
    return {"c_crossattn": text}


def _mean(vae: Any, images: Tensor) -> Tensor:
    """Mean of the distribution from which a VAE would draw."""
    moments = vae.encoder(images)
    project = getattr(vae, "quant_conv", None)
    if project is not None:
        moments = project(moments)
    return moments.chunk(2, dim=1)[0]


def refuse_replaced_layers(patcher: Any) -> None:
    """Raise HostError, with names, if extensions replace the decoder's self-attention."""
    options = patcher.model_options.get("transformer_options", {})
    before = (options.get("patches") or {}).get("attn1_patch", ())
    merging = [name for name in map(_name_function, before) if "tome" in name.lower()]
    if merging:
        raise HostError(
            f"token merging ({merging[0]}) is applied to the model; FRESCO follows single tokens "
            "from frame to frame. Switch that extension off."
        )
    replaced = (options.get("patches_replace") or {}).get("attn1", {})
    names = {_name_function(function) for place, function in replaced.items()
             if place[0] == "output"}
    if names:
        raise HostError(
            f"Self-attention layers of the decoder are replaced by {', '.join(sorted(names))}, so "
            "FRESCO cannot guide them; switch that extension off."
        )


def _name_function(function: Any) -> str:
    """Module and name of a function that an extension has set, so that users can recognise it."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}".replace(".<locals>", "")


@contextmanager
def _kept_beside(patcher: Any, vae: Any, shape: Sequence[int]) -> Iterator[None]:
    """Within the context, the host loads the UNet so that the VAE has memory beside it."""
    room = int(vae.memory_used_decode(shape, vae.vae_dtype))
    patcher.add_extra_model_patcher_during_sampling(vae.patcher)
    patcher.add_extra_preserved_memory_during_sampling(room)
    try:
        yield
    finally:
        patcher.extra_model_patchers_during_sampling.remove(vae.patcher)
        patcher.extra_preserved_memory_during_sampling -= room


@contextmanager
def _uncompiled(model: Any) -> Iterator[None]:
    """Within the context, the model has its own method instead of one compiled by torch.compile.

    A compiled UNet would keep the order of rows of its first call.
    """
    plain = getattr(model, _UNCOMPILED, None)
    if plain is None:
        yield
        return
    with replaced_method(model, "apply_model", lambda _: plain):
        yield


def _find_memory() -> Any:
    """Find the host's module that manages the memory of the card."""
    for name in _MEMORY:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise HostError(
        f"This WebUI has none of the modules {', '.join(_MEMORY)}, so FRESCO cannot use its VAE "
        "between steps; switch guidance.background_smoothing off."
    )


def _describe_file(path: Path) -> list[Any]:
    """Facts that distinguish one file from another."""
    state = path.stat()
    return [path.name, state.st_size, state.st_mtime_ns]
