"""Folders, files, VAEs, LoRAs and ControlNets: loaded alike, or refused by name."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo.ldm_layout import convert_control
from fresco.errors import FrescoError, HostError, SettingsError, WeightsError
from fresco.guidance.ports import BatchResult
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.load import pick_device
from fresco.progress import Progress
from tests.helpers.tiny_models import tiny_host, tiny_request

Cut = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def sample(host: DiffusersHost) -> BatchResult:
    with Progress().stage("test") as stage:
        return host.sample(tiny_request(), None, stage)


def levels_apart(a: BatchResult, b: BatchResult) -> int:
    return int(np.abs(a.images.astype(int) - b.images.astype(int)).max())


@pytest.fixture(scope="module")
def state(tiny_file: Path) -> dict[str, Tensor]:
    return load_file(tiny_file)


@pytest.mark.parametrize("there", [False, True])
def test_auto_asks_any_torch_for_its_device(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """In torch 2.6 the question for the device takes no argument, and none may be there."""
    first = SimpleNamespace(
        is_available=lambda: there, current_accelerator=lambda: torch.device("meta")
    )
    monkeypatch.setattr(torch, "accelerator", first)
    assert pick_device("auto").type == ("meta" if there else "cpu")


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_one_file_is_the_folder(
    host: DiffusersHost, tiny_model: Path, tiny_file: Path, suffix: str
) -> None:
    """The demo's VAE has groups of its own, so it is given apart; a real one has 32."""
    path = tiny_file.with_suffix(suffix)
    if suffix == ".ckpt":
        torch.save({"state_dict": load_file(tiny_file), "global_step": 1}, path)
    single = tiny_host(path, vae=str(tiny_model))
    for ours, theirs in zip(
        single.unet.unet.state_dict().items(), host.unet.unet.state_dict().items(), strict=True
    ):
        assert ours[0] == theirs[0]
        assert torch.equal(ours[1], theirs[1])
    assert levels_apart(sample(single), sample(host)) == 0
    assert single.name == f"diffusers: {path.name}"


