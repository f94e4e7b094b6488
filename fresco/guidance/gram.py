"""The spatial term of the feature optimisation: compare two Gram matrices, but store neither."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from fresco.guidance.portions import find_portions

LEVELS = 32767
"""Number of steps between 0 and 1 of a stored cosine, which has 16 bits."""
DOUBT = 0.6
"""Steps. A smaller difference may have the wrong sign: half a step, and float32's rounding."""
MOST_DOUBTFUL = 1 / 64
"""If more than this share of a strip is in doubt, multiplying its tokens again is cheaper."""
ALIGNED = 16
"""Numbers in a processor's widest register."""
BLOCK = 64
"""Entries that are searched together for ones whose sign is in doubt; a square number, so that the
length of a block of ones is exact."""


def normalize_tokens(feature: Tensor) -> Tensor:
    """[N, C, H, W] -> float32 [N, HW, C] tokens of length 1; a zero token stays zero."""
    work = torch.promote_types(feature.dtype, torch.float32)
    tokens = rearrange(feature.detach().to(work), "n c h w -> n (h w) c").contiguous()
    return tokens * _invert(torch.linalg.vector_norm(tokens, dim=-1, keepdim=True))


def _invert(length: Tensor) -> Tensor:
    """Inverse lengths; 0 for a zero token, which has no direction and gets no gradient."""
    return length.reciprocal().nan_to_num_(nan=math.nan, posinf=0)


