"""What consensus costs at Stable Diffusion 1.5's size: `python -m benchmarks.consensus`.

The networks are counted, not run: multiply-adds on tensors that have a shape and no numbers. The
consensus's own work is run on a CPU: CPU seconds, and memory beyond what was there before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.card import make_frames, make_full_vae
from benchmarks.measure import measured
from benchmarks.operators import PROMPT, SD15
from fresco.flow.dis import DisEstimator
from fresco.flow.occlusion import ring_flow
from fresco.guidance.consensus import Consensus, link_frames
from fresco.guidance.schedule import CONSENSUS_CALLS

TERA = 1e12


def count(work: Callable[[], object]) -> float:
    """Tera multiply-adds of some work on tensors without numbers."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops() / 2 / TERA


def count_networks(frames: int, size: int) -> dict[str, float]:
    """Of a plain model call with both chunks, and of the codec on a batch."""
    with FakeTensorMode():
        unet: Any = UNet2DConditionModel(**SD15).eval()
        vae: Any = make_full_vae().eval()  # its annotations name tensors of one type only
        for network in (unet, vae):
            network.set_attn_processor(AttnProcessor())  # in operators whose work is known
        latents = torch.empty(frames, 4, size // 8, size // 8)
        images = torch.empty(frames, 3, size, size)
        rows, prompts = torch.cat([latents, latents]), torch.empty(2 * frames, *PROMPT)
        return {
            "model call": count(lambda: unet(rows, 951, encoder_hidden_states=prompts)),
            "decoding": count(lambda: vae.decode(latents)),
            "encoding": count(lambda: vae.encode(images)),
        }


def measure_own_work(frames: int, size: int) -> dict[str, dict[str, float]]:
    """CPU seconds and MiB of what consensus itself does to a batch."""
    pictures = make_frames(frames, size)
    estimator = DisEstimator()
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    ring = ring_flow(pictures, estimator)
    links = link_frames(images, ring, estimator, carried=True)
    consensus = Consensus(links, images[:2] / 127.5 - 1)
    latents = torch.randn(frames, 4, size // 8, size // 8)
    works: dict[str, Callable[[], object]] = {
        "links, once a batch": lambda: link_frames(images, ring, estimator, carried=True),
        "latents, a call": lambda: consensus.apply_to_latents(latents),
        "images, a call": lambda: consensus.apply(images / 127.5 - 1, 0.5, colours=True),
    }
    return {name: measured(work, warm_up=lambda: consensus.apply_to_latents(latents))
            for name, work in works.items()}


def main() -> None:
    """Print the cost as JSON."""
    parser = argparse.ArgumentParser(description="What consensus costs at SD 1.5's size.")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--calls", type=int, default=15, help="model calls of a sampling")
    given = parser.parse_args()
    found = count_networks(given.frames, given.size)
    codec = len(CONSENSUS_CALLS) * (found["decoding"] + 2 * found["encoding"])
    told: dict[str, Any] = {
        "benchmark": "consensus", "options": vars(given),
        "tera_multiply_adds": {name: round(value, 2) for name, value in found.items()},
        "codec_of_a_model_call": round(codec / found["model call"], 2),
        "codec_of_a_plain_sampling": round(codec / found["model call"] / given.calls, 3),
        "own_work": measure_own_work(given.frames, given.size),
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
