"""`modules.processing`: one img2img call."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from tests.helpers.webui import devices, images, prompt_parser, rng, sd_samplers, shared

_LATENT_RESIZE = 3
_LATENT_NOISE, _LATENT_NOTHING = 2, 3
_OPAQUE = (255, 255)


def create_binary_mask(image: Image.Image) -> Image.Image:
    """Of a picture with transparent parts, what is not transparent."""
    if image.mode == "RGBA" and image.getextrema()[-1] != _OPAQUE:
        return image.getchannel("A").point(lambda value: 255 if value > 128 else 0)
    return image.convert("L")


def _blurred(mask: Image.Image, blur: int) -> Image.Image:
    if not blur:
        return mask
    size = 2 * int(2.5 * blur + 0.5) + 1
    return Image.fromarray(cv2.GaussianBlur(np.asarray(mask), (size, size), blur))


class Request:
    """What a request may say, and what holds if it does not."""

    prompt: str = ""
    negative_prompt: str = ""
    seed: Any = 1
    subseed: int = 1
    subseed_strength: float = 0.0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    sampler_name: str = "Euler a"
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    denoising_strength: float = 0.75
    eta: float | None = None
    s_min_uncond: float | None = None
    override_settings: dict[str, Any] | None = None
    refiner_checkpoint: str | None = None
    resize_mode: int = 0
    mask: Any = None
    mask_blur: int = 4
    inpaint_full_res: bool = True
    inpainting_fill: int = 1
    tiling: bool | None = None

    def __init__(self, **fields: Any) -> None:
        if unknown := fields.keys() - Request.__annotations__.keys():
            raise TypeError(f"a request has no {', '.join(sorted(unknown))}")
        vars(self).update({name: getattr(self, name) for name in Request.__annotations__} | fields)


class StableDiffusionProcessing(Request):
    """What every call has."""

    cached_c: list[Any] = [None, None]  # noqa: RUF012 - shared by all calls, as in the WebUI
    cached_uc: list[Any] = [None, None]  # noqa: RUF012

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.override_settings = self.override_settings or {}
        self.extra_generation_params: dict[str, Any] = {}
        self.comments: dict[str, int] = {}
        self.scripts: Any = None
        self.script_args: tuple[Any, ...] = ()
        self.init_images: list[Image.Image] = []
        self.sampler: Any = None
        self.rng: Any = None
        self.iteration, self.is_api = 0, False
        self.color_corrections: list[Any] | None = None
        self.overlay_images: list[Any] | None = None
        self.prompts: list[str] = []
        self.negative_prompts: list[str] = []
        self.seeds: list[int] = []
        self.subseeds: list[int] = []
        self.cached_c = StableDiffusionProcessing.cached_c
        self.cached_uc = StableDiffusionProcessing.cached_uc

    @property
    def sd_model(self) -> Any:
        """The loaded model."""
        return shared.sd_model

    def comment(self, text: str) -> None:
        """A sentence below the result."""
        self.comments[text] = 1

    def setup_prompts(self) -> None:
        """A prompt for every picture of every iteration."""
        count = self.batch_size * self.n_iter
        self.all_prompts = [self.prompt] * count
        self.all_negative_prompts = [self.negative_prompt] * count
        self.main_prompt, self.main_negative_prompt = self.prompt, self.negative_prompt

    def setup_conds(self) -> None:
        """Conditionings of this iteration's prompts, or those of the call before, if the same."""
        parser = prompt_parser
        positive, negative = list(self.prompts), list(self.negative_prompts)
        self.uc = self._cached(self.cached_uc, parser.get_learned_conditioning, negative)
        self.c = self._cached(
            self.cached_c, parser.get_multicond_learned_conditioning, positive
        )

    def _cached(self, cache: list[Any], make: Any, prompts: list[str]) -> Any:
        key = (prompts, self.steps, self.width, self.height)
        if cache[0] != key:
            cache[:] = [key, make(shared.sd_model, prompts, self.steps)]
        return cache[1]

    def close(self) -> None:
        """Let go of what is large."""
        self.sampler = self.c = self.uc = None
        if not shared.opts.persistent_cond_cache:
            StableDiffusionProcessing.cached_c = [None, None]
            StableDiffusionProcessing.cached_uc = [None, None]