def test_vae_inside_one_file_loads(tiny_file: Path) -> None:
    assert sample(tiny_host(tiny_file)).images.shape == (3, 64, 64, 3)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_folder_says_what_the_model_predicts(
    host: DiffusersHost, tiny_model: Path, tmp_path: Path, prediction: str
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": prediction}))
    other = tiny_host(folder)
    assert other.fingerprint != host.fingerprint
    assert levels_apart(sample(other), sample(host)) > 10


def without(part: str) -> Cut:
    return lambda state: {k: v for k, v in state.items() if not k.startswith(part)}


def added(name: str, *shape: int) -> Cut:
    return lambda state: state | {name: torch.zeros(shape)}


def only(part: str) -> Cut:
    return lambda state: {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}


UNET = "model.diffusion_model."
REFUSED: dict[str, tuple[Cut, str]] = {
    "reduced": (added(f"{UNET}label_emb.0.0.weight", 8, 2816), "a reduced SDXL, such as SSD-1B"),
    "edm": (added("edm_mean", 4), "Playground 2.5, which has a noise schedule of its own"),
    "sd3": (added(f"{UNET}joint_blocks.0.x", 1), "Stable Diffusion 3"),
    "flux": (added("double_blocks.0.img_attn.qkv.weight", 1), "Flux"),
    "unclip": (lambda state: added(f"{UNET}label_emb.0.0.weight", 8, 2048)(
        added("cond_stage_model.model.x", 1)(state)), r"Stable Diffusion 2\.x unCLIP"),
    "inpainting": (added(f"{UNET}input_blocks.0.0.weight", 32, 9, 3, 3), "an inpainting model"),
    "edit": (added(f"{UNET}input_blocks.0.0.weight", 32, 8, 3, 3), "an instruct-pix2pix model"),
    "no_vae": (without("first_stage_model."), "a UNet without its VAE"),
    "no_text": (without("cond_stage_model."), "a UNet without its text encoder"),
    "vae": (only("first_stage_model."), "a VAE"),
    "lora": (lambda state: {"lora_unet_x.lora_down.weight": torch.zeros(4, 8)}, "a LoRA"),
    "control": (lambda state: {"control_model.x": torch.zeros(1)}, "a ControlNet"),
    "inversion": (lambda state: {"emb_params": torch.zeros(1, 768)}, "a textual inversion"),
    "other": (lambda state: {"weight": torch.zeros(1)}, "not a diffusion model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_of_another_kind_are_refused_by_name(
    state: dict[str, Tensor], tmp_path: Path, case: str
) -> None:
    change, kind = REFUSED[case]
    path = tmp_path / f"{case}.safetensors"
    save_file({k: v.contiguous() for k, v in change(dict(state)).items()}, path)
    with pytest.raises(HostError, match=f"{case}.safetensors is {kind}"):
        tiny_host(path)


@pytest.mark.parametrize(("change", "words"), [
    ({"_class_name": "StableDiffusionXLInpaintPipeline"}, "is a StableDiffusionXLInpaintPipeline"),
    ({"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None]},
     "is the SDXL refiner"),
    ({"_class_name": "FluxPipeline"}, "is a FluxPipeline"),
])
def test_folders_of_another_kind_are_refused_by_name(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps(change))
    with pytest.raises(HostError, match=words):
        tiny_host(tmp_path)


@pytest.mark.parametrize(("part", "change", "words"), [
    ("unet", {"in_channels": 9}, "9 input channels"),
    ("unet", {"addition_embed_type": "text", "encoder_hid_dim": 64}, "conditioning of type text"),
    ("scheduler", {"rescale_betas_zero_snr": True}, "predicts epsilon, which says nothing"),
    ("scheduler", {"prediction_type": "flow"}, "predicts 'flow'"),
])
def test_folders_that_would_be_sampled_wrongly_are_refused(
    tiny_model: Path, tmp_path: Path, part: str, change: dict[str, Any], words: str
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    if part == "unet":
        config = dict(UNet2DConditionModel.load_config(folder / "unet")) | change
        UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    else:
        path = folder / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(HostError, match=words):
        tiny_host(folder)


def test_program_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    with pytest.raises(WeightsError, match=r"evil.ckpt cannot be read as weights"):
        tiny_host(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("content", [b"", b"no weights at all, just words", b"\x00" * 4000])
def test_damaged_files_are_told(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"broken{suffix}"):
        tiny_host(path)


def test_truncated_file_is_told(tiny_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(tiny_file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="bytes instead of"):
        tiny_host(path)


@pytest.mark.parametrize(("changes", "words"), [
    ({"model": ""}, "sampling.model is empty"),
    ({"model": "/nowhere/model.safetensors"}, "There is no model at /nowhere"),
    ({"model": "nobody/has-this"}, "cache, and downloads are off"),
    ({"vae": "/nowhere/vae.safetensors"}, "sampling.vae /nowhere/vae.safetensors cannot be loaded"),
    ({"lora": ("/nowhere/lora.safetensors",)}, "There is no LoRA file"),
    ({"control": "canny", "control_model": "/nowhere/cn"}, "no ControlNet at /nowhere/cn"),
    ({"device": "quantum"}, "device 'quantum' cannot be used"),
    ({"scheduler": "eulr"}, "did you mean euler"),
])
def test_wrong_settings_are_one_sentence(
    tiny_model: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises((HostError, SettingsError, WeightsError), match=words) as caught:
        tiny_host(**({"model": tiny_model} | changes))
    assert "\n" not in str(caught.value)


def test_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"no model_index.json"):
        tiny_host(tmp_path)


def test_file_without_tokenizer_says_where_one_was_looked_for(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fresco.hosts.diffusers.tokenizer._PACKAGES", ())
    path = shutil.copyfile(tiny_file, tmp_path / "alone.safetensors")
    with pytest.raises(HostError, match=r"needs CLIP's tokenizer.*open-clip-torch"):
        tiny_host(path)


def test_tokenizer_of_another_size_is_refused(
    tiny_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copyfile(tiny_file, tmp_path / "alone.safetensors"))
    folder = shutil.copytree(tiny_model / "tokenizer", tmp_path / "alone")
    tokens = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(tokens | {"surplus": len(tokens)}))
    with pytest.raises(HostError, match="knows 790 tokens, the tokenizer found has 791"):
        tiny_host(path)


@pytest.fixture(scope="module")
def control(host: DiffusersHost) -> ControlNetModel:
    model = ControlNetModel.from_unet(host.unet.unet, conditioning_channels=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.controlnet_down_blocks.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def test_control_net_of_file_and_folder_agree(
    host: DiffusersHost, control: ControlNetModel, tiny_model: Path, tmp_path: Path
) -> None:
    control.save_pretrained(tmp_path / "canny")
    path = tmp_path / "canny.safetensors"
    save_file(convert_control(dict(control.state_dict())), path)
    results = [
        sample(tiny_host(tiny_model, control="canny", control_model=str(place)))
        for place in (tmp_path / "canny", path)
    ]
    assert levels_apart(*results) == 0
    assert levels_apart(results[0], sample(host)) > 0
    idle = tiny_host(tiny_model, control="canny", control_model=str(path), control_weight=0.0)
    assert levels_apart(sample(idle), sample(host)) <= 1


def test_wrong_control_nets_are_refused(
    control: ControlNetModel, tiny_model: Path, tiny_file: Path, tmp_path: Path
) -> None:
    other = dict(control.config) | {"block_out_channels": (32, 32, 64, 64)}
    ControlNetModel.from_config(other).save_pretrained(tmp_path / "narrow")
    keys = convert_control(dict(control.state_dict()))
    key = next(k for k in keys if k.endswith("attn2.to_k.weight"))
    save_file({key: torch.zeros(32, 1024)}, tmp_path / "sd2.safetensors")
    for place, words in (
        (tmp_path / "narrow", "stages of"),
        (tmp_path / "sd2.safetensors", "made for Stable Diffusion 2.x"),
        (tiny_file, "is Stable Diffusion 1.x; give a ControlNet"),
    ):
        with pytest.raises(FrescoError, match=words):
            tiny_host(tiny_model, control="canny", control_model=str(place))
