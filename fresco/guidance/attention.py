"""The three attentions of FRESCO (docs/method.md, section 6), as functions of tensors.

One chunk at a time: the N frames of one conditioning, [N, tokens, C]. Keys and values of
cross-frame attention are the same for every frame, so the frames are folded into the queries and
nothing is repeated; linear maps act on single tokens, so only tokens that are used are projected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco.guidance.ports import Projections

SHARPNESS = 0.2
"""1 / lambda of spatial- and temporal-guided attention (the paper: lambda = 5)."""
TILE_TOKENS = 8192
"""Queries worked on at once: what is held beside the result stays small, launches stay few."""


@dataclass(frozen=True, slots=True)
class Chains:
    """Motion paths through the frames of a batch, as attention reads them."""

    place: Tensor
    """[HW, N] int64: where the token of frame i on chain c lies among all tokens, [N * HW]."""
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
    """[M] int64 places among all tokens [N * HW] that all frames look at: cross-frame."""
    recorded: Tensor | None = None
    """[N, HW, C] the layer's input in the reference pass: spatial-guided."""
    chains: Chains | None = None
    """Motion paths: temporal-guided."""

    @property
    def any(self) -> bool:
        """Whether a part is there."""
        return any(part is not None for part in (self.keys, self.recorded, self.chains))


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, heads * d] -> [B, heads, T, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merge_heads(x: Tensor) -> Tensor:
    """[B, heads, T, d] -> [B, T, heads * d]."""
    return x.transpose(1, 2).flatten(2)


def _fold_frames(x: Tensor) -> Tensor:
    """[B, heads, T, d] -> [1, heads, B * T, d]: frames become queries."""
    return x.transpose(0, 1).flatten(1, 2)[None]


def average_queries(query: Tensor, recorded: Tensor, project: Projections) -> Tensor:
    """Queries averaged by the source's self-similarity: softmax(q' (0.2 k')^T / sqrt d) q.

    Args:
        query: [B, heads, T, d].
        recorded: [B, T, C] input of this layer in the reference pass.
    """
    towards = _split_heads(project.query(recorded), project.heads)
    own = _split_heads(project.key(recorded), project.heads)
    return F.scaled_dot_product_attention(towards * SHARPNESS, own, query)


def attend_across_frames(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """All frames attend to the same tokens.

    Args:
        query: [B, heads, T, d]; key, value: [1, heads, M, d].
    """
    frames, tokens = query.shape[0], query.shape[2]
    attended = F.scaled_dot_product_attention(_fold_frames(query), key, value)[0]
    return attended.unflatten(1, (frames, tokens)).transpose(0, 1)


def attend_along_chains(query: Tensor, key: Tensor, value: Tensor, linked: Tensor) -> Tensor:
    """Attention along motion paths: softmax(q (0.2 k)^T / sqrt d, masked) v.

    Args:
        query, key, value: [chains, heads, N, d].
        linked: [chains, N, N] bool.
    """
    return F.scaled_dot_product_attention(
        query * SHARPNESS, key, value, attn_mask=linked[:, None]
    )


def _follow_chains(attended: Tensor, x: Tensor, chains: Chains, project: Projections) -> None:
    """Temporal-guided attention in place: a token lies on one chain, so tiles never overlap.

    Args:
        attended: [N, T, heads * d], overwritten.
        x: [N, T, C] the layer's input.
    """
    frames, heads = len(x), project.heads
    tokens, values = x.flatten(0, 1), attended.view(-1, attended.shape[-1])
    for first in range(0, len(chains.place), max(1, TILE_TOKENS // frames)):
        tile = slice(first, first + max(1, TILE_TOKENS // frames))
        place = chains.place[tile].flatten()
        along = tokens.index_select(0, place).unflatten(0, (-1, frames))  # [chains, N, C]
        result = attend_along_chains(
            _split_heads(project.query(along), heads),
            _split_heads(project.key(along), heads),
            _split_heads(values.index_select(0, place).unflatten(0, (-1, frames)), heads),
            chains.linked[tile],
        )
        values.index_copy_(0, place, _merge_heads(result).flatten(0, 1))


def _attend_tiles(x: Tensor, project: Projections, parts: AttentionParts) -> Iterator[Tensor]:
    """Self-attention before its output projection, [tile, T, heads * d], some frames at a time."""
    heads = project.heads
    shared = None
    if parts.keys is not None:
        seen = x.flatten(0, 1).index_select(0, parts.keys)[None]
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
    """Number of the first frame, and frames, of tiles of about TILE_TOKENS tokens."""
    step = max(1, TILE_TOKENS // x.shape[1])
    for first in range(0, len(x), step):
        yield first, x[first : first + step]


def _gather(pieces: Iterable[Tensor], frames: int) -> Tensor:
    """Pieces [some frames, T, D] as one [frames, T, D], without holding them all twice."""
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
    """Self-attention of one chunk with the parts given.

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
