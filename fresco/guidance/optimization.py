"""Feature optimisation by the two consistency losses (docs/method.md, section 7).

    loss = 2 mean(|c[i+1] - warp(c[i], b)| (1 - bocc) + |c[i] - warp(c[i+1], f)| (1 - focc))
         + weight mean |G(c) - G_ref|,        G = cosine similarity of every two tokens of a frame

Both gradients are written out: there is no autograd graph, so it works under `no_grad` and under
`inference_mode` alike, and no matrix of tokens by tokens is ever stored.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from fresco.flow.precision import full_precision
from fresco.guidance.motion import Disagreement, FeatureMotion

TEMPORAL_WEIGHT = 2.0
"""Weight of the temporal loss (docs/method.md, section 7)."""
BETAS = (0.9, 0.999)
"""Decay of Adam's two moments."""
ADAM_EPSILON = 1e-8
STATISTICS_EPSILON = 1e-5
"""Added to the variance a feature is divided by."""
PUBLISHED_VARIANCE_OFFSET = 1.0
"""Added to the variance a feature gets back: an accident that the published results contain."""
PUBLISHED_CHUNKS = 2
"""Chunks the losses are averaged over. Always both, so that a chunk's result does not depend on
whether the host evaluates the chunks in one call, in two, or only one of them: Adam's epsilon is
not small against these gradients."""
GROUP_NUMBERS = 1 << 25
"""Numbers of the frames that are worked on at once (128 MiB of float32): all of 8 at 512 x 512, so
that a device is asked for few operators."""
CHANNEL_NUMBERS = 1 << 24
"""Numbers of the channels that the temporal term works on at once (64 MiB of float32)."""
STRIP_NUMBERS = 1 << 24
"""Numbers of a strip of Gram matrices, all frames of a group together (64 MiB of float32)."""
STRIP_ROWS = 512
"""Most rows of a strip. What lies left of the diagonal within one is computed for nothing."""
KEPT_NUMBERS = 1 << 26
"""Numbers of the reference's Gram matrices that are kept while a chunk is optimised (256 MiB of
float32): 15 of 16 strips at 512 x 512 and 8 frames. The rest is computed in every iteration."""


@dataclass(frozen=True, slots=True)
class OptimizationTarget:
    """What a feature is pulled toward; None leaves a term out."""

    reference: Tensor | None
    """[N, HW, K] unit tokens of the source's feature: the spatial term. Only their products
    count, so K need not be the feature's width."""
    motion: FeatureMotion | None
    """Flow at the feature's size: the temporal term."""
    spatial_weight: float
    """Weight of the spatial term."""


@dataclass(frozen=True, slots=True)
class Descent:
    """How the loss is descended."""

    iterations: int
    """Adam iterations."""
    rate: float
    """Adam's learning rate."""


def normalize_tokens(feature: Tensor) -> Tensor:
    """[N, C, H, W] -> float32 [N, HW, C] tokens of length 1; a zero token stays zero."""
    work = torch.promote_types(feature.dtype, torch.float32)
    tokens = rearrange(feature.detach().to(work), "n c h w -> n (h w) c").contiguous()
    return tokens * _invert_lengths(tokens)


def _invert_lengths(tokens: Tensor) -> Tensor:
    """[N, HW, C] -> [N, HW, 1]; 0 for a zero token, which has no direction and gets no pull."""
    length = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    return length.reciprocal_().nan_to_num_(nan=math.nan, posinf=0)


