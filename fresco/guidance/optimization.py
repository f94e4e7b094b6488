"""Feature optimisation by the two consistency losses (docs/method.md, section 7).

    loss = 2 mean(|c[i+1] - warp(c[i], b)| (1 - bocc) + |c[i] - warp(c[i+1], f)| (1 - focc))
         + weight mean |G(c) - G_ref|,        G = cosine similarity of every two tokens of a frame

Both gradients are written out: there is no autograd graph, so it works under `no_grad` and under
`inference_mode` alike, and no matrix of tokens by tokens is ever stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from fresco.flow.precision import full_precision
from fresco.guidance.motion import Disagreement, FeatureMotion, Pair

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
STRIP_ROWS = 512
"""Rows of a strip of the Gram matrix: 8 MiB at 4096 tokens; 256 to 1024 are equally fast."""


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
    return torch.where(length > 0, 1 / length, 0)


class _Adam:
    """torch.optim.Adam's arithmetic, operation by operation, in place, a frame at a time."""

    def __init__(self, value: Tensor, rate: float) -> None:
        self._value, self._rate = value, rate
        self._first, self._second = torch.zeros_like(value), torch.zeros_like(value)

    def step(self, frame: int, gradient: Tensor, iteration: int) -> None:
        """Update one frame; the gradient's memory is used up. Iterations count from 1."""
        first, second = self._first[frame], self._second[frame]
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        correction = math.sqrt(1 - BETAS[1] ** iteration)
        scale = torch.sqrt(second, out=gradient).div_(correction).add_(ADAM_EPSILON)
        rate = self._rate / (1 - BETAS[0] ** iteration)
        self._value[frame].addcdiv_(first, scale, value=-rate)


class _GramTerm:
    """weight * sum |a a^T - r r^T| of a frame, by strips of rows from the diagonal on."""

    def __init__(self, value: Tensor, reference: Tensor, weight: float) -> None:
        tokens = value.shape[1]
        self._value, self._reference, self._weight = value, reference, weight
        self._rows = min(tokens, STRIP_ROWS)
        self._strip = value.new_empty(self._rows * tokens)
        self._unit, self._pull = torch.empty_like(value[0]), torch.empty_like(value[0])

    def add(self, frame: int, gradient: Tensor, losses: list[Tensor] | None) -> None:
        """Add the term's gradient [HW, C]; its value joins `losses` if asked."""
        inverse = _invert_lengths(self._value[frame])
        unit = torch.mul(self._value[frame], inverse, out=self._unit)
        pull = self._pull.zero_()
        for first in range(0, len(unit), self._rows):
            self._add_strip(self._reference[frame], first, losses)
        # Through the normalisation: only what is across a token turns it. 2: G is symmetric.
        along = torch.einsum("tc,tc->t", unit, pull)[:, None]
        pull.sub_(unit.mul_(along)).mul_(inverse)
        gradient.add_(pull, alpha=2 * self._weight)

    def _add_strip(self, reference: Tensor, first: int, losses: list[Tensor] | None) -> None:
        """Rows first.. of sign(a a^T - r r^T) from the diagonal on, applied to a both ways."""
        unit, pull = self._unit, self._pull
        last = min(first + self._rows, len(unit))
        rows = last - first
        strip = self._strip[: rows * (len(unit) - first)].view(rows, -1)
        torch.mm(unit[first:last], unit[first:].T, out=strip)
        strip.addmm_(reference[first:last], reference[first:].T, alpha=-1)
        if losses is not None:
            size = strip.abs()
            losses.append((size[:, :rows].sum() + 2 * size[:, rows:].sum()) * self._weight)
        strip.sign_()
        pull[first:last].addmm_(strip, unit[first:])
        if last < len(unit):
            pull[last:].addmm_(strip[:, rows:].T, unit[first:last])


