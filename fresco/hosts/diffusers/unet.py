"""Guide a UNet of diffusers; the model is as before when the hooks are removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fresco.errors import HostError
from fresco.guidance.ports import Rows, Site, UNetHooks
from fresco.hosts.patching import Forward, PreHook, pre_hook, replaced_forward, sole_owner
from fresco.hosts.projections import LayerProjections
from fresco.hosts.sites import choose_sites

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class AttentionProjections(LayerProjections):
    """The linear maps of one attention layer of diffusers."""

    def output(self, x: Tensor) -> Tensor:
        """[rows, tokens, heads * d] -> [rows, tokens, C]."""
        for layer in self._layer.to_out:
            x = layer(x)
        return x / self._layer.rescale_output_factor


class DiffusersUNet:
    """`GuidedUNet` for diffusers' UNet2DConditionModel."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet
        self._layers = choose_sites([_find_self_attention(block) for block in unet.up_blocks])
        self._rows: Rows | None = None

    @property
    def stages(self) -> tuple[int, ...]:
        """Decoder stages, coarsest first."""
        return tuple(range(len(self.unet.up_blocks)))

    @property
    def sites(self) -> tuple[Site, ...]:
        """Guided self-attention layers, in the order they run."""
        return tuple(site for site, _ in self._layers)

    @contextmanager
    def installed(self, hooks: UNetHooks) -> Iterator[None]:
        """Install the hooks; after the context, the UNet is as before."""
        with ExitStack() as stack:
            stack.enter_context(sole_owner(self.unet))
            for stage, block in enumerate(self.unet.up_blocks):
                stack.enter_context(pre_hook(block, self._make_entry_hook(stage, hooks)))
            for stage, part, width in _find_blocks(self.unet):
                stack.enter_context(pre_hook(part, self._make_block_hook(stage, width, hooks)))
            for site, layer in self._layers:
                stack.enter_context(_guide_attention(self, site, layer, hooks))
            yield

    @contextmanager
    def calling(self, rows: Rows) -> Iterator[None]:
        """Within the context, UNet calls have this layout; calls outside are not guided."""
        before, self._rows = self._rows, rows
        try:
            yield
        finally:
            self._rows = before

    @property
    def rows(self) -> Rows | None:
        """Layout of the present call; None outside of `calling`."""
        return self._rows

    def _make_entry_hook(self, stage: int, hooks: UNetHooks) -> PreHook:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            if self._rows is None:
                return None
            # A keyword in every diffusers since 0.31.
            guided = hooks.decoder_entry(stage, kwargs["hidden_states"], self._rows)
            return args, kwargs | {"hidden_states": guided}

        return hook

    def _make_block_hook(self, stage: int, width: int, hooks: UNetHooks) -> PreHook:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            if self._rows is None:
                return None
            joined: Tensor = args[0]
            h, skip = joined[:, :width], joined[:, width:]
            changed = hooks.decoder_block(stage, h, skip, self._rows)
            if changed[0] is h and changed[1] is skip:
                return None
            return (torch.cat(changed, dim=1), *args[1:]), kwargs

        return hook


def _guide_attention(adapter: DiffusersUNet, site: Site, layer: nn.Module, hooks: UNetHooks) -> Any:
    """Replace the self-attention of one layer by one that asks the hooks first."""
    project = AttentionProjections(layer)

    def make(previous: Forward) -> Forward:
        def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            rows = adapter.rows
            if rows is not None:
                guided = hooks.self_attention(site, hidden_states, project, rows)
                if guided is not None:
                    return guided
            return previous(hidden_states, *args, **kwargs)

        return forward

    return replaced_forward(layer, make)


def _find_blocks(unet: UNet2DConditionModel) -> Iterator[tuple[int, nn.Module, int]]:
    """List stage, residual block and width of the decoder's feature for every block.

    The input is the feature and a skip, joined; the feature comes first, and is as wide as the
    block before it.
    """
    before: Any = unet.mid_block or unet.down_blocks[-1]  # reduced models have no middle
    width = int(before.resnets[-1].out_channels)
    for stage, block in enumerate(unet.up_blocks):
        parts: Any = block.resnets
        for part in parts:
            yield stage, part, width
            width = int(part.out_channels)


def _find_self_attention(block: nn.Module) -> list[nn.Module]:
    """List the self-attention layers of a decoder stage, in the order they run."""
    layers: list[nn.Module] = []
    for name, module in block.named_modules():
        if name.rpartition(".")[2] == "attn1":
            _require_plain(name, module)
            layers.append(module)
    return layers


def _require_plain(name: str, layer: Any) -> None:
    """Refuse layers that do more than q, k, v, attention and output."""
    extras = ("group_norm", "spatial_norm", "norm_q", "norm_k")
    found = [extra for extra in extras if getattr(layer, extra, None) is not None]
    if found or getattr(layer, "residual_connection", False):
        what = found[0] if found else "residual_connection"
        raise HostError(
            f"Attention layer {name} has a {what}, unlike that of Stable Diffusion 1.x, 2.x and "
            "SDXL; use a checkpoint of those."
        )
