"""Six samplers in a real A1111 and in the diffusers host, with consensus and without.

`WEBUI_DIR` names the WebUI, `WEBUI_MODEL` is `demo`. How far two hosts may be apart is judged by
two kernels of attention in one host; `--log-cli-level=info` shows what was measured.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fresco.hosts.diffusers.load import load_host
from fresco.settings import SamplingSettings
from tests.helpers.clips import package_clip
from tests.helpers.webui.checkpoints import DEMO_MODEL
from tests.helpers.webui.host_kinds import A1111
from tests.helpers.webui.http_host import HttpHost, given_kind, given_model
from tests.helpers.webui.same_sampling import SAMPLERS, SamplerPair, translate_as_a1111

if given_kind() is not A1111 or given_model() != "demo":
    pytest.skip("WEBUI_DIR names no A1111 with the demo model", allow_module_level=True)

pytestmark = pytest.mark.timeout(1200)  # each asks three times; the first one starts the WebUI too
OPTIONS: dict[str, Any] = {"batch_size": 4, "estimator": "dis", "optimization_iterations": 2}
"""Five frames make two batches, the second of one new frame."""
PAYLOAD: dict[str, Any] = {
    "prompt": "a watercolour painting", "negative_prompt": "blurry", "steps": 8,
    "denoising_strength": 0.75, "cfg_scale": 1.5, "seed": 7, "width": 128, "height": 96,
}
KERNEL = "cross_attention_optimization"
"""The WebUI's setting; both kernels take float32."""
ROUNDING = 1
"""Grey levels between two images that are alike before they are cut to whole levels."""

Frames = NDArray[np.uint8]

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def frames() -> Frames:
    from fresco.video.reader import open_source
    from fresco.video.size import scale_frame

    with open_source(package_clip("bigbuckbunny.mp4")) as source:
        numbers = (20, 24, 28, 32, 36)
        return np.stack([scale_frame(next(source.frames(n, n)), (128, 96)) for n in numbers])


@pytest.fixture(scope="module")
def ours() -> Any:
    model = str(DEMO_MODEL / "fresco-demo.safetensors")
    return load_host(
        SamplingSettings(model=model, guidance_scale=PAYLOAD["cfg_scale"]), offline=True
    )


@pytest.fixture
def other_kernel(webui: HttpHost) -> Iterator[Any]:
    """Within a call of it the WebUI has another kernel."""
    def ask(*words: Any) -> Frames:
        webui.change_settings({KERNEL: "Doggettx"})
        return ask_webui(webui, *words)

    yield ask
    webui.change_settings({KERNEL: "Automatic"})


def ask_webui(webui: HttpHost, frames: Frames, pair: SamplerPair, preset: str) -> Frames:
    """Guided images of the WebUI."""
    answer = webui.img2img(
        [Image.fromarray(frame) for frame in frames], OPTIONS | {"preset": preset},
        **PAYLOAD, sampler_name=pair.webui, scheduler=pair.schedule,
    )
    return np.stack([np.asarray(image) for image in answer.images])


def measure_gap(first: Frames, second: Frames) -> tuple[int, float]:
    """The greatest and the mean difference in grey levels."""
    gaps = np.abs(first.astype(np.int16) - second)
    return int(gaps.max()), float(gaps.mean())


@pytest.mark.parametrize("pair", SAMPLERS, ids=lambda pair: pair.webui)
def test_both_hosts_give_the_same_images(
    webui: HttpHost, ours: Any, other_kernel: Any, frames: Frames, pair: SamplerPair
) -> None:
    theirs = {preset: ask_webui(webui, frames, pair, preset) for preset in ("paper", "steady")}
    gaps = {
        preset: measure_gap(images, translate_as_a1111(
            ours, frames, pair, OPTIONS | {"preset": preset}, PAYLOAD
        )) for preset, images in theirs.items()
    }
    spread = measure_gap(theirs["steady"], other_kernel(frames, pair, "steady"))
    effect = measure_gap(theirs["steady"], theirs["paper"])
    log.info("%s: hosts %s, kernels %s, consensus %s", pair.webui, gaps, spread, effect)
    assert all(most <= max(spread[0], ROUNDING) for most, _ in gaps.values())
    assert effect[1] > 20 * max(mean for _, mean in gaps.values())
