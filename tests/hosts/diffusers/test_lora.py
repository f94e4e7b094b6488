"""LoRA files of all layouts: merged as their formula says, or refused by what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import conv2d

from fresco.errors import FrescoError, HostError, SettingsError, WeightsError
from fresco.guidance.ports import BatchResult
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.layout import rename_unet_key
from fresco.hosts.diffusers.lora import ChosenLora, choose_loras, merge_loras
from fresco.planning.parsing import split_lora
from fresco.progress import Progress
from fresco.settings import SamplingSettings
from tests.helpers.tiny_models import tiny_host, tiny_request


def sample(host: DiffusersHost) -> BatchResult:
    with Progress().stage("test") as stage:
        return host.sample(tiny_request(), None, stage)


def levels_apart(a: BatchResult, b: BatchResult) -> int:
    return int(np.abs(a.images.astype(int) - b.images.astype(int)).max())


def lora_file(path: Path, unet: UNet2DConditionModel, context: int = 64) -> Path:
    """A LoRA of rank 2 on a cross-attention layer, in the layout of most training scripts."""
    name = "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_v"
    generator = torch.Generator().manual_seed(3)
    down = torch.randn(2, context, generator=generator)
    up = torch.randn(32, 2, generator=generator)
    save_file({
        f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(1.0),
    }, path)
    return path


def test_lora_is_merged_with_its_weight(host: DiffusersHost, tiny_model: Path, tmp_path: Path
                                        ) -> None:
    """W + weight * alpha / rank * up down, and no layer of peft is left."""
    path = lora_file(tmp_path / "style.safetensors", host.unet.unet)
    merged = tiny_host(tiny_model, lora=(f"{path}:0.5",))
    place = "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_v.weight"
    before, after = (h.unet.unet.state_dict()[place] for h in (host, merged))
    parts = load_file(path)
    name = next(iter(parts)).partition(".")[0]
    change = parts[f"{name}.lora_up.weight"] @ parts[f"{name}.lora_down.weight"]
    assert torch.allclose(after, before + 0.5 * 0.5 * change, atol=1e-5)
    assert list(merged.unet.unet.state_dict()) == list(host.unet.unet.state_dict())
    assert merged.fingerprint != host.fingerprint
    assert levels_apart(sample(merged), sample(host)) > 0


def test_lora_of_another_architecture_is_refused(
    host: DiffusersHost, tiny_model: Path, tmp_path: Path
) -> None:
    path = lora_file(tmp_path / "xl.safetensors", host.unet.unet, context=2048)
    with pytest.raises(HostError, match=r"xl.safetensors is made for SDXL"):
        tiny_host(tiny_model, lora=(str(path),))


def test_file_that_is_no_lora_is_refused(tiny_model: Path, tiny_file: Path) -> None:
    with pytest.raises(HostError, match=r"is Stable Diffusion 1\.x; give a LoRA file"):
        tiny_host(tiny_model, lora=(str(tiny_file),))


@pytest.mark.parametrize(("text", "path", "weight"), [
    ("a.safetensors", "a.safetensors", 1.0),
    ("a.safetensors:0.5", "a.safetensors", 0.5),
    ("a:b.safetensors", "a:b.safetensors", 1.0),
    ("a.safetensors:-1", "a.safetensors", -1.0),
])
def test_lora_text(text: str, path: str, weight: float) -> None:
    assert split_lora(text) == (Path(path), weight)


UNET_LAYER = "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_v"
OUT_LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
TEXT_LAYER = "encoder.layers.1.self_attn.q_proj"
MLP_LAYER = "encoder.layers.0.mlp.fc1"
CONVOLUTION = "down_blocks.1.resnets.0.conv1"
Merge = Callable[..., dict[str, Tensor]]


def joined(layer: str) -> str:
    return layer.replace(".", "_")


def original(layer: str) -> str:
    return joined(rename_unet_key(f"{layer}.weight").removesuffix(".weight"))


NAMES: dict[str, tuple[str, str, str]] = {
    "kohya": (f"lora_unet_{joined(UNET_LAYER)}.lora_{{}}.weight", UNET_LAYER, "down up"),
    "original": (f"lora_unet_{original(UNET_LAYER)}.lora_{{}}.weight", UNET_LAYER, "down up"),
    "out": (f"lora_unet_{joined(OUT_LAYER)}.lora_{{}}.weight", OUT_LAYER, "down up"),
    "peft": (f"unet.{UNET_LAYER}.lora_{{}}.weight", UNET_LAYER, "A B"),
    "adapter": (f"unet.{UNET_LAYER}.lora_{{}}.default.weight", UNET_LAYER, "A B"),
    "diffusers": (f"unet.{UNET_LAYER}.lora.{{}}.weight", UNET_LAYER, "down up"),
    "processor": (
        f"unet.{OUT_LAYER[:-9]}.processor.to_out_lora.{{}}.weight", OUT_LAYER, "down up",
    ),
    "bare": (UNET_LAYER.replace(".to_v", ".processor.to_v_lora.{}.weight"), UNET_LAYER, "down up"),
    "text": (f"lora_te_text_model_{joined(TEXT_LAYER)}.lora_{{}}.weight", TEXT_LAYER, "down up"),
    "text1": (f"lora_te1_text_model_{joined(MLP_LAYER)}.lora_{{}}.weight", MLP_LAYER, "down up"),
    "text_peft": (f"text_encoder.text_model.{TEXT_LAYER}.lora_{{}}.weight", TEXT_LAYER, "A B"),
    "text_old": (
        "text_encoder.text_model.encoder.layers.1.self_attn.to_q_lora.{}.weight", TEXT_LAYER,
        "down up",
    ),
    "text_linear": (
        f"text_encoder.text_model.{MLP_LAYER}.lora_linear_layer.{{}}.weight", MLP_LAYER, "down up",
    ),
    "convolution": (
        f"lora_unet_{joined(CONVOLUTION)}.lora_{{}}.weight", CONVOLUTION, "down up",
    ),
}
"""Names of the two matrices, the layer they change, and what the matrices are called."""


@pytest.fixture
def merge(host: DiffusersHost, tmp_path: Path) -> Merge:
    """The change of every weight that a LoRA file makes; the model is as before after it."""
    parts = (host._parts.unet, host._parts.text_encoder)

    def run(tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None,
            unet: float = 1.0, text: float = 1.0) -> dict[str, Tensor]:
        path = tmp_path / "l.safetensors"
        save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata)
        before = [{k: v.clone() for k, v in part.state_dict().items()} for part in parts]
        try:
            merge_loras(*parts, [ChosenLora(path, unet, text)])
            return {k: v - old[k] for part, old in zip(parts, before, strict=True)
                    for k, v in part.state_dict().items() if not torch.equal(v, old[k])}
        finally:
            for part, old in zip(parts, before, strict=True):
                part.load_state_dict(old)

    return run


def find_layer(host: DiffusersHost, layer: str) -> tuple[str, Tensor]:
    for part in (host._parts.unet, host._parts.text_encoder):
        for key, value in part.state_dict().items():
            if key.removeprefix("text_model.") == f"{layer}.weight":
                return key, value
    raise AssertionError(layer)


def matrices(weight: Tensor, rank: int = 3) -> tuple[Tensor, Tensor]:
    """Down and up, for a convolution as LoCon has them."""
    torch.manual_seed(1)
    down = 0.1 * torch.randn(rank, *weight.shape[1:])
    return down, 0.1 * torch.randn(len(weight), rank, *(1 for _ in weight.shape[2:]))


@pytest.mark.parametrize("kind", NAMES)
def test_every_way_to_name_a_layer_finds_it(host: DiffusersHost, merge: Merge, kind: str) -> None:
    pattern, layer, sides = NAMES[kind]
    key, weight = find_layer(host, layer)
    down, up = matrices(weight)
    first, second = sides.split()
    found = merge({pattern.format(first): down, pattern.format(second): up}, unet=0.5, text=0.25)
    assert list(found) == [key]
    factor = 0.25 if kind.startswith("text") else 0.5
    expected = factor * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    torch.testing.assert_close(found[key], expected, atol=1e-6, rtol=0)


def test_a_convolution_between_two_is_the_three_in_a_row(
    host: DiffusersHost, merge: Merge
) -> None:
    """The change acts on an image as the three convolutions one after the other do."""
    key, weight = find_layer(host, CONVOLUTION)
    torch.manual_seed(2)
    down, middle = torch.randn(2, weight.shape[1], 1, 1), torch.randn(4, 2, 3, 3)
    up = torch.randn(len(weight), 4, 1, 1)
    name = f"lora_unet_{joined(CONVOLUTION)}"
    found = merge({f"{name}.lora_down.weight": down, f"{name}.lora_mid.weight": middle,
                   f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.0)})
    image = torch.randn(1, weight.shape[1], 6, 6)
    expected = conv2d(conv2d(conv2d(image, down), middle), up) / 2
    torch.testing.assert_close(conv2d(image, found[key]), expected, atol=1e-2, rtol=1e-3)


def test_scales_in_the_metadata_of_peft_count(host: DiffusersHost, merge: Merge) -> None:
    _, weight = find_layer(host, UNET_LAYER)
    down, up = matrices(weight)
    tensors = {NAMES["peft"][0].format(side): value for side, value in (("A", down), ("B", up))}
    about = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.r": 3})}
    (twice,), (once,) = merge(tensors, metadata=about).values(), merge(tensors).values()
    torch.testing.assert_close(twice, 2 * once, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "kind"), [
    ("lora_unet_x.hada_w1_a", r"a LyCORIS network \(LoHa\)"),
    ("lora_unet_x.lokr_w1", r"a LyCORIS network \(LoKr\)"),
    ("lora_unet_x.lokr_w2_a", r"a LyCORIS network \(LoKr\)"),
    ("lora_unet_x.oft_blocks", r"a LyCORIS network \(OFT\)"),
    ("lora_unet_x.on_input", r"a LyCORIS network \(IA3\)"),
    ("lora_unet_x.a1.weight", r"a LyCORIS network \(GLoRA\)"),
    ("lora_unet_x.diff", r"a LyCORIS network \(full matrices\)"),
    ("lora_unet_x.w_norm", r"a LyCORIS network \(norms\)"),
    (f"lora_unet_{joined(UNET_LAYER)}.dora_scale", r"a LyCORIS network \(DoRA\)"),
    ("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", "made for Flux"),
    ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "made for Flux"),
    ("lora_unet_joint_blocks_0_x.lora_down.weight", "made for Stable Diffusion 3"),
    ("lora_te2_text_model_x.lora_down.weight", "made for SDXL"),
    ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight",
     "made for a model with text conditioning of width 8"),
    ("lora_unet_blocks_7_self_attn_q.lora_down.weight", "layers that the model does not have"),
    ("emb_params", "a textual inversion"),
    ("double_blocks.0.img_attn.qkv.weight", "is Flux; give a LoRA"),
    ("down_blocks.0.motion_modules.0.x", "a motion module of AnimateDiff"),
])
def test_networks_that_do_not_fit_are_named(merge: Merge, name: str, kind: str) -> None:
    """Also where they hold an ordinary LoRA besides."""
    tensors = {name: torch.zeros(4, 8), name.replace("lora_down", "lora_up").replace(
        "lora_A", "lora_B"): torch.zeros(8, 4)}
    with pytest.raises(HostError, match=kind):
        merge(tensors)
    if "LyCORIS" in kind:
        plain = {NAMES["kohya"][0].format(side): torch.zeros(4, 4) for side in ("down", "up")}
        with pytest.raises(HostError, match=kind):
            merge(tensors | plain)


def test_layers_that_the_model_lacks_are_left_out_with_a_word(
    host: DiffusersHost, merge: Merge, caplog: pytest.LogCaptureFixture
) -> None:
    _, weight = find_layer(host, UNET_LAYER)
    down, up = matrices(weight)
    tensors = {NAMES["kohya"][0].format(side): value for side, value in (("down", down),
                                                                         ("up", up))}
    extra = {f"lora_te_text_projection.lora_{side}.weight": torch.ones(3, 3) for side in
             ("down", "up")}
    assert len(merge(tensors | extra)) == 1
    assert "1 layers that the model does not have, such as lora_te_text_projection" in caplog.text


@pytest.mark.parametrize(("down", "up", "words"), [
    ((3, 64), None, "lacks the matrix 'up'"),
    ((3, 64), (32, 4), "which do not fit together"),
    ((3, 64), (33, 3), r"of shape \[33, 64\], where the model has \[32, 64\]"),
    ((3, 64), (), "which do not fit together"),
])
def test_broken_files_change_nothing(
    merge: Merge, down: tuple[int, ...], up: tuple[int, ...] | None, words: str
) -> None:
    tensors = {NAMES["kohya"][0].format("down"): torch.zeros(down)}
    if up is not None:
        tensors[NAMES["kohya"][0].format("up")] = torch.zeros(up)
    with pytest.raises((HostError, WeightsError), match=words):
        merge(tensors)


@pytest.mark.parametrize("weight", ["nan", "inf", "-inf", "strong", "0,8", ""])
def test_weights_that_are_no_numbers_are_refused(weight: str) -> None:
    with pytest.raises(SettingsError, match=r"sampling\.lora is .* is not a number"):
        split_lora(f"style.safetensors:{weight}")


def test_a_file_with_a_colon_in_its_name_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a:b"
    path.touch()
    assert split_lora(str(path)) == (path, 1.0)
    assert split_lora("C:\\style.safetensors") == (Path("C:\\style.safetensors"), 1.0)


def test_a_lora_is_no_model(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "flux.safetensors"
    save_file({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": torch.zeros(1)}, path)
    with pytest.raises(FrescoError, match=r"flux\.safetensors is a LoRA for Flux"):
        tiny_host(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three LoRA files, one of them named otherwise by its training, and two of one name."""
    place = tmp_path / "loras"
    for name, about in (("ink", {}), ("sub/oil", {"ss_output_name": "van gogh"}), ("a/x", {}),
                        ("b/x", {})):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        save_file({"x": torch.zeros(1)}, place / f"{name}.safetensors", about)
    (place / "broken.safetensors").write_bytes(b"")
    return place


