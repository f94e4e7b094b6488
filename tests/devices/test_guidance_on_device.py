"""Every part of the guidance on a device: the CPU's numbers, and no wait."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from fresco.guidance.batch import BatchGuidance
from fresco.guidance.guide import FrescoGuide
from fresco.guidance.ports import Rows, Site, Step
from fresco.settings import PRESETS, GuidanceSettings
from tests.helpers.guided import Linears, random_ring, sd15_sigmas
from tests.helpers.strict_device import Log
from tests.helpers.tolerances import EXACT_BY_DTYPE, OPTIMIZATION_MEAN

SIGMAS = sd15_sigmas()
HEIGHT, WIDTH = 64, 48
SITE, ROWS = Site(3, 0), Rows(3, ("negative", "positive"))
OFF = GuidanceSettings(**PRESETS["off"])
PARTS: dict[str, GuidanceSettings] = {
    name: dataclasses.replace(OFF, optimization_iterations=3, **values) for name, values in {
        "spatial-guided attention": {"spatial_attention": True},
        "cross-frame attention": {"cross_frame_attention": True},
        "temporal-guided attention": {"temporal_attention": True},
        "spatial loss": {"spatial_optimization": True},
        "temporal loss": {"temporal_optimization": True},
        "smoothing": {"background_smoothing": True},
        "freeu": {"freeu_b1": 1.2, "freeu_s1": 0.9},
    }.items()
}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class SentLinears(Linears):
    """The same maps on a device."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(1)
        super().__init__(8, 2, dtype)
        for name in ("_query", "_key", "_value", "_output"):
            setattr(self, name, getattr(self, name).to(device))


@dataclasses.dataclass(frozen=True)
class Work:
    """One call's worth of guidance on a device."""

    guide: FrescoGuide
    h: Tensor
    skip: Tensor
    x: Tensor
    images: Tensor
    project: Linears

    @classmethod
    def make(cls, settings: GuidanceSettings, device: torch.device, dtype: torch.dtype) -> Work:
        torch.manual_seed(3)
        ring = random_ring(3, HEIGHT, WIDTH)
        for occlusion in (ring.forward_occlusion, ring.backward_occlusion):
            occlusion[:, 20:] = 0
        batch = BatchGuidance.build(
            255 * torch.rand(3, 3, HEIGHT, WIDTH), ring, torch.rand(3, 1, 32, 24), settings, device
        )
        guide = FrescoGuide(batch, settings, SIGMAS)
        guide.begin([SIGMAS[951], SIGMAS[1]])
        guide.step(Step(0, 2, SIGMAS[951]))
        h, skip = (torch.randn(6, 6, 8, 6).to(device, dtype) for _ in range(2))
        x, images = torch.randn(6, 48, 8).to(device, dtype), torch.rand(3, 3, HEIGHT, WIDTH)
        return cls(guide, h, skip, x, images.to(device), SentLinears(device, dtype))

    def capture(self) -> None:
        with self.guide.capturing():
            self.guide.decoder_entry(0, self.h.flip(0), ROWS)
            self.guide.self_attention(SITE, self.x.flip(0), self.project, ROWS)

    def call(self) -> list[Tensor]:
        guide = self.guide
        attended = guide.self_attention(SITE, self.x, self.project, ROWS)
        entered = guide.decoder_entry(0, self.h, ROWS)
        found = [entered, *guide.decoder_block(0, entered, self.skip, ROWS)]
        found += [] if attended is None else [attended]
        if guide.smooths(Step(1, 2, SIGMAS[121])):
            found.append(guide.smooth(self.images))
        return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("part", PARTS)
def test_parts_give_the_cpus_numbers(device: torch.device, part: str, dtype: torch.dtype) -> None:
    settings = PARTS[part]
    works = [Work.make(settings, torch.device(place), dtype) for place in ("cpu", device)]
    for work in works:
        work.capture()
    expected, found = (work.call() for work in works)
    assert [x.dtype for x in found] == [x.dtype for x in expected]
    for one, other in zip(expected, found, strict=True):
        assert other.device == device
        error = (one.float() - other.cpu().float()).abs()
        if part.endswith("loss"):  # sums in another order, and L1 with Adam amplifies rounding
            assert error.mean() < OPTIMIZATION_MEAN
        else:
            assert error.max() < EXACT_BY_DTYPE[dtype]


def test_a_guided_call_waits_for_nothing(device: torch.device, log: Log) -> None:
    settings = GuidanceSettings(
        background_smoothing=True, optimization_iterations=2, freeu_b1=1.2, freeu_s1=0.9
    )
    work = Work.make(settings, device, torch.float16)
    log.clear()
    work.capture()
    assert log.waits == []
    work.call()
    # Motion at the size of a feature comes with its first use: one copy of indices, one of weights.
    assert len(log.waits) == 2, log
    log.clear()
    work.call()
    assert log.waits == [], log


def test_a_batch_is_sent_with_few_copies(device: torch.device, log: Log) -> None:
    settings = GuidanceSettings(background_smoothing=True)
    Work.make(settings, device, torch.float32)
    own = [wait for wait in log.waits if wait.place.startswith("fresco/")]
    assert len(own) == 3, log  # indices; what is linked; flow, occlusion and mask
    assert {wait.kind for wait in own} == {"to device"}
