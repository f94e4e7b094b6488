"""What guidance costs on a graphics card: `python -m benchmarks.card`.

Random weights of Stable Diffusion 1.5's full size are made on the spot; nothing is downloaded. JSON
goes to stdout, the table for docs/verified.md to stderr. `--device cpu --tiny` tries the script on
a machine without a card, with a network of a tenth of the width and small frames.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.measure import CLEAR, MIB, RESET_PEAK, read_resident
from benchmarks.operators import PARTS, SD15, CountOperators
from demo.make_model import (
    make_scheduler,
    make_text_encoder,
    make_unet,
    make_vae,
    write_tokenizer,
)
from fresco.flow.dis import DisEstimator
from fresco.flow.gmflow import GMFlow
from fresco.flow.interface import FlowEstimator
from fresco.flow.network import GMFLOW, NetworkEstimator
from fresco.flow.occlusion import BidirectionalFlow, ring_flow
from fresco.flow.tensors import to_images
from fresco.guidance.batch import BatchGuidance, find_attention_scales
from fresco.guidance.gram import normalize_tokens
from fresco.guidance.guide import FrescoGuide
from fresco.guidance.motion import make_feature_motion
from fresco.guidance.optimization import (
    Descent,
    OptimizationTarget,
    optimize_feature,
)
from fresco.guidance.ports import BatchRequest, Step
from fresco.guidance.saliency import compute_saliency
from fresco.guidance.sending import send
from fresco.hosts.devices import find_accelerator
from fresco.hosts.diffusers.denoiser import Denoiser
from fresco.hosts.diffusers.host import DiffusersHost, ModelParts
from fresco.hosts.diffusers.sampling import capture_reference, send_timesteps
from fresco.hosts.diffusers.text import PromptEncoder
from fresco.hosts.diffusers.unet import DiffusersUNet
from fresco.hosts.diffusers.vae import LatentCodec, to_tensor
from fresco.hosts.noise import compute_model_sigmas
from fresco.progress import Progress
from fresco.propagation.engine import create_engine
from fresco.propagation.propagate import propagate_segment
from fresco.propagation.segment import SegmentJob
from fresco.settings import (
    BlendSettings,
    FlowSettings,
    GuidanceSettings,
    PropagationSettings,
    SamplingSettings,
)
from fresco.workspace import write_image

FIRST, LAST = 951, 1
"""Timesteps of the first and of the last call of 20."""
SCALE = 7.5
"""Classifier-free guidance."""
GOAL = 1.3
"""A guided call of a plain one."""
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
CLIP: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "projection_dim": 768,
        "num_hidden_layers": 12, "num_attention_heads": 12}
"""Stable Diffusion 1.5's text model."""

Row = dict[str, float | None]
"""What was measured of one piece of work."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    frames: int
    """Of a batch."""
    side: int
    """Pixels of a frame's side."""
    rounds: int
    """Calls that a median is of."""
    steps: int
    """Of a whole sampling, of which 3/4 are calls."""
    segment: int
    """Frames between two keyframes."""


FULL = Sizes(frames=8, side=512, rounds=5, steps=20, segment=4)
TINY = Sizes(frames=3, side=64, rounds=1, steps=4, segment=1)


