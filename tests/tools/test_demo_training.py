"""The pieces of the demo model's training: looks, captions, the path it learns, export."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fresco.hosts.diffusers.load import load_host
from fresco.settings import SamplingSettings
from tests.helpers.tolerances import HALF_WEIGHTS_LEVELS, HALF_WEIGHTS_RELATIVE
from tools import train_demo_model
from tools.demo_training import (
    autoencoder,
    diffusion,
    images,
    linear_bound,
    networks,
    progress,
    prompts,
    scenes,
    store,
    views,
)
from tools.demo_training import styles as looks
from tools.demo_training.export import export
from tools.demo_training.views import PLAIN, View

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "demo" / "model" / "fresco-demo"
LIMIT = 40_000_000
"""Bytes that the model may take."""
SMALL = networks.Widths((64, 64, 64, 64), 1)
"""For tests of what does not depend on the widths of a UNet."""
SIMPLE = networks.Widths((96, 96, 96, 96), 0)
"""The same for an autoencoder."""
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return scenes.draw_scene(4, 192).image


def saturation(image: NDArray[np.uint8]) -> float:
    return float(cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1].mean())


@pytest.mark.parametrize("name", [name for name in looks.STYLES if name != PLAIN])
def test_a_look_changes_the_picture_the_same_way_each_time(
    name: str, picture: NDArray[np.uint8]
) -> None:
    made = looks.STYLES[name][0](picture)
    assert made.shape == picture.shape
    assert made.dtype == np.uint8
    assert np.array_equal(made, looks.STYLES[name][0](picture))
    assert np.abs(made.astype(int) - picture).mean() > 5


def test_looks_are_what_they_are_called(picture: NDArray[np.uint8]) -> None:
    assert saturation(looks.sketch(picture)) == 0
    assert looks.sketch(picture).mean() > picture.mean()
    night = looks.night(picture)
    assert night.mean() < picture.mean() * 0.6
    assert night[..., 2].mean() > night[..., 0].mean()
    assert saturation(looks.cartoon(picture)) > saturation(picture)
    block = looks.pixel_art(picture)[8:16, 16:24].reshape(-1, 3)
    assert (block == block[0]).all()
    green = np.full((32, 32, 3), (60, 160, 60), np.uint8)
    leaf = looks.autumn(green)[16, 16]
    assert leaf[0] > leaf[1] > leaf[2]
    edge = np.zeros((64, 64, 3), np.uint8)
    edge[:, 32:] = 255
    lit = looks.neon(edge).astype(int).sum(axis=-1)
    assert lit[:, 30:34].mean() > lit[:, :8].mean() + 200


def test_a_caption_names_its_look_and_its_content() -> None:
    chance = random.Random(0)
    words = [prompts.write_caption("night", "a red car", chance, dropped=0.0) for _ in range(200)]
    assert all(any(look in text for look in looks.STYLES["night"][1]) for text in words)
    assert 0.5 < np.mean(["a red car" in text for text in words]) < 0.9
    empty = [prompts.write_caption("night", "", chance) == "" for _ in range(2000)]
    assert 0.07 < np.mean(empty) < 0.13


def test_no_two_looks_are_asked_for_alike() -> None:
    words = [word for _, names in looks.STYLES.values() for word in names]
    assert len(words) == len(set(words))


def test_a_scene_is_drawn_alike_and_described() -> None:
    first, second = scenes.draw_scene(7, 128), scenes.draw_scene(7, 128)
    assert np.array_equal(first.image, second.image)
    assert first.words == second.words
    assert first.words.endswith(" sky")
    assert not np.array_equal(first.image, scenes.draw_scene(8, 128).image)


def test_a_picture_is_fitted_to_whole_latents() -> None:
    assert images.fit(np.zeros((801, 1005, 3), np.uint8), 384).shape == (384, 480, 3)
    assert images.fit(np.zeros((101, 205, 3), np.uint8), 384).shape == (96, 200, 3)


def test_pictures_of_an_animation_are_taken_once_each(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    from PIL import Image

    frames = [Image.fromarray(image) for image in (picture, picture[:, ::-1], picture[:, ::-1])]
    folder = tmp_path / "comfyui_workflow_templates_media_image" / "templates"
    folder.mkdir(parents=True)
    path = folder / "a.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    kept = list(images._pick_samples(images._read_stills(path), "", held_out=True))
    assert len(kept) == 2
    assert np.array_equal(kept[0].image, picture)
    with pytest.raises(FileNotFoundError):
        images.load_samples(tmp_path)


def test_the_path_begins_at_the_noisy_source() -> None:
    source, target, noise = torch.randn(3, 2, 4, 6, 6)
    start = torch.tensor([400, 750])
    path = diffusion.place_on_path(source, target, noise, start, start, torch.ones(2))
    alpha, sigma = (level[start][:, None, None, None] for level in diffusion.compute_weights())
    torch.testing.assert_close(path.latents, alpha * source + sigma * noise)


def test_the_deterministic_sampler_follows_the_path_to_the_target() -> None:
    source, target, noise = torch.randn(3, 1, 4, 6, 6, dtype=torch.float64)
    start, moving = torch.tensor([700]), torch.ones(1, dtype=torch.float64)
    alpha, sigma = (level.double() for level in diffusion.compute_weights())
    x = alpha[700] * source + sigma[700] * noise
    for t, after in ((700, 520), (520, 310), (310, 90), (90, 0)):
        path = diffusion.place_on_path(source, target, noise, torch.tensor([t]), start, moving)
        torch.testing.assert_close(x, path.latents, rtol=1e-5, atol=1e-5)
        clean = (x - sigma[t] * path.noise) / alpha[t]
        torch.testing.assert_close(clean, target, rtol=1e-4, atol=1e-4)
        x = alpha[after] * clean + sigma[after] * path.noise


def test_without_a_source_the_path_is_that_of_diffusion() -> None:
    source, target, noise = torch.randn(3, 2, 4, 6, 6)
    t, start = torch.tensor([10, 900]), torch.tensor([999, 999])
    path = diffusion.place_on_path(source, target, noise, t, start, torch.zeros(2))
    torch.testing.assert_close(path.noise, noise)
    alpha, sigma = (level[t][:, None, None, None] for level in diffusion.compute_weights())
    torch.testing.assert_close(path.latents, alpha * target + sigma * noise)


def test_levels_are_those_of_stable_diffusion() -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    torch.testing.assert_close(diffusion.compute_weights()[0].square(), theirs.alphas_cumprod)


def test_batches_pair_a_look_with_its_source_and_repeat() -> None:
    plain = torch.arange(4 * 20 * 24).reshape(4, 20, 24).half() / 64
    views = [View({PLAIN: plain, "night": plain + 1}, "a dog")]

    class Words:
        def __call__(self, texts: list[str], **_: object) -> object:
            self.texts = texts
            return type("Tokens", (), {"input_ids": torch.zeros(len(texts), 77, dtype=torch.long)})

    words = Words()
    batches = diffusion.Batches(views, words, 0)  # pyright: ignore[reportArgumentType]
    source, target, tokens = batches(3, 16, 40)
    assert source.shape == target.shape == (40, 4, 16, 16)
    assert tokens.shape == (40, 77)
    moved = (target - source).flatten(1).mean(dim=1)
    for shift, text in zip(moved.tolist(), words.texts, strict=True):
        assert shift == pytest.approx(0.0) or shift == pytest.approx(1.0, abs=0.05)
        asked = any(look in text for look in looks.STYLES["night"][1])
        assert not text or asked == (shift > 0.5)
    again = batches(3, 16, 40)
    assert torch.equal(source, again[0])
    assert not torch.equal(source, batches(4, 16, 40)[0])


def test_a_collage_shows_one_thing_four_times() -> None:
    column = torch.arange(40.0).expand(1, 30, 40)
    row = torch.arange(30.0)[:, None].expand(1, 30, 40)
    made = diffusion._collage(torch.cat([row, column]), 24, random.Random(1))
    assert made.shape == (2, 24, 24)
    corners = torch.stack([made[:, y, x] for y in (0, 12) for x in (0, 12)])
    assert float((corners - corners[0]).abs().max()) <= diffusion._JITTER
    inside = made[:, :12, :12].diff(dim=1)[0]
    torch.testing.assert_close(inside, torch.ones_like(inside))


def test_small_views_are_left_out_of_large_crops() -> None:
    small, large = (View({PLAIN: torch.full((4, n, n), n).half()}, "") for n in (18, 30))

    batches = diffusion.Batches([small, large], no_words, 0)  # pyright: ignore[reportArgumentType]
    assert set(batches(0, 24, 20)[0].unique().tolist()) == {30.0}
    assert set(batches(0, 16, 20)[0].unique().tolist()) == {18.0, 30.0}


def no_words(texts: list[str], **_: object) -> object:
    return type("Tokens", (), {"input_ids": torch.zeros(len(texts), 77, dtype=torch.long)})


def test_samples_without_finest_skips_keep_their_means_alone() -> None:
    torch.manual_seed(0)
    unet = networks.make_unet(SMALL).eval()
    x, words = torch.randn(2, 4, 16, 16), torch.randn(2, 77, networks.TEXT_WIDTH)
    with torch.no_grad():
        whole = unet(x, torch.tensor([500, 500]), words).sample
        with diffusion.blind_skips(unet, torch.tensor([False, True])):
            blind = unet(x, torch.tensor([500, 500]), words).sample
        again = unet(x, torch.tensor([500, 500]), words).sample
    torch.testing.assert_close(blind[0], whole[0], rtol=0, atol=1e-5)
    # An untrained UNet answers with its input, which it has from those skips alone.
    assert float(whole[1].std(dim=(1, 2)).min()) > 0.5
    assert float(blind[1].std(dim=(1, 2)).max()) < 0.5
    assert torch.equal(again, whole)


def test_a_level_that_is_not_used_has_a_ratio_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    denoiser = diffusion.Denoiser(SMALL).eval()
    monkeypatch.setattr(diffusion, "SIDES", (16,))
    plain = torch.randn(4, 20, 20).half()
    one = [View({PLAIN: plain, "night": plain + 1}, "")]
    batches = diffusion.Batches(one, no_words, 0)  # pyright: ignore[reportArgumentType]
    loss, ratios = diffusion.measure_levels(denoiser, batches, count=1, device=CPU)
    assert loss > 0
    assert set(ratios) == {1, 2, 3}
    assert ratios[3] == pytest.approx(1.0, abs=0.05)
    with torch.no_grad():  # now the output is what enters the finest stage
        last = denoiser.unet.up_blocks[-1].resnets[-1].conv_shortcut
        first = denoiser.unet.up_blocks[-1].resnets[0].conv_shortcut
        width = SMALL.channels[0]
        for conv in (last, first):
            conv.weight.zero_()
            for channel in range(width):
                conv.weight[channel, channel] = 1.0
    _, ratios = diffusion.measure_levels(denoiser, batches, count=1, device=CPU)
    assert abs(ratios[3] - 1) > 0.01


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rates = [progress.learning_rate(step, 1.0) for step in range(0, 20_000, 20)]
    assert rates[0] < 0.05
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.1**0.5, abs=0.01)
    assert rates[100:] == sorted(rates[100:], reverse=True)


def trained(path: Path, budget: progress.Budget) -> tuple[nn.Linear, int]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss_of(step: int) -> torch.Tensor:
        return model(torch.full((2, 3), 1.0 + step % 3)).square().mean()

    return progress.train(path, model, list(model.parameters()), budget=budget, rate=0.1,
                          loss_of=loss_of, measure=lambda mean: float(mean.weight.detach()[0, 0]))


def test_a_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    whole, steps = trained(tmp_path / "whole.pt", progress.Budget(60))
    assert steps == 60
    trained(tmp_path / "parts.pt", progress.Budget(20))
    parts, steps = trained(tmp_path / "parts.pt", progress.Budget(60))
    assert steps == 60
    assert torch.equal(parts.weight, whole.weight)
    saved = torch.load(tmp_path / "parts.pt", weights_only=True)
    assert [step for step, _ in saved["losses"]] == [50]
    assert [step for step, _ in saved["measured"]] == [20, 60]
    assert not torch.equal(saved["model"]["weight"], saved["mean"]["weight"])


def test_a_training_whose_time_is_over_keeps_what_it_has(tmp_path: Path) -> None:
    kept, _ = trained(tmp_path / "state.pt", progress.Budget(5))
    late, steps = trained(tmp_path / "state.pt", progress.Budget(60, ends=time.monotonic()))
    assert steps == 5
    assert torch.equal(late.weight, kept.weight)


def test_the_running_mean_reaches_back_a_tenth_of_the_steps() -> None:
    weights, reached = np.zeros(1000), 0.0
    for step in range(1000):
        weights *= progress.share_kept(step)
        weights[step] = 1 - progress.share_kept(step)
    reached = float((weights * (999 - np.arange(1000))).sum())
    assert weights.sum() == pytest.approx(1.0)
    assert 70 < reached < 130


def test_images_come_back_from_their_file(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "images.bin"
    store.write_images(path, iter([picture, picture[:64, ::-1]]))
    first, second = store.open_images(path)
    assert np.array_equal(first, picture)
    assert np.array_equal(second, picture[:64, ::-1])


def test_views_are_written_once_and_read_back(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    vae = networks.make_autoencoder(SIMPLE).eval()
    small = [np.ascontiguousarray(picture[:64, :64])]
    assert not views.write_views(vae, small, ["a dog"], tmp_path, each=2, ends=time.monotonic())
    assert views.write_views(vae, small, ["a dog"], tmp_path, each=2)
    made = views.read_views(tmp_path)
    assert [view.words for view in made] == ["a dog", "a dog"]
    assert made[0].latents[PLAIN].shape == (4, 8, 8)
    assert len(made[0].latents) == 6
    written = next(tmp_path.iterdir()).stat().st_mtime_ns
    assert views.write_views(vae, small, ["a dog"], tmp_path, each=2)
    assert next(tmp_path.iterdir()).stat().st_mtime_ns == written


def test_an_image_in_several_sizes_is_taken_once(tmp_path: Path) -> None:
    sizes = ("a/contents/images/100x60.png", "a/contents/images/200x120.png",
             "a/contents/images_dark/100x60.png", "hill_64x32.png", "hill.png", "lake.png")
    for number, name in enumerate(sizes):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * (number + 1))
    found = images._find_images(tmp_path, ("**/*.png",))
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "a/contents/images/200x120.png", "a/contents/images_dark/100x60.png", "hill.png",
        "lake.png",
    ]


def test_widths_that_the_hosts_cannot_load_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32 and of the first"):
        networks.Widths((96, 128, 128, 128), 1)
    with pytest.raises(ValueError, match="64 channels are fewer than three a group"):
        networks.make_autoencoder(networks.Widths((64, 64, 128, 128), 1))


def test_stages_go_on_where_they_stopped(
    tmp_path: Path, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From images to a checkpoint that loads, in tiny steps, one stage a call."""
    work = tmp_path / "work"
    store.write_images(work / "learned.bin", [scenes.draw_scene(3, 384).image])
    store.write_images(work / "looks.bin", [picture, looks.night(picture)])
    store.write_images(work / "held.bin", [picture[:64, :64]])
    (work / "words.json").write_text(json.dumps(["a house"]), "utf-8")
    (work / "tokenizer").symlink_to(TOKENIZER)
    monkeypatch.setattr(views, "_SHORT", (128, 128))
    monkeypatch.setattr(diffusion, "SIDES", (16,))
    monkeypatch.setattr(autoencoder, "_NORMALISED", 4)
    monkeypatch.setattr(train_demo_model, "_LEVELS", 1)
    common = ["--packages", str(tmp_path), "--work", str(work), "--output", str(tmp_path / "out"),
              "--autoencoder-steps", "2", "--steps", "2", "--crops", "2", "--latents", "256",
              "--views", "1", "--threads", "1"]
    with pytest.raises(SystemExit, match="no trained autoencoder"):
        train_demo_model.main([*common, "latents"])
    train_demo_model.main([*common, "images", "autoencoder", "--minutes", "0"])
    assert not (work / "autoencoder.pt").exists()
    train_demo_model.main([*common, "autoencoder"])
    train_demo_model.main([*common, "latents", "unet", "export"])
    made = tmp_path / "out" / "fresco-demo.safetensors"
    assert made.stat().st_size < LIMIT
    with pytest.raises(SystemExit):
        train_demo_model.main([*common, "unett"])