class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    """From pictures."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.image_mask, self.mask = self.mask, None
        self.nmask: Any = None
        self.mask_for_overlay: Any = None
        self._latent_mask: Any = None
        self.init_latent: Any = None
        self.image_conditioning: Any = None

    def init(self, all_prompts: Any, all_seeds: Any, all_subseeds: Any) -> None:
        """Latents of the pictures, and a new sampler."""
        self.extra_generation_params["Denoising strength"] = self.denoising_strength
        self.sampler = sd_samplers.create_sampler(self.sampler_name)
        if self.image_mask is not None:
            mask = _blurred(create_binary_mask(self.image_mask), self.mask_blur)
            self._latent_mask = images.resize_image(
                self.resize_mode, mask, self.width, self.height
            )
            self.mask_for_overlay = self._latent_mask.point(lambda value: min(2 * value, 255))
            self.overlay_images = []
        corrects = shared.opts.img2img_color_correction and self.color_corrections is None
        if corrects:
            self.color_corrections = []
        pixels = [self._prepared(picture, corrects=corrects) for picture in self.init_images]
        if len(pixels) == 1:
            pixels *= self.batch_size
            self.overlay_images = self.overlay_images and self.overlay_images * self.batch_size
            self.color_corrections = (
                self.color_corrections and self.color_corrections * self.batch_size
            )
        elif len(pixels) > self.batch_size:
            raise RuntimeError(f"{len(pixels)} pictures for a batch of {self.batch_size}")
        self.batch_size = len(pixels)
        batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
        batch = batch.to(devices.device, devices.dtype_vae)
        model = shared.sd_model
        self.init_latent = torch.cat([
            model.get_first_stage_encoding(model.encode_first_stage(2 * image[None] - 1))
            for image in batch
        ])
        if self.resize_mode == _LATENT_RESIZE:
            size = (self.height // 8, self.width // 8)
            self.init_latent = torch.nn.functional.interpolate(self.init_latent, size)
        self._set_latent_mask(self.init_latent, all_seeds)
        self.image_conditioning = self.init_latent.new_zeros(len(self.init_latent), 5, 1, 1)

    def _prepared(self, picture: Image.Image, *, corrects: bool) -> Any:
        """[H, W, 3] in 0..1 of one picture; its own overlay and colours are kept."""
        image = images.flatten(picture, shared.opts.img2img_background_color)
        if self.resize_mode != _LATENT_RESIZE:
            image = images.resize_image(self.resize_mode, image, self.width, self.height)
        if self.mask_for_overlay is not None and self.overlay_images is not None:
            kept = image.convert("RGBA")
            kept.putalpha(ImageOps.invert(self.mask_for_overlay))
            self.overlay_images.append(kept)
        if corrects and self.color_corrections is not None:
            self.color_corrections.append(np.asarray(image).mean((0, 1)))
        if self.mask_for_overlay is not None and self.inpainting_fill == 0:
            image = Image.composite(
                image.filter(ImageFilter.GaussianBlur(64)), image, self._latent_mask
            )
        return np.asarray(image, np.float32) / 255

    def _set_latent_mask(self, latents: Tensor, seeds: list[int]) -> None:
        if self.mask_for_overlay is None:
            return
        small = self._latent_mask.resize((latents.shape[3], latents.shape[2]))
        white = torch.from_numpy(np.asarray(small, np.float32) / 255).round().to(latents.device)
        self.nmask = white.expand(latents.shape[1:])
        self.mask = 1 - self.nmask
        if self.inpainting_fill in (_LATENT_NOISE, _LATENT_NOTHING):
            self.init_latent = latents * self.mask
        if self.inpainting_fill == _LATENT_NOISE:
            noise = rng.ImageRNG(latents.shape[1:], seeds[:len(latents)]).next()
            self.init_latent += noise * self.nmask

    def sample(self, conditioning: Any, unconditional_conditioning: Any, seeds: Any, subseeds: Any,
               subseed_strength: float, prompts: Any) -> Tensor:
        """Latents of an iteration."""
        noise = self.rng.next()
        self.scripts.run(
            "process_before_every_sampling", self, x=self.init_latent, noise=noise,
            c=conditioning, uc=unconditional_conditioning,
        )
        samples = self.sampler.sample_img2img(
            self, self.init_latent, noise, conditioning, unconditional_conditioning,
            image_conditioning=self.image_conditioning,
        )
        if self.mask is not None:
            samples = samples * self.nmask + self.init_latent * self.mask
        return samples


def new_noise(p: StableDiffusionProcessing) -> rng.ImageRNG:
    """The generators of an iteration."""
    return rng.ImageRNG(
        (4, p.height // 8, p.width // 8), p.seeds, subseeds=p.subseeds,
        subseed_strength=p.subseed_strength, seed_resize_from_h=p.seed_resize_from_h,
        seed_resize_from_w=p.seed_resize_from_w,
    )
