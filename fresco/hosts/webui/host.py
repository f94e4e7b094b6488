"""The host of jobs in a WebUI: its own model and sampling, one img2img call for every batch.

The WebUI's queue is held for one batch at a time, so other users' images are made in between.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modules import devices, processing, sd_samplers_common, sd_vae, shared
from modules.call_queue import queue_lock
from numpy.typing import NDArray
from PIL import Image

from fresco.errors import Cancelled, HostError, OutOfMemoryError
from fresco.guidance.ports import BatchCarry, BatchRequest, BatchResult, SamplingGuide
from fresco.hosts.ldm.unet import LdmUNet
from fresco.hosts.options import HostOptions
from fresco.hosts.patching import replaced_method
from fresco.hosts.webui.batch import forget_failed_call, guided_batch, was_interrupted
from fresco.hosts.webui.checkpoints import load_checkpoint
from fresco.hosts.webui.controlnet import per_frame_hints
from fresco.hosts.webui.model import HostModel
from fresco.hosts.webui.preview import draw_preview
from fresco.hosts.webui.script_arguments import PAGE, script_arguments
from fresco.hosts.webui.steps import StepCounter
from fresco.hosts.webui.upscaling import enlarge
from fresco.memory import memory_errors
from fresco.progress import Stage
from fresco.settings import SamplingSettings

_JOB = "FRESCO"
"""Name of a batch in the WebUI's progress."""
_IMAGE_OPTIONS = (
    "CLIP_stop_at_last_layers", "eta_ancestral", "eta_ddim", "eta_noise_seed_delta",
    "img2img_color_correction", "sd_vae", "sd_vae_decode_method", "sd_vae_encode_method",
    "sdxl_crop_left", "sdxl_crop_top", "upcast_attn",
)
"""Settings of the WebUI that change a batch's images."""


