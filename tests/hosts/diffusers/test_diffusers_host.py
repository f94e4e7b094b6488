"""The diffusers host as a whole, on a small real model."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fresco.errors import Cancelled, HostError, OutOfMemoryError
from fresco.flow.occlusion import BidirectionalFlow
from fresco.guidance.guide import BatchGuidance, FrescoGuide
from fresco.guidance.ports import BatchCarry, BatchRequest, BatchResult, SamplingGuide
from fresco.hosts.diffusers import host as diffusers_host
from fresco.hosts.diffusers.host import DiffusersHost, compute_fingerprint
from fresco.progress import Progress, StageStatus
from fresco.settings import PRESETS, GuidanceSettings, SamplingSettings
from tests.helpers.tiny_models import square_frames, tiny_host, tiny_request

OFF = GuidanceSettings(**PRESETS["off"])


def sample(
    host: DiffusersHost, request: BatchRequest, guide: SamplingGuide | None = None
) -> BatchResult:
    with Progress().stage("test", 3) as stage:
        return host.sample(request, guide, stage)


def guide_for(
    host: DiffusersHost, request: BatchRequest, settings: GuidanceSettings
) -> FrescoGuide:
    count, height, width, _ = request.frames.shape
    still, clear = torch.zeros(count, 2, height, width), torch.zeros(count, height, width)
    images = torch.from_numpy(request.frames).permute(0, 3, 1, 2).float()
    flow = BidirectionalFlow(still, still, clear, clear)
    saliency = torch.ones(count, 1, height // 8, width // 8)
    batch = BatchGuidance.build(images, flow, saliency, settings, "cpu")
    return FrescoGuide(batch, settings, host.model_sigmas)


def test_equal_seeds_give_equal_bytes_and_others_do_not(
    host: DiffusersHost, tiny_model: Path
) -> None:
    first, again = sample(host, tiny_request()), sample(host, tiny_request())
    assert first.images.tobytes() == again.images.tobytes()
    assert all(map(torch.equal, first.carry.latents, again.carry.latents))
    other = tiny_host(tiny_model, seed=8)
    assert sample(other, tiny_request()).images.tobytes() != first.images.tobytes()
    assert other.fingerprint != host.fingerprint


def test_result_has_the_promised_shapes(host: DiffusersHost) -> None:
    result = sample(host, tiny_request(4))
    assert result.images.shape == (4, 64, 64, 3)
    assert result.images.dtype == np.uint8
    assert [tuple(pair.shape) for pair in result.carry.latents] == [(2, 4, 8, 8)] * 3
    assert len(host.model_sigmas) == 1000
    assert list(host.model_sigmas) == sorted(host.model_sigmas)
    assert host.model_sigmas[350] == pytest.approx(0.987, abs=1e-3)  # docs/method.md, section 9


def test_all_parts_off_is_bit_equal_to_no_guide_and_leaves_the_model_alone(
    host: DiffusersHost,
) -> None:
    request = tiny_request()
    alone = sample(host, request)
    off = sample(host, request, guide_for(host, request, OFF))
    assert off.images.tobytes() == alone.images.tobytes()
    guided = sample(host, request, guide_for(host, request, GuidanceSettings()))
    assert guided.images.tobytes() != alone.images.tobytes()
    assert sample(host, request).images.tobytes() == alone.images.tobytes()


def test_frames_do_not_depend_on_their_company_without_guidance(host: DiffusersHost) -> None:
    """Equal frames start from equal latents: posterior and initial noise are one frame's."""
    frames = np.repeat(square_frames(1), 3, axis=0)
    first = sample(host, tiny_request(frames=frames)).carry.latents[0]
    assert torch.equal(first[0], first[1])


def test_anchors_are_pinned_to_the_batch_before(host: DiffusersHost) -> None:
    carry = BatchCarry(tuple(torch.full((2, 4, 8, 8), 0.1 * k + 0.1) for k in range(3)))
    result = sample(host, tiny_request(4, carry=carry))
    for pair, given in zip(result.carry.latents, carry.latents, strict=True):
        assert torch.equal(pair[0], given[0])  # the first row is recorded after pinning
        assert not torch.equal(pair[1], given[1])


