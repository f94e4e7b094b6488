"""FreeU acts where it is published to act: at every block of the two coarsest decoder stages.

Compared with diffusers' own FreeU. That one scales the backbone by a constant, so for this test
ours does too.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from fresco.guidance import freeu
from fresco.guidance.batch import BatchGuidance
from fresco.guidance.guide import FrescoGuide
from fresco.guidance.ports import Step
from fresco.hosts.diffusers.unet import DiffusersUNet
from fresco.hosts.ldm.unet import LdmUNet
from fresco.settings import PRESETS, GuidanceSettings
from tests.helpers.guided import sd15_sigmas, still_ring
from tests.helpers.ldm_hosts import (
    FRAMES,
    LATENT,
    Twins,
    call_diffusers,
    call_ldm,
    farthest,
    make_twins,
    random_inputs,
)
from tests.helpers.ldm_unet import SHAPES
from tests.helpers.tolerances import EXACT_BY_DTYPE

FACTORS = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
SIGMAS = sd15_sigmas()


@pytest.fixture(scope="module", params=SHAPES)
def twins(request: pytest.FixtureRequest) -> Twins:
    return make_twins(request.param)


def guide_of(factors: dict[str, float]) -> FrescoGuide:
    values = {f"freeu_{name}": factor for name, factor in factors.items()}
    settings = dataclasses.replace(GuidanceSettings(**PRESETS["off"]), **values)
    side = 8 * LATENT
    images = torch.zeros(FRAMES, 3, side, side)
    batch = BatchGuidance.build(images, still_ring(FRAMES, side, side), None, settings, "cpu")
    guide = FrescoGuide(batch, settings, SIGMAS)
    guide.begin([SIGMAS[401]])
    guide.step(Step(0, 1, SIGMAS[401]))
    return guide


def scale_by_a_constant(h: Tensor, factor: float) -> Tensor:
    half = h.shape[1] // 2
    return torch.cat([h[:, :half] * factor, h[:, half:]], dim=1)


def test_places_are_the_published_ones(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeu, "scale_backbone", scale_by_a_constant)
    diffusers, ldm = DiffusersUNet(twins.diffusers), LdmUNet(twins.ldm)
    plain = call_diffusers(diffusers, random_inputs())
    twins.diffusers.enable_freeu(**FACTORS)
    try:
        published = call_diffusers(diffusers, random_inputs())
    finally:
        twins.diffusers.disable_freeu()
    guide = guide_of(FACTORS)
    with diffusers.installed(guide), ldm.installed(guide):
        found = call_diffusers(diffusers, random_inputs())
        same = call_ldm(ldm, random_inputs(), twins)
    assert farthest(published, plain) > 100 * EXACT_BY_DTYPE[torch.float32]
    assert farthest(found, published) < EXACT_BY_DTYPE[torch.float32]
    assert farthest(same, published) < EXACT_BY_DTYPE[torch.float32]
