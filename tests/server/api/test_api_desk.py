"""The API around jobs: settings out of results, images as results, names."""

from __future__ import annotations

import io
import json
import time
import zipfile
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from fresco.control import ControlUnit
from fresco.options import entries
from fresco.run.embedded import describe_settings, is_held
from fresco.server.client import Client
from fresco.video.writer import VideoWriter
from tests.helpers.api_server import SETTINGS, ApiServer, small_clip
from tests.helpers.job_environment import BLOCKS, CANNY

FRAMES = 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_clip(tmp_path_factory.mktemp("clip") / "a dog.mp4", FRAMES)


def with_output(**output: Any) -> dict[str, Any]:
    return SETTINGS | {
        "sampling": SETTINGS["sampling"] | {"seed": 7, "key_prompts": {"0": "a hat"}},
        "output": SETTINGS["output"] | output,
    }


@pytest.fixture(scope="module")
def job(server: ApiServer, video: str) -> str:
    """A job whose result is a folder of images of 16 bits, in twice the size the model sees."""
    body = {
        "video_id": video, "host": {"sampler": "euler"},
        "settings": with_output(codec="png-16bit", name="{clip}_{seed}_{number}"),
        "controlnet": [{"model": CANNY, "module": "canny", "weight": 0.5}],
    }
    began = server.json("POST", "jobs", json=body)
    assert server.ended(began["id"])["state"] == "done"
    return began["id"]


def images_of(server: ApiServer, job: str) -> dict[str, bytes]:
    answer = server.ask("GET", f"jobs/{job}/video")
    assert answer.headers["content-type"] == "application/zip"
    saved = unquote(answer.headers["content-disposition"])
    assert saved.endswith("a dog_7_0001.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        assert packed.testzip() is None
        return {name: packed.read(name) for name in packed.namelist()}


def test_a_result_of_images_comes_as_a_zip_file(server: ApiServer, job: str) -> None:
    images = images_of(server, job)
    assert sorted(images) == [f"a dog_7_0001/{n:04d}.png" for n in range(FRAMES)]
    for data in images.values():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.dtype == np.uint16
        assert image.shape == (64, 64, 3)


def test_a_result_gives_back_every_setting(
    server: ApiServer, job: str, video: str, tmp_path: Path
) -> None:
    """Those of an image, of a video, and of a run file; a job takes the answer as it is."""
    image = tmp_path / "frame.png"
    image.write_bytes(next(iter(images_of(server, job).values())))
    client = Client(server.url)
    found = client.read_settings(image)
    assert found["host"] == {"model": "tiny", "sampler": "euler"}
    assert found["controlnet"] == [asdict(ControlUnit(CANNY, "canny", 0.5))]
    asked = server.service.engine.request(job).settings
    for entry in entries():
        if is_held(entry) and not entry.option.instead:
            value = json.loads(json.dumps(getattr(getattr(asked, entry.group), entry.name)))
            assert found["settings"][entry.group][entry.name] == value, entry.place  # type: ignore[index]
    film = tmp_path / "r.mp4"
    about = {**found["host"], "control": found["controlnet"]}
    with VideoWriter(film, 64, 48, Fraction(25), comment=describe_settings(asked, about)) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert client.read_settings(film) == found
    again = server.json("POST", "jobs", json={
        "video_id": video, "goal": "all",
        **{name: found[name] for name in ("settings", "host", "controlnet")},
    })
    server.json("POST", f"jobs/{again['id']}/cancel")
    for name in ("frame.png", "x.webm"):
        other = tmp_path / name
        other.write_bytes(b"\x89PNG\r\n\x1a\n" if name.endswith("png") else b"no video")
        with other.open("rb") as file:
            said = server.refused(422, "POST", "settings", files={"file": (name, file)})
        assert f"{name} has no settings of FRESCO inside" in said


def test_a_keyframe_says_which_frame_of_which_file_it_is(server: ApiServer, job: str) -> None:
    image = server.ask("GET", f"jobs/{job}/keyframes/0?text=true").content
    assert b'FRESCO frame: 0, FRESCO source: "a dog.mp4"' in image


def test_what_is_not_here_is_named(server: ApiServer, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"fresco_run": 1, "version": "0", "settings": {
        "sampling": {"model": "/x/gone.safetensors", "lora": ["a.safetensors"], "steps": 9},
        "mask": {"source": "drawing", "path": "mask-1"}, "output": {"background": "transparent"},
        "flow": {"path": "vectors"},
    }, "host": {"sampler": "unheard", "control": [{"model": "absent"}, 5]}}))
    with path.open("rb") as file:
        found = server.json("POST", "settings", files={"file": (path.name, file)})
    assert found["settings"]["sampling"]["steps"] == 9
    assert (found["host"], found["controlnet"]) == ({}, [])
    assert found["settings"]["mask"]["path"] == found["settings"]["flow"]["path"] == ""
    assert found["settings"]["output"]["background"] == "transparent"
    said = " ".join(found["notes"])
    for words in ("gone.safetensors", "a.safetensors", "unheard", "absent", "draw them again",
                  "flow.path was vectors"):
        assert words in said


