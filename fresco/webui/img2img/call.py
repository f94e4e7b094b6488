"""One guided img2img call: its batches become the call's iterations.

The WebUI swallows what goes wrong in a script's callbacks, but not what goes wrong in `p.sample`.
So errors are kept, and raised there: a failed FRESCO never quietly becomes plain img2img.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from modules import devices, images, rng, shared
from numpy.typing import NDArray

from fresco.errors import FrescoError, HostError
from fresco.guidance.ports import BatchCarry
from fresco.hosts.noise import compute_model_sigmas
from fresco.hosts.patching import replaced_method
from fresco.hosts.webui.controlnet import per_frame_hints
from fresco.hosts.webui.guided import forget_conditionings, guided_sampling, model_unet
from fresco.hosts.webui.paths import flow_settings, require_allowed
from fresco.planning.keyframes import Batch
from fresco.planning.parsing import find_named_file
from fresco.planning.prompts import join_prompt, list_prompts, refuse_composed
from fresco.run.guide import GuideMaker
from fresco.webui.img2img.frames import call_frames
from fresco.webui.img2img.masks import encode_alone, require_size
from fresco.webui.img2img.refusals import refuse_unsupported
from fresco.webui.img2img.request import Request

_LATENT_CHANNELS, _LATENT_SCALE = 4, 8
_UNPROCESSABLE = 422


class CallRefused(Exception):  # noqa: N818 - what the API answers, not a fault
    """A request that cannot be done. The WebUI's API answers with `status_code` and `detail`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.status_code = _UNPROCESSABLE
        self.detail = message


class GuidedCall:
    """FRESCO's part in one call of `process_images`."""

    def __init__(self, request: Request, p: Any) -> None:
        listed = find_named_file(request.settings.keyframes.keys)
        for path in (request.path, request.masks_path, listed):
            if path:
                require_allowed(str(path))
        refuse_unsupported(p, masked=request.has_masks)
        self._request = request
        self._frames = call_frames(request, p.init_images)
        if (mask := getattr(p, "image_mask", None)) is not None:
            require_size(mask.size, self._frames.images[0].size)
        settings = dataclasses.replace(
            request.settings, flow=flow_settings(request.settings.flow)
        )
        self._maker = GuideMaker.create(settings, str(shared.device), ())
        self._carry: BatchCarry | None = None
        self._number = 0
        self._sampled = -1
        self._prompts: list[tuple[str, str]] = []
        self._overlay_masks: list[Any] = []
        self._seed = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the frames and the flow."""
        notes = [*self._frames.notes, self._maker.estimator.note]
        if len(self._frames.images) == 1:
            notes.append(
                "FRESCO was given one frame, so there is nothing to share between frames; give a "
                "video or a folder."
            )
        return tuple(note for note in notes if note)

    def arrange(self, p: Any) -> None:
        """Before prompts and seeds are made: as many iterations as batches."""
        batches = self._frames.batches
        p.init_images = self._images(batches[0])
        p.batch_size = max(len(batch.all) for batch in batches)
        p.n_iter = len(batches)
        if self._frames.masks:  # if there are several, each frame's own is set as it is encoded
            p.image_mask = self._frames.masks[0]

    def share_seed(self, p: Any) -> None:
        """One seed for all frames: start and every step then have the same noise."""
        count = len(p.all_prompts)
        given = list_prompts(self._request.settings.sampling)
        refuse_composed(given | {f"prompt {i + 1}": text for i, text in enumerate(p.all_prompts)})
        self._seed = int(p.all_seeds[0])
        p.all_seeds = [self._seed] * count
        p.all_subseeds = [p.all_subseeds[0]] * count
        # The first batch is encoded before any of its callbacks; the VAE draws from torch's own.
        torch.manual_seed(self._seed)
        p.batch_size = len(self._frames.batches[0].all)

    def begin_batch(self, p: Any, number: int) -> None:
        """An iteration begins: its frames, prompts and seeds."""
        batch = self._frames.batches[number]
        if batch.anchors and self._sampled != number - 1:
            p.comment(f"Batch {number} was skipped; the later ones lean on it, so the run ends.")
            p.prompts = []  # the WebUI's own sign of the end
            return
        if not batch.anchors:
            self._carry = None
            self._prompts = []
        self._number = number
        size = len(batch.all)
        self._take_prompts(p, batch)
        p.seeds, p.subseeds = [self._seed] * size, [p.all_subseeds[0]] * size
        p.batch_size = size
        p.rng = _noise(p)
        if number > 0:
            p.init_images = self._images(batch)
            p.color_corrections = p.overlay_images = None
            torch.manual_seed(self._seed)
            with devices.autocast():
                p.init(p.all_prompts, p.all_seeds, p.all_subseeds)

    def encode(self, p: Any, encode: Callable[[], Any]) -> Any:
        """Latents of the batch's pictures, by the WebUI's own `p.init`."""
        if len(self._frames.masks) < 2:
            return encode()
        batch = self._frames.batches[self._number]
        masks = [self._frames.masks[place] for place in batch.all]
        self._overlay_masks = encode_alone(p, masks, encode)
        return None

    def show_mask(self, p: Any) -> None:
        """A picture is about to be finished: the mask that is returned or saved with it."""
        if self._overlay_masks:
            p.mask_for_overlay = self._overlay_masks[p.batch_index]

    def _take_prompts(self, p: Any, batch: Batch) -> None:
        """The shot's prompt for every frame, so that wildcards are drawn once a shot."""
        words = self._request.settings.sampling.key_prompts
        if not self._prompts:
            self._prompts = [(p.prompts[0], p.negative_prompts[0])]
        base, negative = self._prompts[0]
        numbers = [self._frames.numbers[place] for place in batch.all]
        added = [words.get(str(number), "") for number in numbers]
        p.prompts = [join_prompt(base, extra) if extra else base for extra in added]
        p.negative_prompts = [negative] * len(numbers)

    @contextmanager
    def sampling(self, p: Any) -> Iterator[None]:
        """Within: the batch is sampled guided."""
        batch = self._frames.batches[self._number]
        frames = self._working_frames(batch, p)
        sigmas = compute_model_sigmas(p.sd_model.alphas_cumprod)
        unet = model_unet(p.sd_model)
        guide = dataclasses.replace(self._maker, model_sigmas=sigmas).guide(frames, unet)
        carry = self._carry if batch.anchors else None
        with guided_sampling(p, unet, guide, sigmas, self._seed, carry) as work, \
                per_frame_hints(p, frames):
            yield
        if not (shared.state.interrupted or shared.state.skipped):
            self._carry, self._sampled = work.finished_carry(), self._number

    def keep_new(self, p: Any, result: Any) -> None:
        """After decoding: anchors were returned by an earlier batch already."""
        batch = self._frames.batches[self._number]
        self._take_prompts(p, batch)
        first = len(batch.anchors)
        result.images = result.images[first:]
        names = ("prompts", "negative_prompts", "seeds", "subseeds", "color_corrections",
                 "overlay_images")
        for name in names:
            values = getattr(p, name, None)
            if values is not None:
                setattr(p, name, values[first:len(batch.all)])
        self._overlay_masks = self._overlay_masks[first:]

    def _images(self, batch: Batch) -> list[Any]:
        return [self._frames.images[place] for place in batch.all]

    def _working_frames(self, batch: Batch, p: Any) -> NDArray[np.uint8]:
        """[N, H, W, 3] RGB as the WebUI encodes them."""
        return np.stack([
            np.asarray(images.resize_image(
                p.resize_mode, images.flatten(image, shared.opts.img2img_background_color),
                p.width, p.height,
            ).convert("RGB")) for image in self._images(batch)
        ])