def test_carry_of_other_settings_is_refused(host: DiffusersHost) -> None:
    with pytest.raises(HostError, match="has 2 model calls, this one 3"):
        sample(host, tiny_request(carry=BatchCarry((torch.zeros(2, 4, 8, 8),) * 2)))


@pytest.mark.parametrize("scheduler", ["ddpm", "euler-a", "heun"])
def test_strength_zero_is_the_round_trip(tiny_model: Path, scheduler: str) -> None:
    host = tiny_host(tiny_model, strength=0.0, scheduler=scheduler)
    request = tiny_request()
    result = sample(host, request, guide_for(host, request, GuidanceSettings()))
    assert result.images.tobytes() == host.reconstruct(request.frames).tobytes()
    assert result.carry == BatchCarry(())


def test_round_trip_keeps_the_colours_of_blocks(host: DiffusersHost) -> None:
    """The demo's VAE is an average of 8x8 pixels."""
    frames = square_frames(2)
    blocks = frames.reshape(2, 8, 8, 8, 8, 3).mean(axis=(2, 4))
    pixels = host.reconstruct(frames)[:, 4::8, 4::8].astype(float)
    assert np.abs(pixels - blocks).max() <= 1.0


@pytest.mark.parametrize(("strength", "calls"), [(0.8, 4), (0.1, 0), (0.5, 2), (1.0, 5)])
def test_strength_rounds_to_steps(tiny_model: Path, strength: float, calls: int) -> None:
    """0.8 of 5 is 4 steps, and 2.5 rounds to even. The official tool truncates
    (docs/method.md, section 12)."""
    host = tiny_host(tiny_model, strength=strength, steps=5)
    assert len(sample(host, tiny_request()).carry.latents) == calls


def test_no_guidance_scale_runs_the_positive_chunk_only(tiny_model: Path) -> None:
    host = tiny_host(tiny_model, guidance_scale=1.0)
    request = tiny_request()
    changed = tiny_request(negative_prompts=("something else",) * 3)
    assert sample(host, request).images.tobytes() == sample(host, changed).images.tobytes()
    guided = sample(host, request, guide_for(host, request, GuidanceSettings()))
    assert guided.images.shape == request.frames.shape


def test_every_frame_has_its_own_prompt(host: DiffusersHost) -> None:
    base = sample(host, tiny_request())
    prompts = ("a red car", "a dark forest, oil painting", "a red car")
    changed = sample(host, tiny_request(prompts=prompts))
    same = [np.array_equal(a, b) for a, b in zip(base.images, changed.images, strict=True)]
    assert same == [True, False, True]


class Failing:
    """Stands before the UNet's forward; fails when more rows than allowed come."""

    def __init__(self, host: DiffusersHost, most: int, error: Exception) -> None:
        self._forward, self._most, self._error = host.unet.unet.forward, most, error

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(x) > self._most:
            raise self._error
        return self._forward(x, *args, **kwargs)


