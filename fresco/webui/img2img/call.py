"""Run one guided img2img call: each batch is one iteration of the call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fresco.errors import SettingsError
from fresco.guidance.ports import BatchCarry
from fresco.hosts.webui.batch import (
    encode_batch,
    guided_batch,
    make_noise,
    resize_frames,
    was_interrupted,
)
from fresco.hosts.webui.open import find_device, open_model
from fresco.hosts.webui.paths import complete_flow_settings, require_allowed
from fresco.memory import memory_errors
from fresco.planning.keyframes import Batch
from fresco.planning.parsing import find_named_file
from fresco.planning.prompts import join_prompt, list_prompts, refuse_composed
from fresco.planning.ranges import choose_options, find_range
from fresco.run.guide import GuideMaker
from fresco.settings import SamplingSettings
from fresco.webui.img2img.frames import collect_frames
from fresco.webui.img2img.masks import encode_alone, require_size
from fresco.webui.img2img.refusals import refuse_unsupported
from fresco.webui.img2img.request import Request
from fresco.webui.widgets.handover import Handover, hand_over

_LISTS = (".txt", ".json")
"""Endings of files that may hold keyframes. No other file is opened for a client."""


def _require_list(path: Path | None) -> None:
    if path is not None and path.suffix.lower() not in _LISTS:
        raise SettingsError(
            f"keyframes.keys is {str(path)!r}; give frame numbers such as 0,11,23, or a file of "
            f"them that ends with {' or '.join(_LISTS)}."
        )


class GuidedCall:
    """The state of FRESCO in one call of `process_images`."""

    def __init__(self, request: Request, p: Any) -> None:
        listed = find_named_file(request.settings.keyframes.keys)
        for path in (request.path, request.masks_path, listed):
            if path:
                require_allowed(str(path))
        _require_list(listed)
        refuse_unsupported(p, masked=request.has_masks)
        settings = dataclasses.replace(
            request.settings, flow=complete_flow_settings(request.settings.flow)
        )
        self._request = request
        mask = getattr(p, "image_mask", None)
        self._frames = collect_frames(
            dataclasses.replace(request, settings=settings), p.init_images, mask
        )
        if mask is not None:
            require_size(mask.size, self._frames.images[0].size)
        self._maker = GuideMaker.create(settings, find_device(), ())
        self._carry: BatchCarry | None = None
        self._finished: dict[int, NDArray[np.uint8]] = {}
        self._number = 0
        self._sampled = -1
        self._prompts: list[tuple[str, str]] = []
        self._overlay_masks: list[Any] = []
        self._seed = 0
        self._strength: float | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user about the frames and the flow."""
        notes = [self._say_what_comes(), *self._frames.notes, self._maker.estimator.note]
        if len(self._frames.images) == 1:
            notes.append(
                "FRESCO was given one frame, so there is nothing to share between frames; give a "
                "video or a folder."
            )
        return tuple(note for note in notes if note)

    def _say_what_comes(self) -> str:
        if not self.source:
            return ""
        numbers = ", ".join(map(str, self.numbers))
        return (
            f"These are keyframes {numbers} of {self.source}; img2img makes no video. "
            "The button below the images takes them to the tab FRESCO, which makes one."
        )

    @property
    def source(self) -> str:
        """Name of the video or folder; empty if the images of the call are the frames."""
        path = self._request.video or (Path(self._request.path) if self._request.path else None)
        return path.name if path else "video" if self._request.data else ""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers, in the source, of the frames that the call returns."""
        return self._frames.numbers

    def find_frame(self, place: int) -> int | None:
        """Number of the frame of the image at a place among the new ones of this batch."""
        new = self._frames.batches[self._number].frames
        return self._frames.numbers[new[place]] if 0 <= place < len(new) else None

    def hand_over(self, p: Any) -> None:
        """Store the call for the tab, which can make a video of its keyframes."""
        path = self._request.video or self._request.path
        if not path:
            return
        settings = self._request.settings
        sampling = dataclasses.replace(
            settings.sampling, prompt=p.prompt if isinstance(p.prompt, str) else p.prompt[0],
            negative_prompt=str(p.negative_prompt), seed=self._seed, steps=int(p.steps),
            strength=float(p.denoising_strength if self._strength is None else self._strength),
            guidance_scale=float(p.cfg_scale),
        )
        keys = dataclasses.replace(settings.keyframes, keys=",".join(map(str, self.numbers)))
        hand_over(self.source, self.numbers, Handover(
            Path(path), self._request.video is not None,
            dataclasses.replace(settings, sampling=sampling, keyframes=keys),
        ))

    def arrange(self, p: Any) -> None:
        """Set as many iterations as batches; before prompts and seeds are made."""
        batches = self._frames.batches
        p.init_images = self._images(batches[0])
        p.batch_size = max(len(batch.all) for batch in batches)
        p.n_iter = len(batches)
        if self._frames.masks:  # if there are several, each frame's own is set as it is encoded
            p.image_mask = self._frames.masks[0]

    def share_seed(self, p: Any) -> None:
        """Set one seed for all frames, so that they have the same noise at every step."""
        count = len(p.all_prompts)
        given = list_prompts(self._request.settings.sampling)
        refuse_composed(given | {f"prompt {i + 1}": text for i, text in enumerate(p.all_prompts)})
        self._seed = int(p.all_seeds[0])
        p.all_seeds = [self._seed] * count
        p.all_subseeds = [p.all_subseeds[0]] * count
        # The VAE draws its noise from torch's own generator, and the WebUI encodes the first batch
        # before it calls the script for it.
        torch.manual_seed(self._seed)
        p.batch_size = len(self._frames.batches[0].all)

    def begin_batch(self, p: Any, number: int) -> None:
        """Set the frames, prompts and seeds of the next iteration."""
        batch = self._frames.batches[number]
        if batch.anchors and self._sampled != number - 1:
            p.comment(f"Batch {number} was skipped. Later batches need it, so the run ends.")
            p.prompts = []  # the WebUI's own sign of the end
            return
        if not batch.anchors:
            self._carry = None
            self._prompts = []
        self._number = number
        size = len(batch.all)
        self._take_prompts(p, batch)
        seed = self._choose(p, batch)
        p.seeds, p.subseeds = [seed] * size, [p.all_subseeds[0]] * size
        p.batch_size = size
        p.rng = make_noise(p)
        if number > 0:
            p.init_images = self._images(batch)
            encode_batch(p, seed)

    def _choose(self, p: Any, batch: Batch) -> int:
        """Set the batch's strength and return its seed: those of the call, or of the range."""
        if self._strength is None:
            self._strength = p.denoising_strength
        found = find_range(self._sampling, self._frames.numbers[batch.frames[0]])
        p.denoising_strength, seed = self._strength, self._seed
        if found and found.strength is not None:
            p.denoising_strength = found.strength
        return seed if found is None or found.seed is None else found.seed % (1 << 32)

    @property
    def _sampling(self) -> SamplingSettings:
        return self._request.settings.sampling

    def encode(self, p: Any, encode: Callable[[], Any]) -> Any:
        """Encode the batch's images by the WebUI's own `p.init`."""
        if len(self._frames.masks) < 2:
            return encode()
        batch = self._frames.batches[self._number]
        masks = [self._frames.masks[place] for place in batch.all]
        self._overlay_masks = encode_alone(p, masks, encode)
        return None

    def show_mask(self, p: Any) -> None:
        """Set the mask that is returned or saved with the next finished image."""
        if self._overlay_masks:
            p.mask_for_overlay = self._overlay_masks[p.batch_index]

    def _take_prompts(self, p: Any, batch: Batch) -> None:
        """Give every frame its shot's prompt, so that wildcards are drawn once a shot."""
        words = self._sampling.key_prompts
        if not self._prompts:
            self._prompts = [(p.prompts[0], p.negative_prompts[0])]
        base, negative = self._prompts[0]
        numbers = [self._frames.numbers[place] for place in batch.all]
        bases = dataclasses.replace(self._sampling, prompt=base, negative_prompt=negative)
        own = [choose_options(bases, number) for number in numbers]
        added = [words.get(str(number), "") for number in numbers]
        p.prompts = [join_prompt(each.prompt, extra) if extra else each.prompt
                     for each, extra in zip(own, added, strict=True)]
        p.negative_prompts = [each.negative_prompt for each in own]

    @contextmanager
    def sampling(self, p: Any) -> Iterator[None]:
        """Sample the batch with guidance within the context."""
        batch = self._frames.batches[self._number]
        frames = resize_frames(p, self._images(batch))
        masks = self._masks(p, batch)
        opened = open_model(p.sd_model)
        maker = dataclasses.replace(self._maker, model_sigmas=opened.sigmas)
        carry = self._carry if batch.anchors else None
        finished = [self._finished[place] for place in batch.anchors if place in self._finished]
        with memory_errors(f"with a batch of {len(frames)} frames"):
            guide = maker.guide(
                frames, opened.unet, finished=np.stack(finished) if finished else None,
                prompts=p.prompts,
            )
            with guided_batch(
                p, opened, guide, frames, p.seeds[0], carry,
                resize_frames(p, masks) if masks else None,
            ) as work:
                yield
        if not was_interrupted():
            self._carry, self._sampled = work.finished_carry(), self._number

    def keep_new(self, p: Any, result: Any) -> None:
        """Remove the anchors after decoding, because an earlier batch has returned them."""
        batch = self._frames.batches[self._number]
        self._take_prompts(p, batch)
        first = len(batch.anchors)
        result.images = result.images[first:]
        if self._request.settings.guidance.consensus:
            made = dict(zip(batch.frames, map(_to_array, result.images), strict=True))
            kept = {place: self._finished[place] for place in batch.anchors[:1]} | made
            ends = (next(iter(kept)), batch.frames[-1])
            self._finished = {place: kept[place] for place in ends}
        names = ("prompts", "negative_prompts", "seeds", "subseeds", "color_corrections",
                 "overlay_images")
        for name in names:
            values = getattr(p, name, None)
            if values is not None:
                setattr(p, name, values[first:len(batch.all)])
        self._overlay_masks = self._overlay_masks[first:]

    def _masks(self, p: Any, batch: Batch) -> list[Any]:
        """Masks of inpainting, one for each frame of a batch; empty without inpainting."""
        if len(self._frames.masks) > 1:
            return [self._frames.masks[place] for place in batch.all]
        mask = getattr(p, "image_mask", None)
        return [] if mask is None else [mask] * len(batch.all)

    def _images(self, batch: Batch) -> list[Any]:
        return [self._frames.images[place] for place in batch.all]


def _to_array(image: Any) -> NDArray[np.uint8]:
    """Convert a decoded image [3, H, W] in 0..1 to [H, W, 3] RGB."""
    values = image.float().clamp(0, 1).mul(255).byte()  # cut off, as the WebUI does
    return values.permute(1, 2, 0).cpu().numpy()
