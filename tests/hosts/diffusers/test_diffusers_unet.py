"""The seam on a UNet of diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fresco.errors import HostError
from fresco.guidance.ports import Projections, Rows, Site
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.unet import DiffusersUNet
from tests.helpers.tiny_models import DECODER_WIDTHS, PlainHooks, ShiftedHooks
from tests.helpers.tolerances import EXACT_BY_DTYPE

ROWS = Rows(2, ("negative", "positive"))


@pytest.fixture
def inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(4, 4, 8, 8, generator=generator), "timestep": 401,
        "encoder_hidden_states": torch.randn(4, 77, 64, generator=generator),
        "return_dict": False,
    }


@torch.no_grad()
def call(adapter: DiffusersUNet, inputs: dict[str, Any]) -> Tensor:
    with adapter.calling(ROWS):
        return adapter.unet(**inputs)[0]


def trace(module: nn.Module) -> list[tuple[str, list[str], int]]:
    """Names of attributes and number of hooks of every layer."""
    return [
        (name, sorted(vars(layer)), len(layer._forward_pre_hooks) + len(layer._forward_hooks)
         + len(layer._forward_pre_hooks_with_kwargs))
        for name, layer in module.named_modules()
    ]


def test_places_are_those_of_the_method(host: DiffusersHost) -> None:
    """SD1.5: four decoder stages, three layers at each of the two finest attention stages."""
    assert host.unet.stages == (0, 1, 2, 3)
    assert [site.stage for site in host.unet.sites] == [2, 2, 2, 3, 3, 3]
    assert [site.index for site in host.unet.sites] == list(range(6))


def test_hooks_that_change_nothing_change_no_bit(
    host: DiffusersHost, inputs: dict[str, Any]
) -> None:
    plain, before = call(host.unet, inputs), trace(host.unet.unet)
    hooks = PlainHooks()
    with host.unet.installed(hooks):
        assert torch.equal(call(host.unet, inputs), plain)
    assert trace(host.unet.unet) == before
    assert [(stage, shape) for stage, shape, _ in hooks.entries] == [
        (0, (4, 128, 1, 1)), (1, (4, 128, 2, 2)), (2, (4, 128, 4, 4)), (3, (4, 64, 8, 8)),
    ]
    assert hooks.sites == list(host.unet.sites)
    assert all(rows == ROWS for _, _, rows in hooks.entries)


class OwnAttention(PlainHooks):
    """The layer's attention, written out from its projections."""

    def self_attention(
        self, site: Site, x: Tensor, project: Projections, rows: Rows
    ) -> Tensor | None:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (project.heads, -1)).transpose(1, 2)

        q, k, v = (split(f(x)) for f in (project.query, project.key, project.value))
        scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        return project.output((scores @ v).transpose(1, 2).flatten(2))


def test_projections_are_the_layers_own(host: DiffusersHost, inputs: dict[str, Any]) -> None:
    plain = call(host.unet, inputs)
    with host.unet.installed(OwnAttention()):
        guided = call(host.unet, inputs)
    assert float((guided - plain).abs().max()) < 10 * EXACT_BY_DTYPE[torch.float32]


PLACES = [("entry", 0), *((part, block) for part in ("input", "skip") for block in range(3))]
"""What a hook changes: the entry of a stage, or an input or skip of one of its three blocks."""


@pytest.mark.parametrize(("place", "block"), PLACES)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_what_hooks_return_is_what_the_model_takes(
    host: DiffusersHost, inputs: dict[str, Any], place: str, stage: int, block: int
) -> None:
    """Compared with the join itself, changed at the residual block."""
    resnet = host.unet.unet.up_blocks[stage].resnets[block]
    with host.unet.installed(ShiftedHooks(place, stage, block)):
        guided = call(host.unet, inputs)
    entry = DECODER_WIDTHS[3 * stage + block]

    def shift(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0].clone()
        part = slice(entry, None) if place == "skip" else slice(0, entry)
        x[:, part] += 1
        return (x, *args[1:])

    handle = resnet.register_forward_pre_hook(shift)
    expected = call(host.unet, inputs)
    handle.remove()
    assert torch.equal(guided, expected)


def test_calls_of_unknown_layout_are_not_guided(
    host: DiffusersHost, inputs: dict[str, Any]
) -> None:
    hooks = PlainHooks()
    with host.unet.installed(hooks), torch.no_grad():
        host.unet.unet(**inputs)
    assert not hooks.entries
    assert not hooks.sites


def test_installing_twice_raises_and_an_error_leaves_no_trace(host: DiffusersHost) -> None:
    before = trace(host.unet.unet)
    with host.unet.installed(PlainHooks()), pytest.raises(HostError, match="already installed"), \
            DiffusersUNet(host.unet.unet).installed(PlainHooks()):
        pass
    with pytest.raises(ZeroDivisionError), host.unet.installed(PlainHooks()):
        raise ZeroDivisionError
    assert trace(host.unet.unet) == before


def test_attention_of_another_kind_is_refused(host: DiffusersHost) -> None:
    layer = host.unet.unet.up_blocks[2].attentions[0].transformer_blocks[0].attn1
    layer.norm_q = nn.Identity()
    try:
        with pytest.raises(HostError, match="has a norm_q"):
            DiffusersUNet(host.unet.unet)
    finally:
        layer.norm_q = None
