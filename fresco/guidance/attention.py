"""The three attentions of FRESCO (docs/method.md, section 6), as functions of tensors.

They work on one chunk at a time: the N frames of one conditioning, [N, tokens, C]. The keys and
values of cross-frame attention are the same for every frame. So the frames are folded into the
queries, and nothing is repeated. Linear maps act on single tokens, so only the tokens that are used
are projected.

Axes in the patterns: n frames, t tokens of a frame, s motion paths, h heads, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from fresco.guidance.ports import Projections

SHARPNESS = 0.2
"""1 / lambda of spatial- and temporal-guided attention (the paper: lambda = 5)."""
TILE_TOKENS = 8192
"""Queries processed at once, so that little memory and few operators are needed."""


@dataclass(frozen=True, slots=True)
class Chains:
    """Motion paths through the frames of a batch, as attention reads them."""

    place: Tensor
    """[HW, N] int64: index among all tokens [N * HW] of the token of frame i on chain c."""
    linked: Tensor
    """[HW, N, N] bool: frames that see each other along the chain."""

    @classmethod
    def of(cls, to_first: Tensor, linked: Tensor) -> Chains:
        """From the tokens [N, HW] of every chain and what is linked [HW, N, N]."""
        frames, tokens = to_first.shape
        begin = torch.arange(frames, device=to_first.device)[:, None] * tokens
        return cls((to_first + begin).T.contiguous(), linked)


@dataclass(frozen=True, slots=True)
class AttentionParts:
    """What guides one self-attention layer; None leaves a part out."""

    keys: Tensor | None = None
    """[M] int64 indices among all tokens [N * HW] that all frames attend to: cross-frame."""
    recorded: Tensor | None = None
    """[N, HW, C] the layer's input in the reference pass: spatial-guided."""
    chains: Chains | None = None
    """Motion paths: temporal-guided."""

    @property
    def any(self) -> bool:
        """Whether any part is on."""
        return any(part is not None for part in (self.keys, self.recorded, self.chains))


def _split_heads(x: Tensor, heads: int) -> Tensor:
    return rearrange(x, "n t (h d) -> n h t d", h=heads)


def _merge_heads(x: Tensor) -> Tensor:
    return rearrange(x, "n h t d -> n t (h d)")


def average_queries(query: Tensor, recorded: Tensor, project: Projections) -> Tensor:
    """Queries averaged by the source's self-similarity: softmax(q' (0.2 k')^T / sqrt d) q.

    Args:
        query: [N, heads, T, d].
        recorded: [N, T, C] input of this layer in the reference pass.
    """
    source_query = _split_heads(project.query(recorded), project.heads)
    source_key = _split_heads(project.key(recorded), project.heads)
    return F.scaled_dot_product_attention(source_query * SHARPNESS, source_key, query)


def attend_across_frames(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention in which all frames use the same keys and values.

    Args:
        query: [N, heads, T, d].
        key, value: [1, heads, M, d].
    """
    folded = rearrange(query, "n h t d -> 1 h (n t) d")
    attended = F.scaled_dot_product_attention(folded, key, value)
    return rearrange(attended, "1 h (n t) d -> n h t d", n=len(query))


def attend_along_chains(query: Tensor, key: Tensor, value: Tensor, linked: Tensor) -> Tensor:
    """Attention along motion paths: softmax(q (0.2 k)^T / sqrt d, masked) v.

    Args:
        query, key, value: [paths, heads, N, d].
        linked: [paths, N, N] bool.
    """
    return F.scaled_dot_product_attention(
        query * SHARPNESS, key, value, attn_mask=linked[:, None]
    )


def _follow_chains(attended: Tensor, x: Tensor, chains: Chains, project: Projections) -> None:
    """Apply temporal-guided attention in place. Each token is on one chain, so tiles never overlap.

    Args:
        attended: [N, T, heads * d], overwritten.
        x: [N, T, C] the layer's input.
    """
    frames, heads = len(x), project.heads
    tokens, values = rearrange(x, "n t c -> (n t) c"), attended.view(-1, attended.shape[-1])
    step = max(1, TILE_TOKENS // frames)
    for place, linked in zip(chains.place.split(step), chains.linked.split(step), strict=True):
        where = place.flatten()
        along = rearrange(tokens.index_select(0, where), "(s n) c -> s n c", n=frames)
        value = rearrange(values.index_select(0, where), "(s n) c -> s n c", n=frames)
        result = attend_along_chains(
            _split_heads(project.query(along), heads),
            _split_heads(project.key(along), heads),
            _split_heads(value, heads),
            linked,
        )
        values.index_copy_(0, where, rearrange(result, "s h n d -> (s n) (h d)"))


def _attend_tiles(x: Tensor, project: Projections, parts: AttentionParts) -> Iterator[Tensor]:
    """Yield self-attention before its output projection, [tile, T, heads * d], in tiles of frames.
    """
    heads = project.heads
    shared = None
    if parts.keys is not None:
        seen = rearrange(x, "n t c -> (n t) c").index_select(0, parts.keys)[None]
        shared = _split_heads(project.key(seen), heads), _split_heads(project.value(seen), heads)
    for first, tile in _split_into_tiles(x):
        query = _split_heads(project.query(tile), heads)
        if parts.recorded is not None:
            recorded = parts.recorded[first : first + len(tile)].to(x.dtype)
            query = average_queries(query, recorded, project)
        if shared is not None:
            yield _merge_heads(attend_across_frames(query, *shared))
        else:
            key = _split_heads(project.key(tile), heads)
            value = _split_heads(project.value(tile), heads)
            yield _merge_heads(F.scaled_dot_product_attention(query, key, value))


def _split_into_tiles(x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield tiles of about TILE_TOKENS tokens: the number of the first frame, and the frames."""
    step = max(1, TILE_TOKENS // x.shape[1])
    for first in range(0, len(x), step):
        yield first, x[first : first + step]


def _gather(pieces: Iterable[Tensor], frames: int) -> Tensor:
    """Join pieces [some frames, T, D] to [frames, T, D], without having all in memory twice."""
    result: Tensor | None = None
    first = 0
    for piece in pieces:
        if result is None:
            result = piece.new_empty(frames, *piece.shape[1:])
        result[first : first + len(piece)] = piece
        first += len(piece)
    assert result is not None, "a chunk has at least one frame"
    return result


@torch.no_grad()
def guide_attention(x: Tensor, project: Projections, parts: AttentionParts) -> Tensor:
    """Self-attention of one chunk, with the given parts.

    Args:
        x: [N, T, C] normed input of the layer.

    Returns:
        [N, T, C], output projection included.
    """
    attended = _attend_tiles(x, project, parts)
    if parts.chains is not None:
        whole = _gather(attended, len(x))
        _follow_chains(whole, x, parts.chains, project)
        attended = (tile for _, tile in _split_into_tiles(whole))
    return _gather((project.output(piece) for piece in attended), len(x))
