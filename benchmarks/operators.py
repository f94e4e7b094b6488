"""Operators that one guided model call asks a card for: `python -m benchmarks.operators`.

Nothing is computed: Stable Diffusion 1.5's UNet runs on tensors that have a shape and no numbers.
They lie on the CPU, which is treated as a card would be.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _python_dispatch

from fresco.flow.occlusion import BidirectionalFlow
from fresco.guidance import portions
from fresco.guidance.batch import BatchGuidance
from fresco.guidance.guide import FrescoGuide
from fresco.guidance.ports import Rows, Step
from fresco.hosts.diffusers.unet import DiffusersUNet
from fresco.settings import PRESETS, GuidanceSettings

WANTED = 8000
"""Operators of a call with all parts, at most."""
MODEL_SIGMAS = tuple(torch.linspace(0.03, 14.6, 1000).tolist())
OFF = dataclasses.replace(GuidanceSettings(), **PRESETS["off"])
SD15: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8}
"""Stable Diffusion 1.5's UNet; its other numbers are what diffusers takes by itself."""
PROMPT = (77, 768)
"""Tokens of a prompt and their width."""


def alone(**parts: bool) -> GuidanceSettings:
    """Settings with nothing on but the parts given."""
    return dataclasses.replace(OFF, **parts)


PARTS: dict[str, GuidanceSettings] = {
    "cross-frame attention": alone(cross_frame_attention=True),
    "spatial-guided attention": alone(spatial_attention=True),
    "temporal-guided attention": alone(temporal_attention=True),
    "spatial loss": alone(spatial_optimization=True),
    "temporal loss": alone(temporal_optimization=True),
    "both losses": alone(spatial_optimization=True, temporal_optimization=True),
    "all": GuidanceSettings(),
}
"""Each part alone, and all."""

WITHOUT_WORK = frozenset({
    "_unsafe_view", "alias", "as_strided", "detach", "device", "empty", "empty_like",
    "empty_strided", "expand", "new_empty", "new_empty_strided", "permute", "promote_types",
    "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind",
    "unsqueeze", "view",
})
"""Operators that look at memory in another way, or ask for memory."""


class CountOperators(_python_dispatch.TorchDispatchMode):
    """Within: counts the operators that give a device something to do."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    @property
    def total(self) -> int:
        """All of them."""
        return self.counts.total()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.partition(".")[0]
        if name not in WITHOUT_WORK:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def make_batch(
    frames: int, size: int, settings: GuidanceSettings, device: torch.device | str,
    scales: tuple[int, ...],
) -> BatchGuidance:
    """Smooth random motion of random images, a tenth of it occluded."""
    flow = torch.randn(2, frames, 2, 1, 1) * 4 + torch.randn(2, frames, 2, size, size)
    occlusion = (torch.rand(2, frames, size, size) < 0.1).float()
    ring = BidirectionalFlow(flow[0], flow[1], occlusion[0], occlusion[1])
    saliency = torch.rand(frames, 1, size // 2, size // 2)
    images = 255 * torch.rand(frames, 3, size, size)
    return BatchGuidance.build(images, ring, saliency, settings, device, scales=scales)


def count_call(
    adapter: DiffusersUNet, settings: GuidanceSettings | None, frames: int, size: int
) -> int:
    """Operators of a model call, both chunks, at a moment when every part that is on acts."""
    scales = (8, 16)
    rows = Rows(frames, ("negative", "positive"))
    guide = None
    if settings is not None:
        batch = make_batch(frames, size, settings, "cpu", scales)
        guide = FrescoGuide(batch, settings, MODEL_SIGMAS)
        guide.begin([MODEL_SIGMAS[-1]])
        guide.step(Step(0, 1, MODEL_SIGMAS[-1]))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        x = torch.empty(rows.count, 4, size // 8, size // 8)
        prompts = torch.empty(rows.count, *PROMPT)

        def call() -> int:
            with adapter.calling(rows), CountOperators() as counted:
                adapter.unet(x, 951, encoder_hidden_states=prompts, return_dict=False)
            return counted.total

        if guide is None:
            return call()
        with adapter.installed(guide):
            with guide.capturing():
                call()
            call()  # what is made for a batch once
            return call()


def main() -> None:
    """Print the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    given = parser.parse_args()
    with FakeTensorMode():
        unet = UNet2DConditionModel(**SD15).eval().requires_grad_(False)
    adapter = DiffusersUNet(unet)
    portions.PROCESSOR = portions.CARD
    plain = count_call(adapter, None, given.frames, given.size)
    guided = {name: count_call(adapter, part, given.frames, given.size)
              for name, part in PARTS.items()}
    print(json.dumps({
        "benchmark": "benchmarks.operators", "options": vars(given), "plain call": plain,
        "guided call": guided, "wanted": WANTED,
    }, indent=1))


if __name__ == "__main__":
    main()
