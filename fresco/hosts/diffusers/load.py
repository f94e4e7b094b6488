"""Load a model for diffusers: a file, a diffusers folder, or a name on the hub."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from fresco.control import ControlUnit, list_units
from fresco.errors import HostError, WeightsError
from fresco.hosts.checkpoint import require_size
from fresco.hosts.detection import VAE, describe, name_family
from fresco.hosts.devices import find_accelerator
from fresco.hosts.diffusers.host import DiffusersHost, ModelParts
from fresco.hosts.diffusers.layout import rename_control_key
from fresco.hosts.diffusers.lora import ChosenLora, choose_loras, merge_loras
from fresco.hosts.diffusers.prediction import name_prediction
from fresco.hosts.diffusers.preprocessors import (
    Preprocessor,
    complete_units,
    create_preprocessor,
)
from fresco.hosts.diffusers.schedulers import (
    create_scheduler,
    find_scheduler,
    plan_timesteps,
)
from fresco.hosts.diffusers.single_file import (
    LoadedParts,
    build_empty,
    fill,
    load_single_file,
    load_vae_file,
    measure_checkpoint,
)
from fresco.hosts.tensor_file import TensorFile
from fresco.memory import is_out_of_memory, memory_errors
from fresco.planning.prompt_syntax import check_syntax
from fresco.settings import SamplingSettings
from fresco.weights import is_offline

log = logging.getLogger("fresco")

_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_PIPELINES = (
    "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
)
_XL_PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_LATENT_CHANNELS = 4
_LIBRARY_ERRORS = (
    OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, IndexError,
)
"""Errors that diffusers and transformers raise for files that they cannot load."""


def load_host(settings: SamplingSettings, *, offline: bool) -> DiffusersHost:
    """Load the model of the settings as a host; with `offline` nothing is downloaded."""
    offline = is_offline(offline)
    loras, units = check_request(settings), complete_units(list_units(settings))
    device = pick_device(settings.device)
    dtype = pick_dtype(settings.dtype, device)
    with _quiet():
        # A LoRA is added in float32; without one, half the memory is needed from the start.
        exact = torch.float32 if loras else dtype
        loaded = _load_parts(settings, offline=offline, dtype=exact)
        if settings.vae:
            loaded = replace(loaded, vae=_load_vae(settings.vae, loaded, offline=offline))
        _check_parts(loaded, settings.model)
        scheduler = create_scheduler(
            settings.scheduler, loaded.schedule, timesteps=settings.timesteps
        )
        plan_timesteps(scheduler, settings.steps, settings.strength)
        merge_loras(
            loaded.unet, loaded.text_encoder, loras, text_encoder_2=loaded.text_encoder_2
        )
        controls, preprocessors = _load_controls(units, loaded, device, offline=offline)
    with memory_errors("while loading the model"):
        parts = ModelParts(
            loaded.unet, loaded.vae, loaded.text_encoder, loaded.tokenizer, loaded.schedule,
            controls, loaded.text_encoder_2, loaded.tokenizer_2, loaded.zero_empty,
        )
        for network in parts.networks():
            # Not network.to: diffusers logs a warning about layers that these networks lack.
            torch.nn.Module.to(network, device=device, dtype=dtype)
            network.eval().requires_grad_(False)
    name = f"diffusers: {Path(settings.model).name}"
    log.info("Loaded %s on %s as %s.", name, device, dtype)
    return DiffusersHost(parts, settings, name=name, preprocessors=preprocessors)


def check_request(settings: SamplingSettings) -> tuple[ChosenLora, ...]:
    """Check the options of a request before anything is loaded, and return its LoRA files."""
    check_syntax(settings)
    for unit in complete_units(list_units(settings)):
        _check_control_path(unit.model)
    find_scheduler(settings.scheduler, settings.timesteps)
    return choose_loras(settings)


def check_model(model: str, *, with_vae: bool) -> None:
    """Refuse a model that does not exist or is of another kind, before any tensor is read.

    Args:
        with_vae: whether its own VAE is used.
    """
    path = Path(model).expanduser()
    if path.is_file():
        measure_checkpoint(TensorFile(path), with_vae=with_vae)
    elif path.is_dir():
        _read_folder(path)
    elif _is_path(path, model):
        raise _make_absent_error(path)


def _is_path(path: Path, model: str) -> bool:
    """Whether a name that does not exist must be a path, and not a hub name."""
    return path.suffix in _FILES or path.is_absolute() or model.startswith((".", "~"))


def _make_absent_error(path: Path) -> HostError:
    return HostError(f"There is no model at {path}; check sampling.model.")


def pick_device(name: str) -> torch.device:
    """Choose the device of the option; auto: an accelerator if there is one."""
    if name == "auto":
        return find_accelerator() or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise HostError(
            f"device {name!r} cannot be used ({reason}); choose auto or cpu."
        ) from error
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Choose the number format of the option; auto: float16 on CUDA, else float32."""
    if name == "auto":
        return torch.float16 if device.type not in ("cpu", "mps") else torch.float32
    return _DTYPES[name]


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the context, libraries log only errors and show no progress bars."""
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


def _load_parts(
    settings: SamplingSettings, *, offline: bool, dtype: torch.dtype
) -> LoadedParts:
    """Load the parts of a Stable Diffusion model to the CPU."""
    model = settings.model
    if not model:
        raise HostError("sampling.model is empty; name a checkpoint, a folder or a hub name.")
    path = Path(model).expanduser()
    with memory_errors("while loading the model"):
        if path.is_file():
            return load_single_file(
                path, with_vae=not settings.vae, offline=offline, prediction=settings.prediction,
                dtype=dtype,
            )
        changes = name_prediction(settings.prediction)
        if path.is_dir():
            return _change_schedule(_load_folder(path, dtype), changes)
        if _is_path(path, model):
            raise _make_absent_error(path)
        return _change_schedule(_load_hub(model, dtype, offline=offline), changes)


def _change_schedule(loaded: LoadedParts, changes: dict[str, Any]) -> LoadedParts:
    """Change the model's noise schedule as the option sampling.prediction says."""
    return replace(loaded, schedule=dict(loaded.schedule) | changes) if changes else loaded


