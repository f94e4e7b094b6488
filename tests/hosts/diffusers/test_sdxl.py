"""SDXL and Stable Diffusion 2 as files and folders: loaded alike, or refused by name."""

from __future__ import annotations

import copy
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo.ldm_layout import convert_control
from fresco.errors import HostError, SettingsError, WeightsError
from fresco.flow.occlusion import BidirectionalFlow
from fresco.guidance.guide import BatchGuidance, FrescoGuide
from fresco.guidance.ports import BatchResult, Step
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.sampling import place_reference
from fresco.hosts.diffusers.single_file import LoadedParts, load_single_file
from fresco.hosts.diffusers.vae import LatentCodec
from fresco.progress import Progress
from fresco.settings import GuidanceSettings
from tests.helpers.tiny_models import tiny_host, tiny_request
from tests.helpers.tiny_xl import POOLED, TEXT, build_tiny_xl, make_vae
from tests.helpers.tolerances import EXACT_BY_DTYPE

State = dict[str, Tensor]
Write = Callable[..., Path]
EXACT = EXACT_BY_DTYPE[torch.float32]
UNET = "model.diffusion_model."
SECOND = "conditioner.embedders.1.model."


def sample(host: DiffusersHost, guide: FrescoGuide | None = None, **request: Any) -> BatchResult:
    with Progress().stage("test") as stage:
        return host.sample(tiny_request(**request), guide, stage)


def is_equal(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture(scope="module")
def xl_state(xl_file: Path) -> State:
    return load_file(xl_file)


@pytest.fixture
def write(xl_model: Path, tmp_path: Path) -> Write:
    """Writes a file with the tokenizer beside it."""
    (tmp_path / "tokenizer").symlink_to(xl_model / "tokenizer")

    def save(tensors: State, name: str = "changed.safetensors") -> Path:
        save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / name)
        return tmp_path / name

    return save


def load(path: Path, **more: Any) -> LoadedParts:
    return load_single_file(path, with_vae=True, offline=True, **more)


def test_one_file_of_sdxl_is_the_folder(xl_host: DiffusersHost, xl_file: Path) -> None:
    """Equal weights, scales, words and padding give equal images."""
    single = tiny_host(xl_file)
    for ours, theirs in zip(single._parts.networks(), xl_host._parts.networks(), strict=True):
        assert is_equal(ours, theirs)
    assert np.array_equal(sample(single).images, sample(xl_host).images)
    assert single.name == "diffusers: xl.safetensors"


def test_one_file_of_sdxl_is_what_diffusers_reads(
    xl_model: Path, xl_file: Path, xl_state: State
) -> None:
    """The names of the original layout, told by another program."""
    loaded = load(xl_file)
    for kind, part in ((diffusers.UNet2DConditionModel, "unet"), (diffusers.AutoencoderKL, "vae")):
        theirs: Any = kind.from_single_file(
            str(xl_file), config=str(xl_model), subfolder=part, local_files_only=True
        )
        assert is_equal(getattr(loaded, part), theirs)
    ours = loaded.text_encoder_2.state_dict()
    read = convert_open_clip_checkpoint(loaded.text_encoder_2, dict(xl_state), SECOND)
    assert read.keys() == ours.keys()
    assert all(torch.equal(ours[key], read[key]) for key in ours)


