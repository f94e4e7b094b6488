"""The client against a real server: a video there, and everything back."""

from __future__ import annotations

import builtins
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from fresco.errors import FrescoError, HostError
from fresco.server.client import Client, JobFailedError, ServerError, StillRunningError
from fresco.server.jobs.job import JobStatus
from fresco.server.ports import Limits
from tests.helpers.api_server import (
    SETTINGS,
    Access,
    ApiServer,
    make_environment,
    serving,
    small_clip,
)
from tests.helpers.source import ROOT

AUTH = ("ann", "wörd€")
FRAMES = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    environment = make_environment(tmp_path_factory, Limits(upload_megabytes=1))
    with serving(tmp_path_factory.mktemp("root"), environment, Access((AUTH,))) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Client:
    return Client(f"{server.url}/", auth=AUTH)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_clip(tmp_path_factory.mktemp("clip") / 'a "clip" ä.mp4', FRAMES)


@pytest.fixture(scope="module")
def video(client: Client, clip: Path) -> str:
    return client.upload(clip)


def test_the_server_is_known(client: Client, server: ApiServer, video: str) -> None:
    assert client.version()["host"] == "a test with diffusers"
    assert client.models()["models"] == ["tiny", "tiny two"]
    assert server.service.videos.get(video).name == "a _clip_ ä.mp4"
    found = client.detect(video, {"keyframes": {"keys": "0 2"}})
    assert found.numbers == (0, 2, FRAMES - 1)
    assert found.shots == ((0, FRAMES - 1),)
    assert len(found.changes) == FRAMES


def test_a_job_from_start_to_end(client: Client, video: str, tmp_path: Path) -> None:
    began = client.submit(video, "keyframes", SETTINGS, host={"sampler": "euler"}, title="mine")
    assert (began.state, began.goal, began.title) == ("queued", "keyframes", "mine")
    told: list[JobStatus] = []
    assert client.wait(began.id, report=told.append, every=0.05).state == "done"
    assert told[-1].state == "done"
    measured = {"output": {"measures": True}}
    client.resume(began.id, "all", measured)
    followed = list(client.events(began.id))
    assert followed[-1] == client.job(began.id)
    assert followed[-1].state == "done"
    assert len({job.version for job in followed}) == len(followed) > 3
    assert list(client.events(began.id)) == followed[-1:]
    assert client.jobs(1)[0].id == began.id
    target = client.download_video(began.id, tmp_path / "out.mp4")
    with av.open(str(target)) as container:
        assert sum(1 for _ in container.decode(video=0)) == FRAMES
    keys = client.download_keyframes(began.id, tmp_path / "keys")
    assert [path.name for path in keys][:1] == ["000000.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in keys)
    assert client.report(began.id)["frames"] == FRAMES
    assert "keyframes" in client.log(began.id)
    client.delete(began.id)
    with pytest.raises(ServerError, match=began.id) as caught:
        client.job(began.id)
    assert caught.value.status == 404
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "out.mp4"]


def test_own_keyframes_and_a_cancelled_job(client: Client, video: str, tmp_path: Path) -> None:
    blue = np.zeros((64, 64, 3), np.uint8)
    blue[..., 0] = 255
    paths = {0: tmp_path / "a.png", FRAMES - 1: tmp_path / "b.jpg"}
    for path in paths.values():
        cv2.imwrite(str(path), blue)
    began = client.submit(video, "propagation", SETTINGS, keyframes=paths)
    client.wait(began.id, every=0.05)
    assert client.retouch(began.id, 0, paths[0]).state in ("queued", "running", "done")
    looked = client.download_frame(began.id, 2, tmp_path / "2.jpg", layer="source")
    draft = client.download_draft(began.id, 2, tmp_path / "2.png")
    assert [path.read_bytes()[:2] for path in (looked, draft)] == [b"\xff\xd8", b"\x89P"]
    client.wait(began.id, every=0.05)
    slow = {**SETTINGS, "sampling": {"resolution": 64, "steps": 400, "strength": 1.0}}
    behind = client.submit(video, settings=slow)
    with pytest.raises(StillRunningError, match="goes on"):
        client.wait(behind.id, timeout=0, every=0)
    assert client.cancel(behind.id).state in ("cancelled", "cancelling")
    with pytest.raises(JobFailedError, match="cancelled"):
        client.wait(behind.id, every=0.05)
    assert client.wait(began.id, every=0.05).state == "done"