def _load_folder(path: Path, dtype: torch.dtype) -> LoadedParts:
    is_xl = _read_folder(path)
    return _from_pretrained(str(path), str(path), dtype, local=True, is_xl=is_xl)


def _read_folder(path: Path) -> bool:
    """Whether a folder has a model of SDXL; HostError if it is not of Stable Diffusion."""
    if not (path / "model_index.json").is_file():
        raise HostError(
            f"{path} holds no model_index.json; a model is a diffusers folder or a single file."
        )
    with _library_errors(f"Model {path}"):
        config = diffusers.DiffusionPipeline.load_config(path)
    return _check_class(config, path.name)


def _load_hub(name: str, dtype: torch.dtype, *, offline: bool) -> LoadedParts:
    try:
        config = diffusers.DiffusionPipeline.load_config(name, local_files_only=offline)
    except (OSError, ValueError) as error:
        where = "in the hub's cache, and downloads are off" if offline else "on the hub"
        raise HostError(
            f"Model {name!r} is not a file or folder here and was not found {where}; check "
            "sampling.model."
        ) from error
    is_xl = _check_class(config, name)
    return _from_pretrained(name, name, dtype, local=offline, is_xl=is_xl)


def _from_pretrained(
    source: str, name: str, dtype: torch.dtype, *, local: bool, is_xl: bool
) -> LoadedParts:
    kinds = [("unet", diffusers.UNet2DConditionModel), ("vae", diffusers.AutoencoderKL),
             ("text_encoder", CLIPTextModel)]
    pipeline: Any = diffusers.StableDiffusionPipeline
    # Parts of Stable Diffusion's folders that are not needed here.
    unneeded: dict[str, Any] = {
        "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False,
    }
    if is_xl:
        kinds.append(("text_encoder_2", CLIPTextModelWithProjection))
        pipeline, unneeded = diffusers.StableDiffusionXLPipeline, {"add_watermarker": False}
    parts: dict[str, Any] = {}
    for part, kind in kinds:
        # One by one, because a pipeline does not say which weights it fills with noise.
        network = _load_network(
            kind, source, f"The {part} of model {name}", local=local, subfolder=part
        )
        parts[part] = torch.nn.Module.to(network, dtype=dtype)
    with _library_errors(f"Model {name}"):
        pipe: Any = pipeline.from_pretrained(source, local_files_only=local, **unneeded, **parts)
    further: dict[str, Any] = {"vae_scale": pipe.vae.config.scaling_factor}
    if is_xl:
        further |= {
            "text_encoder_2": pipe.text_encoder_2, "tokenizer_2": pipe.tokenizer_2,
            "zero_empty": bool(pipe.config.get("force_zeros_for_empty_prompt", True)),
        }
    return LoadedParts(
        pipe.unet, pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.scheduler.config, **further
    )


