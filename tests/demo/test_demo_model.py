"""The trained model that the project ships: what it can do, and that its files agree."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from fresco.guidance.ports import BatchRequest
from fresco.hosts.checkpoint import measure_checkpoint
from fresco.hosts.diffusers.host import DiffusersHost
from fresco.hosts.diffusers.load import load_host
from fresco.hosts.tensor_file import TensorFile
from fresco.progress import Progress
from fresco.settings import SamplingSettings
from fresco.video.reader import open_source
from fresco.video.size import scale_frame
from tests.helpers.tolerances import DEMO_MODEL_PSNR

FOLDER = Path(__file__).resolve().parents[2] / "demo" / "model"
MODEL = FOLDER / "fresco-demo.safetensors"
LIMIT = 40_000_000
"""Bytes that checkpoint, configuration and tokenizer may take together."""
SIZE = 192, 128

Frames = NDArray[np.uint8]


@pytest.fixture(scope="module")
def frames(demo_clip: Path) -> Frames:
    """Two frames of a clip that the model was not trained on."""
    with open_source(demo_clip) as source:
        return np.stack([scale_frame(next(source.frames(n, n)), SIZE) for n in (20, 110)])


def translated(frames: Frames, prompt: str) -> Frames:
    settings = SamplingSettings(
        model=str(MODEL), prompt=prompt, steps=10, guidance_scale=1.0, device="cpu"
    )
    host = load_host(settings, offline=True)
    request = BatchRequest(frames, (prompt,) * len(frames), ("",) * len(frames), None)
    with Progress().stage("test") as stage:
        return host.sample(request, None, stage).images


@pytest.fixture(scope="module")
def host() -> DiffusersHost:
    return load_host(SamplingSettings(model=str(MODEL), device="cpu"), offline=True)


def saturation(images: Frames) -> float:
    return float(np.mean([cv2.cvtColor(p, cv2.COLOR_RGB2HSV)[..., 1].mean() for p in images]))


def test_it_is_small_and_whole() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".md"]
    assert sum(path.stat().st_size for path in files) <= LIMIT
    names = {path.relative_to(FOLDER).as_posix() for path in files}
    assert {"fresco-demo.safetensors", "fresco-demo.yaml", "fresco-demo/vocab.json",
            "fresco-demo/merges.txt", "fresco-demo/config.json"} <= names


def test_its_configuration_describes_its_weights() -> None:
    sizes = measure_checkpoint(TensorFile(MODEL))
    parts = yaml.safe_load((FOLDER / "fresco-demo.yaml").read_text("utf-8"))["model"]["params"]
    unet, vae = parts["unet_config"]["params"], parts["first_stage_config"]["params"]["ddconfig"]
    assert tuple(unet["model_channels"] * m for m in unet["channel_mult"]) == sizes.widths
    assert unet["context_dim"] == sizes.context
    assert tuple(vae["ch"] * m for m in vae["ch_mult"]) == sizes.vae_widths
    assert vae["num_res_blocks"] == sizes.vae_layers
    version = parts["cond_stage_config"]["params"]["version"]
    assert version == "models/Stable-diffusion/fresco-demo"


def test_its_autoencoder_shows_frames_it_never_saw(host: DiffusersHost, frames: Frames) -> None:
    made = host.reconstruct(frames).astype(np.float64)
    error = np.square(made - frames).mean(axis=(1, 2, 3))
    assert (10 * np.log10(255**2 / error)).mean() > DEMO_MODEL_PSNR


def test_a_prompt_chooses_the_look(frames: Frames) -> None:
    photo = translated(frames, "a photo")
    sketch = translated(frames, "a pencil sketch")
    night = translated(frames, "a photo at night")
    assert saturation(sketch) < 0.3 * saturation(photo)
    assert sketch.mean() > photo.mean()
    assert night.mean() < 0.75 * photo.mean()
    assert np.abs(photo.astype(int) - frames).mean() < np.abs(sketch.astype(int) - frames).mean()


def test_the_card_says_what_the_file_is() -> None:
    card = (FOLDER.parents[1] / "docs" / "demo-model.md").read_text("utf-8")
    size = re.search(r"([\d.]+) MB", card)
    assert size
    assert float(size[1]) == pytest.approx(MODEL.stat().st_size / 1e6, abs=0.1)