class WebuiHost:
    """`Host` with the WebUI's model."""

    def __init__(
        self, options: HostOptions, sampling: SamplingSettings,
        open_model: Callable[[Any], HostModel],
    ) -> None:
        """
        Args:
            options: resolved, nothing empty but what the host lacks.
            open_model: opens the loaded model for guidance.
        """
        self._options, self._sampling, self._open_model = options, sampling, open_model
        with self._turn():
            model = self._model()
            self._opened = open_model(model)
            self._fingerprint = _hash(self._list_facts(model))
            self._former_fingerprint = _hash(self._list_former_facts(model))

    @property
    def name(self) -> str:
        """Model and host, as shown to the user."""
        return f"WebUI: {self._options.model}"

    @property
    def fingerprint(self) -> str:
        """Hash of everything that changes images."""
        return self._fingerprint

    @property
    def former_fingerprint(self) -> str:
        """The same hash as version 0.1 computed it."""
        return self._former_fingerprint

    def digest_prompts(self, prompts: Sequence[str]) -> str:
        """Return an empty text, because the WebUI does not tell what its syntax refers to."""
        return ""

    @property
    def model_sigmas(self) -> tuple[float, ...]:
        """Noise level of every training timestep, rising."""
        return tuple(self._opened.sigmas)

    @property
    def device(self) -> str:
        """Device for the tensors of the guide."""
        return str(shared.device)

    @property
    def unet(self) -> LdmUNet:
        """The guided UNet."""
        return self._opened.unet

    def sample(
        self, request: BatchRequest, guide: SamplingGuide | None, stage: Stage
    ) -> BatchResult:
        """Translate one batch by an img2img call, with the WebUI's sampler and scripts."""
        with self._turn(), _own_errors():
            stage.check()  # the job may have waited long for the queue
            model = self._model()
            sampling = request.apply_to(self._sampling)
            seed = _fit_seed(sampling)
            with closing(self._processing(request, model, sampling)) as p:
                call = _BatchCall(p, request, guide, stage, self._open_model, seed)
                images = call.run()
        return BatchResult(images, BatchCarry(tuple(call.record)))

    def reconstruct(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Encode and decode [N, H, W, 3] with the VAE."""
        with self._turn(), _own_errors(), torch.no_grad(), devices.autocast():
            model = self._model()
            torch.manual_seed(_fit_seed(self._sampling))
            pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
            latents = sd_samplers_common.images_tensor_to_samples(pixels, model=model)
            rebuilt = processing.decode_latent_batch(model, latents, target_device=devices.cpu)
            images = torch.stack(list(rebuilt)).float().clamp(-1, 1).add(1).mul(127.5).round()
        return images.permute(0, 2, 3, 1).byte().numpy()

    @property
    def upscaler(self) -> str:
        """Name of the upscaler for keyframes; empty: Lanczos."""
        return self._options.upscaler

    def enlarge(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Enlarge a keyframe [H, W, 3] to (width, height) by the upscaler."""
        with self._turn(), _own_errors():
            return enlarge(image, size, self._options.upscaler)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the WebUI's queue within the context; Interrupt in the WebUI stops the run."""
        PAGE.wait()
        with queue_lock:
            shared.state.begin(job=_JOB)
            shared.state.job_count = 1
            try:
                yield
                _heed_interruption()
            finally:
                shared.state.end()

    def _model(self) -> Any:
        """The job's checkpoint, loaded again if another client has loaded another one."""
        return load_checkpoint(self._options.model)

    def _list_facts(self, model: Any) -> dict[str, Any]:
        """List all that changes images, without names of hashed files and without the device."""
        info, vae = model.sd_checkpoint_info, sd_vae.get_loaded_vae_hash()
        return {
            **self._list_former_facts(model),
            "checkpoint": info.sha256 or _file_state(info.filename)[1:],
            "vae": vae or sd_vae.get_loaded_vae_name(),
            "types": [str(devices.dtype_unet), str(devices.dtype_vae)],
            **self._opened.list_facts(),
        }

    def _list_former_facts(self, model: Any) -> dict[str, Any]:
        info = model.sd_checkpoint_info
        sampling = self._sampling
        return {
            "checkpoint": info.sha256 or _file_state(info.filename),
            "vae": [sd_vae.get_loaded_vae_name(), sd_vae.get_loaded_vae_hash()],
            "options": {name: shared.opts.data.get(name) for name in _IMAGE_OPTIONS},
            "hypernetworks": [
                net.name for net in getattr(shared, "loaded_hypernetworks", None) or ()
            ],
            "sampler": [self._options.sampler, self._options.scheduler],
            "control": [unit.describe() for unit in self._options.control],
            "sampling": [sampling.steps, sampling.strength, sampling.guidance_scale, sampling.seed],
            "types": [str(devices.dtype_unet), str(devices.dtype_vae), str(shared.device)],
        }

    def _processing(
        self, request: BatchRequest, model: Any, sampling: SamplingSettings
    ) -> Any:
        count, height, width = request.frames.shape[:3]
        options, seed = self._options, _fit_seed(sampling)
        scheduler = {"scheduler": options.scheduler} if options.scheduler else {}
        p = processing.StableDiffusionProcessingImg2Img(
            sd_model=model, init_images=[Image.fromarray(frame) for frame in request.frames],
            resize_mode=0, denoising_strength=sampling.strength, prompt=list(request.prompts),
            negative_prompt=list(request.negative_prompts), batch_size=count, n_iter=1,
            # The same for all: some scripts choose words by the seed, frame by frame.
            seed=[seed] * count, subseed=[seed] * count,
            steps=sampling.steps, cfg_scale=sampling.guidance_scale, width=width,
            height=height, sampler_name=options.sampler, do_not_save_samples=True,
            do_not_save_grid=True,
            override_settings={"sd_model_checkpoint": options.model}, **scheduler,
        )
        # As a call of the API: in one of the page, its controls set seed, steps and sampler.
        p.is_api = True
        p.scripts, p.script_args = script_arguments(options.control)
        return p


def _fit_seed(sampling: SamplingSettings) -> int:
    """Bring a seed into the range that the WebUI accepts."""
    return sampling.seed % (1 << 32)


def _hash(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _file_state(path: str) -> list[Any]:
    """Facts that distinguish files when hashing is switched off."""
    state = Path(path).stat()
    return [path, state.st_size, state.st_mtime_ns]


class _BatchCall:
    """One img2img call."""

    def __init__(
        self, p: Any, request: BatchRequest, guide: SamplingGuide | None, stage: Stage,
        open_model: Callable[[Any], HostModel], seed: int,
    ) -> None:
        self._p, self._request, self._guide = p, request, guide
        self._open_model, self._seed = open_model, seed
        self._stage = stage
        self._counter = StepCounter(stage, lambda: shared.state.sampling_steps)
        self.record: list[torch.Tensor] = []

    def run(self) -> NDArray[np.uint8]:
        """Run the call and return its images [N, H, W, 3]."""
        p = self._p
        self._stage.show(draw_preview)
        try:
            with replaced_method(p, "init", self._with_one_seed), \
                    replaced_method(p, "sample", self._guided):
                done = processing.process_images(p)
        except BaseException:
            forget_failed_call(p)
            raise
        finally:
            _close_console_bar()
        _heed_interruption()
        if self._guide is not None and not self.record:
            raise HostError(
                "The WebUI made images without sampling them itself, so nothing was guided; switch "
                "off what makes them elsewhere, such as Forge's model mode API."
            )
        images = [np.asarray(image.convert("RGB")) for image in done.images[:p.batch_size]]
        if len(images) < len(self._request.frames):
            raise HostError(
                f"The WebUI returned {len(images)} images for {len(self._request.frames)} "
                "frames; switch off extensions that change the batch."
            )
        return np.stack(images)

    def _with_one_seed(self, previous: Callable[..., Any]) -> Callable[..., Any]:
        p = self._p

        def init(prompts: Any, seeds: list[int], subseeds: list[int]) -> Any:
            # In place: the loop over batches cuts its seeds from these very lists.
            seeds[:], subseeds[:] = [seeds[0]] * len(seeds), [subseeds[0]] * len(subseeds)
            # Some forks of Neo round the size of a call to multiples of 64.
            p.height, p.width = self._request.frames.shape[1:3]
            # The VAE draws from torch's own generator, which other scripts have used by now.
            torch.manual_seed(self._seed)
            return previous(prompts, seeds, subseeds)

        return init

    def _guided(self, previous: Callable[..., Any]) -> Callable[..., Any]:
        def sample(*args: Any, **kwargs: Any) -> Any:
            p, frames = self._p, self._request.frames
            with self._counter.counting(p.sampler):
                if self._guide is None:
                    with per_frame_hints(p, frames, hints=self._request.hints):
                        return previous(*args, **kwargs)
                with guided_batch(
                    p, self._open_model(p.sd_model), self._guide, frames, self._seed,
                    self._request.carry, hints=self._request.hints,
                ) as work:
                    result = previous(*args, **kwargs)
                _heed_interruption()
                self.record = list(work.finished_carry().latents)
                return result

        return sample


def _close_console_bar() -> None:
    """Close the console's bar of all steps, as the WebUI does for its own calls."""
    bar = getattr(shared, "total_tqdm", None)
    if bar is not None:
        bar.clear()


def _heed_interruption() -> None:
    if was_interrupted() or getattr(shared.state, "stopping_generation", False):
        raise Cancelled(
            "The run was interrupted in the WebUI. What is finished is kept; resume it."
        )


@contextmanager
def _own_errors() -> Iterator[None]:
    """Within the context, errors of the WebUI that users can act on become ours."""
    try:
        with memory_errors("in the WebUI"):
            yield
    except OutOfMemoryError:
        devices.torch_gc()
        raise
    except devices.NansException as error:
        raise HostError(f"The model's result is not a number (NaN): {error}") from error
