"""A guided UNet of `ldm` or `sgm`, as the WebUI and the Forge kinds load them.

The model is as before when the hooks are removed. The first part of every decoder block is hooked,
so the hooks also act if another extension (ControlNet) has replaced the whole UNet's `forward`, and
in hosts that call the parts of a block one by one. Attention is replaced at the instance, which has
priority over the cross attention optimisations of the WebUI: those replace it at the class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fresco.errors import HostError
from fresco.guidance.ports import Chunk, Rows, Site, UNetHooks
from fresco.hosts.ldm.calls import CONDITIONAL_FIRST, ModelCall
from fresco.hosts.ldm.topology import DecoderBlock, find_decoder_stages, refuse_merged_tokens
from fresco.hosts.patching import Forward, PreHook, pre_hook, replaced_forward, sole_owner
from fresco.hosts.projections import LayerProjections
from fresco.hosts.sites import choose_sites

Sources = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From the input of a layer: what its keys and what its values are made of (hypernetworks)."""
_OPTIONS = "transformer_options"
"""Argument with which a Forge kind describes an evaluation to the UNet and its layers."""
_CONDITIONINGS: Sequence[Chunk] = ("positive", "negative")
"""Conditionings by their numbers in Forge kinds."""


class LdmProjections(LayerProjections):
    """The linear maps of one attention layer of LDM, the host's hypernetworks included."""

    def __init__(self, layer: Any, sources: Sources | None) -> None:
        super().__init__(layer)
        self._sources = sources

    def key(self, x: Tensor) -> Tensor:
        """[rows, tokens, C] -> [rows, tokens, heads * d]."""
        return super().key(self._sources(x)[0] if self._sources else x)

    def value(self, x: Tensor) -> Tensor:
        """[rows, tokens, C] -> [rows, tokens, heads * d]."""
        return super().value(self._sources(x)[1] if self._sources else x)


class LdmUNet:
    """`GuidedUNet` for the UNetModel of `ldm` (SD 1.x, 2.x) and of `sgm` (SDXL)."""

    def __init__(self, unet: nn.Module, *, sources: Sources | None = None) -> None:
        """
        Args:
            sources: hypernetworks of the host, if it has loaded any
        """
        self.unet = unet
        self._sources = sources
        self._stages = find_decoder_stages(unet)
        self._layers = choose_sites([stage.attention for stage in self._stages])
        if not self._layers:
            raise HostError(
                f"{type(unet).__name__} has no self-attention in its decoder, so it is not Stable "
                "Diffusion; use a checkpoint of Stable Diffusion 1.x, 2.x or SDXL."
            )
        self._call: ModelCall | None = None

    @property
    def stages(self) -> tuple[int, ...]:
        """Decoder stages, coarsest first."""
        return tuple(range(len(self._stages)))

    @property
    def sites(self) -> tuple[Site, ...]:
        """Guided self-attention layers, in the order they run."""
        return tuple(site for site, _ in self._layers)

    @property
    def rows(self) -> Rows | None:
        """Layout of the present evaluation; None outside of `calling`."""
        return self._call.rows if self._call is not None else None

    @contextmanager
    def installed(self, hooks: UNetHooks) -> Iterator[None]:
        """Install the hooks; after the context, the UNet is as before."""
        with ExitStack() as stack:
            stack.enter_context(sole_owner(self.unet))
            refuse_merged_tokens(self.unet)
            stack.enter_context(pre_hook(self.unet, self._begin))
            for number, stage in enumerate(self._stages):
                for place, block in enumerate(stage.blocks):
                    hook = self._make_block_hook(number, block, hooks, first=place == 0)
                    stack.enter_context(pre_hook(block.entry, hook))
            for site, layer in self._layers:
                stack.enter_context(self._guide_attention(site, layer, hooks))
            yield

    @contextmanager
    def calling(self, frames: int, order: Sequence[Chunk] = CONDITIONAL_FIRST) -> Iterator[None]:
        """Within the context, one denoiser call over all frames is guided.

        Args:
            order: conditionings as their rows come, in one evaluation of the UNet or in several,
                where the host does not say it with the evaluation, as the Forge kinds do
        """
        before = self._call
        call = ModelCall(frames, order=order, stages=self.stages, sites=self.sites)
        self._call = call
        try:
            yield
            call.end()
        finally:
            self._call = before

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._call is not None:
            self._call.begin(len(args[0] if args else kwargs["x"]), _find_told(kwargs))

    def _make_block_hook(
        self, number: int, block: DecoderBlock, hooks: UNetHooks, *, first: bool
    ) -> PreHook:
        """Make the hook before a block of a decoder stage."""
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            if self._call is None:
                return None
            joined: Tensor = args[0]
            call = self._call
            rows = call.enter(number, joined) if first else call.follow(number, joined)
            h, skip = joined[:, : block.width], joined[:, block.width :]
            entered = hooks.decoder_entry(number, h, rows) if first else h
            changed = hooks.decoder_block(number, entered, skip, rows)
            if changed[0] is h and changed[1] is skip:
                return None
            parts = [part.to(joined.dtype) for part in changed]
            return (torch.cat(parts, dim=1), *args[1:]), kwargs

        return hook

    def _guide_attention(
        self, site: Site, layer: nn.Module, hooks: UNetHooks
    ) -> AbstractContextManager[None]:
        """Replace the self-attention of one layer by one that asks the hooks first."""
        project = LdmProjections(layer, self._sources)

        def make(previous: Forward) -> Forward:
            def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                if self._call is not None:
                    rows = self._call.attend(site, x)
                    rest = [value for name, value in kwargs.items() if name != _OPTIONS]
                    _require_own_tokens(site, x, (*args, *rest))
                    guided = hooks.self_attention(site, x, project, rows)
                    if guided is not None:
                        return guided
                return previous(x, *args, **kwargs)

            return forward

        return replaced_forward(layer, make)


def _find_told(kwargs: dict[str, Any]) -> tuple[Chunk, ...] | None:
    """Read the conditionings of an evaluation's rows from a Forge kind; None if it does not say."""
    told = (kwargs.get(_OPTIONS) or {}).get("cond_or_uncond")
    if told is None:
        return None
    return tuple(_CONDITIONINGS[number] for number in told if number in (0, 1))


def _require_own_tokens(site: Site, x: Tensor, rest: tuple[Any, ...]) -> None:
    """Refuse self-attention with another context, a mask, or added tokens."""
    others = [value for value in rest if value is not x]
    if any(isinstance(value, Tensor) or value for value in others):
        raise HostError(
            f"self-attention layer {site.index} was given tokens or a mask of another extension; "
            "switch off ControlNet's reference and style units and the like."
        )