class GramTerm:
    """weight * sum |a a^T - r r^T| over all frames, in strips of rows from the diagonal on.

    Strips of r r^T are stored in 16 bits, as many as the memory holds. They give the sign of an
    entry, except where it is within their rounding; there the reference's product is computed
    again.
    """

    def __init__(
        self, value: Tensor, reference: Tensor, weight: float, groups: Sequence[slice]
    ) -> None:
        """Prepare for `value` [N, HW, C], contiguous, which may change between calls."""
        self._value, self._reference, self._weight = value, reference, weight
        portions, (count, tokens, _) = find_portions(value.device), value.shape
        frames = max(group.stop - group.start for group in groups)
        self._strips = _cut_strips(tokens, min(portions.rows, portions.strip // (frames * tokens)))
        areas = [(rows.stop - rows.start) * (tokens - rows.start) for rows in self._strips]
        self._memory = value.new_empty(frames * max(areas) + BLOCK)
        room = min(int(portions.kept * value.numel() * 2), count * sum(areas))
        self._kept = self._keep_products(groups, value.new_empty(room, dtype=torch.int16))

    def _keep_products(
        self, groups: Sequence[slice], memory: Tensor
    ) -> dict[tuple[int, int], Tensor]:
        """Compute strips of r r^T, by first frame and first row, as many as the memory holds."""
        kept: dict[tuple[int, int], Tensor] = {}
        used = 0
        for frames in groups:
            given = self._reference[frames]
            for rows in self._strips:
                found = self._lend_strip(given, rows)
                if used + found.numel() > memory.numel():
                    return kept
                torch.bmm(given[:, rows], given[:, rows.start :].mT, out=found)
                place = memory[used : used + found.numel()].view(found.shape)
                kept[frames.start, rows.start] = place.copy_(found.mul_(LEVELS).round_())
                used += found.numel()
        return kept

    def _lend_strip(self, tokens: Tensor, rows: slice) -> Tensor:
        """Memory for one strip, [frames, rows, HW - first row]."""
        shape = (len(tokens), rows.stop - rows.start, tokens.shape[1] - rows.start)
        return self._memory[: math.prod(shape)].view(shape)

    def write(self, frames: slice, pull: Tensor, losses: list[Tensor] | None) -> None:
        """Write the term's gradient into `pull` [frames, HW, C]; its value is added to `losses`.

        The tokens are divided by their lengths in place, and multiplied again afterwards. That
        saves a copy and changes them only by rounding.
        """
        reference, unit = self._reference[frames], self._value[frames]
        length = torch.linalg.vector_norm(unit, dim=-1, keepdim=True)
        inverse = _invert(length)
        unit.mul_(inverse)
        for rows in self._strips:
            difference = self._lend_strip(unit, rows)
            if losses is not None:
                _subtract_products(unit, reference, rows, difference)
                losses.append(self._weight * _sum_sizes(difference, rows))
            if not self._compare_kept(unit, frames, rows, difference):
                _subtract_products(unit, reference, rows, difference)
                difference.sign_()
            # 2: G is symmetric.
            _pull_tokens(pull, difference, unit, rows, 2 * self._weight)
        # Gradient of the normalisation: only the part perpendicular to a token counts.
        along = torch.einsum("ntc,ntc->nt", unit, pull)[..., None]
        pull.addcmul_(unit, along, value=-1).mul_(inverse)
        unit.mul_(length)

    def _compare_kept(self, unit: Tensor, frames: slice, rows: slice, signs: Tensor) -> bool:
        """Make the signs of a a^T - r r^T, 1 or -1, from a stored strip; False if there is none."""
        kept = self._kept.get((frames.start, rows.start))
        if kept is None:
            return False
        signs.copy_(kept)
        signs.baddbmm_(
            unit[:, rows], unit[:, rows.start :].mT, beta=-1 / DOUBT, alpha=LEVELS / DOUBT
        )
        # Always 0, and what it pulls along a token does not count.
        signs.diagonal(dim1=1, dim2=2).fill_(1)
        doubtful = self._find_doubtful(signs.clamp_(-1, 1))
        if len(doubtful) > MOST_DOUBTFUL * signs.numel():
            del self._kept[frames.start, rows.start]  # as in plain areas, where both cosines are 1
            return False
        flat = signs.view(-1)
        product = flat[doubtful].mul_(DOUBT).add_(kept.view(-1)[doubtful])
        wanted = self._multiply_reference(doubtful, frames, rows)
        flat[doubtful] = product.sub_(wanted, alpha=LEVELS).sign_()
        return True

    def _find_doubtful(self, strip: Tensor) -> Tensor:
        """Indices of the entries between -1 and 1, few, of a strip of ones and minus ones."""
        # Blocks first: searching all entries would take longer.
        count = math.ceil(strip.numel() / BLOCK) * BLOCK
        self._memory[strip.numel() : count] = 1
        blocks = self._memory[:count].view(-1, BLOCK)
        found = (torch.linalg.vector_norm(blocks, dim=1) < math.sqrt(BLOCK)).nonzero().flatten()
        block, place = (blocks[found].abs() < 1).nonzero(as_tuple=True)
        return found[block].mul_(BLOCK).add_(place)

    def _multiply_reference(self, entries: Tensor, frames: slice, rows: slice) -> Tensor:
        """Single products of the reference's tokens, by their indices in a strip."""
        tokens = self._reference.shape[1]
        height, width = rows.stop - rows.start, tokens - rows.start
        row, column = entries // width, entries % width + rows.start
        first = (row // height + frames.start) * tokens
        row = row % height + rows.start
        # This copies whole tokens; an index for each axis would look up single numbers.
        flat = self._reference.flatten(0, 1)
        return flat.index_select(0, first + row).mul_(flat.index_select(0, first + column)).sum(-1)


def _cut_strips(tokens: int, most: int) -> list[slice]:
    """Rows of each strip: a multiple of `ALIGNED`, if there may be as many, except in the last.

    Products of other heights and widths take a sixth longer.
    """
    rows = max(1, most // ALIGNED * ALIGNED or most)
    return [slice(first, min(first + rows, tokens)) for first in range(0, tokens, rows)]


def _subtract_products(
    unit: Tensor, reference: Tensor, rows: slice, difference: Tensor
) -> None:
    """Compute the strip a a^T - r r^T."""
    torch.bmm(unit[:, rows], unit[:, rows.start :].mT, out=difference)
    difference.baddbmm_(reference[:, rows], reference[:, rows.start :].mT, alpha=-1)


def _sum_sizes(difference: Tensor, rows: slice) -> Tensor:
    """Sum of the absolute values of a strip and of its mirror image below the diagonal."""
    size, corner = difference.abs(), rows.stop - rows.start
    return size[..., :corner].sum() + 2 * size[..., corner:].sum()


def _pull_tokens(pull: Tensor, sign: Tensor, unit: Tensor, rows: slice, weight: float) -> None:
    """Apply a strip of a symmetric matrix, and its mirror image, to the tokens.

    Args:
        pull: [N, HW, C], to which the result is added. The strip of row 0 overwrites it instead.
        sign: [N, rows, HW - first row], from the diagonal on.
        unit: [N, HW, C].
    """
    keep = 0 if rows.start == 0 else 1
    pull[:, rows].baddbmm_(sign, unit[:, rows.start :], beta=keep, alpha=weight)
    if rows.stop < unit.shape[1]:
        rest = sign[..., rows.stop - rows.start :].mT
        pull[:, rows.stop :].baddbmm_(rest, unit[:, rows], beta=keep, alpha=weight)
