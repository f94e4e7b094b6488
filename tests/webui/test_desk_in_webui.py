"""Ranges, masks, transparency, exact motion, guides and upscalers in jobs of a real WebUI, which
`WEBUI_DIR` names."""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import requests
from PIL import Image

from tests.helpers.clips import write_clip
from tests.helpers.job_environment import TINY
from tests.helpers.tiny_models import square_frames
from tests.helpers.webui.http_host import (
    ANSWER_SECONDS,
    START_SECONDS,
    HttpHost,
    given_folder,
    text_of,
)

if given_folder() is None:
    pytest.skip("WEBUI_DIR names no WebUI", allow_module_level=True)

pytestmark = pytest.mark.timeout(START_SECONDS + ANSWER_SECONDS)  # the first one starts the WebUI
FRAMES = 8


@pytest.fixture
def body(tmp_path: Path) -> dict[str, Any]:
    """Of a job for a whole short clip."""
    clip = write_clip(tmp_path / "square.mp4", list(square_frames(FRAMES)))
    return {"video": base64.b64encode(clip.read_bytes()).decode(), "name": "square.mp4",
            "host": {"sampler": "Euler a"}, "settings": dict(TINY)}


def with_options(body: dict[str, Any], **groups: dict[str, Any]) -> dict[str, Any]:
    settings = {**body["settings"], **{
        name: {**body["settings"].get(name, {}), **values} for name, values in groups.items()
    }}
    return {**body, "settings": settings}


def keyframes(webui: HttpHost, job: str) -> dict[int, str]:
    found = webui.ask(f"/fresco/jobs/{job}/keyframes")
    return dict(zip(found["numbers"], found["images"], strict=True))


def draw_half(side: int) -> str:
    """A mask whose left half is white."""
    mask = np.zeros((side, side), np.uint8)
    mask[:, :side // 2] = 255
    return text_of(Image.fromarray(mask))


def test_ranges_and_a_drawn_mask_in_a_transparent_result(
    webui: HttpHost, body: dict[str, Any], tmp_path: Path
) -> None:
    """Another range leaves the keyframes of the others; the result holds every setting."""
    side = square_frames(1)[0].shape[0]
    ranges = ["0-3 seed=5 prompt=snow", "4-7 seed=6 strength=0.6"]
    first = webui.finish_job({
        **with_options(body, sampling={"ranges": ranges}, mask={"feather": 0},
                       output={"codec": "vp9", "crf": 0, "background": "transparent"}),
        "masks": {"0": draw_half(side)},
    })
    before = keyframes(webui, first)
    data = webui.read(f"/fresco/jobs/{first}/video")
    with av.open(io.BytesIO(data)) as container:
        stream, decoder = container.streams.video[0], av.CodecContext.create("libvpx-vp9", "r")
        frames = [frame.to_ndarray(format="rgba") for packet in container.demux(stream)
                  for frame in decoder.decode(packet)]
    assert len(frames) == FRAMES
    assert frames[0][:, :side // 2 - 4, 3].min() > 250
    assert frames[0][:, side // 2 + 4:, 3].max() < 5
    answer = requests.post(
        f"{webui.address}/fresco/settings", files={"file": ("a.webm", data)}, timeout=60)
    found = answer.json()["settings"]
    assert found["sampling"]["ranges"] == ranges
    assert (found["output"]["background"], found["output"]["codec"]) == ("transparent", "vp9")
    other = [ranges[0], "4-7 seed=7 strength=0.6"]
    changed = with_options({"settings": body["settings"]}, sampling={"ranges": other})
    after = keyframes(webui, webui.finish_job(changed, first))
    assert {number for number in before if before[number] != after[number]} == {
        number for number in before if number > 3} != set()


def test_exact_motion_guides_and_an_upscaler(
    webui: HttpHost, body: dict[str, Any], tmp_path: Path
) -> None:
    motion, guides = tmp_path / "motion", tmp_path / "guides"
    side = square_frames(1)[0].shape[0]
    for folder in (motion, guides):
        folder.mkdir()
    still = np.zeros((side, side, 2), np.float32)
    for number in range(FRAMES):
        np.savez(motion / f"{number:06d}.npz", forward=still, backward=still)
        grey = np.full((side, side, 3), 20 * number, np.uint8)
        Image.fromarray(grey).save(guides / f"{number:06d}.png")
    upscalers = webui.ask("/fresco/models")["upscalers"]
    job = webui.finish_job(with_options(
        {**body, "host": {**body["host"], "upscaler": "Nearest"}},
        flow={"estimator": "files", "path": str(motion)},
        propagation={"resolution": 128, "guides": [f"{guides}:2"], "method": "patch"},
        output={"source_size": False, "codec": "png"},
    ))
    assert "Nearest" in upscalers
    packed = zipfile.ZipFile(io.BytesIO(webui.read(f"/fresco/jobs/{job}/video")))
    names = sorted(packed.namelist())
    assert len(names) == FRAMES
    image = np.asarray(Image.open(packed.open(names[0])))
    assert image.shape == (128, 128, 3)
    assert np.array_equal(image[::2, ::2], image[1::2, 1::2]), "pixels were doubled"
    notes = webui.ask(f"/fresco/jobs/{job}")["notes"]
    assert "Flow is read from files; nothing is estimated." in notes
    judged = webui.ask(f"/fresco/jobs/{job}/judged")
    for layer in ("result", "flow", "occlusion", "forward", "backward", "side"):
        seen = webui.read(f"/fresco/jobs/{job}/frames/{judged['frames'][0]}?layer={layer}")
        assert Image.open(io.BytesIO(seen)).format == "JPEG"
