"""Files of models: names of all times are read, and a tensor that is wrong is named."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo.ldm_layout import convert_control
from fresco.errors import HostError, WeightsError
from fresco.hosts.diffusers.host import DiffusersHost, ModelParts
from fresco.hosts.diffusers.load import _load_control_file
from fresco.hosts.diffusers.single_file import LoadedParts, load_single_file
from fresco.hosts.tensor_file import TensorFile
from tests.helpers.tiny_models import tiny_host

State = dict[str, Tensor]
UNET, VAE, CLIP = (
    "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
)
PARTS = {"unet": f"{UNET}out.2.bias", "vae": f"{VAE}encoder.conv_out.bias",
         "text_encoder": f"{CLIP}final_layer_norm.bias"}
"""A tensor of each part that tells no size."""
SIZES = (f"{UNET}input_blocks.4.0.in_layers.2.weight", f"{VAE}decoder.up.0.block.0.conv2.weight",
         f"{CLIP}embeddings.token_embedding.weight", f"{CLIP}encoder.layers.0.mlp.fc1.weight")
"""Tensors from which sizes are read."""


@pytest.fixture(scope="module")
def state(tiny_file: Path) -> State:
    return load_file(tiny_file)


@pytest.fixture
def write(tiny_model: Path, tmp_path: Path) -> Callable[[State], Path]:
    """Writes a file with the demo's tokenizer beside it."""
    (tmp_path / "tokenizer").symlink_to(tiny_model / "tokenizer")

    def save(tensors: State, name: str = "changed.safetensors") -> Path:
        save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / name)
        return tmp_path / name

    return save


def load(path: Path) -> LoadedParts:
    return load_single_file(path, with_vae=True, offline=True)


def weights(loaded: LoadedParts | ModelParts) -> State:
    parts = (loaded.unet, loaded.vae, loaded.text_encoder)
    return {f"{n}.{k}": v for n, part in enumerate(parts) for k, v in part.state_dict().items()}


def is_equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", [*PARTS.values(), *SIZES])
def test_a_missing_tensor_is_named(
    state: State, write: Callable[[State], Path], name: str
) -> None:
    path = write({k: v for k, v in state.items() if k != name})
    with pytest.raises(WeightsError, match=rf"changed.safetensors lacks {name}") as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "shape"), [
    *((name, (7,)) for name in (*PARTS.values(), *SIZES)), (PARTS["unet"], ()), (SIZES[0], (7, 9)),
    (SIZES[2], (7, 64)),
])
def test_a_misshapen_tensor_is_named(
    state: State, write: Callable[[State], Path], name: str, shape: tuple[int, ...]
) -> None:
    """A size that is read from it makes others unfit; then one of these is named."""
    path = write(state | {name: torch.zeros(shape)})
    with pytest.raises((WeightsError, HostError)) as caught:
        load(path)
    assert "changed.safetensors" in str(caught.value)
    if name in PARTS.values():
        assert f"has {name} of shape {list(shape)}, where" in str(caught.value)


def rename(state: State, old: str, new: str) -> State:
    return {key.replace(old, new): value for key, value in state.items()}


def with_new_attention(state: State) -> State:
    """As programs write a VAE that call its 1x1 convolutions linear layers."""
    result: State = {}
    names = {".q.": ".to_q.", ".k.": ".to_k.", ".v.": ".to_v.", ".proj_out.": ".to_out.0.",
             ".norm.": ".group_norm."}
    for key, value in state.items():
        if ".mid.attn_1." in key:
            for old, new in names.items():
                key = key.replace(f"attn_1{old}", f"attn_1{new}")
            value = value[:, :, 0, 0] if value.ndim == 4 else value
        result[key] = value
    return result


CHANGES: dict[str, Callable[[State], State]] = {
    "old_clip": lambda state: rename(state, "transformer.text_model.", "transformer."),
    "new_vae": with_new_attention,
    "surplus": lambda state: state | {
        "model_ema.decay": torch.ones(()), "alphas_cumprod": torch.ones(9),
        f"{CLIP}embeddings.position_ids": torch.zeros(1, 77), f"{VAE}loss.logvar": torch.ones(()),
    },
    "half": lambda state: {key: value.half().float() for key, value in state.items()},
}


