"""Small models of SDXL's and Stable Diffusion 2's topology, as folders and as single files.

Untrained: their UNets are set by hand as the demo's (`demo/designed.py`), and so is the VAE where
an image must show the clip. Heads are 64 wide where the original's are: a file does not say it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from demo.designed import design_unet, design_vae
from demo.ldm_layout import _shape_vae_tensor
from demo.make_model import make_scheduler, write_tokenizer
from fresco.hosts.diffusers.layout import rename_unet_keys, rename_vae_key

State = dict[str, Tensor]
TEXT, POOLED, SIZE_WIDTH = 64, 32, 8
"""Width of each text encoder, of a pooled prompt, and of each number of an image's size."""
_GROUPS = 32
"""Of a VAE's norms, which single files always have."""


def make_text_encoder(tokens: int, *, open_clip: bool, layers: int = 2) -> Any:
    """A text encoder of OpenAI's kind, or of open_clip's with a projection."""
    config = CLIPTextConfig(
        vocab_size=tokens, hidden_size=TEXT, intermediate_size=128, num_hidden_layers=layers,
        projection_dim=POOLED if open_clip else TEXT, num_attention_heads=1 if open_clip else 4,
        max_position_embeddings=77, hidden_act="gelu" if open_clip else "quick_gelu",
        bos_token_id=tokens - 2, eos_token_id=tokens - 1,
        pad_token_id=0 if open_clip else tokens - 1,
    )
    model: Any = (CLIPTextModelWithProjection if open_clip else CLIPTextModel)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("token_embedding.weight"):
                parameter.mul_(10)  # so that prompts differ
            elif name.endswith("norm.bias"):
                parameter.fill_(0.2)  # a mean that is not zero, as a trained one has
    return model.eval()


def make_vae(scale: float, *, shows: bool) -> AutoencoderKL:
    """A VAE of 32 groups.

    Args:
        shows: whether it is the demo's, with four channels a group; else random and narrow
    """
    vae = AutoencoderKL(
        block_out_channels=((4 if shows else 1) * _GROUPS,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1, norm_num_groups=_GROUPS, latent_channels=4, sample_size=256,
        scaling_factor=scale,
    )
    if shows:
        design_vae(vae)
    return vae.eval()


def make_xl_unet(**changes: Any) -> UNet2DConditionModel:
    """SDXL's UNet: no attention in the finest stage, 1 and 2 transformer blocks in the others."""
    values: dict[str, Any] = {
        "sample_size": 128, "block_out_channels": (32, 64, 128), "layers_per_block": 2,
        "cross_attention_dim": 2 * TEXT, "attention_head_dim": (1, 1, 2), "norm_num_groups": 32,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2), "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": SIZE_WIDTH,
        "projection_class_embeddings_input_dim": POOLED + 6 * SIZE_WIDTH,
    }
    unet = UNet2DConditionModel(**(values | changes))
    design_unet(unet)
    return unet.eval()


def make_sd2_unet() -> UNet2DConditionModel:
    """Stable Diffusion 2's UNet: linear projections, heads of 64."""
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(32, 64, 128, 128), layers_per_block=2,
        cross_attention_dim=TEXT, attention_head_dim=(1, 1, 2, 2), norm_num_groups=32,
        use_linear_projection=True,
    )
    design_unet(unet)
    return unet.eval()