def test_without_memory_for_both_chunks_they_run_one_by_one(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host, request = tiny_host(tiny_model), tiny_request()
    settings = GuidanceSettings(**PRESETS["attention"])  # optimisation would amplify rounding
    whole = sample(host, request, guide_for(host, request, settings))
    error = torch.OutOfMemoryError("out of memory. Tried to allocate 1 GiB")
    monkeypatch.setattr(host.unet.unet, "forward", Failing(host, 3, error))
    split = sample(host, request, guide_for(host, request, settings))
    assert "one conditioning a call" in caplog.text
    assert np.abs(whole.images.astype(int) - split.images.astype(int)).max() <= 1


def test_without_memory_for_one_chunk_the_error_has_our_name(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = tiny_host(tiny_model)
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 GB\nmore")
    monkeypatch.setattr(host.unet.unet, "forward", Failing(host, 0, error))
    with pytest.raises(OutOfMemoryError, match=r"batch of 3 frames \(DefaultCPUAllocator"):
        sample(host, tiny_request())


def test_other_errors_of_the_model_pass(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = tiny_host(tiny_model)
    monkeypatch.setattr(host.unet.unet, "forward", Failing(host, 0, RuntimeError("bad shape")))
    with pytest.raises(RuntimeError, match="bad shape"):
        sample(host, tiny_request())


def test_a_scheduler_with_noise_of_its_own_is_seeded(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dpm++-sde`, whose package may be absent."""
    host = tiny_host(tiny_model, seed=7)
    own = SimpleNamespace(noise_sampler_seed=None)
    monkeypatch.setattr(diffusers_host, "create_scheduler", lambda *_, **__: own)
    assert host._make_scheduler(7).noise_sampler_seed == 7


def test_nan_is_told_with_its_call(tiny_model: Path) -> None:
    host = tiny_host(tiny_model)
    host.unet.unet.conv_out.weight.data.fill_(float("nan"))
    with pytest.raises(HostError, match=r"NaN or infinite values in call 1 of 3 .*float32"):
        sample(host, tiny_request())


def test_cancelling_leaves_the_model_clean(host: DiffusersHost) -> None:
    progress, request = Progress(), tiny_request()

    def stop(status: StageStatus) -> None:
        if status.done == 1:
            progress.token.cancel()

    progress = Progress(stop)
    plain = sample(host, request)
    with pytest.raises(Cancelled), progress.stage("test", 3) as stage:
        host.sample(request, guide_for(host, request, GuidanceSettings()), stage)
    assert sample(host, request).images.tobytes() == plain.images.tobytes()


def test_smoothing_that_does_nothing_changes_nothing(host: DiffusersHost) -> None:
    """The loss of decoding and encoding is compensated: identity in, identity out."""

    class Idle(FrescoGuide):
        def smooths(self, step: Any) -> bool:
            return True

        def smooth(self, images: Tensor) -> Tensor:
            return images

    request = tiny_request()
    settings = dataclasses.replace(OFF, background_smoothing=True)
    guide = guide_for(host, request, OFF)
    idle = Idle(guide._batch, settings, host.model_sigmas)
    idle.decoder_entry = lambda stage, h, rows: h
    plain, smoothed = sample(host, request), sample(host, request, idle)
    assert np.abs(plain.images.astype(int) - smoothed.images.astype(int)).max() <= 1


def test_half_precision_runs_with_all_parts(tiny_model: Path) -> None:
    host = tiny_host(tiny_model, dtype="bfloat16")
    request = tiny_request()
    settings = GuidanceSettings(background_smoothing=True)
    result = sample(host, request, guide_for(host, request, settings))
    assert result.images.shape == request.frames.shape


def test_the_fingerprint_does_not_depend_on_the_order_of_defaults(host: DiffusersHost) -> None:
    parts = host._parts
    names = ["b", "a", "c"]
    prints = {
        compute_fingerprint(
            dataclasses.replace(parts, schedule={**parts.schedule, "_use_default_values": order}),
            SamplingSettings(),
        )
        for order in (names, names[::-1])
    }
    assert len(prints) == 1


def test_the_fingerprint_is_that_of_weights_and_options_not_of_names_and_devices(
    host: DiffusersHost, tiny_model: Path, tmp_path: Path
) -> None:
    renamed = shutil.copytree(tiny_model, tmp_path / "renamed")
    other = tiny_host(renamed, canny_low=3, device="cpu:0", resolution=640)
    assert other.fingerprint == host.fingerprint
    parts, settings = host._parts, host._settings
    for changes in ({"steps": 5}, {"dtype": "float32"}, {"scheduler": "ddim"}):
        changed = dataclasses.replace(settings, **changes)
        assert compute_fingerprint(parts, changed) != host.fingerprint
    halved = dataclasses.replace(parts, vae=copy.deepcopy(parts.vae).half())  # as on CUDA
    assert compute_fingerprint(halved, settings) == host.fingerprint
    vae = copy.deepcopy(parts.vae)
    with torch.no_grad():
        next(vae.parameters()).view(-1)[0] += 1
    assert compute_fingerprint(dataclasses.replace(parts, vae=vae), settings) != host.fingerprint


@pytest.mark.parametrize("scheduler", ["dpm++-2s", "heun", "dpm2-a"])
def test_the_stage_counts_every_call_of_every_scheduler(tiny_model: Path, scheduler: str) -> None:
    """Schedulers of second order call the model twice a step, but for the last."""
    seen: list[StageStatus] = []
    with Progress(seen.append).stage("batch") as stage:
        tiny_host(tiny_model, scheduler=scheduler).sample(tiny_request(), None, stage)
    calls = 3 if scheduler == "dpm++-2s" else 5
    assert seen[-1].done == seen[-1].total == calls
    assert all(status.done <= status.total for status in seen)