def test_loras_that_prompts_name_are_found(folder: Path) -> None:
    ink, oil = folder / "ink.safetensors", folder / "sub" / "oil.safetensors"
    chosen = choose_loras(SamplingSettings(
        lora=(f"{ink}:0.3",), prompt="<lora:oil:0.5:0.25> a cat", added_prompt="<lora:van gogh>",
        lora_dir=str(folder),
    ))
    assert chosen == (ChosenLora(ink, 0.3, 0.3), ChosenLora(oil, unet=0.25, text=0.5),
                      ChosenLora(oil, 1.0, 1.0))


@pytest.mark.parametrize(("name", "words"), [
    ("inc", "names the LoRA inc, which is not in .*; did you mean ink"),
    ("zzzzzzzz", "names the LoRA zzzzzzzz, which is not in .*5 LoRA files are there"),
    ("x", r"names the LoRA x, but .*a/x\.safetensors and .*b/x\.safetensors have that name"),
])
def test_names_that_tell_no_file_are_refused(folder: Path, name: str, words: str) -> None:
    with pytest.raises(HostError, match=words):
        choose_loras(SamplingSettings(prompt=f"<lora:{name}:1>", lora_dir=str(folder)))


def test_a_named_lora_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"sampling\.lora_dir .* is not a folder"):
        choose_loras(SamplingSettings(prompt="<lora:ink>", lora_dir=str(tmp_path / "nowhere")))


def test_a_lora_by_name_is_the_lora_by_file(
    host: DiffusersHost, tiny_model: Path, tmp_path: Path
) -> None:
    """The images and, but for the prompt's text, the weights are the same."""
    path = lora_file(tmp_path / "style.safetensors", host.unet.unet)
    by_file = tiny_host(tiny_model, lora=(f"{path}:0.5",))
    by_name = tiny_host(tiny_model, prompt="a red car<lora:style:0.5>", lora_dir=str(tmp_path))
    for ours, theirs in zip(by_name.unet.unet.state_dict().values(),
                            by_file.unet.unet.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert by_name.fingerprint != host.fingerprint
    with pytest.raises(SettingsError, match=r"\[a\|b\], which alternates"):
        tiny_host(tiny_model, prompt="[a|b]")


def test_folders_of_loras_and_embeddings_alone_change_nothing(
    host: DiffusersHost, tiny_model: Path, folder: Path
) -> None:
    other = tiny_host(tiny_model, lora_dir=str(folder), embeddings_dir=str(folder))
    assert other.fingerprint == host.fingerprint
