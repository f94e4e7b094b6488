"""The interface between guidance and hosts.

Guidance never sees a module, a sampler or a file; adapters never see a flow.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from fresco.progress import Stage
    from fresco.settings import SamplingSettings

Chunk = Literal["positive", "negative"]
"""Which conditioning a run of rows belongs to."""


@dataclass(frozen=True, slots=True)
class Site:
    """A self-attention layer of the decoder."""

    stage: int
    """Decoder stage, 0 = coarsest."""
    index: int
    """Position among all guided self-attention layers, in the order they run."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the model within a sampling."""

    index: int
    """Position among the model calls of this sampling, from 0."""
    count: int
    """Model calls of this sampling."""
    sigma: float
    """Noise level sqrt((1 - a) / a) of the model's own schedule."""


@dataclass(frozen=True, slots=True)
class Rows:
    """How the rows of one UNet evaluation are laid out: chunk by chunk, all frames in each."""

    frames: int
    """Frames of the batch, N."""
    chunks: tuple[Chunk, ...]
    """Conditioning of each chunk, in the order of the rows."""

    @property
    def count(self) -> int:
        """Rows in all."""
        return self.frames * len(self.chunks)


class Projections(Protocol):
    """The linear maps of one attention layer."""

    @property
    def heads(self) -> int:
        """Number of heads."""
        ...

    def query(self, x: Tensor) -> Tensor:
        """[rows, tokens, C] -> [rows, tokens, heads * d]."""
        ...

    def key(self, x: Tensor) -> Tensor:
        """[rows, tokens, C] -> [rows, tokens, heads * d]."""
        ...

    def value(self, x: Tensor) -> Tensor:
        """[rows, tokens, C] -> [rows, tokens, heads * d]."""
        ...

    def output(self, x: Tensor) -> Tensor:
        """[rows, tokens, heads * d] -> [rows, tokens, C], bias and rescale included."""
        ...


class UNetHooks(Protocol):
    """What a host calls during one UNet evaluation. The rows are chunks of all frames each."""

    def decoder_entry(self, stage: int, h: Tensor, rows: Rows) -> Tensor:
        """Change the input of a decoder stage before the skip is joined, [rows, C, H, W]."""
        ...

    def decoder_block(
        self, stage: int, h: Tensor, skip: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor]:
        """Change input and skip of each block of a decoder stage, before they are joined.

        Both are [rows, C, H, W], and are returned unchanged unless FreeU is on. The input of the
        first block has passed `decoder_entry`.
        """
        ...

    def self_attention(
        self, site: Site, x: Tensor, project: Projections, rows: Rows
    ) -> Tensor | None:
        """Self-attention of the normed input [rows, tokens, C]; None: the host uses its own."""
        ...


class GuidedUNet(Protocol):
    """A UNet that hooks can be installed on."""

    @property
    def stages(self) -> tuple[int, ...]:
        """Decoder stages, coarsest first."""
        ...

    @property
    def sites(self) -> tuple[Site, ...]:
        """Self-attention layers of the two finest attention stages, in the order they run."""
        ...

    def installed(self, hooks: UNetHooks) -> AbstractContextManager[None]:
        """Install the hooks; after the context, the model is as it was."""
        ...


class SamplingGuide(UNetHooks, Protocol):
    """What a host's sampling loop calls besides the UNet hooks."""

    def begin(self, sigmas: Sequence[float]) -> None:
        """Called before the first model call with the noise levels of all calls."""
        ...

    def capturing(self) -> AbstractContextManager[None]:
        """Within the context, a UNet call is recorded as the spatial reference and not changed."""
        ...

    def step(self, step: Step) -> None:
        """Called before each model call."""
        ...

    @property
    def wants_reference(self) -> bool:
        """Whether a part that is on needs the reference pass."""
        ...

    @property
    def wants_smoothing(self) -> bool:
        """Whether the background may be smoothed at any call, for which the VAE is needed."""
        ...

    def steers(self, step: Step) -> bool:
        """Whether the latents of denoised estimates are changed at this call, without the VAE."""
        ...

    def steer(self, latents: Tensor) -> Tensor:
        """Change the latents of denoised estimates, [N, C, h, w]."""
        ...

    def smooths(self, step: Step) -> bool:
        """Whether the background of the denoised estimate is smoothed at this call."""
        ...

    def smooth(self, images: Tensor) -> Tensor:
        """Smooth the background of [N, 3, H, W] in [-1, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class BatchCarry:
    """What a batch passes to the next: the latents of its first and last frame at each model call.
    """

    latents: tuple[Tensor, ...]
    """[2, C, h, w] for each model call, on the CPU: first frame, last frame."""


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One batch of keyframes to translate."""

    frames: NDArray[np.uint8]
    """[N, H, W, 3] RGB at working size."""
    prompts: tuple[str, ...]
    """Prompt of every frame, N of them."""
    negative_prompts: tuple[str, ...]
    """Negative prompt of every frame, N of them."""
    carry: BatchCarry | None
    """Latents of the batch before, which rows 0 and 1 follow; None for the first batch."""
    strength: float | None = None
    """Denoising strength of this batch; None: the strength in the settings."""
    seed: int | None = None
    """Seed of this batch; None: the seed in the settings."""
    hints: tuple[NDArray[np.uint8] | None, ...] = ()
    """Hints of each ControlNet unit, [N, H, W, 3] RGB at working size, if they were made elsewhere.
    None: the unit's preprocessor makes them. Empty: preprocessors make the hints of all units."""

    def apply_to(self, sampling: SamplingSettings) -> SamplingSettings:
        """The options of the sampling, with the strength and seed of this batch."""
        own = {"strength": self.strength, "seed": self.seed}
        given = {name: value for name, value in own.items() if value is not None}
        return dataclasses.replace(sampling, **given) if given else sampling


@dataclass(frozen=True, slots=True)
class BatchResult:
    """A translated batch."""

    images: NDArray[np.uint8]
    """[N, H, W, 3] RGB, anchors included."""
    carry: BatchCarry
    """For the next batch."""


class Host(Protocol):
    """A loaded model with its sampling loop; `translate` receives it as an argument."""

    @property
    def name(self) -> str:
        """Model and host as shown to the user, such as `diffusers: v1-5.safetensors`."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything that changes images: weights, scheduler, options, number format.

        Names of files and the device are left out, so that a run can continue with a renamed model
        and on another machine.
        """
        ...

    @property
    def former_fingerprint(self) -> str:
        """The hash as version 0.1 computed it, with which its keyframes are found."""
        ...

    def digest_prompts(self, prompts: Sequence[str]) -> str:
        """Hash of what prompts refer to, such as the vectors of embeddings; empty if nothing."""
        ...

    @property
    def model_sigmas(self) -> tuple[float, ...]:
        """Noise level of every training timestep, rising (1000 of them for SD)."""
        ...

    @property
    def device(self) -> str:
        """Device for the tensors of the guide."""
        ...

    @property
    def unet(self) -> GuidedUNet:
        """The UNet that is guided; its layers say at which scales."""
        ...

    def sample(self, request: BatchRequest, guide: SamplingGuide | None, stage: Stage
               ) -> BatchResult:
        """Translate one batch. With `guide=None` the host translates frame by frame, unguided.

        Tells `stage` the number of units (model calls or steps), and advances it for each. Raises
        OutOfMemoryError if the device has too little memory, and HostError on NaN.
        """
        ...

    def reconstruct(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Encode and decode [N, H, W, 3] with the VAE, as a lower bound for every measure."""
        ...