def _add_disagreement(
    value: Tensor, one: Disagreement, weight: float, here: Tensor, there: Tensor,
    losses: list[Tensor] | None,
) -> None:
    """Add the gradient of weight * sum |disagreement| to those of the two frames."""
    residual = one.residual.apply(value.flatten(0, 1))
    if losses is not None:
        losses.append(residual.abs().sum() * weight)
    sign = residual.sign_()
    there.add_(one.scatter.apply(sign), alpha=weight)
    here.addcmul_(sign, one.visible, value=weight)


class FeatureLoss:
    """The loss of one chunk and its gradient, frame by frame.

    Averages count `PUBLISHED_CHUNKS` chunks: the losses of the chunks add up to the whole loss.
    """

    def __init__(self, value: Tensor, target: OptimizationTarget) -> None:
        """Prepare for `value` [N, HW, C], which may change between calls."""
        frames, tokens, channels = value.shape
        rows = PUBLISHED_CHUNKS * frames
        self._value, self._pairs = value, target.motion.pairs if target.motion else ()
        self._temporal = TEMPORAL_WEIGHT / (rows * channels * tokens)
        self._gram = None
        if target.reference is not None and target.spatial_weight:
            weight = target.spatial_weight / (rows * tokens * tokens)
            self._gram = _GramTerm(value, target.reference, weight)
        self._buffers = [torch.empty_like(value[0]) for _ in range(3 if self._pairs else 1)]

    def gradients(self, losses: list[Tensor] | None = None) -> Iterator[tuple[int, Tensor]]:
        """Every frame and its gradient [HW, C], valid until the next one.

        A frame may be changed as soon as it was yielded: none of the others needs it any more.

        Args:
            losses: takes the terms' values; their sum is the chunk's loss.
        """
        for frame, gradient in self._temporal_gradients(losses):
            if self._gram is not None:
                self._gram.add(frame, gradient, losses)
            yield frame, gradient

    def _temporal_gradients(self, losses: list[Tensor] | None) -> Iterator[tuple[int, Tensor]]:
        """The closing pair comes first and its share of the last frame waits for the others, so
        that three gradients are held instead of N."""
        if not self._pairs:
            for frame in range(len(self._value)):
                yield frame, self._buffers[0].zero_()
            return
        *pairs, closing = self._pairs
        last, here, spare = self._buffers
        self._add_pair(closing, last.zero_(), here.zero_(), losses)
        for pair in pairs:
            ahead = last if pair.second == closing.first else spare.zero_()
            self._add_pair(pair, here, ahead, losses)
            yield pair.first, here
            here, spare = ahead, here
        yield closing.first, last

    def _add_pair(
        self, pair: Pair, first: Tensor, second: Tensor, losses: list[Tensor] | None
    ) -> None:
        _add_disagreement(self._value, pair.back, self._temporal, second, first, losses)
        _add_disagreement(self._value, pair.ahead, self._temporal, first, second, losses)


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
        for frame, gradient in loss.gradients(losses):
            adam.step(frame, gradient, iteration)
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

    Memory beside input and result: three copies of the chunk in float32 (value, two moments),
    seven of a frame, and one strip.

    Args:
        plain_statistics: restore the plain variance, not the published one.
        restore: restore the statistics at all.
        on_loss: called with this chunk's share of the loss before every update.
    """
    work = torch.promote_types(feature.dtype, torch.float32)
    with full_precision(feature.device):  # the sign of a rounding error is not a gradient
        value = rearrange(feature.to(work), "n c h w -> n (h w) c").contiguous()
        if value.data_ptr() == feature.data_ptr():
            value = value.clone()
        descend(value, target, descent, on_loss=on_loss)
        offset = STATISTICS_EPSILON if plain_statistics else PUBLISHED_VARIANCE_OFFSET
        result = torch.empty_like(feature, memory_format=torch.contiguous_format)
        for frame, tokens in enumerate(value):  # one at a time: no further copy of the chunk
            found = rearrange(tokens, "(h w) c -> 1 c h w", h=feature.shape[-2])
            if restore:
                before = feature[frame : frame + 1].to(work)
                found = restore_statistics(found, before, offset=offset)
            result[frame] = found[0]
        return result