def _check_class(config: Any, name: str) -> bool:
    """Whether a pipeline is one of SDXL; HostError for pipelines of other models."""
    entries = dict(config)
    kind = entries.get("_class_name")
    if kind in _XL_PIPELINES:
        if not any(entries.get("text_encoder") or ()):
            raise HostError(f"{name} is the SDXL refiner; use the base model of SDXL.")
        return True
    if kind not in _PIPELINES:
        raise HostError(
            f"{name} is a {kind}; FRESCO guides checkpoints of Stable Diffusion 1.x, 2.x and SDXL "
            f"({_PIPELINES[0]}, {_XL_PIPELINES[0]})."
        )
    return False


def _check_parts(loaded: LoadedParts, name: str) -> None:
    """Refuse models that can be loaded but would be sampled wrongly."""
    unet = loaded.unet.config
    prediction = loaded.schedule.get("prediction_type", "epsilon")
    encoders = [each for each in (loaded.text_encoder, loaded.text_encoder_2) if each is not None]
    text = sum(encoder.config.hidden_size for encoder in encoders)
    added = "text_time" if loaded.text_encoder_2 is not None else None
    problem = ""
    if unet.in_channels != 4:
        problem = f"has {unet.in_channels} input channels, as inpainting or depth models have"
    elif unet.addition_embed_type != added:
        problem = f"needs conditioning of type {unet.addition_embed_type}"
    elif prediction not in _PREDICTIONS:
        problem = f"predicts {prediction!r}"
    elif loaded.schedule.get("rescale_betas_zero_snr") and prediction == "epsilon":
        problem = "predicts epsilon, which says nothing at the pure noise that its schedule ends in"
    elif text != unet.cross_attention_dim:
        problem = f"has text encoders of width {text} but a UNet for {unet.cross_attention_dim}"
    if problem:
        raise HostError(
            f"{name} {problem}; use a plain checkpoint of Stable Diffusion 1.x, 2.x or SDXL."
        )


def _load_vae(name: str, model: LoadedParts, *, offline: bool) -> Any:
    """Load another VAE, of four latent channels.

    Args:
        model: whose it becomes; its own VAE may be None.
    """
    path = Path(name).expanduser()
    if path.is_file():
        vae = _load_vae_file(TensorFile(path), model.vae, scale=model.vae_scale)
    else:
        vae = _load_vae_folder(name, offline=offline)
    if vae.config.scaling_factor != model.vae_scale:
        log.warning(
            "sampling.vae %s multiplies latents by %g, the model's own VAE by %g; it is made for "
            "another model.", name, vae.config.scaling_factor, model.vae_scale,
        )
    return vae


def _load_vae_folder(name: str, *, offline: bool) -> Any:
    """Load the VAE of a VAE's folder, of a model's folder, or of one on the hub."""
    path = Path(name).expanduser()
    inner = {"subfolder": "vae"} if (path / "model_index.json").is_file() else {}
    vae = _load_network(
        diffusers.AutoencoderKL, name, f"sampling.vae {name}", local=offline or path.is_dir(),
        **inner,
    )
    channels = dict(vae.config)["latent_channels"]
    if channels != _LATENT_CHANNELS:
        raise _make_latent_error(name, channels)
    return vae


def _load_vae_file(file: TensorFile, before: Any, *, scale: float) -> Any:
    shapes, name = file.shapes, file.path.name
    prefix = VAE if any(key.startswith(VAE) for key in shapes) else ""
    kind = describe(shapes)
    if not prefix and kind != "a VAE":
        raise HostError(f"sampling.vae {name} is {kind}; give a VAE of Stable Diffusion or SDXL.")
    if any(key.startswith("decoder.up_blocks.") for key in shapes):
        return _load_renamed_vae(file, before)
    channels = require_size(file, f"{prefix}decoder.conv_in.weight", 1)
    if channels != _LATENT_CHANNELS:
        raise _make_latent_error(name, channels)
    return load_vae_file(file, prefix, None if before is None else before.config, scale=scale)


def _load_renamed_vae(file: TensorFile, before: Any) -> Any:
    """Load a VAE's file with names of diffusers; its configuration is beside it or known."""
    if (file.path.parent / "config.json").is_file():
        return _load_vae_folder(str(file.path.parent), offline=True)
    if before is None:
        raise HostError(
            f"sampling.vae {file.path.name} has the names of diffusers but no config.json beside "
            "it; give its folder instead."
        )
    vae = build_empty(diffusers.AutoencoderKL, before.config, file.path)
    fill(vae, file, {key: key for key in vae.state_dict()})
    return vae


def _make_latent_error(name: str, channels: int) -> HostError:
    return HostError(
        f"sampling.vae {name} has {channels} latent channels; Stable Diffusion has "
        f"{_LATENT_CHANNELS}. Use a VAE made for it."
    )


