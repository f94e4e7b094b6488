"""Feature optimisation by the two consistency losses (docs/method.md, section 7).

    loss = 2 mean(|c[i+1] - warp(c[i], b)| (1 - bocc) + |c[i] - warp(c[i+1], f)| (1 - focc))
         + weight mean |G(c) - G_ref|,        G = cosine similarity of every two tokens of a frame

Both gradients are written out. There is no autograd graph, so it works under `no_grad` and under
`inference_mode`, and no matrix of all tokens by all tokens is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from fresco.flow.precision import full_precision
from fresco.guidance.gram import GramTerm
from fresco.guidance.motion import Disagreement, FeatureMotion
from fresco.guidance.portions import find_portions, split, split_frames

TEMPORAL_WEIGHT = 2.0
"""Weight of the temporal loss (docs/method.md, section 7)."""
BETAS = (0.9, 0.999)
"""Decay of Adam's two moments."""
ADAM_EPSILON = 1e-8
STATISTICS_EPSILON = 1e-5
"""Added to the variance that a feature is divided by."""
PUBLISHED_VARIANCE_OFFSET = 1.0
"""Added to the variance that a feature gets back: an accident that the published results contain.
"""
PUBLISHED_CHUNKS = 2
"""Number of chunks that the losses are averaged over. It is always both. Otherwise the result of a
chunk would depend on whether the host evaluates both chunks in one call, in two, or only one of
them, because Adam's epsilon is not small compared to these gradients."""


@dataclass(frozen=True, slots=True)
class OptimizationTarget:
    """The targets of the two loss terms; None leaves a term out."""

    reference: Tensor | None
    """[N, HW, K] unit tokens of the source's feature: the spatial term. Only their products
    count, so K need not be the feature's width."""
    motion: FeatureMotion | None
    """Flow at the feature's size: the temporal term."""
    spatial_weight: float
    """Weight of the spatial term."""


@dataclass(frozen=True, slots=True)
class Descent:
    """Options of the gradient descent."""

    iterations: int
    """Adam iterations."""
    rate: float
    """Adam's learning rate."""


_HELD = 3
"""Largest number of gradients, one for each group of frames, that are in memory at once."""


class _Adam:
    """torch.optim.Adam in place, in five operators."""

    def __init__(self, value: Tensor, rate: float) -> None:
        self._value, self._rate = value, rate
        # The second moment is stored divided by its decay since the beginning.
        self._first, self._second = torch.zeros_like(value), torch.zeros_like(value)

    def step(self, frames: slice, gradient: Tensor, iteration: int) -> None:
        """Update some frames; the gradient is overwritten. Iterations count from 1."""
        first, second, decay = self._first[frames], self._second[frames], BETAS[1] ** iteration
        first.lerp_(gradient, 1 - BETAS[0])
        second.addcmul_(gradient, gradient, value=(1 - BETAS[1]) / decay)
        # sqrt(decay second) / correction + epsilon, both sides of the fraction times `factor`.
        factor = math.sqrt((1 - decay) / decay)
        scale = torch.sqrt(second, out=gradient).add_(ADAM_EPSILON * factor)
        rate = self._rate * factor / (1 - BETAS[0] ** iteration)
        self._value[frames].addcdiv_(first, scale, value=-rate)