def test_normalised_latents_have_their_spread_and_decode_as_before(
    picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(autoencoder, "_NORMALISED", 32)
    vae = networks.make_autoencoder(SIMPLE).eval()
    before = autoencoder.reconstruct(vae, picture[:64, :64])
    autoencoder.normalise(vae, [picture], 0)
    crops = autoencoder.cut_crops([picture], np.random.default_rng(0), 32)
    with torch.no_grad():
        latents = networks.SCALE * autoencoder.encode(vae, autoencoder.stack_images(crops))
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-2)
    wanted = torch.full((4,), networks.SPREAD)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), wanted, rtol=1e-3, atol=0)
    after = autoencoder.reconstruct(vae, picture[:64, :64])
    assert np.abs(before.astype(int) - after).max() <= 1


@pytest.mark.parametrize("widths", [SIMPLE, networks.AUTOENCODER])
def test_an_untrained_autoencoder_shows_mean_colours(
    widths: networks.Widths, picture: NDArray[np.uint8]
) -> None:
    """No brightness and no contrast is lost on the way through the norms."""
    torch.manual_seed(0)
    vae = networks.make_autoencoder(widths).eval()
    part = np.ascontiguousarray(picture[96:160, :64])
    means = cv2.resize(part, (8, 8), interpolation=cv2.INTER_AREA)
    with torch.no_grad():
        latents = autoencoder.encode(vae, autoencoder.stack_images([part]))[0, :3].numpy()
    wanted = means.transpose(2, 0, 1) / 127.5 - 1
    assert np.abs(latents - wanted).max() < 0.1
    shown = cv2.resize(autoencoder.reconstruct(vae, part), (8, 8), interpolation=cv2.INTER_AREA)
    assert np.abs(shown[1:-1, 1:-1].astype(int) - means[1:-1, 1:-1]).mean() < 12


