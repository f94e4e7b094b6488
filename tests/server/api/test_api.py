"""The API on a real server: every route, with jobs of a tiny model."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import requests
import webuiapi
from numpy.typing import NDArray
from PIL import Image

from fresco.server.api import events as server_events
from fresco.server.client import Client
from fresco.server.jobs.job import JobRequest
from fresco.workspace import read_image
from tests.helpers.api_server import SETTINGS, ApiServer, make_environment, serving, small_clip
from tests.helpers.broken_videos import huge_png

FRAMES = 6


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_clip(tmp_path_factory.mktemp("clip") / "a clip.mp4", FRAMES)


@pytest.fixture(scope="module")
def job(server: ApiServer, video: str) -> str:
    """A job that is done, with all it can make."""
    settings = SETTINGS | {"output": {"measures": True}}
    body = {"video_id": video, "settings": settings, "title": "the whole"}
    began = server.json("POST", "jobs", json=body)
    assert began["state"] in ("queued", "running")
    assert began["video_id"] == video
    ended = server.ended(began["id"])
    assert ended["state"] == "done", ended
    return began["id"]


def make_image(size: int = 64, kind: str = "PNG", colour: str = "red") -> str:
    """Base64 of an image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def frame_count(data: bytes) -> int:
    with av.open(io.BytesIO(data)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_the_server_says_what_it_is_and_offers(server: ApiServer) -> None:
    version = server.json("GET", "version")
    assert version["host"] == "a test with diffusers"
    assert version["limits"]["upload_megabytes"] == 2048
    assert "torch" in version["versions"]
    assert server.json("GET", "models")["models"] == ["tiny", "tiny two"]
    assert set(server.json("GET", "schema")) == {"hint", "job", "keyframes", "resume"}


def test_an_upload_is_read_and_named(server: ApiServer, video: str) -> None:
    known = server.json("GET", f"videos/{video}")
    assert known["name"] == "a clip.mp4"
    assert known["info"]["frames"] == FRAMES
    assert known["info"]["has_sound"] is True
    assert video in [item["id"] for item in server.json("GET", "videos")["videos"]]


def test_keyframes_are_detected(server: ApiServer, video: str, clip: Path) -> None:
    body: dict[str, Any] = {"settings": {"keyframes": {"keys": "0, 2"}}}
    found = server.json("POST", "keyframes", json=body | {"video_id": video})
    assert found["keyframes"] == [0, 2, FRAMES - 1]
    assert found["shots"] == [{"first": 0, "last": FRAMES - 1, "keyframes": [0, 2, FRAMES - 1],
                               "batches": [[0, 2, FRAMES - 1]]}]
    assert len(found["changes"]) == FRAMES
    inline = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    again = server.json("POST", "keyframes", json=body | {"video": inline, "name": "b.mp4"})
    assert again["video_id"] == video, "the same file is kept once"
    assert again["keyframes"] == found["keyframes"]
    on_server = server.json("POST", "keyframes", json=body | {"path": str(clip)})
    assert on_server["changes"] == found["changes"]


def test_a_job_gives_video_keyframes_report_and_log(server: ApiServer, job: str) -> None:
    status = server.json("GET", f"jobs/{job}")
    assert status["title"] == "the whole"
    assert status["goal"] == "all"
    answer = server.ask("GET", f"jobs/{job}/video")
    assert answer.headers["content-type"] == "video/mp4"
    assert frame_count(answer.content) == FRAMES
    keys = server.json("GET", f"jobs/{job}/keyframes")
    assert keys["numbers"] == sorted(keys["numbers"])
    assert len(keys["images"]) == len(keys["numbers"]) >= 3
    one = server.ask("GET", f"jobs/{job}/keyframes/{keys['numbers'][1]}")
    assert one.headers["content-type"] == "image/png"
    assert one.content == base64.b64decode(keys["images"][1])
    some = server.json("GET", f"jobs/{job}/keyframes?numbers=0,{FRAMES - 1}")
    assert some["numbers"] == [0, FRAMES - 1]
    assert server.json("GET", f"jobs/{job}/report")["frames"] == FRAMES
    assert "keyframes" in server.json("GET", f"jobs/{job}/log")["log"]


def test_what_a_job_did_not_make_is_not_found(server: ApiServer, job: str) -> None:
    assert "comparison" in server.refused(404, "GET", f"jobs/{job}/comparison")
    assert "keyframe 1" in server.refused(404, "GET", f"jobs/{job}/keyframes/1")
    assert "keyframe 1" in server.refused(404, "GET", f"jobs/{job}/keyframes?numbers=0,1")


def test_jobs_are_listed_newest_first(server: ApiServer, job: str, video: str) -> None:
    other = server.json("POST", "jobs", json={
        "video_id": video, "goal": "preview", "settings": SETTINGS})["id"]
    listed = [item["id"] for item in server.json("GET", "jobs")["jobs"]]
    assert listed.index(other) < listed.index(job)
    assert [item["id"] for item in server.json("GET", "jobs?limit=1")["jobs"]] == [other]
    server.refused(422, "GET", "jobs?limit=0")
    assert server.ended(other)["state"] == "done"
    assert server.json("GET", f"jobs/{other}/keyframes")["numbers"][0] == 0


def test_a_job_goes_on_with_another_goal(server: ApiServer, clip: Path) -> None:
    inline = base64.b64encode(clip.read_bytes()).decode()
    host = {"model": "tiny two", "sampler": "euler"}
    began = server.json("POST", "jobs", json={
        "video": inline, "name": "in line.mp4", "goal": "keyframes", "settings": SETTINGS,
        "host": host})
    assert server.ended(began["id"])["state"] == "done"
    server.refused(404, "GET", f"jobs/{began['id']}/video")
    before = server.json("GET", f"jobs/{began['id']}/keyframes")
    resumed = server.json("POST", f"jobs/{began['id']}/resume", json={"goal": "all"})
    assert (resumed["state"], resumed["title"]) == ("queued", "in line.mp4")
    assert server.ended(began["id"])["state"] == "done"
    assert server.json("GET", f"jobs/{began['id']}/keyframes") == before
    request = server.service.engine.request(began["id"])
    assert (request.host.model, request.host.sampler) == ("tiny two", "euler")
    assert request.settings.keyframes.max_interval == 3
    assert frame_count(server.ask("GET", f"jobs/{began['id']}/video").content) == FRAMES


def test_a_changed_option_counts_when_a_job_is_resumed(server: ApiServer, video: str) -> None:
    began = server.json("POST", "jobs", json={
        "video_id": video, "goal": "keyframes", "settings": SETTINGS})["id"]
    server.ended(began)
    before = server.json("GET", f"jobs/{began}/keyframes")
    changed = {"settings": {"sampling": {"seed": 9}}}
    server.json("POST", f"jobs/{began}/resume", json=changed)
    assert server.ended(began)["state"] == "done"
    after = server.json("GET", f"jobs/{began}/keyframes")
    assert after["numbers"] == before["numbers"]
    assert after["images"] != before["images"]
    assert server.service.engine.request(began).settings.sampling.prompt == "a painting"


@pytest.mark.parametrize("form", ["object", "list", "folder"])
def test_own_keyframes_are_carried(
    server: ApiServer, video: str, form: str, tmp_path: Path
) -> None:
    """Two red images give a red video."""
    red, last = make_image(96), make_image(64, "JPEG")
    if form == "object":
        keys: Any = {"0": red, str(FRAMES - 1): f"data:image/jpeg;base64,{last}"}
    elif form == "list":
        keys = [{"name": "../../shot2_000.png", "image": red},
                {"name": f"x{FRAMES - 1}.jpeg", "image": last}]
    else:
        for name, data in ((0, red), (FRAMES - 1, last)):
            (tmp_path / f"{name:04d}.png").write_bytes(base64.b64decode(data))
        keys = str(tmp_path)
    began = server.json("POST", "jobs", json={
        "video_id": video, "goal": "propagation", "keyframes": keys,
        "settings": SETTINGS | {"propagation": {"quality": "draft"}}})
    ended = server.ended(began["id"])
    assert ended["state"] == "done", ended
    with av.open(io.BytesIO(server.ask("GET", f"jobs/{began['id']}/video").content)) as result:
        frames = [frame.to_ndarray(format="rgb24") for frame in result.decode(video=0)]
    assert len(frames) == FRAMES
    assert all(abs(frame.mean((0, 1)) - (254, 0, 0)).max() < 4 for frame in frames)


def test_a_keyframe_is_replaced(server: ApiServer, video: str) -> None:
    """The frames beside it come as drafts, then in the video; what is no image is refused."""
    began = server.json("POST", "jobs", json={
        "video_id": video, "goal": "propagation",
        "keyframes": {"0": make_image(), str(FRAMES - 1): make_image()},
        "settings": SETTINGS | {"propagation": {"quality": "draft"}}})["id"]
    assert server.ended(began)["state"] == "done"
    for wrong, said in (
        ({"image": "no base64!"}, "base64"), ({"image": ""}, "empty"), ({"image": 3}, "text"),
        ({"image": base64.b64encode(b"GIF89a" + bytes(50)).decode()}, "not a PNG or JPEG"),
        ({"image": base64.b64encode(huge_png(9000)).decode()}, "9000x9000"),
        ({"picture": "AAAA"}, "picture"),
    ):
        assert said in server.refused(422, "POST", f"jobs/{began}/keyframes/0", json=wrong)
    server.refused(404, "POST", f"jobs/{began}/keyframes/1", json={"image": make_image()})
    server.refused(422, "POST", f"jobs/{began}/keyframes/x", json={"image": make_image()})
    assert server.json("GET", f"jobs/{began}")["state"] == "done"
    black = np.zeros((50, 70, 3), np.uint8)
    sent = cv2.imencode(".png", black)[1].tobytes()
    again = server.json("POST", f"jobs/{began}/keyframes/0", json={
        "image": base64.b64encode(sent).decode()})
    assert again["state"] in ("queued", "running")
    looked = server.ask("POST", f"jobs/{began}/keyframes/0?look=0", data=sent,
                        headers={"Content-Type": "image/png"})
    assert looked.headers["content-type"] == "image/jpeg"
    assert decoded(looked).mean() < 4
    drawn = server.ask("POST", f"jobs/{began}/keyframes/0?look=1", data=sent,
                       headers={"Content-Type": "image/png"})
    assert drawn.headers["x-fresco-draft"] == "true"
    assert 40 < decoded(drawn)[..., 2].mean() < 250, "between black and red"
    assert decoded(server.ask("GET", f"jobs/{began}/frames/0?layer=source&side=32")).shape == (
        32, 32, 3)
    assert decoded(server.ask("GET", f"jobs/{began}/frames/0?layer=keyframe")).max() < 4
    server.refused(404, "GET", f"jobs/{began}/frames/1?layer=keyframe")
    server.refused(422, "GET", f"jobs/{began}/frames/{FRAMES + 5}?layer=source")
    server.refused(422, "GET", f"jobs/{began}/frames/0?layer=everything")
    server.refused(422, "POST", f"jobs/{began}/keyframes/0", data=b"no image",
                   headers={"Content-Type": "image/png"})
    draft = server.ask("GET", f"jobs/{began}/drafts/1")
    assert draft.headers["content-type"] == "image/png"
    assert cv2.imdecode(np.frombuffer(draft.content, np.uint8), cv2.IMREAD_COLOR) is not None
    for number in (0, FRAMES + 5, -1):
        server.refused(404, "GET", f"jobs/{began}/drafts/{number}")
    ended = server.ended(began)
    assert (ended["state"], ended["result"]) == ("done", "new")
    with av.open(io.BytesIO(server.ask("GET", f"jobs/{began}/video").content)) as result:
        frames = [frame.to_ndarray(format="rgb24") for frame in result.decode(video=0)]
    assert frames[0].mean() < 4
    assert abs(frames[-1].mean((0, 1)) - (254, 0, 0)).max() < 4


def decoded(answer: requests.Response) -> NDArray[np.uint8]:
    """The image of an answer, [H, W, 3]."""
    assert answer.status_code == 200, answer.text
    image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


def test_an_uploaded_folder_of_keyframes_goes_with_its_job(
    server: ApiServer, video: str
) -> None:
    began = server.json("POST", "jobs", json={
        "video_id": video, "goal": "propagation", "settings": SETTINGS,
        "keyframes": {"0": make_image(), "5": make_image()}})["id"]
    folder = Path(server.service.engine.request(began).own_keys)
    assert sorted(path.name for path in folder.glob("*.png")) == ["000000.png", "000005.png"]
    server.ended(began)
    assert server.json("DELETE", f"jobs/{began}") == {"id": began, "deleted": True}
    assert not folder.exists()
    server.refused(404, "GET", f"jobs/{began}")


def test_controlnet_units_reach_the_job(server: ApiServer, video: str) -> None:
    unit = {"model": "tiny control", "module": "canny", "weight": 0.5, "end": 1}
    began = server.json("POST", "jobs", json={
        "video_id": video, "goal": "preview", "settings": SETTINGS, "controlnet": [unit]})["id"]
    assert server.ended(began)["state"] == "done"
    (known,) = server.service.engine.request(began).host.control
    assert (known.model, known.module, known.weight) == ("tiny control", "canny", 0.5)


def test_units_with_hints_made_elsewhere(server: ApiServer, video: str, tmp_path: Path) -> None:
    """Hints in a folder are those of a preprocessor that makes the same; a hint can be seen."""
    frames = int(server.json("GET", f"videos/{video}")["info"]["frames"])
    canny = {"model": "tiny control", "module": "canny"}
    for number in range(frames):
        Client(server.url).download_hint(
            video, number, canny, tmp_path / f"{number:06}.png", settings=SETTINGS
        )
    assert set(np.unique(read_image(tmp_path / "000000.png"))) == {0, 255}

    def first_key(unit: dict[str, Any]) -> str:
        late = {"model": "tiny control", "module": "none", "start": 0.5}
        began = server.json("POST", "jobs", json={
            "video_id": video, "goal": "preview", "settings": SETTINGS,
            "controlnet": [unit, late]})["id"]
        assert server.ended(began)["state"] == "done"
        return server.json("GET", f"jobs/{began}/keyframes")["images"][0]

    own = {"model": "tiny control", "hints": str(tmp_path)}
    assert first_key(own) == first_key(canny)
    (tmp_path / "000000.png").unlink()
    lacking = server.json("POST", "jobs", json={
        "video_id": video, "goal": "preview", "settings": SETTINGS, "controlnet": [own]})["id"]
    assert "no hint of frame 0" in server.ended(lacking)["message"]
    wrong = {"video_id": video, "frame": 0, "unit": {"model": "tiny control", "weight": 9}}
    assert "unit.weight is 9" in server.refused(422, "POST", "hint", json=wrong)


def test_one_keyframe_is_translated_again(server: ApiServer, video: str) -> None:
    began = server.json("POST", "jobs", json={
        "video_id": video, "goal": "keyframes", "settings": SETTINGS})["id"]
    server.ended(began)
    before = server.json("GET", f"jobs/{began}/keyframes")
    again = {"goal": "keyframe", "frame": before["numbers"][1], "frame_seed": 77}
    server.json("POST", f"jobs/{began}/resume", json=again)
    assert server.ended(began)["state"] == "done"
    after = server.json("GET", f"jobs/{began}/keyframes")
    same = [a == b for a, b in zip(before["images"], after["images"], strict=True)]
    assert same == [True, False, *[True] * (len(same) - 2)]


def test_cancel_resume_and_delete(server: ApiServer, video: str) -> None:
    slow = SETTINGS | {"sampling": SETTINGS["sampling"] | {"steps": 400, "strength": 1.0}}
    began = server.json("POST", "jobs", json={"video_id": video, "settings": slow})["id"]
    while server.json("GET", f"jobs/{began}")["stage"] != "keyframes":
        time.sleep(0.05)
    assert "running" in server.refused(409, "DELETE", f"jobs/{began}")
    assert "running" in server.refused(409, "POST", f"jobs/{began}/resume")
    assert began in server.refused(409, "DELETE", f"videos/{video}")
    assert server.json("POST", f"jobs/{began}/cancel")["state"] == "cancelling"
    assert server.ended(began)["state"] == "cancelled"
    server.refused(409, "POST", f"jobs/{began}/cancel")
    server.json("POST", f"jobs/{began}/resume", json={
        "goal": "preview", "settings": {"sampling": {"steps": 4, "strength": 0.5}}})
    assert server.ended(began)["state"] == "done"
    server.json("DELETE", f"jobs/{began}")
    server.refused(404, "POST", f"jobs/{began}/cancel")


def test_an_uploaded_video_is_removed(server: ApiServer, tmp_path: Path) -> None:
    other = server.upload(small_clip(tmp_path / "other.mp4", FRAMES + 1))
    assert server.json("DELETE", f"videos/{other}") == {"id": other, "deleted": True}
    server.refused(404, "GET", f"videos/{other}")
    server.refused(404, "DELETE", f"videos/{other}")
    assert other in server.refused(404, "POST", "jobs", json={"video_id": other})


def test_uploads_are_counted_and_go_with_their_last_job(
    server: ApiServer, tmp_path: Path
) -> None:
    path = small_clip(tmp_path / "film.mp4", FRAMES + 2)
    before = server.json("GET", "videos")
    video = server.upload(path)
    assert server.upload(path) == video
    listed = server.json("GET", "videos")
    assert listed["count"] == before["count"] + 1
    assert listed["bytes"] == before["bytes"] + path.stat().st_size
    body = {"video_id": video, "goal": "preview", "settings": SETTINGS}
    jobs = [server.json("POST", "jobs", json=body | {"title": name})["id"] for name in "ab"]
    for job in jobs:
        server.ended(job)
    known = server.json("GET", f"videos/{video}")
    assert (known["bytes"], set(known["jobs"])) == (path.stat().st_size, set(jobs))
    query = {"video": "true"}
    kept = server.json("DELETE", f"jobs/{jobs[0]}", params=query)
    assert kept == {"id": jobs[0], "deleted": True, "video_deleted": None}
    assert server.json("GET", f"videos/{video}")["jobs"] == [jobs[1]]
    gone = server.json("DELETE", f"jobs/{jobs[1]}", params=query)
    assert gone["video_deleted"] == video
    server.refused(404, "GET", f"videos/{video}")
    on_server = server.json("POST", "jobs", json={"path": str(path), "goal": "preview",
                                                 "settings": SETTINGS})["id"]
    server.ended(on_server)
    assert server.json("DELETE", f"jobs/{on_server}", params=query)["video_deleted"] is None
    assert path.exists(), "no upload, so nobody else's file is touched"


def test_a_random_seed_is_told_and_the_same_when_resumed(
    server: ApiServer, video: str
) -> None:
    settings = SETTINGS | {"sampling": SETTINGS["sampling"] | {"seed": -1}}
    body = {"video_id": video, "goal": "preview", "preview": 3, "settings": settings}
    queued = [server.json("POST", "jobs", json=body) for _ in range(2)]
    assert queued[0]["id"] != queued[1]["id"], "other images are wanted"
    seeds = [int(re.search(r"seed is (\d+), drawn", each["notes"][0])[1]) for each in queued]
    job = queued[0]["id"]
    assert server.ended(job)["notes"][0] == queued[0]["notes"][0]
    first = server.json("GET", f"jobs/{job}/keyframes")
    server.json("POST", f"jobs/{job}/resume", json={"goal": "keyframes"})
    assert server.ended(job)["state"] == "done"
    again = server.json("GET", f"jobs/{job}/keyframes")
    assert again["images"][:len(first["images"])] == first["images"]
    fixed = SETTINGS | {"sampling": SETTINGS["sampling"] | {"seed": seeds[0]}}
    same = server.json("POST", "jobs", json=body | {"settings": fixed})["id"]
    assert server.ended(same)["state"] == "done"
    assert server.json("GET", f"jobs/{same}/keyframes")["images"] == first["images"]
    assert "nothing to resume" in server.refused(409, "POST", f"jobs/{same}/resume")


def test_the_same_job_is_queued_once(server: ApiServer, video: str) -> None:
    body = {"video_id": video, "goal": "keyframes", "settings": SETTINGS}
    blocker = server.json("POST", "jobs", json=body | {"title": "first"})["id"]
    one, two = (server.json("POST", "jobs", json=body)["id"] for _ in range(2))
    assert one == two != blocker
    assert server.ended(one)["state"] == "done"


@pytest.mark.parametrize(
    ("asked", "code", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=5-99999999", 206, slice(5, None)),
        ("bytes=0-", 206, slice(None)),
        ("bytes=-99999999", 206, slice(None)),
        ("bytes=99999999-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=9-3", 200, slice(None)),
        ("bytes=0-1,4-5", 200, slice(None)),
        ("bytes=a-b", 200, slice(None)),
        ("pages=0-1", 200, slice(None)),
        ("bytes=" + "9" * 400 + "-", 200, slice(None)),
        ("bytes = 1 - 5 ", 206, slice(1, 6)),
        ("bytes=" + " " * 20_000 + "x", 200, slice(None)),
        ("bytes=-" + " " * 20_000 + "x", 200, slice(None)),
    ],
)
def test_parts_of_a_video(
    server: ApiServer, job: str, asked: str, code: int, part: slice | None
) -> None:
    whole = server.ask("GET", f"jobs/{job}/video").content
    answer = server.ask("GET", f"jobs/{job}/video", headers={"Range": asked})
    assert answer.status_code == code
    assert answer.headers["accept-ranges"] == "bytes"
    if part is None:
        assert answer.headers["content-range"] == f"bytes */{len(whole)}"
        return
    assert answer.content == whole[part]
    assert answer.headers["content-length"] == str(len(whole[part]))
    first, last, _ = part.indices(len(whole))
    expected = f"bytes {first}-{last - 1}/{len(whole)}" if code == 206 else None
    assert answer.headers.get("content-range") == expected


def test_a_part_of_a_video_that_changed_is_the_whole(server: ApiServer, job: str) -> None:
    known = server.ask("GET", f"jobs/{job}/video")
    headers = {"Range": "bytes=0-9", "If-Range": known.headers["etag"]}
    assert server.ask("GET", f"jobs/{job}/video", headers=headers).status_code == 206
    headers["If-Range"] = '"another"'
    assert server.ask("GET", f"jobs/{job}/video", headers=headers).status_code == 200


def events(answer: requests.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
        if line.startswith("data: "):
            yield json.loads(line[len("data: "):])


def test_events_tell_of_a_job_until_it_ends(server: ApiServer, video: str) -> None:
    body = {"video_id": video, "goal": "preview", "settings": SETTINGS}
    began = server.json("POST", "jobs", json=body)["id"]
    with server.ask("GET", f"jobs/{began}/events", stream=True) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        arrived = [(time.monotonic(), status) for status in events(answer)]
    times, told = [time for time, _ in arrived], [status for _, status in arrived]
    assert told[-1] == server.json("GET", f"jobs/{began}")
    assert told[-1]["state"] == "done"
    versions = [status["version"] for status in told]
    assert versions == sorted(set(versions))
    assert "keyframes" in {status["stage"] for status in told}
    # One at a time, and not all at the end out of somebody's buffer.
    assert times[-1] > times[0]
    last = {"Last-Event-ID": str(versions[-1])}
    assert server.ask("GET", f"jobs/{began}/events", headers=last).status_code == 204
    server.refused(404, "GET", "jobs/0123456789abcdef/events")


def test_events_end_with_the_client_and_with_the_job(
    tmp_path_factory: pytest.TempPathFactory, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = make_environment(tmp_path_factory)
    with serving(tmp_path_factory.mktemp("idle"), environment, idle=True) as server:
        engine = server.service.engine
        asked: list[float] = []
        plain = engine.wait

        def wait(job: str, version: int, timeout: float) -> Any:
            asked.append(time.monotonic())
            return plain(job, version, timeout)

        monkeypatch.setattr(engine, "wait", wait)
        monkeypatch.setattr(server_events, "WAIT", 0.1)
        waiting = engine.submit(JobRequest(str(clip))).id
        with server.ask("GET", f"jobs/{waiting}/events", stream=True) as answer:
            told = events(answer)
            assert next(told)["state"] == "queued"
            end = time.monotonic() + 20
            while len(asked) < 3 and time.monotonic() < end:
                time.sleep(0.02)
        assert len(asked) >= 3
        seen = 0
        while seen < len(asked):  # until nobody has asked for five waits
            assert time.monotonic() < end, "it goes on without its client"
            seen = len(asked)
            time.sleep(0.5)
        with server.ask("GET", f"jobs/{waiting}/events", stream=True) as answer:
            told = events(answer)
            next(told)
            engine.cancel(waiting)
            assert [status["state"] for status in told] == ["cancelled"]


def test_the_client_of_others_drives_it(server: ApiServer, clip: Path, tmp_path: Path) -> None:
    """webuiapi takes nothing but 200, objects, and base64 under `images`."""
    host, port = server.url.removeprefix("http://").split(":")
    api = webuiapi.WebUIApi(host=host, port=int(port))
    assert api.custom_get("fresco/version")["host"] == "a test with diffusers"
    assert "job" in api.custom_get("fresco/schema")
    inline = base64.b64encode(clip.read_bytes()).decode()
    found = api.custom_post("fresco/keyframes", payload={"video": inline}).json
    began = api.custom_post("fresco/jobs", payload={
        "video_id": found["video_id"], "goal": "keyframes", "settings": SETTINGS}).json
    cancelled = api.custom_post(f"fresco/jobs/{began['id']}/cancel").json
    assert cancelled["state"] in ("cancelled", "cancelling")
    server.ended(began["id"])
    assert api.custom_post(f"fresco/jobs/{began['id']}/resume").json["state"] == "queued"
    server.ended(began["id"])
    assert api.custom_get("fresco/jobs?limit=1")["jobs"][0]["id"] == began["id"]
    keys = api._to_api_result(api.session.get(
        api.get_endpoint(f"fresco/jobs/{began['id']}/keyframes", False)))
    assert [image.size for image in keys.images] == [(64, 64)] * len(keys.json["numbers"])
    assert "no job" in api.custom_get("fresco/jobs/none")["detail"]
    with pytest.raises(RuntimeError, match="batch_size"):
        api.custom_post("fresco/jobs", payload={
            "video_id": found["video_id"], "settings": {"keyframes": {"batch_size": 2}}})