def _load_network(kind: Any, source: str, what: str, *, local: bool, **options: Any) -> Any:
    """Load a whole network from a folder or the hub.

    Args:
        what: the network, for messages.
    """
    if kind.__name__ in (CLIPTextModel.__name__, CLIPTextModelWithProjection.__name__):
        # transformers names a tensor of another shape in its report only.
        options["ignore_mismatched_sizes"] = True
    with _library_errors(what):
        network, report = kind.from_pretrained(
            source, local_files_only=local, output_loading_info=True, **options
        )
    _refuse_missing(report, what)
    return network


@contextmanager
def _library_errors(what: str) -> Iterator[None]:
    """Within the context, errors of a library become one sentence about what cannot be loaded."""
    try:
        yield
    except _LIBRARY_ERRORS as error:
        if is_out_of_memory(error):
            raise
        reason, _, rest = str(error).strip().partition("\n")
        if reason.rstrip().endswith(":"):  # some versions of diffusers name the keys below it
            reason = f"{reason.rstrip()} {rest.strip().partition(chr(10))[0]}"
        reason = reason.partition(" If you want to")[0].strip().rstrip(".")
        raise HostError(
            f"{what} cannot be loaded: {reason or type(error).__name__}. Check its files."
        ) from error


def _refuse_missing(report: Mapping[str, Any], what: str) -> None:
    """Refuse a network of which the library found only a part; it fills the rest with noise."""
    wrong: list[tuple[str, Any, Any]] = sorted(report.get("mismatched_keys") or [])
    if wrong:
        tensor, found, needed = wrong[0]
        raise WeightsError(
            f"{what} has {tensor} of shape {list(found)}, where {list(needed)} is needed; it is "
            "damaged or made for another model."
        )
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        others = f" and {len(missing) - 1} more of its tensors" if len(missing) > 1 else ""
        raise WeightsError(
            f"{what} lacks {missing[0]}{others}; it is incomplete. Fetch it again."
        )


def _check_control_path(name: str) -> None:
    """Refuse a path that is not a ControlNet, before any tensor is read."""
    path = Path(name).expanduser()
    if path.is_file():
        _refuse_other_kind(TensorFile(path))
    elif not path.is_dir() and _is_path(path, name):
        raise HostError(f"There is no ControlNet at {path}; check its path.")


def _load_controls(
    units: Sequence[ControlUnit], loaded: LoadedParts, device: torch.device, *, offline: bool
) -> tuple[tuple[Any, ...], tuple[Preprocessor, ...]]:
    """Load the ControlNet and preprocessor of each unit; each network is loaded once."""
    networks: dict[str, Any] = {}
    for unit in units:
        if unit.model not in networks:
            networks[unit.model] = _load_control(unit.model, loaded, offline=offline)
    made = tuple(create_preprocessor(unit, device, offline=offline) for unit in units)
    return tuple(networks[unit.model] for unit in units), made


def _load_control(name: str, loaded: LoadedParts, *, offline: bool) -> Any:
    path = Path(name).expanduser()
    if path.is_file():
        control = _load_control_file(TensorFile(path), loaded.unet)
    else:
        control = _load_network(
            diffusers.ControlNetModel, name, f"ControlNet {name}", local=offline or path.is_dir()
        )
    _check_control(control, loaded.unet, name)
    return control


def _refuse_other_kind(file: TensorFile) -> None:
    kind, name = describe(file.shapes), file.path.name
    if kind != "a ControlNet":
        raise HostError(f"control_model {name} is {kind}; give a ControlNet.")
    if "difference" in file.shapes:
        raise HostError(
            f"control_model {name} holds the difference of a ControlNet to its model; give a whole "
            "one."
        )


def _load_control_file(file: TensorFile, unet: Any) -> Any:
    """Load a ControlNet of one file, in the original layout or in that of diffusers."""
    _refuse_other_kind(file)
    shapes, name = file.shapes, file.path.name
    cross = [key for key in shapes if key.endswith("attn2.to_k.weight")]
    wanted = unet.config.cross_attention_dim
    if cross and (theirs := require_size(file, cross[0], 1)) != wanted:
        raise _make_family_error(name, theirs, wanted)
    with torch.device("meta"):
        control = diffusers.ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    original = not any(key.startswith("controlnet_cond_embedding.") for key in shapes)
    prefix = "control_model." if any(key.startswith("control_model.") for key in shapes) else ""
    fill(control, file, {
        key: prefix + rename_control_key(key) if original else key for key in control.state_dict()
    })
    return control


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