class _TemporalTerm:
    """weight * sum |disagreement along the ring|, computed for some channels of a group at a time.
    """

    def __init__(
        self, value: Tensor, motions: Sequence[Disagreement], weight: float
    ) -> None:
        self._value, self._weight = value, weight
        self._parts = [_weigh_adjoint(motion, weight) for motion in motions]
        rows = max(motion.residual.count_rows(value.device) for motion in motions)
        most = find_portions(value.device).channels
        self._channels = split(value.shape[-1], most // rows)

    def add(
        self, number: int, gradient: Tensor, following: Tensor, losses: list[Tensor] | None
    ) -> None:
        """Add the gradient of a group's pairs; the value of their term is added to `losses`.

        Args:
            number: number of the group.
            gradient: [frames, HW, C] of the group.
            following: that of the next group; its first frame is the second one of the last pair.
        """
        part = self._parts[number]
        own = gradient.flatten(0, 1)
        for channels in self._channels:
            residual = part.residual.apply(self._pick_tokens(part.frames, channels))
            if losses is not None:
                losses.append(residual.abs().sum() * self._weight)
            found = part.adjoint.apply(residual.sign_())
            own[:, channels].add_(found[: len(own)])
            if len(found) > len(own):
                following[0, :, channels].add_(found[len(own) :])

    def _pick_tokens(self, frames: slice, channels: slice) -> Tensor:
        """Copy some channels of a group's frames and of the frame after them, one token a row."""
        tokens = self._value[frames.start : frames.stop + 1, :, channels]
        if frames.start and frames.stop == len(self._value):
            return torch.cat([tokens, self._value[:1, :, channels]]).flatten(0, 1)
        return tokens.contiguous().flatten(0, 1)


def _weigh_adjoint(motion: Disagreement, weight: float) -> Disagreement:
    adjoint = replace(motion.adjoint, weight=motion.adjoint.weight * weight)
    return replace(motion, adjoint=adjoint)


class FeatureLoss:
    """The loss of one chunk and its gradient.

    Averages are over `PUBLISHED_CHUNKS` chunks, so the losses of the chunks add up to the whole.
    """

    def __init__(self, value: Tensor, target: OptimizationTarget) -> None:
        """Prepare for `value` [N, HW, C], contiguous, which may change between calls."""
        frames, tokens, channels = value.shape
        rows = PUBLISHED_CHUNKS * frames
        motions = target.motion.disagreements if target.motion is not None else ()
        self._groups = [motion.frames for motion in motions] or split_frames(
            frames, tokens * channels, value.device
        )
        self._gram, self._temporal = None, None
        if target.reference is not None and target.spatial_weight:
            weight = target.spatial_weight / (rows * tokens * tokens)
            self._gram = GramTerm(value, target.reference, weight, self._groups)
        if motions:
            weight = TEMPORAL_WEIGHT / (rows * channels * tokens)
            self._temporal = _TemporalTerm(value, motions, weight)
        self._value = value
        # Allocated once, because memory grows if it is freed and allocated in every iteration.
        held = min(len(self._groups), _HELD if motions else 1)
        longest = max(group.stop - group.start for group in self._groups)
        self._memory = [torch.empty_like(value[:longest]) for _ in range(held)]

    def gradients(
        self, losses: list[Tensor] | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield every group of frames with its gradient [frames, HW, C].

        The gradient may be overwritten, and is valid until the next one is yielded. The frames of a
        yielded group may be changed at once, because no other group needs them any more. For that,
        the pairs of the last group are computed first, since one of them leads to frame 0. Its
        gradient is completed at the end, so at most three gradients are in memory.

        Args:
            losses: receives the values of the terms; their sum is the loss of the chunk.
        """
        last = len(self._groups) - 1
        begun: dict[int, Tensor] = {}
        free = list(self._memory)
        for number in (last, *range(last)):
            following = (number + 1) % (last + 1) if self._temporal is not None else number
            for each in (number, following):
                if each not in begun:
                    begun[each] = free.pop()
                    self._begin(each, self._view(each, begun[each]), losses)
            if self._temporal is not None:
                gradient, ahead = (self._view(each, begun[each]) for each in (number, following))
                self._temporal.add(number, gradient, ahead, losses)
            if number != last:
                yield self._groups[number], self._view(number, begun[number])
                free.append(begun.pop(number))
        yield self._groups[last], self._view(last, begun[last])

    def _view(self, number: int, memory: Tensor) -> Tensor:
        """The part of a gradient's memory that a group needs."""
        group = self._groups[number]
        return memory[: group.stop - group.start]

    def _begin(self, number: int, gradient: Tensor, losses: list[Tensor] | None) -> None:
        """Set the gradient of a group to that of the spatial term."""
        if self._gram is None:
            gradient.zero_()
        else:
            self._gram.write(self._groups[number], gradient, losses)


def descend(
    value: Tensor, target: OptimizationTarget, descent: Descent,
    *, on_loss: Callable[[float], None] | None = None,
) -> None:
    """Minimise the loss of one chunk in place by Adam, starting from its present values.

    Args:
        value: [N, HW, C] tokens, contiguous; overwritten.
        on_loss: called with the loss before every update (which costs time).
    """
    loss, adam = FeatureLoss(value, target), _Adam(value, descent.rate)
    for iteration in range(1, descent.iterations + 1):
        losses: list[Tensor] | None = None if on_loss is None else []
        for frames, gradient in loss.gradients(losses):
            adam.step(frames, gradient, iteration)
        if on_loss is not None:
            on_loss(float(torch.stack(losses).sum()) if losses else 0.0)


def restore_statistics(
    feature: Tensor, before: Tensor, *, offset: float = PUBLISHED_VARIANCE_OFFSET
) -> Tensor:
    """Give every frame and channel the mean and variance that it had before; both [N, C, H, W].

    Args:
        offset: added to the variance of `before`; `STATISTICS_EPSILON` restores it unchanged.
    """
    (old, old_mean), (new, new_mean) = (_find_statistics(each) for each in (before, feature))
    scale = (old + offset).sqrt_().div_((new + STATISTICS_EPSILON).sqrt_())
    return (feature - new_mean).mul_(scale).add_(old_mean)


def _find_statistics(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased variance and mean of every frame and channel, [N, C, 1, 1] both."""
    mean = feature.mean((2, 3), keepdim=True)
    # A quarter of the time of torch.var_mean on CPUs. One token has no unbiased variance.
    squares = (feature - mean).square_().sum((2, 3), keepdim=True)
    return squares.div_(max(1, feature[0, 0].numel() - 1)), mean


@torch.no_grad()
def optimize_feature(
    feature: Tensor, target: OptimizationTarget, descent: Descent,
    *, plain_statistics: bool = False, restore: bool = True,
    on_loss: Callable[[float], None] | None = None,
) -> Tensor:
    """Optimise the feature of one chunk [N, C, H, W]; float32 inside, the same dtype out.

    Memory besides input and result: three copies of the chunk in float32 (value, two moments),
    gradients of three groups of frames, unit tokens of one group with a strip of its Gram matrices,
    and the stored strips of the reference (`portions`).

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
        groups = split_frames(len(value), value[0].numel(), value.device)
        for frames in groups:  # one at a time: no further copy of the chunk
            found = rearrange(value[frames], "n (h w) c -> n c h w", h=feature.shape[-2])
            found = found.contiguous()
            if restore:
                found = restore_statistics(found, feature[frames].to(work), offset=offset)
            result[frames] = found
        return result