def test_a_wrong_pattern_is_refused(server: ApiServer, video: str) -> None:
    body = {"video_id": video, "settings": with_output(name="{when}")}
    assert "{when}" in server.refused(422, "POST", "jobs", json=body)


def test_the_batch_at_work_is_seen_and_time_is_told(
    server: ApiServer, video: str, job: str, tmp_path: Path
) -> None:
    """Of a job like an earlier one; while it does not sample there is nothing to see."""
    client, seen, left = Client(server.url), b"", None
    assert "has no preview now" in server.refused(404, "GET", f"jobs/{job}/preview")
    settings = SETTINGS | {"sampling": SETTINGS["sampling"] | {"steps": 200, "strength": 1.0}}
    began = server.json("POST", "jobs", json={"video_id": video, "settings": settings})["id"]
    for _ in range(600):
        status = server.json("GET", f"jobs/{began}")
        left = status["job_seconds_left"] if left is None else left
        answer = server.ask("GET", f"jobs/{began}/preview")
        if answer.status_code == 200:
            seen = answer.content
            client.download_preview(began, tmp_path / "seen.jpg")
        if (seen and left is not None) or status["state"] not in ("queued", "running"):
            break
        time.sleep(0.05)
    server.json("POST", f"jobs/{began}/cancel")
    assert left is not None
    assert left > 0
    image = cv2.imdecode(np.frombuffer(seen, np.uint8), cv2.IMREAD_COLOR)
    assert min(image.shape[:2]) >= 32
    assert image.std() > 1
    assert server.ended(began)["job_seconds_left"] is None


def test_a_web_hook_that_is_not_listed_is_refused(server: ApiServer, video: str) -> None:
    body = {"video_id": video, "settings": SETTINGS, "webhook": "http://169.254.169.254/latest"}
    assert "does not list" in server.refused(422, "POST", "jobs", json=body)


def test_order_is_kept(server: ApiServer, video: str, job: str, tmp_path: Path) -> None:
    """Names, places in the queue, room on the disk, and deleting only what was asked for."""
    client = Client(server.url)
    assert client.rename(job, "the dog").title == "the dog"
    slow = SETTINGS | {"sampling": SETTINGS["sampling"] | {"steps": 400, "strength": 1.0}}
    first = client.submit(video, settings=slow).id
    one, two = (client.submit(video, settings=SETTINGS, title=name).id for name in ("1", "2"))
    assert server.json("GET", "jobs")["queue"][-2:] == [one, two]
    assert client.move(two, one)[-2:] == (two, one)
    assert "only jobs that wait" in server.refused(
        409, "POST", f"jobs/{job}/place", json={"before": ""})
    done = client.delete_several([one, two, first, "0" * 16])
    assert done["jobs"] == [one, two]
    assert set(done["refused"]) == {first, "0" * 16}  # type: ignore[call-overload]
    client.cancel(first)
    assert server.ended(first)["state"] == "cancelled"
    room: Any = client.count_space()
    assert room["jobs"][job] > 0
    assert room["bytes"] == sum(room["jobs"].values()) + sum(room["videos"].values())
    assert client.empty(1)["jobs"] == [], "none is that old"
    unused = server.upload(small_clip(tmp_path / "unused.mp4", 5))
    would: Any = client.empty(0, jobs=False, dry_run=True)
    assert (would["jobs"], would["videos"]) == ([], [unused])
    assert would["size"] == room_of(server, unused)
    gone: Any = client.empty(0)
    assert {job, first} <= set(gone["jobs"])
    assert {video, unused} <= set(gone["videos"])
    assert server.json("GET", "space")["jobs"] == {}
    assert "give true or false" in server.refused(
        422, "POST", "space/empty", json={"days": 1, "jobs": "yes"})


def room_of(server: ApiServer, video: str) -> int:
    return server.json("GET", "space")["videos"][video]