def test_an_untrained_unet_takes_its_input_for_noise() -> None:
    torch.manual_seed(0)
    unet = networks.make_unet().eval()
    x = torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        out = unet(x, torch.tensor([500]), torch.randn(1, 77, networks.TEXT_WIDTH)).sample
    torch.testing.assert_close(out, x, rtol=0.2, atol=0.1)


def test_an_exported_model_is_small_and_predicts_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    denoiser, vae = diffusion.Denoiser().eval(), networks.make_autoencoder().eval()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    monkeypatch.setattr(autoencoder, "_NORMALISED", 8)
    autoencoder.normalise(vae, [scenes.draw_scene(2, 128).image], 0)
    path = export(denoiser, vae, TOKENIZER, tmp_path, "small")
    assert path == tmp_path / "small.safetensors"
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= LIMIT
    host = load_host(SamplingSettings(model=str(path), device="cpu"), offline=True)
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([300, 300])
    tokens = torch.randint(0, networks.VOCABULARY, (2, 77))
    with torch.no_grad():
        wanted = denoiser(x, t, tokens)
        words = host._parts.text_encoder(tokens).last_hidden_state
        made = host._parts.unet(x, t, words).sample
    assert float((made - wanted).norm() / wanted.norm()) < HALF_WEIGHTS_RELATIVE
    shown = host.reconstruct(scenes.draw_scene(1, 64).image[None])
    wanted = autoencoder.reconstruct(vae, scenes.draw_scene(1, 64).image)
    assert np.abs(shown[0].astype(int) - wanted).max() <= HALF_WEIGHTS_LEVELS


def test_one_number_a_block_keeps_flat_grey_blocks() -> None:
    random = np.random.default_rng(0)
    flat = np.kron(random.integers(0, 256, (4, 6)), np.ones((8, 8)))
    images = [np.repeat(flat[..., None], 3, axis=-1).astype(np.uint8)]
    mean, components = linear_bound.find_components(images)
    blocks = linear_bound.cut_blocks(images[0])
    assert blocks.shape == (24, 192)
    assert np.allclose(linear_bound.keep_numbers(blocks, mean, components[:, :1]), blocks)


def test_more_numbers_a_block_keep_more() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (64, 48, 3), np.uint8)
    mean, components = linear_bound.find_components([image])
    blocks = linear_bound.cut_blocks(image)
    errors = [np.square(linear_bound.keep_numbers(blocks, mean, components[:, :n]) - blocks).mean()
              for n in (1, 4, 8, 192)]
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 1e-12
