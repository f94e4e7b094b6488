"""Guide the sampling of one batch around the WebUI's denoiser, with any of its samplers.

The denoiser (`CFGDenoiser`) is called once for every model call of every sampler. There the anchors
are overwritten and steps are counted, and the layout of the rows is passed to the UNet's hooks.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from modules import prompt_parser
from modules.sd_samplers_timesteps import CompVisSampler
from torch import Tensor

from fresco.errors import HostError
from fresco.guidance.ports import BatchCarry, Chunk, SamplingGuide, Step
from fresco.hosts.carry import make_carry, pick_ends, send_carry
from fresco.hosts.noise import (
    ALMOST_CLEAN,
    REFERENCE,
    choose_reference,
    from_estimate,
    interpolate_sigmas,
    to_estimate,
)
from fresco.hosts.patching import Forward, replaced_forward
from fresco.hosts.webui.model import HostModel, ReferencePoint
from fresco.hosts.webui.paths import advise_precision

UNGUIDED_SAMPLERS = ("DPM adaptive",)
"""Samplers whose number of steps differs from batch to batch."""
_REFERENCE_SEED = 1 << 20
"""Added to the call's seed for the noise of the reference pass; that of the start is another."""


@dataclass(slots=True)
class BatchSampling:
    """The guided sampling of one batch by the WebUI's sampler."""

    model: HostModel
    """The WebUI's model; the hooks of the guide are installed on its UNet."""
    sampler: Any
    """Sampler of this call."""
    guide: SamplingGuide
    """Guide of this batch."""
    latents: Tensor
    """[N, C, h, w] clean."""
    seed: int
    """Seed of the call."""
    carry: BatchCarry | None
    """Latents of the batch before."""
    record: list[Tensor] = field(default_factory=list)
    """First and last latent at every model call, on the sampler's device."""
    levels: list[float] = field(default_factory=list)
    """Planned noise level of every call."""
    reference: float = 0.0
    """Level of the reference pass in the sampler's own units: a sigma or a timestep."""
    _pinned: Tensor | None = field(default=None, init=False)
    """The carry on the sampler's device."""
    _finite: Tensor | None = field(default=None, init=False)
    """Whether the last call's result is finite; not read yet."""

    @property
    def by_timestep(self) -> bool:
        """Whether this sampler uses timesteps (DDIM, PLMS, UniPC), and predicts epsilon."""
        return isinstance(self.sampler, CompVisSampler)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within the context, the sampler samples with guidance."""
        denoiser = self.sampler.model_wrap_cfg
        with ExitStack() as stack:
            stack.enter_context(_replaced_function(self.sampler, self._planned))
            stack.enter_context(replaced_forward(denoiser, self._around))
            yield

    def finished_carry(self) -> BatchCarry:
        """The latents for the next batch."""
        if not self.record:
            raise HostError(
                "The sampler made no step, so nothing was guided; raise the denoising strength or "
                "the steps."
            )
        self._read()
        return make_carry(self.record)

    def _planned(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Read the noise levels that a sampler is about to use."""
        @functools.wraps(function)
        def sample(*args: Any, **kwargs: Any) -> Any:
            if (timesteps := kwargs.get("timesteps")) is not None:
                marks = sorted(map(float, torch.as_tensor(timesteps).tolist()), reverse=True)
            elif (sigmas := kwargs.get("sigmas")) is not None:
                marks = [sigma for sigma in torch.as_tensor(sigmas).tolist() if sigma > 0]
            elif "sigma_max" in kwargs and "n" in kwargs:
                marks = [float(kwargs["sigma_max"]), float(kwargs["sigma_min"])]
            else:
                raise HostError(
                    "FRESCO cannot guide this sampler, because its steps are not known before it "
                    "runs; choose another, such as Euler a, DPM++ 2M or DDIM."
                )
            if not marks:
                raise HostError("The sampler has no step to take; raise the denoising strength.")
            self.reference = self._place_reference(marks[-1])
            self.levels = [self._level(mark) for mark in marks]
            self.guide.begin(self.levels)
            return function(*args, **kwargs)

        return sample

    def _place_reference(self, last: float) -> float:
        """Choose the noise level of the reference pass (docs/method.md, section 5)."""
        sigmas = self.model.sigmas
        trained = len(sigmas)
        if self.by_timestep:
            return choose_reference(last, trained)
        clean = sigmas[round(ALMOST_CLEAN * trained)]
        return last if last <= clean else sigmas[round(REFERENCE * trained)]

    def _level(self, mark: float) -> float:
        if not self.by_timestep:
            return mark
        return interpolate_sigmas(torch.tensor([mark]), self.model.sigmas)[0]

    def _around(self, previous: Forward) -> Forward:
        def forward(x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if len(x) != len(self.latents):
                raise HostError(
                    f"The sampler works on {len(x)} frames, but the batch has {len(self.latents)}; "
                    "switch off extensions that change the batch."
                )
            index = len(self.record)
            self._pin(x, index)
            self.record.append(pick_ends(x))
            (mark,) = self._read(sigma[0])
            step = Step(index, max(len(self.levels), index + 1), self._level(mark))
            if index == 0:
                cond, uncond, image_cond = _conditions(args, kwargs)
                self._refuse_composed(cond)
                if self.guide.wants_reference:
                    self._capture(cond, uncond, image_cond, like=x)
            self.guide.step(step)
            with self.model.unet.calling(len(x)):
                output = previous(x, sigma, *args, **kwargs)
            self._finite = torch.isfinite(output).all()
            changes = self.guide.steers(step) or self.guide.smooths(step)
            return self._changed(output, x, step) if changes else output

        return forward

    def _read(self, *numbers: Tensor) -> list[float]:
        """Read numbers from the device, and whether the last call's result is finite.

        All in one copy, which is the only time a model call waits for the device here.
        """
        checks = [] if self._finite is None else [self._finite]
        together = [*numbers, *(check.to(numbers[0]) if numbers else check for check in checks)]
        values = torch.stack(together).tolist() if together else []
        self._finite = None
        if checks and not values[-1]:
            calls = len(self.record) - len(numbers)
            raise HostError(
                f"The model returned NaN or infinite values in call {calls} of this batch. "
                f"{advise_precision()}, or choose another checkpoint."
            )
        return values[: len(numbers)]

    def _pin(self, x: Tensor, index: int) -> None:
        """Overwrite the anchors in the sampler's tensor by those of the batch before at this call.
        """
        if self.carry is None:
            return
        if index >= len(self.carry.latents):
            raise HostError(
                f"This batch has more than the {len(self.carry.latents)} model calls of the one "
                "before, so its anchors are unknown; choose a sampler with a fixed number."
            )
        if self._pinned is None:
            self._pinned = send_carry(self.carry, x)
        x[:2] = self._pinned[index]

    def _capture(self, cond: Any, uncond: Any, image_cond: Any, *, like: Tensor) -> None:
        """Run the reference pass: almost clean frames, each with its own noise, no ControlNet."""
        denoiser = self.sampler.model_wrap_cfg
        noise = torch.randn(
            self.latents.shape, generator=torch.Generator().manual_seed(self.seed + _REFERENCE_SEED)
        ).to(like)
        point = ReferencePoint(
            self.latents.to(like), noise, sigma=self._level(self.reference),
            mark=self.reference,
        )
        _, positive = prompt_parser.reconstruct_multicond_batch(cond, denoiser.step)
        texts: list[tuple[Chunk, Any]] = [("positive", positive)]
        if uncond is not None:  # Forge kinds make none at guidance scale 1
            negative = prompt_parser.reconstruct_cond_batch(uncond, denoiser.step)
            texts.append(("negative", negative))
        with self.guide.capturing(), self.model.unet.calling(len(like)):
            for chunk, text in texts:
                self.model.evaluate(denoiser, point, text, image_cond, chunk)

    def _refuse_composed(self, cond: Any) -> None:
        kinds, _ = prompt_parser.reconstruct_multicond_batch(
            cond, self.sampler.model_wrap_cfg.step
        )
        if any(len(kind) != 1 for kind in kinds):
            raise HostError(
                "The prompt is composed with AND, which FRESCO cannot guide; write and in small "
                "letters, or use a comma."
            )

    def _changed(self, output: Tensor, x: Tensor, step: Step) -> Tensor:
        """Change an output so that its denoised estimate is that of the guide."""
        kind = "epsilon" if self.by_timestep else "sample"
        estimate = to_estimate(output, x, step.sigma, kind)
        if self.guide.steers(step):
            estimate = self.guide.steer(estimate)
        if self.guide.smooths(step):
            images = self.model.decode(estimate)
            change = self.model.encode(self.guide.smooth(images)) - self.model.encode(images)
            estimate = estimate + change.to(estimate)
        return from_estimate(estimate, x, step.sigma, kind)


def _conditions(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Conditional, unconditional and image conditioning of a denoiser call."""
    names = ("uncond", "cond", "cond_scale", "s_min_uncond", "image_cond")
    values = dict(zip(names, args, strict=False)) | kwargs
    return values["cond"], values["uncond"], values["image_cond"]


@contextmanager
def _replaced_function(
    sampler: Any, make: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Within the context, the function that samples is replaced by `make` of it."""
    function = sampler.func
    sampler.func = make(function)
    try:
        yield
    finally:
        sampler.func = function
