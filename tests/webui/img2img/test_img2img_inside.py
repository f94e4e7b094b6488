"""Guided img2img as the WebUI's other parts see it: latents, prompts, seeds, what stays behind."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fresco.guidance.guide import FrescoGuide
from fresco.hosts import coding
from fresco.run.guide import GuideMaker
from tests.helpers.webui import script_callbacks, scripts, shared
from tests.helpers.webui.api import arguments
from tests.helpers.webui.client import REQUEST, Answer, Refused, script_arguments
from tests.helpers.webui.double import DoubleHost
from tests.helpers.webui.process_images import process_images
from tests.helpers.webui.processing import StableDiffusionProcessingImg2Img
from tests.helpers.webui.requests import NONE, QUICK, frames, pixels
from tests.helpers.webui.watcher import Watcher

CALLS = {"Euler": 4, "Euler a": 4, "Heun": 7, "DPM++ 2M": 4, "DDIM": 2, "LCM": 4}
"""Model calls of four steps at a strength of 0.75: DDIM begins a step later, and ends sooner."""
SAME_PICTURE = 1e-3
"""Largest difference of one estimate, pictures in [-1, 1], found in two ways in float32."""
SHARED_NOISE = {"seed": [7] * 4, "batch_size": 4}
"""What a plain call needs for the noise that FRESCO gives to four frames."""


@pytest.mark.parametrize("sampler", CALLS)
def test_anchors_are_pinned_at_every_call(
    double: DoubleHost, watcher: Watcher, sampler: str
) -> None:
    # A third batch, once: what it is given is of the second, not of the first.
    double.img2img(frames(9 if sampler == "Euler" else 6), QUICK | {"batch_size": 4},
                   sampler_name=sampler)
    inputs = [batch.inputs for batch in watcher.iterations]
    assert len(inputs) == (3 if sampler == "Euler" else 2)
    assert {len(batch) for batch in inputs} == {CALLS[sampler]}
    for before, after in itertools.pairwise(inputs):
        for x, y in zip(before, after, strict=True):
            assert torch.equal(y[0], x[0])
            assert torch.equal(y[1], x[-1])


@pytest.mark.parametrize("sampler", CALLS)
def test_unguided_anchors_end_as_before(
    double: DoubleHost, watcher: Watcher, sampler: str
) -> None:
    """What the sampler itself holds was pinned, not only what the model saw."""
    double.img2img(frames(6), NONE | {"batch_size": 4}, sampler_name=sampler)
    first, second = (batch.samples for batch in watcher.iterations)
    assert first is not None
    assert second is not None
    assert torch.equal(second[:2], first[[0, -1]])


def test_consensus_is_with_the_pictures_that_were_returned(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one of the shot, and the last one of the batch before."""
    given: list[Any] = []
    guide = GuideMaker.guide

    def noted(self: GuideMaker, *words: Any, finished: Any, prompts: Any) -> FrescoGuide:
        given.append(finished)
        assert list(prompts) == ["a red car"] * len(prompts)
        return guide(self, *words, finished=finished, prompts=prompts)

    monkeypatch.setattr(GuideMaker, "guide", noted)
    answer = double.img2img(frames(6), NONE | {"batch_size": 4, "consensus": True})
    images = pixels(answer)
    assert given[0] is None
    assert [place.shape for place in given[1:]] == [(2, *images.shape[1:])]
    assert np.array_equal(given[1], images[[0, 2]])
    assert not np.array_equal(images, pixels(double.img2img(frames(6), NONE | {"batch_size": 4})))


class Seeded(scripts.Script):
    """An extension that seeds torch's own generator before the pictures are encoded."""

    active = True

    def title(self) -> str:
        return "Seeded"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def process(self, p: Any, *args: Any, **kwargs: Any) -> None:
        if self.active:
            torch.manual_seed(7)


@pytest.mark.parametrize("sampler", CALLS)
def test_every_part_off_is_bit_equal_to_the_plain_call(
    double: DoubleHost, watcher: Watcher, sampler: str
) -> None:
    """With the seed that FRESCO also gives to torch's generator, which the VAE draws from."""
    seeded = Seeded()
    double.add(seeded)
    plain = double.img2img(frames(4), sampler_name=sampler, **SHARED_NOISE)
    seeded.active = False
    off = double.img2img(frames(4), NONE, sampler_name=sampler)
    assert np.array_equal(pixels(off), pixels(plain))
    one, other = (batch.samples for batch in watcher.iterations)
    assert one is not None
    assert other is not None
    assert torch.equal(one, other)