def _split(count: int, most: int) -> list[slice]:
    """0..count in as few parts as can be, none longer than `most` (but 1), nearly equal."""
    parts = math.ceil(count / max(1, most))
    bounds = [count * part // parts for part in range(parts + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(bounds)]


def _split_frames(value: Tensor) -> list[slice]:
    """Groups of frames of [N, HW, C]."""
    return _split(len(value), GROUP_NUMBERS // value[0].numel())


class _Adam:
    """torch.optim.Adam in place, in six operators."""

    def __init__(self, value: Tensor, rate: float) -> None:
        self._value, self._rate = value, rate
        self._first, self._second = torch.zeros_like(value), torch.zeros_like(value)

    def step(self, gradient: Tensor, iteration: int) -> None:
        """Update; the gradient's memory is used up. Iterations count from 1."""
        correction = math.sqrt(1 - BETAS[1] ** iteration)
        rate = self._rate * correction / (1 - BETAS[0] ** iteration)
        self._first.lerp_(gradient, 1 - BETAS[0])
        self._second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        # sqrt(second) / correction + epsilon, both sides of the fraction times `correction`.
        scale = torch.sqrt(self._second, out=gradient).add_(ADAM_EPSILON * correction)
        self._value.addcdiv_(self._first, scale, value=-rate)


class _GramTerm:
    """weight * sum |a a^T - r r^T| of all frames, by strips of rows from the diagonal on."""

    def __init__(self, value: Tensor, reference: Tensor, weight: float) -> None:
        self._value, self._reference, self._weight = value, reference, weight
        self._groups = _split_frames(value)
        frames, tokens = max(group.stop - group.start for group in self._groups), value.shape[1]
        rows = max(1, min(STRIP_ROWS, STRIP_NUMBERS // (frames * tokens)))
        self._strips = _split(tokens, rows)
        self._kept = self._multiply_reference()

    def _multiply_reference(self) -> dict[tuple[int, int], Tensor]:
        """Strips of r r^T by first frame and first row, as many as may be kept."""
        kept: dict[tuple[int, int], Tensor] = {}
        room = KEPT_NUMBERS
        for frames in self._groups:
            given = self._reference[frames]
            for rows in self._strips:
                room -= len(given) * (rows.stop - rows.start) * (given.shape[1] - rows.start)
                if room < 0:
                    return kept
                kept[frames.start, rows.start] = torch.bmm(given[:, rows], given[:, rows.start:].mT)
        return kept

    def write(self, gradient: Tensor, losses: list[Tensor] | None) -> None:
        """Make [N, HW, C] the term's gradient; its value joins `losses` if asked."""
        for frames in self._groups:
            value, pull = self._value[frames], gradient[frames]
            inverse = _invert_lengths(value)
            unit = value * inverse
            # Made anew each time, so that the other term has the memory in between.
            memory = value.new_empty(self._most_numbers(len(value)))
            for rows in self._strips:
                strip = self._subtract_products(unit, frames, rows, memory)
                if losses is not None:
                    size, corner = strip.abs(), rows.stop - rows.start
                    both = size[..., :corner].sum() + 2 * size[..., corner:].sum()
                    losses.append(both * self._weight)
                _pull_tokens(pull, strip.sign_(), unit, rows)
            # Through the normalisation: only what is across a token turns it. 2: G is symmetric.
            along = torch.einsum("ntc,ntc->nt", unit, pull)[..., None]
            pull.addcmul_(unit, along, value=-1).mul_(inverse.mul_(2 * self._weight))

    def _most_numbers(self, frames: int) -> int:
        """Of a strip."""
        tokens = self._value.shape[1]
        return max(
            frames * (rows.stop - rows.start) * (tokens - rows.start) for rows in self._strips
        )

    def _subtract_products(
        self, unit: Tensor, frames: slice, rows: slice, memory: Tensor
    ) -> Tensor:
        """a a^T - r r^T of some rows, from the diagonal on, [frames, rows, HW - first row]."""
        shape = (len(unit), rows.stop - rows.start, unit.shape[1] - rows.start)
        strip = memory[: math.prod(shape)].view(shape)
        left, right = unit[:, rows], unit[:, rows.start:].mT
        kept = self._kept.get((frames.start, rows.start))
        if kept is not None:
            return torch.baddbmm(kept, left, right, beta=-1, out=strip)
        given = self._reference[frames]
        torch.bmm(left, right, out=strip)
        return strip.baddbmm_(given[:, rows], given[:, rows.start:].mT, alpha=-1)


def _pull_tokens(pull: Tensor, sign: Tensor, unit: Tensor, rows: slice) -> None:
    """Apply a strip of a symmetric matrix to the tokens, both ways.

    Args:
        pull: [N, HW, C] added to. The strip of row 0 begins it: what was there does not count.
        sign: [N, rows, HW - first row], from the diagonal on.
        unit: [N, HW, C].
    """
    keep = 0 if rows.start == 0 else 1
    pull[:, rows].baddbmm_(sign, unit[:, rows.start:], beta=keep)
    if rows.stop < unit.shape[1]:
        rest = sign[..., rows.stop - rows.start :].mT
        pull[:, rows.stop :].baddbmm_(rest, unit[:, rows], beta=keep)


class _TemporalTerm:
    """weight * sum |disagreement along the ring|, some channels of all frames at a time."""

    def __init__(self, value: Tensor, motion: Disagreement, weight: float) -> None:
        self._tokens, self._residual, self._weight = value.flatten(0, 1), motion.residual, weight
        self._adjoint = replace(motion.adjoint, weight=motion.adjoint.weight * weight)
        rows = motion.residual.count_rows(value.device)
        self._channels = _split(value.shape[-1], CHANNEL_NUMBERS // rows)

    def add(self, gradient: Tensor, losses: list[Tensor] | None) -> None:
        """Add the term's gradient to [N, HW, C]; its value joins `losses` if asked."""
        for channels in self._channels:
            residual = self._residual.apply(self._tokens[:, channels])
            if losses is not None:
                losses.append(residual.abs().sum() * self._weight)
            gradient.flatten(0, 1)[:, channels].add_(self._adjoint.apply(residual.sign_()))


class FeatureLoss:
    """The loss of one chunk and its gradient.

    Averages count `PUBLISHED_CHUNKS` chunks: the losses of the chunks add up to the whole loss.
    """

    def __init__(self, value: Tensor, target: OptimizationTarget) -> None:
        """Prepare for `value` [N, HW, C], contiguous, which may change between calls."""
        frames, tokens, channels = value.shape
        rows = PUBLISHED_CHUNKS * frames
        self._gram, self._temporal = None, None
        if target.reference is not None and target.spatial_weight:
            weight = target.spatial_weight / (rows * tokens * tokens)
            self._gram = _GramTerm(value, target.reference, weight)
        if target.motion is not None and target.motion.disagreement is not None:
            weight = TEMPORAL_WEIGHT / (rows * channels * tokens)
            self._temporal = _TemporalTerm(value, target.motion.disagreement, weight)
        self._gradient = torch.zeros_like(value)

    def gradient(self, losses: list[Tensor] | None = None) -> Tensor:
        """The gradient [N, HW, C], valid until the next call; it may be overwritten.

        Args:
            losses: takes the terms' values; their sum is the chunk's loss.
        """
        gradient = self._gradient
        if self._gram is not None:
            self._gram.write(gradient, losses)
        else:
            gradient.zero_()
        if self._temporal is not None:
            self._temporal.add(gradient, losses)
        return gradient


def descend(
    value: Tensor, target: OptimizationTarget, descent: Descent,
    *, on_loss: Callable[[float], None] | None = None,
) -> None:
    """Minimise the loss of one chunk in place by Adam, from where it is.

    Args:
        value: [N, HW, C] tokens, contiguous; overwritten.
        on_loss: called with the loss before every update (which costs time).
    """
    loss, adam = FeatureLoss(value, target), _Adam(value, descent.rate)
    for iteration in range(1, descent.iterations + 1):
        losses: list[Tensor] | None = None if on_loss is None else []
        adam.step(loss.gradient(losses), iteration)
        if on_loss is not None:
            on_loss(float(torch.stack(losses).sum()) if losses else 0.0)


def restore_statistics(
    feature: Tensor, before: Tensor, *, offset: float = PUBLISHED_VARIANCE_OFFSET
) -> Tensor:
    """Mean and variance of every frame and channel back as before; [N, C, H, W] both.

    Args:
        offset: added to the variance of `before`; `STATISTICS_EPSILON` restores it plainly.
    """
    correction = min(1, before[0, 0].numel() - 1)  # one token has no unbiased variance
    old, old_mean = torch.var_mean(before, (2, 3), correction=correction, keepdim=True)
    new, new_mean = torch.var_mean(feature, (2, 3), correction=correction, keepdim=True)
    scale = (old + offset).sqrt_().div_((new + STATISTICS_EPSILON).sqrt_())
    return (feature - new_mean).mul_(scale).add_(old_mean)


@torch.no_grad()
def optimize_feature(
    feature: Tensor, target: OptimizationTarget, descent: Descent,
    *, plain_statistics: bool = False, restore: bool = True,
    on_loss: Callable[[float], None] | None = None,
) -> Tensor:
    """Optimise the feature of one chunk [N, C, H, W]; float32 inside, the same dtype out.

    Memory beside input and result: four copies of the chunk in float32 (value, gradient, two
    moments), what is kept of the reference's Gram matrices, and a group of frames with a strip.

    Args:
        plain_statistics: restore the plain variance, not the published one.
        restore: restore the statistics at all.
        on_loss: called with this chunk's share of the loss before every update.
    """
    work = torch.promote_types(feature.dtype, torch.float32)
    with full_precision(feature.device):  # the sign of a rounding error is not a gradient
        tokens = rearrange(feature.detach(), "n c h w -> n (h w) c")
        value = torch.empty_like(tokens, dtype=work, memory_format=torch.contiguous_format)
        value.copy_(tokens)
        descend(value, target, descent, on_loss=on_loss)
        offset = STATISTICS_EPSILON if plain_statistics else PUBLISHED_VARIANCE_OFFSET
        result = torch.empty_like(feature, memory_format=torch.contiguous_format)
        for frames in _split_frames(value):  # a group at a time: no further copy of the chunk
            found = rearrange(value[frames], "n (h w) c -> n c h w", h=feature.shape[-2])
            if restore:
                found = restore_statistics(found, feature[frames].to(work), offset=offset)
            result[frames] = found
        return result