class Meter:
    """Seconds and peak memory of work on a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._library: Any = getattr(torch, device.type, None)
        self._counts_memory = hasattr(self._library, "reset_peak_memory_stats")

    @property
    def memory(self) -> str:
        """What peak memory is of."""
        if self._counts_memory:
            return "the device's, tensors of weights included"
        return "the process's resident pages" if CLEAR.exists() else "not measured"

    def wait(self) -> None:
        """Until the device has done all it was told."""
        synchronize = getattr(self._library, "synchronize", None)
        if synchronize is not None:
            synchronize()

    def measure(self, work: Callable[[], object], *, rounds: int = 1, warm: bool = True) -> Row:
        """Median seconds of some rounds, and the peak of memory over them in MiB.

        Args:
            warm: work once before, so that what is made or chosen once does not count.
        """
        if warm:
            work()
        self.wait()
        self._forget_peak()
        seconds: list[float] = []
        for _ in range(rounds):
            start = time.perf_counter()
            work()
            self.wait()
            seconds.append(time.perf_counter() - start)
        return {"seconds": round(statistics.median(seconds), 5), "peak_mib": self._read_peak()}

    def _forget_peak(self) -> None:
        if self._counts_memory:
            self._library.empty_cache()
            self._library.reset_peak_memory_stats()
        elif CLEAR.exists():
            CLEAR.write_text(RESET_PEAK)

    def _read_peak(self) -> float | None:
        if self._counts_memory:
            return round(self._library.max_memory_allocated() / MIB / 1024, 1)
        return round(read_resident("VmHWM"), 1) if CLEAR.exists() else None


def make_parts(folder: Path, *, tiny: bool) -> ModelParts:
    """Random networks, on the CPU in float32; what is large enough to be told apart is full size.

    Make them before there is a pretended device: beside one, transformers leaves buffers unset.
    """
    torch.manual_seed(0)
    tokens = write_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    schedule = make_scheduler().config
    if tiny:
        parts = make_unet(), make_vae(), make_text_encoder(tokens)
    else:
        text = CLIPTextConfig(
            vocab_size=49408, max_position_embeddings=77, hidden_act="quick_gelu",
            bos_token_id=tokens - 2, eos_token_id=tokens - 1, pad_token_id=tokens - 1, **CLIP,
        )
        parts = UNet2DConditionModel(**SD15), make_full_vae(), CLIPTextModel(text)
    for part in parts:
        part.eval().requires_grad_(False)
    unet, vae, text_encoder = parts
    return ModelParts(unet, vae, text_encoder, tokenizer, schedule)


def make_full_vae() -> AutoencoderKL:
    """Stable Diffusion's autoencoder, random."""
    shape: dict[str, Any] = {  # diffusers annotates them as tuples of one
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    return AutoencoderKL(layers_per_block=2, latent_channels=4, sample_size=512, **shape)


def send_parts(parts: ModelParts, device: torch.device, dtype: torch.dtype) -> ModelParts:
    """The networks on the device."""
    for network in parts.networks():
        nn.Module.to(network, device=device, dtype=dtype)
    return parts


def make_frames(count: int, side: int) -> NDArray[np.uint8]:
    """[N, side, side, 3] a texture that slides under a still square."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (24, 24, 3)).astype(np.uint8)
    wide = np.asarray(cv2.resize(coarse, (2 * side, 2 * side), interpolation=cv2.INTER_CUBIC))
    frames = [wide[2 * n : 2 * n + side, 3 * n : 3 * n + side].copy() for n in range(count)]
    for frame in frames:
        frame[side // 3 : side // 2, side // 3 : side // 2] = wide[-1, -1]
    return np.stack(frames).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Bench:
    """A model on a device, and a batch for it."""

    parts: ModelParts
    adapter: DiffusersUNet
    device: torch.device
    sizes: Sizes
    meter: Meter
    frames: NDArray[np.uint8]
    flow: BidirectionalFlow
    sigmas: tuple[float, ...]

    @classmethod
    def of(cls, parts: ModelParts, device: torch.device, sizes: Sizes) -> Bench:
        """Frames and their flow by DIS."""
        frames = make_frames(sizes.frames, sizes.side)
        sigmas = compute_model_sigmas(make_scheduler().alphas_cumprod)
        flow = ring_flow(frames, DisEstimator())
        adapter = DiffusersUNet(parts.unet)
        return cls(parts, adapter, device, sizes, Meter(device), frames, flow, sigmas)

    def make_guide(self, settings: GuidanceSettings) -> FrescoGuide:
        """The guide of the batch."""
        saliency = None
        if settings.background_smoothing:
            saliency = compute_saliency(self.frames, self.flow, "motion", FlowSettings())
        images = torch.from_numpy(self.frames).permute(0, 3, 1, 2).float()
        scales = find_attention_scales(self.adapter)
        batch = BatchGuidance.build(
            images, self.flow, saliency, settings, self.device, scales=scales
        )
        return FrescoGuide(batch, settings, self.sigmas)

    def make_denoiser(self) -> Denoiser:
        """The model with classifier-free guidance."""
        text = PromptEncoder(self.parts.tokenizer, self.parts.text_encoder)
        side, count = self.sizes.side, self.sizes.frames
        positive, negative = (text.encode((prompt,) * count).sized(side, side)
                              for prompt in ("a watercolour painting", "blurry"))
        return Denoiser(self.adapter, positive, negative, scale=SCALE)

    def draw_latents(self) -> Tensor:
        """[N, 4, h, w], the same every time."""
        generator = torch.Generator().manual_seed(1)
        side = self.sizes.side // 8
        return torch.randn(self.sizes.frames, 4, side, side, generator=generator).to(self.device)

    @contextlib.contextmanager
    def ready_call(self, settings: GuidanceSettings | None) -> Iterator[Callable[[], Tensor]]:
        """Within: a model call of the first step, at which every part that is on acts."""
        denoiser, x = self.make_denoiser(), self.draw_latents()
        t = send_timesteps(torch.tensor(FIRST), self.device)
        if settings is None:
            yield lambda: denoiser(x, t)
            return
        guide = self.make_guide(settings)
        with self.adapter.installed(guide):
            guide.begin([self.sigmas[FIRST]])
            noise, last = x.flip(0), torch.tensor(LAST)
            capture_reference(denoiser, guide, x, noise, last, self.sigmas[LAST])
            guide.step(Step(0, 1, self.sigmas[FIRST]))
            yield lambda: denoiser(x, t)


def measure_calls(bench: Bench) -> dict[str, Row]:
    """The plain model call, and one with each part alone and with all."""
    rows: dict[str, Row] = {}
    for name, settings in {"plain": None, **PARTS}.items():
        with bench.ready_call(settings) as call:
            row = bench.meter.measure(call, rounds=bench.sizes.rounds)
            with CountOperators() as counted:
                output = call()
            _require_finite(output, name)
        row["operators"] = counted.total
        rows[name] = row
        _compare(row, rows["plain"])
        _tell(name, row)
    return rows


def measure_autocast(bench: Bench, dtype: torch.dtype) -> dict[str, Row]:
    """The path of the WebUIs: autocast around the call, `no_grad` in one, inference mode in the
    other; float32 latents meet a model in half precision."""
    lower = torch.bfloat16 if dtype == torch.float32 else dtype
    rows: dict[str, Row] = {}
    settings = PARTS["all"]
    modes = {"A1111": torch.no_grad, "Forge": torch.inference_mode}
    with bench.ready_call(settings) as call:
        expected = call()
    for name, mode in modes.items():
        with mode(), torch.autocast(bench.device.type, dtype=lower), \
                bench.ready_call(settings) as call:
            row = bench.meter.measure(call)
            found = call()
        _require_finite(found, name)
        row["mean_difference"] = _difference(found, expected)
        rows[f"all, autocast as in {name}"] = row
        _tell(name, row)
    return rows


def measure_sampling(bench: Bench) -> dict[str, Row]:
    """Whole samplings, the VAE and the text model included."""
    sampling = SamplingSettings(
        steps=bench.sizes.steps, strength=0.75, guidance_scale=SCALE, device=str(bench.device)
    )
    count = bench.sizes.frames
    request = BatchRequest(
        frames=bench.frames, prompts=("a watercolour painting",) * count,
        negative_prompts=("blurry",) * count, carry=None,
    )
    settings = {"plain": None, "attention": PARTS["all"], "all": PARTS["all"]}
    settings["attention"] = dataclasses.replace(
        PARTS["all"], spatial_optimization=False, temporal_optimization=False
    )
    settings["all and background smoothing"] = dataclasses.replace(
        PARTS["all"], background_smoothing=True
    )
    host = DiffusersHost(bench.parts, sampling, name="random weights")
    rows: dict[str, Row] = {}
    for name, part in settings.items():
        def sample(part: GuidanceSettings | None = part) -> None:
            guide = bench.make_guide(part) if part is not None else None
            with Progress(None).stage("benchmark", 1) as stage:
                host.sample(request, guide, stage)

        rows[name] = row = bench.meter.measure(sample, warm=False)
        _compare(row, rows["plain"])
        _tell(f"sampling, {name}", row)
    return rows


def measure_vae(bench: Bench) -> dict[str, Row]:
    """All frames into latents and back."""
    codec = LatentCodec(bench.parts.vae)
    images = to_tensor(bench.frames, bench.device)
    latents = codec.encode(images)
    return {
        "encode": bench.meter.measure(lambda: codec.encode(images)),
        "decode": bench.meter.measure(lambda: codec.decode(latents)),
    }


def make_gmflow(folder: Path, device: torch.device) -> FlowEstimator:
    """GMFlow with random weights."""
    torch.manual_seed(0)
    weights = folder / "gmflow.pth"
    torch.save({"model": GMFlow().state_dict()}, weights)
    return NetworkEstimator(GMFLOW, weights, device)


def measure_flow(bench: Bench, network: FlowEstimator) -> dict[str, Row]:
    """A pair of frames, both directions."""
    pair = to_images(bench.frames[:2])
    estimators = {"GMFlow on the device": network, "DIS on the CPU": DisEstimator()}
    return {
        name: bench.meter.measure(
            lambda estimator=estimator: estimator.estimate(pair[:1], pair[1:]),
            rounds=bench.sizes.rounds,
        )
        for name, estimator in estimators.items()
    }


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """Frames that are in memory, as a source."""

    frames: NDArray[np.uint8]

    def __call__(self, first: int, last: int) -> Iterator[NDArray[np.uint8]]:
        """See `FrameLoader`."""
        yield from self.frames[first : last + 1]


def measure_propagation(bench: Bench, network: FlowEstimator, folder: Path) -> dict[str, Row]:
    """A segment of frames by each engine, flow on the device; seconds a frame."""
    between, side = bench.sizes.segment, bench.sizes.side
    frames = make_frames(between + 2, side)
    rows: dict[str, Row] = {}
    for method in ("flow", "patch"):
        engine = create_engine(PropagationSettings(method=method))
        home = folder / method
        home.mkdir()
        keys = []
        for number in (0, between + 1):
            keys.append(folder / f"{method}-{number}.png")
            write_image(keys[-1], 255 - frames[number])
        job = SegmentJob(
            first=0, last=between + 1, first_key=keys[0], last_key=keys[1],
            frames=StoredFrames(frames), flow=FlowSettings("gmflow"), blend=BlendSettings(),
            folder=home, engine=engine, device=str(bench.device),
        )
        row = bench.meter.measure(lambda job=job: propagate_segment(job, network), warm=False)
        row["seconds"] = round((row["seconds"] or 0) / between, 5)
        rows[f"{method}, a frame"] = row
        _tell(f"propagation by {method}", row)
    return rows


def compare_with_cpu(bench: Bench) -> dict[str, float]:
    """Mean difference of the optimisation on the device to the CPU's, features of size 1.

    L1 with Adam amplifies rounding, so that only the first is a bound on errors.
    """
    torch.manual_seed(2)
    side = min(16, bench.sizes.side // 8)
    feature, source = torch.randn(2, bench.sizes.frames, 320, side, side)
    found: dict[str, float] = {}
    for iterations in (1, 20):
        results = []
        for device in (torch.device("cpu"), bench.device):
            motion = make_feature_motion(bench.flow, (side, side))
            target = OptimizationTarget(
                normalize_tokens(source).to(device), send(motion, device), 100.0
            )
            result = optimize_feature(feature.to(device), target, Descent(iterations, 0.2))
            results.append(result.cpu())
        found[f"{iterations} iterations"] = _difference(*results)
    return found


def _difference(one: Tensor, other: Tensor) -> float:
    return float(f"{float((one.float() - other.float()).abs().mean()):.3g}")


def _require_finite(output: Tensor, name: str) -> None:
    if not bool(torch.isfinite(output).all()):
        sys.exit(f"The model call '{name}' gave NaN or infinite values; nothing was measured.")


def _compare(row: Row, plain: Row) -> None:
    if row["seconds"] is not None and plain["seconds"]:
        row["of_plain"] = round(row["seconds"] / plain["seconds"], 3)


def _tell(name: str, row: Row) -> None:
    print(name, row, file=sys.stderr, flush=True)


def run(parts: ModelParts, device: torch.device, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """All measurements of networks that lie on the device."""
    bench = Bench.of(parts, device, sizes)
    network = make_gmflow(folder, device)
    return {
        "peak memory": bench.meter.memory,
        "model call": measure_calls(bench),
        "model call under autocast": measure_autocast(bench, parts.unet.dtype),
        "sampling": measure_sampling(bench),
        "vae": measure_vae(bench),
        "flow of a pair": measure_flow(bench, network),
        "propagation": measure_propagation(bench, network, folder),
        "optimisation against the CPU's, mean difference": compare_with_cpu(bench),
        "goal": {"all of plain": GOAL},
    }


def make_table(found: dict[str, Any]) -> str:
    """Markdown of everything that was timed."""
    lines = ["| what | seconds | of plain | peak MiB | operators |", "|---" * 5 + "|"]
    for group, rows in found.items():
        timed = isinstance(rows, dict) and all(
            isinstance(row, dict) and "seconds" in row for row in rows.values()
        )
        for name, row in rows.items() if timed else ():
            cells = (row.get(key) for key in ("seconds", "of_plain", "peak_mib", "operators"))
            values = ["" if cell is None else f"{cell:g}" for cell in cells]
            lines.append(f"| {group}: {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def name_device(device: torch.device) -> str:
    """The card's own name, or the processor's."""
    library: Any = getattr(torch, device.type, None)
    if hasattr(library, "get_device_name"):
        return str(library.get_device_name(device))
    return platform.processor() or platform.machine()


def choose_device(name: str, *, tiny: bool) -> torch.device:
    """The device asked for; a CPU only at tiny sizes, where full ones would take hours."""
    device = find_accelerator() if name == "auto" else torch.device(name)
    if device is None or (device.type == "cpu" and not tiny):
        sys.exit(
            "benchmarks.card needs a graphics card, and none was found. `--device cpu --tiny` "
            "tries the script without one."
        )
    return device


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="such as cuda, mps, cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), help="of the model; float16 on a card")
    parser.add_argument("--tiny", action="store_true", help="a small network and small frames")
    given = parser.parse_args()
    device = choose_device(given.device, tiny=given.tiny)
    dtype = given.dtype or ("float32" if device.type == "cpu" else "float16")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fresco-card-") as scratch, torch.no_grad():
        folder = Path(scratch)
        parts = send_parts(make_parts(folder, tiny=given.tiny), device, DTYPES[dtype])
        found = run(parts, device, TINY if given.tiny else FULL, folder)
    sizes = dataclasses.asdict(TINY if given.tiny else FULL)
    head = {
        "benchmark": "benchmarks.card", "device": name_device(device), "torch": torch.__version__,
        "dtype": dtype, "tiny": given.tiny, "sizes": sizes,
        "seconds in all": round(time.monotonic() - start, 1),
    }
    print(json.dumps(head | found, indent=1))
    print(make_table(found), file=sys.stderr)


if __name__ == "__main__":
    main()