@pytest.mark.parametrize("change", [key for key in CHANGES if key != "half"])
def test_names_of_other_programs_give_the_same_model(
    state: State, tiny_file: Path, write: Callable[[State], Path], change: str
) -> None:
    changed, plain = load(write(CHANGES[change](state))), load(tiny_file)
    assert is_equal(weights(changed), weights(plain))


def test_half_precision_is_read_exactly(state: State, write: Callable[..., Path]) -> None:
    half = write({k: v.half() for k, v in state.items()}, "half.safetensors")
    assert is_equal(weights(load(half)), weights(load(write(CHANGES["half"](state)))))


def test_a_checkpoint_without_vae_takes_one(
    state: State, tiny_file: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    without = write({k: v for k, v in state.items() if not k.startswith(VAE)})
    alone = write({k[len(VAE):]: v for k, v in state.items() if k.startswith(VAE)}, "v.safetensors")
    packed = tmp_path / "anime.vae.pt"
    torch.save({"epoch": 1, "state_dict": load_file(alone) | {"loss.logvar": torch.ones(())}},
               packed)
    plain = weights(load(tiny_file))
    for vae in (alone, packed, tiny_file):
        assert is_equal(weights(tiny_host(without, vae=str(vae))._parts), plain)
    with pytest.raises(HostError, match=r"without its VAE.*Give its VAE as sampling\.vae"):
        tiny_host(without)


def test_ema_weights_alone_are_named(state: State, write: Callable[[State], Path]) -> None:
    ema = {f"model_ema.{key.removeprefix('model.').replace('.', '')}": value
           for key, value in state.items() if key.startswith(UNET)}
    rest = {key: value for key, value in state.items() if not key.startswith(UNET)}
    with pytest.raises(HostError, match="is a checkpoint with the EMA weights of a UNet only"):
        tiny_host(write(rest | ema))


@pytest.mark.parametrize(("beside", "mark", "prediction"), [
    ("model: {params: {parameterization: v}}", False, "v_prediction"),
    ("model: {params: {target: x}}", False, "epsilon"), ("", True, "v_prediction"),
])
def test_the_yaml_beside_a_file_says_what_it_predicts(
    state: State, write: Callable[[State], Path], beside: str, mark: bool, prediction: str
) -> None:
    path = write(state | ({"v_pred": torch.zeros(0)} if mark else {}))
    path.with_suffix(".yaml").write_text(beside)
    assert load(path).schedule["prediction_type"] == prediction


@pytest.mark.parametrize("content", ["model: 3", "model: [", "- x"])
def test_another_yaml_is_told(state: State, write: Callable[[State], Path], content: str) -> None:
    path = write(state)
    path.with_suffix(".yaml").write_text(content)
    with pytest.raises(HostError, match=r"changed\.yaml is not a configuration"):
        load(path)


def test_notes_of_a_training_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in the first published checkpoints; nothing of them is run."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    ran: list[object] = []

    class ModelCheckpoint:
        def __setstate__(self, state: object) -> None:
            ran.append(state)

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = name, "ModelCheckpoint"
    module = ModuleType(name)
    module.__dict__["ModelCheckpoint"] = ModelCheckpoint
    with monkeypatch.context() as patch:
        for place in (name, name.rpartition(".")[0], "pytorch_lightning"):
            patch.setitem(sys.modules, place, module)
        note = ModelCheckpoint()
        note.__dict__["score"] = 3
        torch.save({"state_dict": {"a": torch.ones(2)}, "callbacks": {ModelCheckpoint: note},
                    "best": np.float64(1.5)}, tmp_path / "old.ckpt")
    assert TensorFile(tmp_path / "old.ckpt").shapes == {"a": (2,)}
    assert ran == []


def test_vaes_of_other_models_are_refused(
    state: State, tiny_model: Path, write: Callable[..., Path]
) -> None:
    alone = {k[len(VAE):]: v for k, v in state.items() if k.startswith(VAE)}
    first = alone["decoder.conv_in.weight"]
    wide = write(alone | {"decoder.conv_in.weight": torch.zeros(len(first), 16, 3, 3)})
    with pytest.raises(HostError, match=r"changed.safetensors has 16 latent channels"):
        tiny_host(tiny_model, vae=str(wide))
    del alone["encoder.conv_in.bias"]
    with pytest.raises(WeightsError, match=r"lacks encoder\.conv_in\.bias"):
        tiny_host(tiny_model, vae=str(write(alone)))
    lora = write({"lora_unet_x.lora_down.weight": torch.zeros(4, 8)})
    with pytest.raises(HostError, match=r"sampling\.vae changed.safetensors is a LoRA"):
        tiny_host(tiny_model, vae=str(lora))


def test_a_vae_of_other_sizes_brings_them_along(tiny_model: Path, tmp_path: Path) -> None:
    from fresco.hosts.diffusers.layout import rename_vae_key

    vae: Any = AutoencoderKL.from_config({
        "block_out_channels": (32, 64), "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2, "layers_per_block": 1, "latent_channels": 4,
    })
    renamed = {rename_vae_key(k, 2): v.contiguous() for k, v in vae.state_dict().items()}
    save_file(renamed, tmp_path / "vae.safetensors")
    found = tiny_host(tiny_model, vae=str(tmp_path / "vae.safetensors"))._parts.vae
    assert is_equal(dict(found.state_dict()), dict(vae.state_dict()))
    assert list(found.config["block_out_channels"]) == [32, 64]


def test_a_vae_with_the_names_of_diffusers_loads(tiny_model: Path, tmp_path: Path) -> None:
    theirs = next((tiny_model / "vae").glob("*.safetensors"))
    alone = shutil.copyfile(theirs, tmp_path / "vae.safetensors")
    found = tiny_host(tiny_model, vae=str(alone))._parts.vae
    assert is_equal(dict(found.state_dict()), load_file(theirs))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("wrong", [False, True])
def test_folders_are_looked_through_as_well(
    tiny_model: Path, tmp_path: Path, part: str, wrong: bool
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    path = next((folder / part).glob("*.safetensors"))
    tensors = load_file(path)
    name = next(key for key in tensors if key.endswith(("out.bias", "final_layer_norm.bias")))
    value = tensors.pop(name)
    save_file(tensors | ({name: value[:-1].clone()} if wrong else {}), path, {"format": "pt"})
    with pytest.raises((HostError, WeightsError), match=name.removeprefix("text_model.")) as caught:
        tiny_host(folder)
    assert f"The {part} of model" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_index_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(HostError, match="cannot be loaded"):
        tiny_host(tmp_path)


@pytest.fixture(scope="module")
def control(host: DiffusersHost) -> State:
    torch.manual_seed(0)
    return dict(ControlNetModel.from_unet(host.unet.unet).state_dict())


def test_control_nets_of_all_layouts_are_the_same(
    control: State, host: DiffusersHost, write: Callable[..., Path]
) -> None:
    original = convert_control(control)
    bare = {key.removeprefix("control_model."): value for key, value in original.items()}
    for tensors in (original, bare, control):
        found = _load_control_file(TensorFile(write(tensors)), host.unet.unet)
        assert is_equal(dict(found.state_dict()), control)


def test_broken_control_nets_are_told(
    control: State, host: DiffusersHost, write: Callable[..., Path]
) -> None:
    original = convert_control(control)
    name = "control_model.zero_convs.3.0.bias"
    rest = {key: value for key, value in original.items() if key != name}
    for tensors, words in (
        (rest, f"lacks {name}"), (rest | {name: torch.zeros(3)}, rf"{name} of shape \[3\], where"),
        (original | {"difference": torch.zeros(1)}, "the difference of a ControlNet"),
        ({"lora_controlnet": torch.zeros(0)}, "is a Control-LoRA"),
    ):
        with pytest.raises((HostError, WeightsError), match=words):
            _load_control_file(TensorFile(write(tensors)), host.unet.unet)

