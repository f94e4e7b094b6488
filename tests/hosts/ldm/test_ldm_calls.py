"""Layouts of rows an LDM UNet is called with, and what is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fresco.errors import HostError
from fresco.guidance.ports import Chunk, Rows
from fresco.hosts.ldm.unet import LdmUNet
from tests.helpers.ldm_hosts import FRAMES, Twins, call_ldm, evaluate_ldm, make_twins, random_inputs
from tests.helpers.ldm_unet import SD1, BasicTransformerBlock, UNetModel
from tests.helpers.tiny_models import PlainHooks

Chunks = tuple[Chunk, ...]
BOTH: Chunks = ("positive", "negative")
NOT_WHOLE = "frames of one conditioning, or of both"


@pytest.fixture(scope="module")
def shared_twins() -> Twins:
    return make_twins("sd1")


@pytest.fixture
def twins(shared_twins: Twins) -> Iterator[Twins]:
    """Every test must leave the UNet as it was."""
    attributes = [sorted(vars(module)) for module in shared_twins.ldm.modules()]
    yield shared_twins
    assert [sorted(vars(module)) for module in shared_twins.ldm.modules()] == attributes


@pytest.fixture
def adapter(twins: Twins) -> LdmUNet:
    return LdmUNet(twins.ldm)


@pytest.mark.parametrize("groups", [
    [BOTH], [("positive",), ("negative",)], [("positive",)],
], ids=["one", "two", "conditional only"])
def test_rows_follow_the_calls(twins: Twins, adapter: LdmUNet, groups: list[Chunks]) -> None:
    hooks = PlainHooks()
    with adapter.installed(hooks):
        for _ in range(2):
            with adapter.calling(FRAMES):
                for chunks in groups:
                    evaluate_ldm(adapter, random_inputs(), twins, chunks)
    shown = [rows for stage, _, rows in hooks.entries if stage == 0]
    assert shown == 2 * [Rows(FRAMES, chunks) for chunks in groups]
    assert len(hooks.sites) == 2 * len(groups) * len(adapter.sites)


def test_another_order_can_be_told(twins: Twins, adapter: LdmUNet) -> None:
    """Forge puts the negative rows first."""
    hooks = PlainHooks()
    order: Chunks = ("negative", "positive")
    with adapter.installed(hooks), adapter.calling(FRAMES, order):
        evaluate_ldm(adapter, random_inputs(), twins, order)
    assert {rows for _, _, rows in hooks.entries} == {Rows(FRAMES, order)}


@pytest.mark.parametrize(("frames", "groups"), [
    (4, [BOTH]), (2, [BOTH]), (FRAMES, [("positive", "positive", "negative")]),
    (FRAMES, [BOTH, ("negative",)]), (FRAMES, [("positive",), BOTH]),
], ids=["not whole", "too many", "AND", "once more", "AND apart"])
def test_other_layouts_are_refused(
    twins: Twins, adapter: LdmUNet, frames: int, groups: list[Chunks]
) -> None:
    def call() -> None:
        with adapter.calling(frames):
            for chunks in groups:
                evaluate_ldm(adapter, random_inputs(), twins, chunks)

    with adapter.installed(PlainHooks()), pytest.raises(HostError, match=NOT_WHOLE) as caught:
        call()
    assert "AND" in str(caught.value)


def test_a_second_pass_within_one_call_is_refused(
    twins: Twins, adapter: LdmUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ControlNet's reference units run the blocks once to write, once to read."""
    inner = twins.ldm.forward

    def twice(*args: Any, **kwargs: Any) -> Tensor:
        inner(*args, **kwargs)
        return inner(*args, **kwargs)

    monkeypatch.setattr(twins.ldm, "forward", twice)
    with adapter.installed(PlainHooks()), pytest.raises(HostError, match="ran twice"):
        call_ldm(adapter, random_inputs(), twins)


