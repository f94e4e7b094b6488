"""Estimate the memory of a job from sizes, and its time from earlier jobs.

Memory is counted for Stable Diffusion 1.x in float16, from the largest tensors that exist at the
same time. The time is known only from jobs that ran on this machine; without any, none is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from PIL import Image

from fresco.hosts.options import HostOptions
from fresco.progress import format_seconds
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import State
from fresco.server.jobs.runner import find_keyframes
from fresco.server.jobs.store import StagePace
from fresco.settings import FrescoSettings

_GIB = 1 << 30
_HALF, _SINGLE = 2, 4
"""Bytes of a number in float16 and float32."""
_MODEL = 860_000_000 + 123_000_000 + 84_000_000
"""Parameters of UNet, text encoder and autoencoder of Stable Diffusion 1.5."""
_MODEL_XL = 2_567_000_000 + 123_000_000 + 695_000_000 + 84_000_000
"""Parameters of UNet, both text encoders and autoencoder of SDXL."""
_CONTROL = 361_000_000
"""Parameters of a ControlNet for Stable Diffusion 1.5."""
_CELL = 8
"""Side of a latent in pixels; a latent is a token of the finest level."""
_FINE = 640
"""Channels of the finest feature that is optimised (docs/method.md, section 7)."""
_COPIES = 4
"""Copies of this feature for both chunks: the value, Adam's two moments, and the feature itself."""
_REFERENCES = 1
"""Copies of it for one chunk: the tokens of the reference. A Gram matrix is never stored
(docs/method.md, section 7)."""
_LIVE = 8_000
"""Channels times tokens of the finest level that are in memory during a call: the skips of the
encoder (about 1,600) and the widest block (960 in, 2,560 in the feed-forward, and attention)."""
_DECODED = 640
"""Channels times pixels at the VAE's last level: 256 in, 256 and 128 on the way out."""
_CHUNKS = 2
"""Conditional and unconditional."""
_SLACK = 1.5
"""Factor for allocators and all other tensors."""
_PASSES = 1
"""UNet calls of a batch besides the steps: the reference pass (docs/method.md, section 5)."""

_JOBS = 5
"""Number of latest finished jobs that are used."""

_CALLED_TWICE = frozenset({
    "heun", "dpm2", "dpm2 a", "dpm++ 2s a", "dpm++ sde", "restart",
    "dpm2-a", "dpm++-sde",
})
"""Samplers of WebUIs and of diffusers, in small letters, that call the model twice a step."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The numbers that the cost of a job depends on."""

    keys: int
    """Keyframes."""
    frames: int
    """Frames in all."""
    width: int
    """Width of the frames at the model's size."""
    height: int
    """Height of the frames at the model's size."""
    batch: int
    """Frames translated together."""
    steps: int
    """Steps of the full schedule."""
    strength: float
    """Share of the schedule that is run."""
    controls: int = 0
    """Number of ControlNets."""
    optimized: bool = True
    """Whether features are optimised."""
    calls_per_step: int = 1
    """Model calls of a step of the sampler."""

    @property
    def calls(self) -> float:
        """UNet calls of a batch."""
        return max(1.0, self.steps * self.strength * self.calls_per_step) + _PASSES

    @property
    def key_work(self) -> float:
        """Cost of the keyframes: frames times calls times pixels."""
        return self.keys * self.calls * self.width * self.height

    @property
    def frame_work(self) -> float:
        """Cost of all frames: frames times pixels."""
        return float(self.frames * self.width * self.height)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the device, in bytes."""

    model: float
    """Weights."""
    features: float
    """Features of a UNet call."""
    optimization: float
    """Memory for optimising the finest feature."""
    decoding: float
    """The VAE's last level, when the UNet's features are freed."""

    @property
    def least(self) -> float:
        """Sum of the largest tensors that exist at the same time."""
        return self.model + max(self.features + self.optimization, self.decoding)

    @property
    def most(self) -> float:
        """The same with an allowance for everything else."""
        return self.model + _SLACK * (self.least - self.model)


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds for a unit of work, from earlier jobs on this machine."""

    key: float = 0.0
    """Seconds for a unit of `key_work`; 0: not known."""
    frame: float = 0.0
    """Seconds for a unit of `frame_work`; 0: not known."""


