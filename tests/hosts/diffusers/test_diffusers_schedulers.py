"""Schedulers by name, their noise levels, and conversions of the model's output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler

from fresco.errors import HostError, SettingsError
from fresco.hosts.diffusers import schedulers
from fresco.hosts.diffusers.schedulers import (
    SCHEDULERS,
    create_scheduler,
    find_exact_sigma,
    find_scheduler,
    plan_timesteps,
)
from fresco.hosts.noise import compute_model_sigmas, from_estimate, interpolate_sigmas, to_estimate
from fresco.progress import Progress
from tests.helpers.shared import ROOT
from tests.helpers.tiny_models import tiny_host, tiny_request
from tests.helpers.tolerances import EXACT_BY_DTYPE

NAMES = [*(name for name in SCHEDULERS if name not in ("dpm++-sde", "plms")), "dpm++-2m-karras"]
BASE = DDPMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
)


def test_default_is_the_official_schedule() -> None:
    scheduler = create_scheduler("ddpm", BASE.config)
    assert plan_timesteps(scheduler, 20, 1.0).tolist() == list(range(951, 0, -50))
    assert plan_timesteps(scheduler, 20, 0.75).tolist() == list(range(701, 0, -50))


@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_recovers_what_a_perfect_model_knows(name: str) -> None:
    """With the true noise as prediction, every solver must end at the clean latents."""
    scheduler = create_scheduler(name, BASE.config)
    timesteps = plan_timesteps(scheduler, 12, 0.5)
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(2, 4, 4, 4, generator=generator)
    noise = torch.randn(2, 4, 4, 4, generator=generator)
    latents = scheduler.add_noise(clean, noise, timesteps[:1].repeat(2))
    sigmas = compute_model_sigmas(scheduler.alphas_cumprod)
    for t, sigma in zip(timesteps, interpolate_sigmas(timesteps, sigmas), strict=True):
        x = scheduler.scale_model_input(latents, t)
        exact = find_exact_sigma(scheduler, t, sigma)
        assert exact == pytest.approx(sigma, rel=0.03, abs=0.03)  # timesteps are rounded
        output = from_estimate(clean, x, exact, "epsilon")
        latents = scheduler.step(output, t, latents, return_dict=False)[0]
    # Some end at the cleanest training level, 0.029, instead of 0; noise reaches 3.
    assert float((latents - clean).abs().max()) < 0.12


@pytest.mark.parametrize("name", ["ddpm", "ddim", "lcm", "tcd"])
def test_latents_are_never_cut_whatever_scheduler_the_model_came_with(name: str) -> None:
    foreign = EulerDiscreteScheduler(beta_schedule="scaled_linear").config
    assert "clip_sample" not in foreign
    assert create_scheduler(name, foreign).config.clip_sample is False


@pytest.mark.parametrize(
    ("name", "steps", "strength"),
    [("ddpm", 1000, 1.0), ("ddim", 1000, 1.0), ("ddpm", 1001, 0.5), ("lcm", 60, 1.0)],
)
def test_more_steps_than_a_scheduler_knows_are_refused(
    name: str, steps: int, strength: float
) -> None:
    with pytest.raises(SettingsError, match=f"sampling.steps is {steps}; take fewer"):
        plan_timesteps(create_scheduler(name, BASE.config), steps, strength)


def test_a_thousand_steps_are_fine_where_the_first_is_left_out() -> None:
    assert int(plan_timesteps(create_scheduler("ddpm", BASE.config), 1000, 0.999)[0]) == 999


SPACED = [name for name in SCHEDULERS if name not in ("dpm++-2s", "dpm++-sde", "lcm", "tcd")]


@pytest.mark.parametrize("name", [*SPACED, "lcm", "tcd"])
def test_trailing_timesteps_begin_at_the_noisiest(name: str) -> None:
    """Four steps of Turbo and Lightning; those of LCM are its own."""
    scheduler = create_scheduler(name, BASE.config, timesteps="trailing")
    found = list(dict.fromkeys(plan_timesteps(scheduler, 4, 1.0).tolist()))
    assert found[0] == 999
    if name in ("ddpm", "ddim", "euler", "euler-a", "dpm++-2m", "unipc"):
        assert found == [999, 749, 499, 249]


@pytest.mark.parametrize(("timesteps", "first"), [("leading", 751), ("linspace", 999)])
def test_other_places_of_timesteps_can_be_chosen(timesteps: str, first: int) -> None:
    scheduler = create_scheduler("euler", BASE.config, timesteps=timesteps)
    assert int(plan_timesteps(scheduler, 4, 1.0)[0]) == first


@pytest.mark.parametrize(("name", "timesteps", "words"), [
    ("lcm", "leading", "lcm has timesteps of its own, which are trailing"),
    ("dpm++-2s", "trailing", r"dpm\+\+-2s has timesteps of its own, that cannot be moved"),
])
def test_timesteps_that_cannot_be_moved_are_told_before_a_model_is_loaded(
    name: str, timesteps: str, words: str
) -> None:
    with pytest.raises(SettingsError, match=rf"sampling\.timesteps is '{timesteps}'; {words}"):
        tiny_host(Path("no model lies here"), scheduler=name, timesteps=timesteps)


@pytest.mark.parametrize("name", ["DPM++ 2M Karras", "Euler a", "euler_a", "UniPC"])
def test_names_of_the_webui_are_understood(name: str) -> None:
    assert create_scheduler(name, BASE.config) is not None


def test_unknown_names_are_told() -> None:
    with pytest.raises(SettingsError, match="did you mean euler-a"):
        create_scheduler("eular-a", BASE.config)
    with pytest.raises(SettingsError, match="ddpm has no Karras form"):
        create_scheduler("ddpm-karras", BASE.config)


@pytest.mark.parametrize("name", ["dpm++-sde", "DPM++ SDE Karras"])
def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(schedulers, "is_torchsde_available", lambda: False)
    with pytest.raises(HostError, match=r"torchsde.*install"):
        find_scheduler(name)
    for other in NAMES:
        find_scheduler(other)


@pytest.mark.parametrize(("name", "error"), [("dpm++-sde", HostError), ("nothing", SettingsError)])
def test_a_scheduler_is_refused_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, name: str, error: type[Exception]
) -> None:
    monkeypatch.setattr(schedulers, "is_torchsde_available", lambda: False)
    with pytest.raises(error, match=r"sampling\.scheduler is"):
        tiny_host(Path("no model lies here"), scheduler=name)


@pytest.mark.parametrize("name", [*NAMES, "dpm++-sde"])
def test_docs_list_every_scheduler(name: str) -> None:
    text = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    assert f"`{name.removesuffix('-karras')}`" in text


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_estimates_invert_and_agree(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    sigma = 0.7
    a = (1 + sigma**2) ** -0.5
    s = sigma * a
    x = a * clean + s * noise
    output = {"epsilon": noise, "v_prediction": a * noise - s * clean, "sample": clean}[kind]
    tolerance = EXACT_BY_DTYPE[torch.float64]
    assert torch.allclose(to_estimate(output, x, sigma, kind), clean, atol=tolerance)
    assert torch.allclose(from_estimate(clean, x, sigma, kind), output, atol=tolerance)


def test_levels_between_timesteps_lie_between() -> None:
    sigmas = compute_model_sigmas(BASE.alphas_cumprod)
    whole, half = interpolate_sigmas(torch.tensor([350.0, 350.5]), sigmas)
    assert whole == pytest.approx(sigmas[350], rel=1e-9)
    assert sigmas[350] < half < sigmas[351]


@pytest.mark.parametrize("name", ["euler-a", "heun", "dpm++-2m-karras", "lcm", "pndm"])
def test_hosts_sample_with_it(tiny_model: Path, name: str) -> None:
    host = tiny_host(tiny_model, scheduler=name)
    with Progress().stage("test") as stage:
        result = host.sample(tiny_request(), None, stage)
    assert result.images.std() > 1