def _noise(p: Any) -> Any:
    """The call's own noise for the frames of this batch."""
    channels = getattr(shared.sd_model, "latent_channels", None) or _LATENT_CHANNELS
    return rng.ImageRNG(
        (channels, p.height // _LATENT_SCALE, p.width // _LATENT_SCALE), p.seeds,
        subseeds=p.subseeds, subseed_strength=p.subseed_strength,
        seed_resize_from_h=p.seed_resize_from_h, seed_resize_from_w=p.seed_resize_from_w,
    )


class CallGuard:
    """Stands before `p.init` and `p.sample`: raises what went wrong before, guides the sampling."""

    def __init__(self, p: Any, forget: Callable[[], None]) -> None:
        """
        Args:
            forget: releases this guard after a failure, which the script is not told of.
        """
        self._error: Exception | None = None
        self._forget = forget
        self._attempting = False
        self._call: GuidedCall | None = None
        self._patches = ExitStack()
        self._patches.callback(setattr, p, "image_mask", getattr(p, "image_mask", None))
        self._patches.enter_context(
            replaced_method(p, "init", lambda previous: self._checked(p, previous))
        )
        self._patches.enter_context(
            replaced_method(p, "sample", lambda previous: self._guided(p, previous))
        )

    def release(self) -> None:
        """Give the processing object its own methods back."""
        self._patches.close()

    def attempt(self, work: Callable[[], None]) -> None:
        """Do a callback's work; what goes wrong comes to light in the sampling."""
        if self._error:
            return
        self._attempting = True
        try:
            work()
        except Exception as error:
            self._error = error
        finally:
            self._attempting = False

    def start(self, request: Request, p: Any) -> None:
        """Take up a call."""
        self._call = GuidedCall(request, p)
        self._call.arrange(p)
        for note in self._call.notes:
            p.comment(note)

    @property
    def call(self) -> GuidedCall:
        """The call, once it was started."""
        if self._call is None:
            raise HostError("FRESCO's call was not started; this is a fault of FRESCO.")
        return self._call

    def _require_none(self) -> None:
        if isinstance(self._error, FrescoError):
            raise CallRefused(str(self._error)) from self._error
        if self._error:
            raise self._error

    def _checked(self, p: Any, previous: Callable[..., Any]) -> Callable[..., Any]:
        def init(*args: Any, **kwargs: Any) -> Any:
            try:
                self._require_none()
                return self.call.encode(p, lambda: previous(*args, **kwargs))
            except BaseException:
                if not self._attempting:  # else the sampling raises it, and must stay guarded
                    self._forget()
                raise

        return init

    def _guided(self, p: Any, previous: Callable[..., Any]) -> Callable[..., Any]:
        def sample(*args: Any, **kwargs: Any) -> Any:
            try:
                self._require_none()
                with self.call.sampling(p):
                    return previous(*args, **kwargs)
            except FrescoError as error:
                forget_conditionings(p)
                self._forget()
                raise CallRefused(str(error)) from error
            except BaseException:
                forget_conditionings(p)
                self._forget()
                raise

        return sample