def test_another_program_in_the_unets_place_is_refused(
    twins: Twins, adapter: LdmUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The WebUI's SD Unet option hands the call to a TensorRT engine, say."""
    monkeypatch.setattr(twins.ldm, "forward", lambda x, *args, **kwargs: x)
    with adapter.installed(PlainHooks()), \
            pytest.raises(HostError, match="stages 0, 1, 2, 3 did not run"):
        call_ldm(adapter, random_inputs(), twins)


def test_an_error_of_the_host_is_not_hidden_by_ours(
    twins: Twins, adapter: LdmUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Tensor:
        raise MemoryError

    monkeypatch.setattr(twins.ldm, "forward", broken)
    with adapter.installed(PlainHooks()), pytest.raises(MemoryError):
        call_ldm(adapter, random_inputs(), twins)


def test_blocks_run_outside_of_the_unet_are_refused(twins: Twins, adapter: LdmUNet) -> None:
    x = random_inputs().x
    with adapter.installed(PlainHooks()), adapter.calling(FRAMES), \
            pytest.raises(HostError, match="outside of any call"):
        twins.ldm.forward(x, torch.zeros(FRAMES), context=random_inputs().text["positive"])


@contextmanager
def laid_over(twins: Twins, make: Any) -> Iterator[None]:
    """Another extension's forward over ours at one layer."""
    layer = twins.ldm.get_submodule("output_blocks.6.1.transformer_blocks.0.attn1")
    ours = layer.forward
    layer.forward = make(ours)
    try:
        yield
    finally:
        layer.forward = ours


FOREIGN = {
    "bypass": (lambda ours: lambda x, **rest: x, "layers 0 were replaced by another extension"),
    "fewer tokens": (
        lambda ours: lambda x, **rest: ours(x[:, ::2]).repeat_interleave(2, 1),
        "given 6 rows of 32 tokens instead of 6 of 64; switch off token merging, hypertile",
    ),
    "tiles": (
        lambda ours: lambda x, **rest: ours(x.reshape(-1, 32, x.shape[-1])).reshape(x.shape),
        "given 12 rows of 32 tokens instead of 6 of 64; switch off token merging, hypertile",
    ),
    "context": (lambda ours: lambda x, **rest: ours(x, torch.cat([x, x], 1)), "reference"),
    "mask": (lambda ours: lambda x, **rest: ours(x, None, torch.ones(1)), "a mask of another"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_attention_is_refused(twins: Twins, adapter: LdmUNet, case: str) -> None:
    make, message = FOREIGN[case]
    with adapter.installed(PlainHooks()), laid_over(twins, make), \
            pytest.raises(HostError, match=message):
        call_ldm(adapter, random_inputs(), twins)


def test_blocks_with_other_rows_are_refused(
    twins: Twins, adapter: LdmUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = twins.ldm.forward

    def cut(x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        return inner(x[1:], timesteps[1:], context=context[1:])

    monkeypatch.setattr(twins.ldm, "forward", cut)
    with adapter.installed(PlainHooks()), pytest.raises(HostError, match="stage 0 was given 5"):
        call_ldm(adapter, random_inputs(), twins)


def test_own_tokens_as_context_are_taken(twins: Twins, adapter: LdmUNet) -> None:
    hooks = PlainHooks()
    with adapter.installed(hooks), laid_over(
        twins, lambda ours: lambda x, **rest: ours(x, context=x, additional_tokens=None)
    ):
        call_ldm(adapter, random_inputs(), twins)
    assert hooks.sites == list(adapter.sites)


class ToMeBlock(BasicTransformerBlock):
    """Named as tomesd names the class it gives to blocks."""


def test_token_merging_is_refused_and_nothing_stays(
    twins: Twins, adapter: LdmUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = twins.ldm.get_submodule("input_blocks.1.1.transformer_blocks.0")
    monkeypatch.setattr(block, "__class__", ToMeBlock)
    with pytest.raises(HostError, match="token merging"), adapter.installed(PlainHooks()):
        pass
    monkeypatch.undo()
    with adapter.installed(PlainHooks()):
        call_ldm(adapter, random_inputs(), twins)


def without_attention() -> nn.Module:
    unet = UNetModel(SD1)
    for block in unet.output_blocks:
        for part in block.children():
            part._modules.pop("transformer_blocks", None)
    return unet


def attending_to_the_prompt() -> nn.Module:
    unet = UNetModel(SD1)
    layer: Any = unet.get_submodule("output_blocks.6.1.transformer_blocks.0.attn1")
    layer.to_k = nn.Linear(96, 64)
    return unet


def without_projection() -> nn.Module:
    unet = UNetModel(SD1)
    layer: Any = unet.get_submodule("output_blocks.6.1.transformer_blocks.0.attn1")
    del layer.to_q
    return unet


def without_residual_blocks() -> nn.Module:
    unet: Any = UNetModel(SD1)
    unet.middle_block = nn.Sequential(nn.Identity())
    return unet


@pytest.mark.parametrize(("make", "message"), [
    (lambda: nn.Linear(1, 1), "Linear has no middle_block"),
    (without_attention, "no self-attention in its decoder"),
    (attending_to_the_prompt, "attends to the prompt"),
    (without_projection, "lacks to_q"),
    (without_residual_blocks, "has no residual block"),
])
def test_other_networks_are_refused(make: Any, message: str) -> None:
    with pytest.raises(HostError, match=message):
        LdmUNet(make())