def count_memory(load: Workload) -> Memory:
    """Count the memory of a batch."""
    rows, tokens = _CHUNKS * load.batch, load.width * load.height / _CELL**2
    copies = _COPIES * _CHUNKS + _REFERENCES
    return Memory(
        model=_HALF * (_MODEL + load.controls * _CONTROL),
        features=_HALF * rows * tokens * _LIVE * (1 + 0.4 * load.controls),
        optimization=_SINGLE * copies * load.batch * tokens * _FINE if load.optimized else 0.0,
        decoding=float(_HALF * load.batch * load.width * load.height * _DECODED),
    )


def count_workload(
    settings: FrescoSettings, host: HostOptions, size: tuple[int, int], keys: int, frames: int
) -> Workload:
    """Make the workload of a job with these settings for frames of `size` (width, height)."""
    guidance, sampling = settings.guidance, settings.sampling
    return Workload(
        keys, frames, *size, settings.keyframes.batch_size, sampling.steps, sampling.strength,
        len(host.control), guidance.spatial_optimization or guidance.temporal_optimization,
        count_calls_per_step(host.sampler),
    )


def count_calls_per_step(sampler: str) -> int:
    """Count the model calls of a sampler in a step; a noise schedule after its name is ignored."""
    name = sampler.lower().removesuffix(" karras").removesuffix("-karras")
    return 2 if name in _CALLED_TWICE else 1


def measure_latest(engine: JobEngine) -> Rates:
    """Find the slowest rates of the latest finished jobs."""
    done = [job.id for job in engine.jobs() if job.state is State.DONE][:_JOBS]
    return choose_slowest(_rates_of_job(engine, job) for job in done)


def _rates_of_job(engine: JobEngine, job: str) -> Rates:
    request = engine.request(job)
    keys = find_keyframes(engine.folder(job)).values()
    side = request.settings.sampling.resolution
    try:
        with Image.open(next(iter(keys))) as image:
            size = image.size
    except (StopIteration, OSError):
        size = side, side  # only the scale counts
    load = count_workload(request.settings, request.host, size, 0, 0)
    return read_rates(engine.stages(job), load)


def read_rates(stages: Mapping[str, StagePace], load: Workload) -> Rates:
    """Compute the rates of a finished job from the pace of its stages.

    Args:
        load: workload of that job; its numbers of keyframes and frames are read from the stages.
    """
    # The time that the whole stage would have taken without any earlier files.
    seconds = {
        name: pace.seconds * pace.total / pace.made for name, pace in stages.items() if pace.made
    }
    pixels = load.width * load.height
    keys, frames = (
        stages[name].total if name in stages else 0 for name in ("keyframes", "write")
    )
    behind = sum(seconds.get(stage, 0.0) for stage in ("propagate", "write", "measure"))
    return Rates(
        seconds.get("keyframes", 0.0) / (keys * load.calls * pixels) if keys else 0.0,
        behind / (frames * pixels) if frames else 0.0,
    )


def choose_slowest(rates: Iterable[Rates]) -> Rates:
    """Choose the slowest rates of some jobs."""
    known = tuple(rates)
    return Rates(
        max((rate.key for rate in known), default=0.0),
        max((rate.frame for rate in known), default=0.0),
    )


def describe_estimate(load: Workload, rates: Rates) -> tuple[str, ...]:
    """Describe the estimate in words, and say where its numbers come from."""
    need = count_memory(load)
    least, most = f"{need.least / _GIB:.1f}", f"{need.most / _GIB:.1f}"
    memory = most if least == most else f"{least} to {most}"
    lines = [
        f"{load.keys} keyframes of {load.width} x {load.height} in batches of {load.batch}, "
        f"{load.frames} frames in all.",
        f"Graphics memory: about {memory} GiB, counted from the tensors of Stable Diffusion 1.x in "
        "float16, not measured. The weights of SDXL take "
        f"{_HALF * (_MODEL_XL - _MODEL) / _GIB:.1f} GiB more. If memory runs out, the batch "
        "shrinks by itself.",
    ]
    known = [
        f"{format_seconds(rate * work)} for {what}" for rate, work, what in (
            (rates.key, load.key_work, "the keyframes"),
            (rates.frame, load.frame_work, "all frames"),
        ) if rate
    ]
    if known:
        lines.append(f"Time: about {' and '.join(known)}, by the slowest of the latest jobs on "
                     "this machine.")
    else:
        lines.append(
            "Time: not known yet; once a job has run on this machine, its pace is used here. The "
            "preview is the quickest way to see it."
        )
    return tuple(lines)
