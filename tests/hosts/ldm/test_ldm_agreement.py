"""The same weights give the same numbers under ldm, sgm and diffusers, guided or not."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fresco.guidance.guide import BatchGuidance, FrescoGuide
from fresco.guidance.ports import Step
from fresco.hosts.diffusers.unet import DiffusersUNet
from fresco.hosts.ldm.unet import LdmUNet
from fresco.settings import PRESETS, GuidanceSettings
from tests.helpers.guided import random_ring, sd15_sigmas
from tests.helpers.ldm_hosts import (
    FRAMES,
    LATENT,
    Outputs,
    Twins,
    call_diffusers,
    call_ldm,
    farthest,
    make_twins,
    mean_difference,
    random_inputs,
)
from tests.helpers.ldm_unet import SHAPES
from tests.helpers.tolerances import EXACT_BY_DTYPE, OPTIMIZATION_MEAN

AGREES = EXACT_BY_DTYPE[torch.float32]
SIGMAS = sd15_sigmas()
OFF = GuidanceSettings(**PRESETS["off"])
SETTINGS = {
    "off": OFF,
    "attention": GuidanceSettings(**PRESETS["attention"]),
    "optimization": dataclasses.replace(
        OFF, spatial_optimization=True, temporal_optimization=True, optimization_iterations=8
    ),
    "all": GuidanceSettings(
        background_smoothing=True, optimization_iterations=3,
        freeu_b1=1.2, freeu_b2=1.1, freeu_s1=0.9, freeu_s2=0.8,
    ),
}


@pytest.fixture(scope="module", params=SHAPES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def twins(family: str) -> Twins:
    return make_twins(family)


def guide_of(settings: GuidanceSettings, family: str) -> FrescoGuide:
    """A guide in its first step of two."""
    if family == "sdxl":  # motion paths lie at 1/8 and 1/16, SDXL's layers at 1/16 and 1/32
        settings = dataclasses.replace(settings, temporal_attention=False)
    torch.manual_seed(5)
    side = 8 * LATENT
    ring = random_ring(FRAMES, side, side)
    for occlusion in (ring.forward_occlusion, ring.backward_occlusion):
        occlusion[:, 20:] = 0  # a scattered fifth would occlude every cell of the coarse stages
    batch = BatchGuidance.build(
        255 * torch.rand(FRAMES, 3, side, side), ring,
        torch.rand(FRAMES, 1, side // 2, side // 2), settings, "cpu",
    )
    guide = FrescoGuide(batch, settings, SIGMAS)
    guide.begin([SIGMAS[401], SIGMAS[1]])
    guide.step(Step(0, 2, SIGMAS[401]))
    return guide


def guided_diffusers(twins: Twins, guide: FrescoGuide, *, apart: bool) -> Outputs:
    adapter = DiffusersUNet(twins.diffusers)
    with adapter.installed(guide):
        with guide.capturing():
            call_diffusers(adapter, random_inputs(1), apart=apart)
        return call_diffusers(adapter, random_inputs(), apart=apart)


def guided_ldm(twins: Twins, guide: FrescoGuide, *, apart: bool) -> Outputs:
    adapter = LdmUNet(twins.ldm)
    with adapter.installed(guide):
        with guide.capturing():
            call_ldm(adapter, random_inputs(1), twins, apart=apart)
        return call_ldm(adapter, random_inputs(), twins, apart=apart)


def test_places_are_called_the_same(twins: Twins) -> None:
    ldm, diffusers = LdmUNet(twins.ldm), DiffusersUNet(twins.diffusers)
    assert ldm.stages == diffusers.stages
    assert ldm.sites == diffusers.sites


@pytest.mark.parametrize(("parts", "apart"), [*((name, False) for name in SETTINGS), ("all", True)])
def test_hosts_agree(twins: Twins, family: str, parts: str, apart: bool) -> None:
    """Rows in calls apart are tried with all parts; `test_layouts_agree` has single ones.

    Both evaluate as many rows at once: L1 with Adam amplifies the rounding of other batches.

    Where the plain UNets themselves differ by rounding, which depends on the processor, a whole
    optimisation is compared by its mean only.
    """
    plain = call_ldm(LdmUNet(twins.ldm), random_inputs(), twins, apart=apart)
    same = call_diffusers(DiffusersUNet(twins.diffusers), random_inputs(), apart=apart)
    expected = guided_diffusers(twins, guide_of(SETTINGS[parts], family), apart=apart)
    found = guided_ldm(twins, guide_of(SETTINGS[parts], family), apart=apart)
    if parts in ("optimization", "all") and farthest(plain, same) > 0:
        assert farthest(plain, same) < AGREES
        assert mean_difference(found, expected) < OPTIMIZATION_MEAN
        assert mean_difference(found, plain) > 4 * OPTIMIZATION_MEAN
        return
    assert farthest(found, expected) < AGREES
    if parts == "off":
        assert farthest(found, plain) == 0
    else:
        assert farthest(found, plain) > 100 * AGREES


@pytest.mark.parametrize("parts", ["off", "attention"])
def test_layouts_agree(twins: Twins, family: str, parts: str) -> None:
    together = guided_ldm(twins, guide_of(SETTINGS[parts], family), apart=False)
    apart = guided_ldm(twins, guide_of(SETTINGS[parts], family), apart=True)
    assert farthest(together, apart) < AGREES


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_stays_half(dtype: torch.dtype) -> None:
    """A half UNet, and an fp32 one under a host's autocast; both layouts give the same."""
    settings = SETTINGS["attention"]
    exact = guided_ldm(make_twins("sd1"), guide_of(settings, "sd1"), apart=False)
    twins = make_twins("sd1")
    twins.ldm.to(dtype)
    adapter, guide = LdmUNet(twins.ldm), guide_of(settings, "sd1")
    found: list[Outputs] = []
    for apart in (False, True):
        with adapter.installed(guide):
            with guide.capturing():
                call_ldm(adapter, random_inputs(1).to(dtype), twins, apart=apart)
            found.append(call_ldm(adapter, random_inputs().to(dtype), twins, apart=apart))
    assert {tensor.dtype for tensor in found[0].values()} == {dtype}
    assert farthest(found[0], exact) < 3 * EXACT_BY_DTYPE[dtype]
    assert farthest(found[0], found[1]) < EXACT_BY_DTYPE[dtype]


def test_autocast_is_the_hosts_affair() -> None:
    twins = make_twins("sd1")
    exact = guided_ldm(twins, guide_of(SETTINGS["attention"], "sd1"), apart=False)
    with torch.autocast("cpu", torch.bfloat16):
        found = guided_ldm(twins, guide_of(SETTINGS["attention"], "sd1"), apart=False)
        every = guided_ldm(twins, guide_of(SETTINGS["all"], "sd1"), apart=True)
    assert farthest(found, exact) < 3 * EXACT_BY_DTYPE[torch.bfloat16]
    assert all(bool(tensor.isfinite().all()) for tensor in every.values())
    assert {tensor.dtype for tensor in every.values()} == {torch.bfloat16}


def test_inference_mode_gives_the_same() -> None:
    twins = make_twins("sd1")
    expected = guided_ldm(twins, guide_of(SETTINGS["all"], "sd1"), apart=False)
    with torch.inference_mode():
        found = guided_ldm(twins, guide_of(SETTINGS["all"], "sd1"), apart=False)
    assert farthest(found, expected) == 0