def _write_folder(folder: Path, pipeline: str, parts: dict[str, Any]) -> Path:
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index: dict[str, Any] = {"_class_name": pipeline, "scheduler": ["diffusers", "DDPMScheduler"]}
    for name, part in parts.items():
        library = "transformers" if name.startswith("text") else "diffusers"
        index[name] = [library, type(part).__name__]
    for tokenizer in folder.glob("tokenizer*"):
        index[tokenizer.name] = ["transformers", "CLIPTokenizer"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _pad_with_first_token(folder: Path) -> None:
    """As open_clip's tokenizers pad."""
    first = min(json.loads((folder / "vocab.json").read_text("utf-8")).items(), key=lambda p: p[1])
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": first[0]}))


def build_tiny_xl(folder: Path, *, shows: bool = False, **unet: Any) -> Path:
    """A diffusers folder of SDXL's kind, always with the same weights.

    Args:
        shows: whether its images show the clip
    """
    tokens = write_tokenizer(folder / "tokenizer")
    write_tokenizer(folder / "tokenizer_2")
    _pad_with_first_token(folder / "tokenizer_2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {
            "text_encoder": make_text_encoder(tokens, open_clip=False),
            "text_encoder_2": make_text_encoder(tokens, open_clip=True),
            "unet": make_xl_unet(**unet), "vae": make_vae(0.13025, shows=shows),
            "scheduler": make_scheduler(),
        }
    return _write_folder(folder, "StableDiffusionXLPipeline", parts)


def build_tiny_sd2(folder: Path) -> Path:
    """A diffusers folder of Stable Diffusion 2's kind, which leaves the last text layer out."""
    tokens = write_tokenizer(folder / "tokenizer")
    _pad_with_first_token(folder / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = make_text_encoder(tokens, open_clip=True)
        text = CLIPTextModel(whole.config)
        names = {key.removeprefix("text_model."): key for key in text.state_dict()}
        text.load_state_dict({names[key.removeprefix("text_model.")]: value
                              for key, value in whole.state_dict().items()
                              if "text_projection" not in key})
        parts = {"text_encoder": text, "unet": make_sd2_unet(),
                 "vae": make_vae(0.18215, shows=False), "scheduler": make_scheduler()}
    return _write_folder(folder, "StableDiffusionPipeline", parts)


def name_open_clip(state: State) -> State:
    """The weights of a text model of transformers as open_clip stores them."""
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
             "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj",
             "encoder.layers": "transformer.resblocks", "final_layer_norm": "ln_final",
             "embeddings.token_embedding": "token_embedding",
             "embeddings.position_embedding.weight": "positional_embedding"}
    result: State = {}
    for key, value in state.items():
        key = key.removeprefix("text_model.")
        if key == "text_projection.weight":
            result["text_projection"] = value.t()
            continue
        if ".q_proj." in key:
            rest = [state[f"{'text_model.' if f'text_model.{key}' in state else ''}"
                          f"{key.replace('.q_proj.', f'.{kind}_proj.')}"] for kind in "qkv"]
            key, value = key.replace("self_attn.q_proj.", "attn.in_proj_"), torch.cat(rest)
        elif ".k_proj." in key or ".v_proj." in key:
            continue
        for theirs, ours in names.items():
            key = key.replace(theirs, ours)
        result[key] = value
    return result


def _prefix(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def _read(folder: Path) -> State:
    return load_file(next(folder.glob("*.safetensors")))


def read_original(folder: Path) -> State:
    """A folder's networks under the names of the original programs."""
    unet, vae = _read(folder / "unet"), _read(folder / "vae")
    names = rename_unet_keys(unet)
    state = {f"model.diffusion_model.{names[key]}": value for key, value in unet.items()}
    for key, value in vae.items():
        name = rename_vae_key(key, 4)
        state[f"first_stage_model.{name}"] = _shape_vae_tensor(name, value)
    first = _read(folder / "text_encoder")
    if not (folder / "text_encoder_2").is_dir():
        text = name_open_clip(first)
        # The file has the last layer that the folder leaves out.
        text |= {key.replace("resblocks.1.", "resblocks.2."): torch.randn_like(value)
                 for key, value in text.items() if "resblocks.1." in key}
        return state | _prefix(text, "cond_stage_model.model.")
    whole = {key if key.startswith("text_model.") else f"text_model.{key}": value
             for key, value in first.items()}
    second = name_open_clip(_read(folder / "text_encoder_2"))
    return state | _prefix(whole, "conditioner.embedders.0.transformer.") \
        | _prefix(second, "conditioner.embedders.1.model.")


def write_original(folder: Path, path: Path, **more: Tensor) -> Path:
    """One .safetensors of the original layout from a folder, its tokenizer beside it.

    Args:
        more: further tensors, such as the marks v_pred and ztsnr
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in (read_original(folder) | more).items()}, path)
    beside = path.parent / path.stem
    if not beside.exists():
        beside.symlink_to(folder / "tokenizer")
    return path
