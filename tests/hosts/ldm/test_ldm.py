"""The seam on an LDM UNet: what hooks are shown, what they change, and undo."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fresco.errors import HostError
from fresco.guidance.ports import Projections, Rows, Site
from fresco.hosts.ldm.unet import LdmUNet
from tests.helpers.ldm_hosts import (
    FRAMES,
    Outputs,
    Twins,
    call_ldm,
    evaluate_ldm,
    farthest,
    make_twins,
    random_inputs,
)
from tests.helpers.ldm_unet import CrossAttention
from tests.helpers.tiny_models import DECODER_WIDTHS, PlainHooks, ShiftedHooks
from tests.helpers.tolerances import EXACT_BY_DTYPE

ROUNDING = EXACT_BY_DTYPE[torch.float32]
BOTH = Rows(FRAMES, ("positive", "negative"))


@pytest.fixture(scope="module")
def twins() -> Twins:
    return make_twins("sd1")


@pytest.fixture
def adapter(twins: Twins) -> LdmUNet:
    return LdmUNet(twins.ldm)


@pytest.fixture
def plain(twins: Twins, adapter: LdmUNet) -> Outputs:
    return call_ldm(adapter, random_inputs(), twins)


def trace(module: nn.Module) -> list[tuple[str, list[str], int]]:
    """Names of attributes and number of hooks of every layer."""
    return [
        (name, sorted(vars(layer)), len(layer._forward_pre_hooks) + len(layer._forward_hooks)
         + len(layer._forward_pre_hooks_with_kwargs))
        for name, layer in module.named_modules()
    ]


def attention(twins: Twins, number: int = 6) -> Any:
    """Self-attention of an output block."""
    return twins.ldm.get_submodule(f"output_blocks.{number}.1.transformer_blocks.0.attn1")


def test_places_are_those_of_the_method(adapter: LdmUNet) -> None:
    assert adapter.stages == (0, 1, 2, 3)
    assert [site.stage for site in adapter.sites] == [2, 2, 2, 3, 3, 3]
    assert [site.index for site in adapter.sites] == list(range(6))


def test_places_of_sdxl_follow_its_tree() -> None:
    adapter = LdmUNet(make_twins("sdxl").ldm)
    assert adapter.stages == (0, 1, 2)
    assert [site.stage for site in adapter.sites] == 9 * [0] + 6 * [1]


def test_a_distilled_middle_without_attention_is_taken() -> None:
    """The WebUI cuts parts out of the tree for SSD-1B, which leaves holes in the numbering."""
    twins = make_twins("sdxl")
    places = LdmUNet(twins.ldm).sites
    del twins.ldm.middle_block._modules["1"]
    del twins.ldm.middle_block._modules["2"]
    assert LdmUNet(twins.ldm).sites == places


def test_hooks_that_change_nothing_change_no_bit(
    twins: Twins, adapter: LdmUNet, plain: Outputs
) -> None:
    before, hooks = trace(twins.ldm), PlainHooks()
    with adapter.installed(hooks):
        found = call_ldm(adapter, random_inputs(), twins)
    assert farthest(found, plain) == 0
    assert trace(twins.ldm) == before
    assert [(stage, shape) for stage, shape, _ in hooks.entries] == [
        (0, (6, 128, 2, 2)), (1, (6, 128, 4, 4)), (2, (6, 128, 8, 8)), (3, (6, 64, 16, 16)),
    ]
    assert hooks.sites == list(adapter.sites)
    assert all(rows == BOTH for _, _, rows in hooks.entries)


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


def test_projections_are_the_layers_own(twins: Twins, adapter: LdmUNet, plain: Outputs) -> None:
    with adapter.installed(OwnAttention()):
        found = call_ldm(adapter, random_inputs(), twins)
    assert 0 < farthest(found, plain) < ROUNDING


def test_hypernetworks_reach_keys_and_values(
    twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a layer that is itself given what its keys and values are made of."""
    def sources(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flip(-1), 2 * x

    adapter = LdmUNet(twins.ldm, sources=sources)
    with adapter.installed(OwnAttention()):
        found = call_ldm(adapter, random_inputs(), twins)
    for _, layer in adapter._layers:
        monkeypatch.setattr(layer.get_submodule("to_k"), "forward", bent(layer, "to_k", 0, sources))
        monkeypatch.setattr(layer.get_submodule("to_v"), "forward", bent(layer, "to_v", 1, sources))
    assert farthest(found, call_ldm(adapter, random_inputs(), twins)) < ROUNDING


def bent(layer: nn.Module, name: str, which: int, sources: Any) -> Any:
    """A linear map of other inputs."""
    linear = layer.get_submodule(name).forward
    return lambda x: linear(sources(x)[which])


PLACES = [("entry", 0), *((part, block) for part in ("input", "skip") for block in range(3))]
"""What a hook changes: the entry of a stage, or an input or skip of one of its three blocks."""


@pytest.mark.parametrize(("place", "block"), PLACES)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_what_hooks_return_is_what_the_model_takes(
    twins: Twins, adapter: LdmUNet, place: str, stage: int, block: int
) -> None:
    """Compared with the join itself, changed at the residual block."""
    with adapter.installed(ShiftedHooks(place, stage, block)):
        guided = call_ldm(adapter, random_inputs(), twins)
    entry = DECODER_WIDTHS[3 * stage + block]

    def shift(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0].clone()
        x[:, slice(entry, None) if place == "skip" else slice(0, entry)] += 1
        return (x, *args[1:])

    part = twins.ldm.get_submodule(f"output_blocks.{3 * stage + block}")
    handle = part.register_forward_pre_hook(shift)
    expected = call_ldm(adapter, random_inputs(), twins)
    handle.remove()
    assert farthest(guided, expected) == 0


def test_hooks_act_where_the_whole_forward_was_replaced(
    twins: Twins, adapter: LdmUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ControlNet walks the blocks itself and adds to the middle and to the skips."""
    unet = twins.ldm

    def forward(x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        emb, skips = unet.time_embed(unet._waves(timesteps)), []
        for block in unet.input_blocks:
            x = block(x, emb, context)
            skips.append(x + 0.1)
        x = unet.middle_block(x, emb, context) + 0.2
        for block in unet.output_blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), emb, context)
        return unet.out(x)

    monkeypatch.setattr(unet, "forward", forward)
    controlled = call_ldm(adapter, random_inputs(), twins)
    hooks = PlainHooks()
    with adapter.installed(hooks):
        found = call_ldm(adapter, random_inputs(), twins)
    assert farthest(found, controlled) == 0
    assert [stage for stage, _, _ in hooks.entries] == [0, 1, 2, 3]
    assert hooks.sites == list(adapter.sites)
    assert vars(unet)["forward"] is forward


def test_attention_of_the_host_is_replaced_at_the_class(
    twins: Twins, adapter: LdmUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours goes before every cross attention optimisation, and hands over to it."""
    original = CrossAttention.forward

    def optimised(self: CrossAttention, x: Tensor, context: Any = None, mask: Any = None,
                  **kwargs: Any) -> Tensor:
        return 2 * original(self, x, context, mask)

    monkeypatch.setattr(CrossAttention, "forward", optimised)
    plain = call_ldm(adapter, random_inputs(), twins)
    hooks = PlainHooks()
    with adapter.installed(hooks):
        assert farthest(call_ldm(adapter, random_inputs(), twins), plain) == 0
    assert hooks.sites == list(adapter.sites)


def test_a_patch_that_was_there_comes_back(
    twins: Twins, adapter: LdmUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hypertile leaves its own forward on the layers for good."""
    layer = attention(twins)
    inner = layer.forward
    theirs = lambda *args, **kwargs: inner(*args, **kwargs)  # noqa: E731
    monkeypatch.setattr(layer, "forward", theirs)
    with adapter.installed(PlainHooks()):
        assert vars(layer)["forward"] is not theirs
    assert vars(layer)["forward"] is theirs


def test_a_foreign_patch_over_ours_stays_and_ours_turns_inert(
    twins: Twins, adapter: LdmUNet, plain: Outputs
) -> None:
    layer, hooks = attention(twins), PlainHooks()
    with adapter.installed(hooks):
        inner = layer.forward
        foreign = lambda *args, **kwargs: inner(*args, **kwargs)  # noqa: E731
        layer.forward = foreign
        call_ldm(adapter, random_inputs(), twins)
    assert hooks.sites == list(adapter.sites)
    try:
        assert vars(layer)["forward"] is foreign
        assert farthest(call_ldm(adapter, random_inputs(), twins), plain) == 0
        assert len(hooks.sites) == len(adapter.sites)
    finally:
        del layer.forward


def test_calls_outside_of_a_denoiser_call_are_not_guided(twins: Twins, adapter: LdmUNet) -> None:
    hooks = PlainHooks()
    with adapter.installed(hooks):
        evaluate_ldm(adapter, random_inputs(), twins, BOTH.chunks)
    assert adapter.rows is None
    assert not hooks.entries
    assert not hooks.sites


def test_installing_twice_raises_and_an_error_leaves_no_trace(
    twins: Twins, adapter: LdmUNet
) -> None:
    before = trace(twins.ldm)
    with adapter.installed(PlainHooks()), pytest.raises(HostError, match="already installed"), \
            LdmUNet(twins.ldm).installed(PlainHooks()):
        pass
    with pytest.raises(ZeroDivisionError), adapter.installed(PlainHooks()):
        raise ZeroDivisionError
    assert trace(twins.ldm) == before


class Failing(PlainHooks):
    """Fails at a layer in the middle of the decoder."""

    def self_attention(
        self, site: Site, x: Tensor, project: Projections, rows: Rows
    ) -> Tensor | None:
        if site.index == 4:
            raise ZeroDivisionError
        return None


def test_an_error_of_a_hook_reaches_the_caller_and_is_forgotten(
    twins: Twins, adapter: LdmUNet, plain: Outputs
) -> None:
    before = trace(twins.ldm)
    with pytest.raises(ZeroDivisionError), adapter.installed(Failing()):
        call_ldm(adapter, random_inputs(), twins)
    assert trace(twins.ldm) == before
    assert adapter.rows is None
    with adapter.installed(PlainHooks()):
        assert farthest(call_ldm(adapter, random_inputs(), twins), plain) == 0