def test_frames_share_seeds_and_noise(double: DoubleHost, watcher: Watcher) -> None:
    double.img2img(frames(7), QUICK | {"batch_size": 4}, denoising_strength=1.0)
    assert [batch.seeds for batch in watcher.iterations] == [[7] * 4, [7] * 5]
    assert set(double.made[-1].all_seeds) == {7}  # SDE samplers make their noise of these
    for batch in watcher.iterations:
        noise = batch.noise
        assert noise is not None
        assert all(torch.equal(frame, noise[0]) for frame in noise)


def test_the_same_request_gives_the_same_pictures(double: DoubleHost) -> None:
    options = QUICK | {"batch_size": 4, "background_smoothing": True}
    first = double.img2img(frames(7), options, sampler_name="Euler a")
    second = double.img2img(frames(7), options, sampler_name="Euler a")
    assert np.array_equal(pixels(first), pixels(second))


@pytest.mark.parametrize("sampler", CALLS)
def test_smoothing_is_shown_the_denoised_estimate(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    """Also of samplers that work on eps; at a scale of 1 the WebUI's preview shows the same."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def smooth(guide: FrescoGuide, images: torch.Tensor) -> torch.Tensor:
        estimate = double.made[-1].sampler.last_latent
        seen.append((images, double.model.decode_first_stage(estimate)))
        return images

    def steer(guide: FrescoGuide, latents: torch.Tensor) -> torch.Tensor:
        seen.append((latents.clone(), double.made[-1].sampler.last_latent.clone()))
        return latents

    monkeypatch.setattr(FrescoGuide, "smooth", smooth)
    monkeypatch.setattr(FrescoGuide, "steer", steer)
    double.img2img(frames(3), NONE | {"background_smoothing": True, "consensus": True},
                   sampler_name=sampler, cfg_scale=1.0)
    shapes = {shown.shape for shown, _ in seen}
    assert shapes == {(3, 3, 64, 64), (3, 4, 8, 8)}
    for shown, estimate in seen:
        assert (shown - estimate).abs().max() < SAME_PICTURE


def test_the_vae_is_given_one_frame_of_512_at_most(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a part is as large as one frame."""
    monkeypatch.setattr(coding, "PIXELS", frames(1)[0].width * frames(1)[0].height)
    inner = double.model.first_stage_model
    seen: dict[str, list[int]] = {"encoder": [], "decoder": []}

    def smooth(guide: FrescoGuide, images: torch.Tensor) -> torch.Tensor:
        assert seen["decoder"][-len(images):] == [1] * len(images)
        for counts in seen.values():
            counts.clear()
        return images

    monkeypatch.setattr(FrescoGuide, "smooth", smooth)
    with contextlib.ExitStack() as stack:
        for name, counts in seen.items():
            stack.callback(getattr(inner, name).register_forward_pre_hook(
                lambda _, given, counts=counts: counts.append(len(given[0]))).remove)
        double.img2img(frames(3), NONE | {"background_smoothing": True})
    assert seen["encoder"][:6] == [1] * 6


@pytest.mark.parametrize(("payload", "rows"), [
    ({}, [8]), ({"cfg_scale": 1.0}, [8]),
    ({"override_settings": {"batch_cond_uncond": False}}, [4, 4]),
    ({"prompt": "word " * 80}, [4, 4]),
    ({"s_min_uncond": 100.0}, [4, 8]),
])
def test_rows_of_the_model_calls(
    double: DoubleHost, payload: dict[str, Any], rows: list[int]
) -> None:
    """The layouts that are meant were met; the last calls of a sampling tell."""
    double.img2img(frames(4), QUICK | {"spatial_attention": False, "spatial_optimization": False},
                   sampler_name="DDIM" if "s_min_uncond" not in payload else "Euler", **payload)
    called = double.model.rows
    assert sorted(called[-len(rows):]) == sorted(rows)


class Wildcards(scripts.Script):
    """An extension that draws another word for every picture."""

    def title(self) -> str:
        return "Wildcards"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def process(self, p: Any, *args: Any, **kwargs: Any) -> None:
        p.all_prompts = [f"{prompt}, word {n}" for n, prompt in enumerate(p.all_prompts)]


def shots(folder: Path) -> str:
    """A folder of twelve frames with a cut in the middle."""
    for number in range(12):
        value = 20 if number < 6 else 230
        picture = np.full((64, 64, 3), value, np.uint8)
        picture[16:40, 8 + number:28 + number] = 128
        Image.fromarray(picture).save(folder / f"{number:03d}.png")
    return str(folder)


@pytest.mark.parametrize("first", [True, False])
def test_wildcards_are_drawn_once_a_shot(
    double: DoubleHost, watcher: Watcher, tmp_path: Path, first: bool
) -> None:
    double.add(Wildcards(), first=first)
    double.img2img([], QUICK | {
        "path": shots(tmp_path), "min_interval": 1, "max_interval": 1, "batch_size": 4,
    })
    drawn = [set(batch.prompts) for batch in watcher.iterations]
    assert [len(batch.prompts) for batch in watcher.iterations] == [3, 5, 3, 5]
    assert all(len(words) == 1 for words in drawn)
    assert drawn[0] == drawn[1] == {"a red car, word 0"}
    assert drawn[2] == drawn[3] != drawn[0]
    assert {tuple(b.negative_prompts[:1]) for b in watcher.iterations} == {("blurry",)}


def test_words_of_single_keyframes(double: DoubleHost, watcher: Watcher) -> None:
    answer = double.img2img(
        frames(6), QUICK | {"batch_size": 4, "key_prompts": {"1": "night", "5": "rain"}}
    )
    plain = "a red car"
    assert [batch.prompts for batch in watcher.iterations] == [
        [plain, f"{plain}, night", plain], [plain, plain, plain, plain, f"{plain}, rain"],
    ]
    said = [text.partition("\n")[0] for text in answer.infotexts]
    assert said == [plain, f"{plain}, night", plain, plain, plain, f"{plain}, rain"]


def test_a_range_has_a_prompt_a_strength_and_a_seed_of_its_own(
    double: DoubleHost, watcher: Watcher
) -> None:
    answer = double.img2img(frames(5), QUICK | {"batch_size": 4, "ranges": [
        "2-3 prompt=a sea negative=sand strength=0.9 seed=11"]})
    plain, sea = ("a red car", "blurry"), ("a sea", "sand")
    assert [set(zip(each.prompts, each.negative_prompts, strict=True))
            for each in watcher.iterations] == [{plain}, {sea}, {plain}]
    seeds = [text.partition("Seed: ")[2].partition(",")[0] for text in answer.infotexts]
    strengths = [text.partition("Denoising strength: ")[2].partition(",")[0]
                 for text in answer.infotexts]
    assert seeds[2:4] == ["11", "11"]
    assert len(set(seeds[:2] + seeds[4:])) == 1 != len({*seeds})
    assert strengths[2:4] == ["0.9", "0.9"]
    assert strengths[0] == strengths[4] != "0.9"


@pytest.mark.parametrize("options", [None, [False], {"enabled": False}])
def test_off_there_is_no_hook(double: DoubleHost, watcher: Watcher, options: Any) -> None:
    double.img2img(frames(1), options)
    (seen,) = watcher.iterations
    assert seen.hooks == 0
    assert not {"init", "sample", "fresco_guard"} & set(seen.during)


def test_on_there_are_hooks_only_while_it_samples(double: DoubleHost, watcher: Watcher) -> None:
    double.img2img(frames(7), QUICK | {"batch_size": 4})
    assert all(batch.hooks > 0 for batch in watcher.iterations)
    assert watcher.left_behind() == set()
    plain = double.img2img(frames(1))
    assert watcher.iterations[-1].hooks == 0
    assert set(vars(double.made[0])) == set(vars(double.made[1]))
    assert len(plain.images) == 1


def undisturbed(double: DoubleHost, watcher: Watcher, disturb: Callable[[], None]) -> None:
    """A plain call after `disturb` is bit-equal to one before, and nothing is left anywhere."""
    def plain() -> Answer:
        return double.img2img(frames(1), sampler_name="Euler a")

    before = plain()
    disturb()
    assert watcher.left_behind() == set()
    after = plain()
    assert watcher.iterations[-1].hooks == 0
    assert after.infotexts == before.infotexts
    assert np.array_equal(pixels(after), pixels(before))


@pytest.mark.parametrize("where", ["decoder_entry", "self_attention", "step", "smooth"])
def test_a_fault_in_the_guidance_reaches_the_caller(
    double: DoubleHost, watcher: Watcher, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def disturb() -> None:
        with monkeypatch.context() as patch:
            def fail(*args: Any, **kwargs: Any) -> Any:
                raise ZeroDivisionError("no way")

            patch.setattr(FrescoGuide, where, fail)
            with pytest.raises(Refused, match="500: no way"):
                double.img2img(frames(4), QUICK | {"background_smoothing": True})

    undisturbed(double, watcher, disturb)


def test_a_fault_before_a_later_batch_reaches_the_caller(
    double: DoubleHost, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It happens in a callback, where the WebUI would swallow it."""
    inits: list[Any] = []
    before = StableDiffusionProcessingImg2Img.init

    def fail_later(p: Any, *args: Any) -> None:
        inits.append(p)
        if len(inits) == 2:
            raise ZeroDivisionError("no way")
        before(p, *args)

    def disturb() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(StableDiffusionProcessingImg2Img, "init", fail_later)
            with pytest.raises(Refused, match="500: no way"):
                double.img2img(frames(9), QUICK | {"batch_size": 4})
        assert len(inits) == 2

    undisturbed(double, watcher, disturb)


def act_at(call: int, action: Callable[[], None]) -> None:
    """Do something at a model call, as a person who presses a button."""
    seen: list[int] = []

    def listen(_: Any) -> None:
        seen.append(len(seen))
        if len(seen) == call:
            action()

    script_callbacks.on_cfg_after_cfg(listen)


@pytest.mark.parametrize("call", [2, 6])
@pytest.mark.parametrize("sampler", ["Euler a", "Heun"])
def test_interrupt(double: DoubleHost, watcher: Watcher, call: int, sampler: str) -> None:
    """In the first or the second batch: what there is comes back, the rest is left out."""
    def disturb() -> None:
        act_at(call, double.state.interrupt)
        answer = double.img2img(frames(9), QUICK | {"batch_size": 4}, sampler_name=sampler)
        done = 4 if call < CALLS[sampler] else 6
        assert len(answer.images) == done

    undisturbed(double, watcher, disturb)


def test_skipping_a_batch_that_later_ones_need(double: DoubleHost, watcher: Watcher) -> None:
    def disturb() -> None:
        act_at(2, double.state.skip)
        answer = double.img2img(frames(9), QUICK | {"batch_size": 4})
        assert len(answer.images) == 4
        assert "Batch 1 was skipped. Later batches ne" in double.comments
        assert len(watcher.iterations) == 2  # the plain call's, and the one that was skipped

    undisturbed(double, watcher, disturb)


def test_skipping_the_last_batch_returns_what_there_is(
    double: DoubleHost, watcher: Watcher
) -> None:
    act_at(6, double.state.skip)
    assert len(double.img2img(frames(6), QUICK | {"batch_size": 4}).images) == 6


def test_stop_generating_ends_after_the_batch(double: DoubleHost) -> None:
    act_at(2, lambda: setattr(double.state, "stopping_generation", True))
    assert len(double.img2img(frames(9), QUICK | {"batch_size": 4}).images) == 4


def test_notes_reach_the_person(double: DoubleHost) -> None:
    double.img2img(frames(3), QUICK)
    assert "by OpenCV DIS" in double.comments


def test_two_calls_with_one_processing_object(double: DoubleHost, watcher: Watcher) -> None:
    """Scripts such as Loopback take the same object again."""
    p = StableDiffusionProcessingImg2Img(**REQUEST)
    p.scripts = double.runner
    p.script_args = tuple(arguments(double.runner, script_arguments(QUICK)))
    for _ in range(2):
        p.init_images, p.batch_size, p.n_iter = frames(3), 1, 1
        shared.state.begin("batch")
        assert len(process_images(p).images) == 3
    assert not {"init", "sample", "fresco_guard"} & set(vars(p))
