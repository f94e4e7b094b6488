"""Masks through the API: sent with a job, kept in its folder, refused where they are wrong."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fresco.server.client import Client
from tests.helpers.api_server import SETTINGS, ApiServer, small_clip
from tests.helpers.clips import write_clip

FRAMES = 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", FRAMES)


def encode(image: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def draw_half(clip: Path, *, white: bool = True) -> NDArray[np.uint8]:
    """A mask of the clip's size whose left half is white."""
    with av.open(str(clip)) as container:
        frame = next(container.decode(video=0))
    mask = np.zeros((frame.height, frame.width), np.uint8)
    mask[:, :frame.width // 2] = 255 if white else 0
    return mask


def ask_for(video: str, masks: Any, **mask: Any) -> dict[str, Any]:
    """Red keyframes carried, within a mask."""
    red = encode(np.full((64, 64, 3), (255, 0, 0), np.uint8))
    settings = SETTINGS | {"propagation": {"quality": "draft"}, "mask": {"feather": 0, **mask},
                           "output": {"codec": "ffv1", "measures": False}}
    return {"video_id": video, "goal": "propagation", "masks": masks, "settings": settings,
            "keyframes": {"0": red, str(FRAMES - 1): red}}


def decode(data: bytes | Path) -> list[NDArray[np.uint8]]:
    with av.open(io.BytesIO(data) if isinstance(data, bytes) else str(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_drawing_goes_with_its_job(server: ApiServer, video: str, clip: Path) -> None:
    body = ask_for(video, {"0": encode(draw_half(clip))})
    began = server.json("POST", "jobs", json=body)
    ended = server.ended(began["id"])
    assert ended["state"] == "done", ended
    frames = decode(server.ask("GET", f"jobs/{began['id']}/video").content)
    half = frames[0].shape[1] // 2
    # Away from the border, which follows the motion.
    for frame in frames:
        assert (frame[:, :half // 2].astype(int) == (255, 0, 0)).all()
        assert not (frame[:, half + half // 2:] == (255, 0, 0)).all()
    # Asked for once more, it is the same job, and it goes on with its own copy.
    again = server.json("POST", f"jobs/{began['id']}/resume", json={
        "settings": {"mask": {"invert": True}}})
    assert server.ended(again["id"])["state"] == "done"
    turned = decode(server.ask("GET", f"jobs/{began['id']}/video").content)
    assert (turned[0][:, half + half // 2:].astype(int) == (255, 0, 0)).all()
    shown = server.ask("GET", f"jobs/{began['id']}/frames/0?layer=mask").content
    mask = np.asarray(Image.open(io.BytesIO(shown)).convert("L"))
    middle = mask.shape[1] // 2
    assert mask[:, :middle - 8].max() < 20
    assert mask[:, middle + 8:].min() > 235


def test_an_uploaded_video_holds_the_masks(
    server: ApiServer, video: str, clip: Path, tmp_path: Path
) -> None:
    """By its id; it is kept as long as a job needs it."""
    half = np.repeat(draw_half(clip)[..., None], 3, axis=2)
    masks = server.upload(write_clip(tmp_path / "masks.mp4", [half] * FRAMES))
    body = ask_for(video, None, source="files", path=masks)
    del body["masks"]
    job = server.json("POST", "jobs", json=body)["id"]
    ended = server.ended(job)
    assert ended["state"] == "done", ended
    for frame in decode(server.ask("GET", f"jobs/{job}/video").content):
        middle = frame.shape[1] // 2
        assert (frame[:, :middle - 8].astype(int) == (255, 0, 0)).all()
        assert not (frame[:, middle + 8:] == (255, 0, 0)).all()
    assert {status.id for status in server.service.count_jobs()[masks]} == {job}
    body["settings"]["mask"]["path"] = "0" * 16
    assert "There is no video" in server.refused(404, "POST", "jobs", json=body)


def test_wrong_masks_are_refused(server: ApiServer, video: str, clip: Path) -> None:
    good = encode(draw_half(clip))
    for masks, said in (
        ({}, "masks holds no image"), ({"x": good}, "masks"), ({"0": "no base64!"}, "base64"),
        ({"0": base64.b64encode(b"GIF89a" + bytes(50)).decode()}, "not a PNG or JPEG"),
    ):
        assert said in server.refused(422, "POST", "jobs", json=ask_for(video, masks))
    body = ask_for(video, None, source="drawing")
    assert "mask.path is empty" in server.refused(422, "POST", "jobs", json=body)
    black = ask_for(video, {"0": encode(draw_half(clip, white=False))})
    ended = server.ended(server.json("POST", "jobs", json=black)["id"])
    assert ended["state"] == "failed"
    assert "black everywhere" in ended["message"]


def test_the_client_sends_masks(server: ApiServer, video: str, clip: Path, tmp_path: Path) -> None:
    Image.fromarray(draw_half(clip)).save(tmp_path / "m.png")
    red = tmp_path / "red.png"
    Image.new("RGB", (64, 64), "red").save(red)
    body = ask_for(video, None)
    client = Client(server.url)
    job = client.submit(video, "propagation", body["settings"], keyframes={0: red},
                        masks={0: tmp_path / "m.png"})
    assert client.wait(job.id).state.value == "done"