def test_errors_are_those_of_the_server(
    client: Client, server: ApiServer, video: str, tmp_path: Path
) -> None:
    def refused(code: int, said: str, ask: Any, *arguments: Any, **named: Any) -> None:
        with pytest.raises(ServerError, match=said) as caught:
            ask(*arguments, **named)
        assert caught.value.status == code

    refused(422, "did you mean steps", client.submit, video, settings={"sampling": {"stepz": 1}})
    refused(404, "upload it first", client.detect, "nothing")
    refused(404, "Not Found", client.job, "../videos")
    refused(404, "no job", client.delete, "?#")
    refused(401, "user and password", Client(server.url).version)
    refused(401, "user and password", Client(server.url, auth=("ann", "no")).upload, __file__)
    refused(422, "cannot be read as video", client.upload, __file__)
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(3_000_000))
    refused(413, "1 MB|larger", client.upload, large)
    with pytest.raises(HostError, match="cannot be read"):
        client.upload(tmp_path / "absent.mp4")
    refused(0, "does not answer", Client("http://127.0.0.1:9").version)
    refused(404, "answered 404|Not Found", Client(f"{server.url}/other", auth=AUTH).version)


def test_a_connection_that_breaks_is_an_error_of_ours_and_leaves_no_file(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
                connection.sendall(b"data: {}\n")

    with listener:
        thread = threading.Thread(target=answer)
        thread.start()
        broken = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=5)
        with pytest.raises(ServerError, match=r"broke|ended after"):
            broken.download_video("job", tmp_path / "result.mp4")
        with pytest.raises(ServerError, match="broke"):
            list(broken.events("job"))
        thread.join()
    assert not list(tmp_path.iterdir())


def test_own_files_that_cannot_be_read_or_written_are_named(
    client: Client, video: str, tmp_path: Path
) -> None:
    with pytest.raises(HostError, match=r"absent\.png cannot be read"):
        client.submit(video, "propagation", keyframes={0: tmp_path / "absent.png"})


def test_a_video_is_removed(client: Client, clip: Path) -> None:
    other = client.upload(str(clip))
    client.delete_video(other)
    with pytest.raises(ServerError, match=other):
        client.delete_video(other)


def test_without_requests_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "requests":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FrescoError, match="pip install requests"):
        Client("http://127.0.0.1:9")


ALONE = """
import importlib.abc, json, sys
ALLOWED = {"fresco", "requests", "urllib3", "certifi", "idna", "charset_normalizer", "chardet"}
ALLOWED |= set(sys.stdlib_module_names)
class OnlyRequests(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, OnlyRequests())
from fresco.server.client import Client
imported = "requests" in sys.modules
answers = json.load(sys.stdin)
client = Client(answers["address"], auth=tuple(answers["auth"]))
print(json.dumps([imported, client.version()["host"], client.upload(answers["clip"])]))
"""


def test_requests_is_all_it_needs(server: ApiServer, clip: Path) -> None:
    """In a checkout without numpy, torch and all else; requests itself is imported when needed."""
    asked = json.dumps({"address": server.url, "auth": AUTH, "clip": str(clip)})
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=ROOT, input=asked, capture_output=True, text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported, name, video = json.loads(done.stdout)
    assert not imported
    assert name == "a test with diffusers"
    assert server.service.videos.get(video).info.frames == FRAMES