def test_a_folder_says_whether_an_empty_negative_prompt_is_zeros(
    xl_host: DiffusersHost, xl_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(xl_model, tmp_path / "model")
    index = folder / "model_index.json"
    about = json.loads(index.read_text()) | {"force_zeros_for_empty_prompt": False}
    index.write_text(json.dumps(about))
    other = tiny_host(folder)
    assert other.fingerprint != xl_host.fingerprint
    for prompt, zeros in (("", True), ("blurry", False)):
        found = xl_host._text.encode([prompt], negative=True)
        assert bool((found.tokens == 0).all()) is bool((found.pooled == 0).all()) is zeros
        kept = other._text.encode([prompt], negative=True)
        assert torch.equal(kept.tokens, xl_host._text.encode([prompt]).tokens)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_half_precision_is_that_of_the_model_loaded_whole(
    xl_host: DiffusersHost, xl_model: Path, xl_file: Path, tmp_path: Path, kind: str
) -> None:
    """It is read so from the start, unless a LoRA is added."""
    path = xl_model if kind == "folder" else xl_file
    halved = tiny_host(path, dtype="bfloat16")
    save_file(lora("lora_te1_text_model_encoder_layers_1_mlp_fc1.lora_{0}.weight",
                   torch.zeros(128, TEXT)), tmp_path / "idle.safetensors")
    idle = tiny_host(path, dtype="bfloat16", lora=(f"{tmp_path / 'idle.safetensors'}:0",))
    for ours, late, whole in zip(*(host._parts.networks() for host in (halved, idle, xl_host)),
                                 strict=True):
        assert {weight.dtype for weight in ours.parameters()} == {torch.bfloat16}
        assert is_equal(ours, late)
        assert is_equal(ours, copy.deepcopy(whole).to(torch.bfloat16))


def test_both_tokenizers_of_a_file_pad_as_those_of_the_folder(
    xl_host: DiffusersHost, xl_file: Path
) -> None:
    loaded = load(xl_file)
    for name in ("tokenizer", "tokenizer_2"):
        ours, theirs = (getattr(parts, name)("a red car", padding="max_length").input_ids
                        for parts in (loaded, xl_host._parts))
        assert ours == theirs
        assert ours[-1] == (0 if name == "tokenizer_2" else ours[4])


def test_one_file_of_stable_diffusion_2_is_the_folder(sd2_model: Path, sd2_file: Path) -> None:
    """The folder leaves the last layer of the text encoder out, the file has it."""
    folder, single = tiny_host(sd2_model), tiny_host(sd2_file, prediction="epsilon")
    for ours, theirs in zip(single._parts.networks(), folder._parts.networks(), strict=True):
        assert is_equal(ours, theirs)
    apart = sample(single).images.astype(int) - sample(folder).images
    assert np.abs(apart).max() <= 1  # one of the layouts in memory rounds otherwise


def test_a_file_of_stable_diffusion_2_must_be_said_what_it_predicts(sd2_file: Path) -> None:
    with pytest.raises(HostError, match=r"does not say what it predicts; set sampling\.predict"):
        load(sd2_file)
    assert load(sd2_file, prediction="v").schedule["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(("marks", "option", "found"), [
    ((), "auto", ("epsilon", False)), (("v_pred",), "auto", ("v_prediction", False)),
    (("v_pred", "ztsnr"), "auto", ("v_prediction", True)), ((), "v-ztsnr", ("v_prediction", True)),
    (("v_pred", "ztsnr"), "epsilon", ("epsilon", False)),
    (("ztsnr",), "v", ("v_prediction", False)),
])
def test_marks_in_a_file_and_the_option_say_what_it_predicts(
    xl_state: State, write: Write, marks: tuple[str, ...], option: str, found: tuple[str, bool]
) -> None:
    path = write(xl_state | {mark: torch.zeros(0) for mark in marks})
    schedule = load(path, prediction=option).schedule
    assert (schedule["prediction_type"], schedule["rescale_betas_zero_snr"]) == found


def test_the_yaml_of_sdxl_says_what_it_predicts(xl_state: State, write: Write) -> None:
    path = write(xl_state)
    for scaling, found in (("EpsScaling", "epsilon"), ("VScaling", "v_prediction")):
        path.with_suffix(".yaml").write_text(
            "model: {params: {denoiser_config: {params: {scaling_config: {target: "
            f"sgm.modules.diffusionmodules.denoiser_scaling.{scaling}}}}}}}}}}}"
        )
        assert load(path).schedule["prediction_type"] == found