def keyframes_of(server: ApiServer, body: dict[str, Any]) -> dict[int, str]:
    """Of a job, once it is done, as base64."""
    job = server.json("POST", "jobs", json=body | {"goal": "keyframes"})["id"]
    assert server.ended(job)["state"] == "done"
    found: Any = server.json("GET", f"jobs/{job}/keyframes")
    return dict(zip(found["numbers"], found["images"], strict=True))


def test_a_range_has_its_own_prompt_strength_and_seed(server: ApiServer, clip: Path) -> None:
    """Another one changes nothing outside itself."""
    video = server.upload(clip)

    def ask_for(*ranges: str) -> dict[str, Any]:
        sampling = SETTINGS["sampling"] | {"ranges": list(ranges)}
        return {"video_id": video, "settings": SETTINGS | {"sampling": sampling}}

    first = keyframes_of(server, ask_for("0-1 seed=1 prompt=a sea", "2-3 seed=2"))
    again = keyframes_of(server, ask_for("0-1 seed=1 prompt=a sea", "2-3 seed=2 strength=0.9"))
    changed = {number for number, image in first.items() if again[number] != image}
    assert changed == {number for number in first if number >= 2} != set()
    assert "overlap at frame 1" in server.refused(
        422, "POST", "jobs", json=ask_for("0-1 seed=1", "1-3 seed=2"))


def test_exact_motion_further_guides_and_an_upscaler(
    server: ApiServer, clip: Path, tmp_path: Path
) -> None:
    video, motion, guides = server.upload(clip), tmp_path / "motion", tmp_path / "guides"
    for folder in (motion, guides):
        folder.mkdir()
    still = np.zeros((64, 64, 2), np.float32)
    for number in range(FRAMES):
        np.savez(motion / f"{number:06d}.npz", forward=still, backward=still)
        cv2.imwrite(str(guides / f"{number:06d}.png"), np.full((64, 64, 3), 9 * number, np.uint8))
    settings = SETTINGS | {
        "flow": {"estimator": "files", "path": str(motion)},
        "propagation": {"resolution": 128, "workers": 1, "guides": [f"{guides}:2"]},
        "output": {"source_size": False, "codec": "png", "measures": False},
    }
    body = {"video_id": video, "settings": settings, "host": {"upscaler": BLOCKS}}
    job = server.json("POST", "jobs", json=body)["id"]
    status: Any = server.ended(job)
    assert status["state"] == "done", status
    assert "Flow is read from files; nothing is estimated." in status["notes"]
    packed = zipfile.ZipFile(io.BytesIO(server.ask("GET", f"jobs/{job}/video").content))
    images = [cv2.imdecode(np.frombuffer(packed.read(name), np.uint8), cv2.IMREAD_COLOR)
              for name in sorted(packed.namelist())]
    assert [image.shape for image in images] == [(128, 128, 3)] * FRAMES
    assert np.array_equal(images[0][::2, ::2], images[0][1::2, 1::2]), "blocks of the upscaler"
    judged: Any = server.json("GET", f"jobs/{job}/judged")
    assert judged["frames"]
    assert all(len(judged[name]) == len(judged["frames"]) for name in (
        "error", "occlusion", "jump"))
    for layer in ("result", "source", "flow", "occlusion", "forward", "backward", "side"):
        seen = server.ask("GET", f"jobs/{job}/frames/{judged['frames'][0]}?layer={layer}")
        assert seen.headers["content-type"] == "image/jpeg", layer


def test_styles_are_kept_as_what_they_add(server: ApiServer, tmp_path: Path) -> None:
    """One way in, so a resumed job does not depend on what a style is by then."""
    offer = server.json("GET", "models")
    assert (offer["styles"], offer["loras"]) == (["oil", "ink"], ["fine lines", "soft light"])
    clip = server.upload(small_clip(tmp_path / "styled.mp4", 3))
    body = {"video_id": clip, "settings": SETTINGS, "goal": "preview"}
    job = server.json("POST", "jobs", json=body | {"styles": ["oil", "ink"]})["id"]
    sampling = server.service.engine.request(job).settings.sampling
    assert sampling.prompt == "a painting, oil painting, ink drawing"
    assert sampling.negative_prompt == ", no oil painting, no ink drawing"
    assert "choose among oil, ink" in server.refused(
        422, "POST", "jobs", json=body | {"styles": ["neon"]})
    assert server.ended(job)["state"] == "done"
