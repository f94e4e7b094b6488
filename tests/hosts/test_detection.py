"""What the WebUI has loaded: taken, or refused by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fresco.errors import HostError
from fresco.hosts.detection import UNET, describe, find_guidable_unet, name_family
from fresco.hosts.ldm.unet import LdmUNet
from tests.helpers.ldm_unet import SD1, SDXL, UNetModel


def loaded(network: nn.Module | None, **flags: Any) -> Any:
    """What `shared.sd_model` looks like."""
    info = SimpleNamespace(name_for_extra="dreamy_v2")
    inner = SimpleNamespace(diffusion_model=network)
    return SimpleNamespace(model=inner, sd_checkpoint_info=info, **flags)


def loaded_in_forge(network: nn.Module | None, **around: Any) -> Any:
    """What a Forge kind's `shared.sd_model` looks like."""
    info = SimpleNamespace(name_for_extra="dreamy_v2")
    patcher = SimpleNamespace(model=SimpleNamespace(diffusion_model=network, **around))
    return SimpleNamespace(forge_objects=SimpleNamespace(unet=patcher), sd_checkpoint_info=info)


def unet_with(context: int = 768, inputs: int = 4) -> UNetModel:
    """A narrow UNet that takes conditioning and latents of these widths."""
    unet = UNetModel(SD1)
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")) and isinstance(module, nn.Linear):
            module.weight = nn.Parameter(torch.zeros(module.out_features, context))
    unet.get_submodule("input_blocks.0").register_module("0", nn.Conv2d(inputs, 32, 3))
    return unet


class Transformer(nn.Module):
    """A network with a list of blocks of this name, and no UNet."""

    def __init__(self, blocks: str) -> None:
        super().__init__()
        self.register_module(blocks, nn.ModuleList([nn.Linear(2, 2)]))


@pytest.mark.parametrize(("context", "kind"), [
    (768, "Stable Diffusion 1.x"), (1024, "Stable Diffusion 2.x"), (2048, "SDXL"),
    (1280, "the SDXL refiner"), (640, "a model with text conditioning of width 640"),
])
def test_kinds_with_a_unet_are_taken(context: int, kind: str) -> None:
    network = unet_with(context)
    model = loaded(network, is_sd3=False)
    assert find_guidable_unet(model) is network
    assert name_family(context) == kind


def test_sdxl_is_taken() -> None:
    network = UNetModel(SDXL)
    assert LdmUNet(find_guidable_unet(loaded(network))).stages == (0, 1, 2)


@pytest.mark.parametrize(("network", "kind"), [
    (lambda: Transformer("joint_blocks"), "Stable Diffusion 3"),
    (lambda: Transformer("double_blocks"), "Flux"),
    (lambda: Transformer("layers"), "a Transformer"),
    (lambda: unet_with(inputs=9), "an inpainting model"),
    (lambda: unet_with(inputs=8), "an instruct-pix2pix model"),
    (lambda: unet_with(context=1024, inputs=5), "a depth-conditioned model"),
    (lambda: unet_with(inputs=6), "a model of 6 input channels"),
    (lambda: unet_with(inputs=32), r"a model with the latents of Flux 2 \(Mugen\)"),
])
@pytest.mark.parametrize("load", [loaded, loaded_in_forge])
def test_other_kinds_are_refused_by_name(load: Any, network: Any, kind: str) -> None:
    with pytest.raises(HostError, match=f"dreamy_v2 is {kind}, which.*choose an ordinary"):
        find_guidable_unet(load(network()))


class ModelSamplingCONST:
    """What reForge mixes in for flow models."""


@pytest.mark.parametrize("around", [
    {"predictor": SimpleNamespace(prediction_type="const")},
    {"model_sampling": type("ModelSampling", (ModelSamplingCONST,), {})()},
], ids=["Forge", "reForge"])
def test_flow_models_with_a_unet_are_refused(around: dict[str, Any]) -> None:
    with pytest.raises(HostError, match="dreamy_v2 is a rectified flow model"):
        find_guidable_unet(loaded_in_forge(unet_with(context=2048), **around))


@pytest.mark.parametrize("around", [
    {"predictor": SimpleNamespace(prediction_type="v_prediction")},
    {"model_sampling": SimpleNamespace()},
], ids=["Forge", "reForge"])
def test_models_of_forge_kinds_are_taken(around: dict[str, Any]) -> None:
    network = unet_with()
    assert find_guidable_unet(loaded_in_forge(network, **around)) is network


def test_a_compiled_unet_is_refused() -> None:
    """reForge replaces the module with --torch-compile."""
    network = unet_with()
    network.register_module("_orig_mod", unet_with())
    with pytest.raises(HostError, match="without --torch-compile"):
        find_guidable_unet(loaded_in_forge(network))


def test_the_hosts_own_word_counts() -> None:
    with pytest.raises(HostError, match="is Stable Diffusion 3"):
        find_guidable_unet(loaded(Transformer("blocks"), is_sd3=True))


@pytest.mark.parametrize("model", [
    None, SimpleNamespace(), SimpleNamespace(model=None), loaded(None), loaded_in_forge(None),
])
def test_no_model_is_said(model: Any) -> None:
    with pytest.raises(HostError, match="No Stable Diffusion model is loaded"):
        find_guidable_unet(model)


def test_a_checkpoint_without_a_name_is_refused_all_the_same() -> None:
    model = SimpleNamespace(model=SimpleNamespace(diffusion_model=Transformer("double_blocks")))
    with pytest.raises(HostError, match="The loaded checkpoint is Flux"):
        find_guidable_unet(model)


def test_files_of_depth_models_are_told() -> None:
    shapes = {f"{UNET}input_blocks.0.0.weight": (320, 5, 3, 3)}
    assert describe(shapes) == "a depth-conditioned model"