def test_pure_noise_needs_v_and_a_scheduler_that_begins_there(
    xl_model: Path, xl_state: State, write: Write
) -> None:
    with pytest.raises(HostError, match=r"\(ztsnr\), where only a model that predicts v"):
        load(write(xl_state | {"ztsnr": torch.zeros(0)}))
    with pytest.raises(SettingsError, match=r"'heun', which cannot begin at pure .* ddpm, ddim"):
        tiny_host(xl_model, prediction="v-ztsnr", scheduler="heun")
    host = tiny_host(xl_model, prediction="v-ztsnr", timesteps="trailing", strength=1.0)
    assert host.model_sigmas[-1] > 4000  # its alpha ends at 2**-24 instead of 0.0047
    assert sample(host).images.std() > 1


def reduce(state: State) -> State:
    return {k: v for k, v in state.items() if "output_blocks.2.1.transformer_blocks.1." not in k}


def refine(state: State) -> State:
    return {k.replace(".embedders.1.", ".embedders.0."): v for k, v in state.items()
            if ".embedders.0." not in k}


REFUSED: dict[str, tuple[Callable[[State], State], str]] = {
    "refiner": (refine, "is the SDXL refiner; a single file must be"),
    "reduced": (reduce, "is a reduced SDXL, such as SSD-1B"),
    "inpainting": (lambda state: state | {f"{UNET}input_blocks.0.0.weight": torch.zeros(
        32, 9, 3, 3)}, "is an inpainting model"),
    "cosxl": (lambda state: state | {"edm_vpred.sigma_max": torch.ones(1)}, "is CosXL, which"),
    "no_text": (lambda state: {k: v for k, v in state.items() if not k.startswith(SECOND)},
                "is a UNet without its text encoders"),
    "no_vae": (lambda state: {k: v for k, v in state.items() if "first_stage" not in k},
               r"without its VAE.*Give its VAE as sampling\.vae"),
    "widths": (lambda state: state | {f"{SECOND}token_embedding.weight": torch.zeros(790, 32)},
               "is a model of an unknown kind"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_relatives_of_sdxl_are_refused_by_name(xl_state: State, write: Write, case: str) -> None:
    change, words = REFUSED[case]
    with pytest.raises(HostError, match=words) as caught:
        tiny_host(write(change(dict(xl_state))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "shape"), [
    (f"{SECOND}transformer.resblocks.1.attn.in_proj_weight", (190, TEXT)),
    (f"{SECOND}text_projection", (TEXT + 1, POOLED)), (f"{UNET}label_emb.0.2.bias", (7,)),
    (f"{UNET}output_blocks.2.2.conv.weight", None),
    (f"{SECOND}transformer.resblocks.0.ln_1.weight", None),
])
def test_a_wrong_tensor_of_sdxl_is_named(
    xl_state: State, write: Write, name: str, shape: tuple[int, ...] | None
) -> None:
    kept = {key: value for key, value in xl_state.items() if key != name}
    path = write(kept if shape is None else kept | {name: torch.zeros(shape)})
    words = f"lacks {name}" if shape is None else f"has {name} of shape {list(shape)}, where"
    with pytest.raises(WeightsError, match=re.escape(words)):
        load(path)


@pytest.mark.parametrize("wrong", [False, True])
def test_the_second_text_encoder_of_a_folder_is_looked_through(
    xl_model: Path, tmp_path: Path, wrong: bool
) -> None:
    folder = shutil.copytree(xl_model, tmp_path / "model")
    path = next((folder / "text_encoder_2").glob("*.safetensors"))
    tensors = load_file(path)
    value = tensors.pop("text_projection.weight")
    save_file(tensors | ({"text_projection.weight": value[:-1].clone()} if wrong else {}), path,
              {"format": "pt"})
    with pytest.raises(WeightsError, match=r"The text_encoder_2 of .*text_projection\.weight"):
        tiny_host(folder)


def test_a_file_without_vae_takes_one_at_the_scale_of_sdxl(
    xl_state: State, xl_host: DiffusersHost, write: Write
) -> None:
    vae = {k.removeprefix("first_stage_model."): v for k, v in xl_state.items()
           if k.startswith("first_stage_model.")}
    rest = {k: v for k, v in xl_state.items() if not k.startswith("first_stage_model.")}
    found = tiny_host(write(rest), vae=str(write(vae, "vae.safetensors")))._parts.vae
    assert is_equal(found, xl_host._parts.vae)
    assert found.config.scaling_factor == 0.13025


def test_a_vae_of_another_model_is_told(
    xl_model: Path, sd2_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_host(xl_model, vae=str(xl_model))
    assert not caplog.text
    tiny_host(xl_model, vae=str(sd2_model / "vae"))
    assert "multiplies latents by 0.18215, the model's own VAE by 0.13025" in caplog.text


def test_a_folder_with_layers_left_out_is_guided(tmp_path: Path) -> None:
    """As of SSD-1B and Koala; a single file does not say how many are left."""
    folder = build_tiny_xl(
        tmp_path / "model", mid_block_type=None, transformer_layers_per_block=((1, 1), (2, 2),
        (1, 1)), reverse_transformer_layers_per_block=((1, 1, 2), (2, 1, 1), (1, 1, 1)),
    )
    host = tiny_host(folder)
    assert [site.stage for site in host.unet.sites] == [0] * 4 + [1] * 4
    assert guided(host).images.std() > 1


def guided(host: DiffusersHost, seen: list[Step] | None = None) -> BatchResult:
    """A batch with every part of the guidance."""
    request = tiny_request()
    count, height, width, _ = request.frames.shape
    still, clear = torch.zeros(count, 2, height, width), torch.zeros(count, height, width)
    images = torch.from_numpy(request.frames).permute(0, 3, 1, 2).float()
    settings = GuidanceSettings(background_smoothing=True, optimization_iterations=2)
    scales = tuple(8 * 2 ** (2 - stage) for stage in (0, 1))
    batch = BatchGuidance.build(
        images, BidirectionalFlow(still, still, clear, clear),
        torch.ones(count, 1, height // 8, width // 8), settings, "cpu", scales=scales,
    )
    guide = FrescoGuide(batch, settings, host.model_sigmas)
    smooths = guide.smooths

    def watch(step: Step) -> bool:
        if smooths(step) and seen is not None:
            seen.append(step)
        return smooths(step)

    guide.smooths = watch
    return sample(host, guide)


def test_sdxl_is_guided_with_every_part_in_four_calls(xl_model: Path) -> None:
    host = tiny_host(xl_model, scheduler="lcm", strength=1.0, guidance_scale=0.0)
    seen: list[Step] = []
    result = guided(host, seen)
    assert len(result.carry.latents) == 4
    assert {step.index for step in seen} == {2}
    assert not np.array_equal(result.images, sample(host).images)


@pytest.mark.parametrize(("last", "found"), [(1, 1), (0, 0), (50, 50), (60, 60), (249, 1)])
def test_the_reference_of_few_steps_is_the_published_one(last: int, found: int) -> None:
    assert place_reference(torch.tensor([last]), 1000).tolist() == [found]


def test_a_control_net_of_sdxl_is_the_same_as_file_and_folder(
    xl_model: Path, xl_host: DiffusersHost, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    model = diffusers.ControlNetModel.from_unet(xl_host.unet.unet)
    with torch.no_grad():
        for parameter in model.controlnet_down_blocks.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "canny")
    save_file(convert_control(dict(model.state_dict())), tmp_path / "canny.safetensors")
    first, second = (
        sample(tiny_host(xl_model, control="canny", control_model=str(tmp_path / name)))
        for name in ("canny", "canny.safetensors")
    )
    assert np.array_equal(first.images, second.images)
    assert not np.array_equal(first.images, sample(xl_host).images)


def lora(layer: str, weight: Tensor) -> State:
    torch.manual_seed(1)
    down = 0.1 * torch.randn(2, *weight.shape[1:])
    up = 0.1 * torch.randn(len(weight), 2, *(1 for _ in weight.shape[2:]))
    return {layer.format("down", "A"): down, layer.format("up", "B"): up}


KEY = "down_blocks.2.attentions.1.transformer_blocks.1.attn2.to_k"
UP = "up_blocks.0.upsamplers.0.conv"
LAYERS = {
    "kohya": (f"lora_unet_{KEY.replace('.', '_')}.lora_{{0}}.weight", "unet", KEY),
    "original": ("lora_unet_input_blocks_8_1_transformer_blocks_1_attn2_to_k.lora_{0}.weight",
                 "unet", KEY),
    "upsampling": ("lora_unet_output_blocks_2_2_conv.lora_{0}.weight", "unet", UP),
    "sizes": ("lora_unet_label_emb_0_0.lora_{0}.weight", "unet", "add_embedding.linear_1"),
    "peft": (f"unet.{KEY}.lora_{{1}}.weight", "unet", KEY),
    "text1": ("lora_te1_text_model_encoder_layers_1_mlp_fc1.lora_{0}.weight", "text_encoder",
              "encoder.layers.1.mlp.fc1"),
    "text2": ("lora_te2_text_model_encoder_layers_1_mlp_fc1.lora_{0}.weight", "text_encoder_2",
              "encoder.layers.1.mlp.fc1"),
    "text2_peft": ("text_encoder_2.text_model.encoder.layers.1.mlp.fc1.lora_{1}.weight",
                   "text_encoder_2", "encoder.layers.1.mlp.fc1"),
    "projection": ("lora_te2_text_projection.lora_{0}.weight", "text_encoder_2",
                   "text_projection"),
}
"""Names of the matrices, the network and the layer that they change."""


@pytest.mark.parametrize("kind", LAYERS)
def test_every_way_to_name_a_layer_of_sdxl_finds_it(
    xl_model: Path, xl_host: DiffusersHost, tmp_path: Path, kind: str
) -> None:
    pattern, part, layer = LAYERS[kind]
    before = getattr(xl_host._parts, part).state_dict()
    (key,) = [key for key in before if key.removeprefix("text_model.") == f"{layer}.weight"]
    tensors = lora(pattern, before[key])
    save_file(tensors, tmp_path / "l.safetensors")
    host = tiny_host(xl_model, lora=(f"{tmp_path / 'l.safetensors'}:0.5",))
    down, up = tensors.values()
    change = 0.5 * (up.flatten(1) @ down.flatten(1)).reshape(before[key].shape)
    for name in ("unet", "text_encoder", "text_encoder_2"):
        old, new = (getattr(h._parts, name).state_dict() for h in (xl_host, host))
        changed = [k for k in old if not torch.equal(old[k], new[k])]
        assert changed == ([key] if name == part else [])
    after = getattr(host._parts, part).state_dict()[key]
    torch.testing.assert_close(after - before[key], change, atol=EXACT, rtol=0)


def test_loras_of_other_families_are_refused(xl_model: Path, tiny_model: Path, tmp_path: Path
                                             ) -> None:
    path = tmp_path / "l.safetensors"
    save_file(lora("lora_unet_x_attn2_to_k.lora_{0}.weight", torch.zeros(32, 768)), path)
    with pytest.raises(HostError, match=r"made for Stable Diffusion 1\.x, the model is SDXL"):
        tiny_host(xl_model, lora=(str(path),))
    save_file(lora("lora_te2_text_model_x.lora_{0}.weight", torch.zeros(8, 8)), path)
    with pytest.raises(HostError, match="made for SDXL, the model is"):
        tiny_host(tiny_model, lora=(str(path),))


def encode_by_diffusers(host: DiffusersHost, prompt: str) -> tuple[Tensor, Tensor]:
    parts = host._parts
    pipeline: Any = diffusers.StableDiffusionXLPipeline(
        parts.vae, parts.text_encoder, parts.text_encoder_2, parts.tokenizer, parts.tokenizer_2,
        parts.unet, host._make_scheduler(0), add_watermarker=False,
    )
    with torch.no_grad():
        found = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
    return found[0], found[2]


def test_words_are_weighted_in_each_encoder(xl_host: DiffusersHost) -> None:
    """Each one's mean is restored by itself, and the pooled vector stays, as in the WebUI."""
    tokens, pooled = encode_by_diffusers(xl_host, "a red car")
    plain, weighted = (xl_host._text.encode([p]) for p in ("a red car", "(a red car:1.5)"))
    torch.testing.assert_close(plain.tokens, tokens, atol=EXACT, rtol=0)
    torch.testing.assert_close(plain.pooled, pooled, atol=EXACT, rtol=0)
    expected = tokens.clone()
    expected[:, 1:4] *= 1.5
    for part in (slice(0, TEXT), slice(TEXT, None)):
        expected[..., part] *= tokens[..., part].mean() / expected[..., part].mean()
    torch.testing.assert_close(weighted.tokens, expected, atol=EXACT, rtol=0)
    assert torch.equal(weighted.pooled, plain.pooled)


def test_the_pooled_vector_is_that_of_the_first_chunk(xl_host: DiffusersHost) -> None:
    both, first = (xl_host._text.encode([p]) for p in ("a red car BREAK blue", "a red car"))
    assert both.tokens.shape == (1, 154, 2 * TEXT)
    assert torch.equal(both.pooled, first.pooled)


def encode_vectors(tokenizer: Any, model: Any, vectors: Tensor) -> Tensor:
    """One encoder's call with vectors in the place of the first tokens, put together by hand."""
    table = model.get_input_embeddings().weight.detach()
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = [tokenizer.bos_token_id, *[end] * (1 + len(vectors)), *[pad] * (75 - len(vectors))]
    whole = table[ids]
    whole[1:1 + len(vectors)] = vectors
    handle = model.get_input_embeddings().register_forward_hook(lambda *_: whole[None])
    try:
        with torch.no_grad():
            return model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-2]
    finally:
        handle.remove()


def test_embeddings_of_sdxl_have_vectors_for_both_encoders(
    xl_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(2)
    vectors = {"clip_g": torch.randn(2, TEXT), "clip_l": torch.randn(2, TEXT)}
    save_file(vectors, tmp_path / "gogh.safetensors")
    save_file({"emb_params": torch.zeros(2, TEXT)}, tmp_path / "old.safetensors")
    save_file(vectors | {"clip_l": torch.zeros(3, TEXT)}, tmp_path / "uneven.safetensors")
    host = tiny_host(xl_model, embeddings_dir=str(tmp_path))
    parts = host._parts
    expected = torch.cat([
        encode_vectors(parts.tokenizer, parts.text_encoder, vectors["clip_l"]),
        encode_vectors(parts.tokenizer_2, parts.text_encoder_2, vectors["clip_g"]),
    ], dim=2)
    assert torch.equal(host._text.encode(["gogh"]).tokens, expected)
    host._text.encode(["an old car"])
    assert "the embedding old, which is made for a model with text" in caplog.text
    with pytest.raises(HostError, match="3 vectors for one text encoder and 2 for the other"):
        host._text.encode(["uneven"])


class Overflowing(nn.Module):
    """Stands before a VAE's last layer; float16 ends at 65504."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 1e6).sub(0) * 1e-6


def test_a_vae_that_overflows_in_float16_goes_on_in_float32(
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    vae: Any = make_vae(0.13025, shows=False)
    for part in (vae.encoder, vae.decoder):
        part.conv_out = nn.Sequential(Overflowing(), part.conv_out)
    exact = LatentCodec(vae)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    latents = exact.encode(images)
    decoded = exact.decode(latents)
    for work, given, expected in (("encode", images, latents), ("decode", latents, decoded)):
        vae.half()
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fresco"):
            found = getattr(LatentCodec(vae), work)(given)
        assert caplog.text.count("it works in float32 from here on") == 1
        assert next(vae.parameters()).dtype == torch.float32
        assert float((found - expected).abs().max()) < 20 * EXACT_BY_DTYPE[torch.float16]


def test_a_vae_that_overflows_in_float32_is_told() -> None:
    vae: Any = make_vae(0.13025, shows=False)
    vae.decoder.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(HostError, match=r"NaN or infinite values in torch\.float32\. Use another"):
        LatentCodec(vae).decode(torch.zeros(1, 4, 4, 4))
