"""Load a model for the command line: a file, a diffusers folder, or a name on the hub."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch

from fresco.errors import HostError, WeightsError
from fresco.hosts.detection import describe, inspect_checkpoint, name_family, read_shapes
from fresco.hosts.diffusers.host import DiffusersHost, ModelParts
from fresco.hosts.diffusers.lora import merge_loras
from fresco.hosts.diffusers.preprocessors import Preprocessor, create_preprocessor
from fresco.hosts.diffusers.schedulers import (
    create_scheduler,
    find_scheduler,
    plan_timesteps,
)
from fresco.hosts.diffusers.single_file import write_configuration, write_tokenizer
from fresco.memory import memory_errors
from fresco.settings import SamplingSettings
from fresco.weights import is_offline

log = logging.getLogger("fresco")

_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")


def load_host(settings: SamplingSettings, *, offline: bool) -> DiffusersHost:
    """The model of the settings as a host; `offline` never touches the network."""
    offline = is_offline(offline)
    find_scheduler(settings.scheduler)  # a name that is refused, before a model is loaded
    device = pick_device(settings.device)
    dtype = pick_dtype(settings.dtype, device)
    with _quiet():
        pipe = _load_pipeline(settings.model, offline=offline)
        if settings.vae:
            pipe.register_modules(vae=_load_vae(settings.vae, pipe, offline=offline))
        _check_pipeline(pipe, settings.model)
        scheduler = create_scheduler(settings.scheduler, pipe.scheduler.config)
        plan_timesteps(scheduler, settings.steps, settings.strength)
        merge_loras(pipe, settings.lora)
        control, preprocessor = _load_control(settings, pipe, device, offline=offline)
    with memory_errors("while loading the model"):
        for part in (pipe.unet, pipe.vae, pipe.text_encoder, control):
            if part is not None:
                # Not part.to: diffusers logs a warning about layers that these networks lack.
                torch.nn.Module.to(part, device=device, dtype=dtype)
                part.eval().requires_grad_(False)
    parts = ModelParts(
        pipe.unet, pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.scheduler.config, control
    )
    name = f"diffusers: {Path(settings.model).name}"
    log.info("Loaded %s on %s as %s.", name, device, dtype)
    return DiffusersHost(parts, settings, name=name, preprocessor=preprocessor)


def pick_device(name: str) -> torch.device:
    """The device of the option; auto: an accelerator if there is one."""
    if name == "auto":
        return _find_accelerator() or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise HostError(
            f"device {name!r} cannot be used ({reason}); choose auto or cpu."
        ) from error
    return device


def _find_accelerator() -> torch.device | None:
    """The machine's accelerator, or None."""
    if hasattr(torch, "accelerator"):  # since torch 2.6, which cannot be asked for both at once
        here = torch.accelerator.is_available()
        return torch.accelerator.current_accelerator() if here else None
    if torch.cuda.is_available():
        return torch.device(torch.cuda.current_device())  # a bare number is a CUDA device
    return torch.device("mps") if torch.backends.mps.is_available() else None


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of the option; auto: float16 on CUDA, else float32."""
    if name == "auto":
        return torch.float16 if device.type not in ("cpu", "mps") else torch.float32
    return _DTYPES[name]


@contextmanager
def _quiet() -> Iterator[None]:
    """Within: libraries log errors only, and show no progress bars."""
    from transformers.utils import logging as text_logging

    speakers = (text_logging, diffusers.utils.logging)
    before = [(each.get_verbosity(), each.is_progress_bar_enabled()) for each in speakers]
    for each in speakers:
        each.set_verbosity_error()
        each.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, (level, bars) in zip(speakers, before, strict=True):
            each.set_verbosity(level)
            if bars:
                each.enable_progress_bar()


def _load_pipeline(model: str, *, offline: bool) -> Any:
    """A StableDiffusionPipeline in float32 on the CPU."""
    if not model:
        raise HostError("sampling.model is empty; name a checkpoint, a folder or a hub name.")
    path = Path(model).expanduser()
    with memory_errors("while loading the model"):
        if path.is_file():
            return _load_single_file(path, offline=offline)
        if path.is_dir():
            return _load_folder(path)
        if path.suffix in _FILES or path.is_absolute() or model.startswith((".", "~")):
            raise HostError(f"There is no model at {path}; check sampling.model.")
        return _load_hub(model, offline=offline)


def _load_single_file(path: Path, *, offline: bool) -> Any:
    sizes = inspect_checkpoint(path)
    with tempfile.TemporaryDirectory(prefix="fresco-") as name:
        folder = Path(name)
        write_configuration(folder, sizes)
        write_tokenizer(
            folder / "tokenizer", path, vocabulary=sizes.vocabulary, offline=offline
        )
        return diffusers.StableDiffusionPipeline.from_single_file(
            str(path), config=str(folder), local_files_only=True
        )


def _load_folder(path: Path) -> Any:
    if not (path / "model_index.json").is_file():
        raise HostError(
            f"{path} holds no model_index.json; a model is a diffusers folder or a single file."
        )
    _check_class(diffusers.DiffusionPipeline.load_config(path), path.name)
    return _from_pretrained(str(path), str(path), local=True)


def _load_hub(name: str, *, offline: bool) -> Any:
    try:
        config = diffusers.DiffusionPipeline.load_config(name, local_files_only=offline)
    except (OSError, ValueError) as error:
        where = "in the hub's cache, and the network is off" if offline else "on the hub"
        raise HostError(
            f"Model {name!r} is not a file or folder here and was not found {where}; check "
            "sampling.model."
        ) from error
    _check_class(config, name)
    return _from_pretrained(name, name, local=offline)


def _from_pretrained(source: str, name: str, *, local: bool) -> Any:
    try:
        return diffusers.StableDiffusionPipeline.from_pretrained(
            source, local_files_only=local, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise HostError(f"Model {name} cannot be loaded: {reason} Check its files.") from error


def _check_class(config: Any, name: str) -> None:
    kind = dict(config).get("_class_name")
    if kind not in _PIPELINES:
        raise HostError(
            f"{name} is a {kind}; FRESCO guides Stable Diffusion 1.x and 2.x checkpoints "
            f"({_PIPELINES[0]})."
        )


def _check_pipeline(pipe: Any, name: str) -> None:
    """Refuse what loads but would be sampled wrongly."""
    unet, prediction = pipe.unet.config, pipe.scheduler.config.get("prediction_type", "epsilon")
    problem = ""
    if unet.in_channels != 4:
        problem = f"has {unet.in_channels} input channels, as inpainting or depth models have"
    elif unet.time_cond_proj_dim is not None:
        problem = "is a distilled model that takes the guidance scale as input"
    elif unet.addition_embed_type is not None:
        problem = f"needs conditioning of type {unet.addition_embed_type}, as SDXL does"
    elif prediction not in _PREDICTIONS:
        problem = f"predicts {prediction!r}"
    elif pipe.text_encoder.config.hidden_size != unet.cross_attention_dim:
        problem = (f"has a text encoder of width {pipe.text_encoder.config.hidden_size} but a UNet "
                   f"for {unet.cross_attention_dim}")
    if problem:
        raise HostError(f"{name} {problem}; use a plain Stable Diffusion 1.x or 2.x checkpoint.")


def _load_vae(name: str, pipe: Any, *, offline: bool) -> Any:
    """Another VAE of four latent channels."""
    path = Path(name).expanduser()
    try:
        if path.is_file():
            kind = describe(read_shapes(path))
            if kind not in ("a VAE", "Stable Diffusion 1.x"):
                raise HostError(
                    f"sampling.vae {path.name} is {kind}; give a VAE of Stable Diffusion 1.x."
                )
            with tempfile.TemporaryDirectory(prefix="fresco-") as folder:
                pipe.vae.save_config(folder)
                vae = diffusers.AutoencoderKL.from_single_file(
                    str(path), config=folder, local_files_only=True
                )
        else:
            inner = {"subfolder": "vae"} if (path / "model_index.json").is_file() else {}
            vae = diffusers.AutoencoderKL.from_pretrained(
                name, local_files_only=offline or path.is_dir(), **inner
            )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise HostError(f"sampling.vae {name} cannot be loaded: {reason}") from error
    channels = dict(vae.config)["latent_channels"]
    if channels != 4:
        raise HostError(
            f"sampling.vae {name} has {channels} latent channels; Stable Diffusion 1.x "
            "has 4. Use a VAE made for it."
        )
    return vae


def _load_control(
    settings: SamplingSettings, pipe: Any, device: torch.device, *, offline: bool
) -> tuple[Any, Preprocessor | None]:
    """The ControlNet and its preprocessor, or (None, None)."""
    if settings.control == "none":
        return None, None
    name = settings.control_model
    path = Path(name).expanduser()
    try:
        if path.is_file():
            control = _load_control_file(path, pipe)
        else:
            control = diffusers.ControlNetModel.from_pretrained(
                name, local_files_only=offline or path.is_dir()
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise HostError(f"ControlNet {name} cannot be loaded: {reason}") from error
    _check_control(control, pipe.unet, name)
    return control, create_preprocessor(settings, device, offline=offline)


def _load_control_file(path: Path, pipe: Any) -> Any:
    shapes = read_shapes(path)
    kind = describe(shapes)
    if kind != "a ControlNet":
        raise HostError(f"control_model {path.name} is {kind}; give a ControlNet.")
    if not any(key.startswith("control_model.") for key in shapes):
        raise WeightsError(
            f"{path.name} has the keys of diffusers but no configuration; give its folder instead."
        )
    text = next((s for k, s in shapes.items() if k.endswith("attn2.to_k.weight")), (0, 0))[1]
    wanted = pipe.unet.config.cross_attention_dim
    if text != wanted:
        raise _make_family_error(path.name, text, wanted)
    with tempfile.TemporaryDirectory(prefix="fresco-") as folder:
        diffusers.ControlNetModel.from_unet(pipe.unet).save_config(folder)
        return diffusers.ControlNetModel.from_single_file(
            str(path), config=folder, local_files_only=True
        )


def _check_control(control: Any, unet: Any, name: str) -> None:
    theirs, ours = control.config.cross_attention_dim, unet.config.cross_attention_dim
    if theirs != ours:
        raise _make_family_error(name, theirs, ours)
    if tuple(control.config.block_out_channels) != tuple(unet.config.block_out_channels):
        raise HostError(
            f"ControlNet {name} has stages of {tuple(control.config.block_out_channels)} channels, "
            f"the model {tuple(unet.config.block_out_channels)}; use one made for this model."
        )


def _make_family_error(name: str, theirs: int, ours: int) -> HostError:
    return HostError(
        f"ControlNet {name} is made for {name_family(theirs)}, the model is {name_family(ours)}; "
        "use a ControlNet of the model's family."
    )
