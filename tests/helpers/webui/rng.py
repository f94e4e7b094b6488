"""`modules.rng`: one generator a picture, so that a picture does not depend on its batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.helpers.webui import devices

_ALIKE = 0.9995


def _slerp(share: float, low: Tensor, high: Tensor) -> Tensor:
    cosine = torch.nn.functional.cosine_similarity(low, high, dim=1)
    if cosine.mean() > _ALIKE:
        return torch.lerp(low, high, share)
    angle = cosine.acos()
    first, second = (((1 - share) * angle).sin(), (share * angle).sin())
    return (first / angle.sin())[:, None] * low + (second / angle.sin())[:, None] * high


class ImageRNG:
    """Noise of a batch: the first draw is the start, later ones are the sampler's."""

    def __init__(
        self, shape: Sequence[int], seeds: Sequence[int], subseeds: Sequence[int] | None = None,
        subseed_strength: float = 0.0, seed_resize_from_h: int = 0, seed_resize_from_w: int = 0,
    ) -> None:
        self.shape = tuple(int(side) for side in shape)
        self.seeds, self.subseeds, self.subseed_strength = seeds, subseeds, subseed_strength
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.is_first = True

    def next(self) -> Tensor:
        """[N, C, h, w]."""
        noise = [torch.randn(self.shape, generator=source) for source in self.generators]
        if self.is_first:
            self.is_first = False
            for seed in self.seeds:
                torch.manual_seed(int(seed))  # the WebUI leaves torch's own generator like this
            if self.subseeds is not None and self.subseed_strength:
                noise = [_slerp(self.subseed_strength, x, self._first(seed))
                         for x, seed in zip(noise, self.subseeds, strict=False)]
        return torch.stack(noise).to(devices.device)

    def _first(self, seed: int) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(int(seed)))
