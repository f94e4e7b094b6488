"""Bodies: who asks comes first, slow clients hold no thread, and nothing is whole in memory."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import socket
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from fresco.errors import SettingsError
from fresco.server.encoded import EncodedFile
from fresco.server.ports import Limits
from fresco.server.videos import TooLargeError
from tests.helpers.api_server import (
    SETTINGS,
    Access,
    ApiServer,
    HTTPException,
    JsonBody,
    UploadedFile,
    bodies,
    make_environment,
    serving,
    small_clip,
)
from tests.helpers.broken_videos import huge_png

POSTS = ("videos", "keyframes", "jobs", "jobs/0123456789abcdef/resume")
JSON = {"Content-Type": "application/json"}


def refuse_all(cookie: str = "") -> None:
    """As the login page of a host, which FastAPI asks as a dependency."""
    raise HTTPException(401, f"Not logged in {cookie}.")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    environment = make_environment(tmp_path_factory, Limits(300))
    with serving(tmp_path_factory.mktemp("root"), environment, idle=True) as running:
        @running.app.get("/page")
        def page() -> str:
            """In a thread of the pool that all pages share."""
            return "here"

        yield running


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_clip(tmp_path_factory.mktemp("clip") / "a.mp4")


def connect(server: ApiServer) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


# Who asks comes first


@pytest.mark.parametrize("access", [
    Access.of("ann:word"), Access.of(None, refuse_all), Access.of("ann:word", refuse_all),
], ids=["api-auth", "gradio-auth", "both"])
def test_no_login_waits_for_a_body(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, access: Access
) -> None:
    """The answer is there although not a byte of the body is."""
    environment = make_environment(tmp_path_factory)
    with serving(tmp_path, environment, access, idle=True) as server:
        for route in POSTS:
            connection = http.client.HTTPConnection(
                server.url.removeprefix("http://"), timeout=10
            )
            connection.putrequest("POST", f"/fresco/{route}")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(10**9))
            connection.endheaders()
            assert connection.getresponse().status == 401, route
            connection.close()
    assert not list(tmp_path.glob("**/.incoming*"))


# Slow clients


FORM = (b"POST /fresco/videos HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n--x\r\n"
        b'Content-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\nab')
HALF = (b"POST /fresco/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b'Content-Length: 100000\r\n\r\n{"title": "')


def test_slow_clients_hold_no_thread_and_do_not_stay(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than the pool has threads; pages of the program around go on."""
    monkeypatch.setattr(bodies, "BLOCK_SECONDS", 1.5)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(96)]
        for place, client in enumerate(slow):
            client.sendall(HALF if place % 3 else FORM)
        time.sleep(0.3)
        assert requests.get(f"{server.url}/page", timeout=5).status_code == 200
        assert server.ask("GET", "version").status_code == 200
        codes = [int(client.recv(1000).split()[1]) for client in slow]
    assert set(codes) == {408, 503}
    assert codes.count(408) > 40
    assert codes.count(503) >= 20
    end = time.monotonic() + 5
    while list((server.service.root / "videos").glob(".incoming*")):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert server.refused(422, "POST", "jobs", json={})


def test_a_client_that_drips_is_as_slow_as_one_that_stops(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BLOCK_SECONDS", 0.6)
    begun, answer = time.monotonic(), b""
    with connect(server) as client:
        client.sendall(HALF)
        client.settimeout(0.05)
        while not answer:
            assert time.monotonic() - begun < 8
            client.sendall(b"a")
            with suppress(TimeoutError):
                answer = client.recv(1000)
    assert b" 408 " in answer


def test_a_slow_client_that_goes_on_is_served(
    server: ApiServer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout is of a block, not of the whole."""
    monkeypatch.setattr(bodies, "BLOCK_SECONDS", 0.5)
    monkeypatch.setattr(bodies, "BLOCK", 4000)

    def slowly() -> Iterator[bytes]:
        data = clip.read_bytes() + bytes(20_000)
        head = b'--x\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
        whole = head + data + b"\r\n--x--\r\n"
        for place in range(0, len(whole), 4000):
            time.sleep(0.1)
            yield whole[place:place + 4000]

    known = server.json("POST", "videos", data=slowly(),
                        headers={"Content-Type": "multipart/form-data; boundary=x"})
    server.json("DELETE", f"videos/{known['id']}")


# Limits


@pytest.mark.parametrize("content", [
    b'{"settings": {"sampling": {"prompt": "' + b"a dog " * 400_000 + b'"}}}',
    b'{"title": "' + b"\\u0061" * 300_000 + b'"}', b" " * 1_200_000,
    b'{"path": "/", "controlnet": [' + b"{}," * 400_000 + b"{}]}",
    b"{" + b",".join(b'"%d": 1' % number for number in range(120_000)) + b"}",
])
def test_a_body_without_files_is_small(server: ApiServer, content: bytes) -> None:
    for route in POSTS[1:]:
        assert "1000000 bytes" in server.refused(413, "POST", route, data=content, headers=JSON)


def test_a_word_that_looks_like_a_file_is_a_word(server: ApiServer, clip: Path) -> None:
    for letters in (19_000, 20_001, 900_000, 3_000_000):
        body = {"path": str(clip), "settings": {"sampling": {
            "prompt": "a" * letters, "key_prompts": {"0": "b" * letters}}}}
        if letters <= 20_000:
            job = server.json("POST", "jobs", json=body)["id"]
            known = server.service.engine.request(job).settings.sampling
            assert (known.prompt, known.key_prompts) == ("a" * letters, {"0": "b" * letters})
            server.json("DELETE", f"jobs/{job}")
        else:
            assert f"{letters} letters" in server.refused(422, "POST", "jobs", json=body)
    assert "2000 letters" in server.refused(422, "POST", "jobs", json={"title": "a" * 2000})
    assert "name is longer" in server.refused(422, "POST", "jobs", json={"a" * 2000: 1})


@pytest.mark.parametrize("content", [
    b"[" * 100_000, b'{"settings": ' + b"[" * 100_000, b"[" * 900 + b"]" * 900,
    b'{"settings": ' + b'{"a": ' * 900 + b"1" + b"}" * 901,
    b'{"path": "/tmp", "settings": {"keyframes": {"keys": "' + b"[" * 50_000 + b'"}}}',
    b'{"path": "/tmp", "settings": {"keyframes": {"keys": "[' + b"9" * 5000 + b']"}}}',
    b'{"path": "/tmp", "settings": {"keyframes": {"keys": "[0,1"}}}',
    b'{"path": "/tmp", "settings": {"keyframes": {"keys": "' + b" " * 60_000 + b'[-"}}}',
])
def test_what_is_nested_without_end_is_refused(server: ApiServer, content: bytes) -> None:
    """Before a job is made of it."""
    for route in ("jobs", "keyframes"):
        server.refused(422, "POST", route, data=content, headers=JSON)


@pytest.mark.parametrize("kind", [
    None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
    "application/jsonp", "text/json",
])
def test_json_is_called_json(server: ApiServer, kind: str | None) -> None:
    """What a page of another site can send without asking is not taken."""
    for route in POSTS[1:]:
        headers = {"Content-Type": kind} if kind else {}
        said = server.refused(415, "POST", route, data=b'{"path": "/tmp"}', headers=headers)
        assert "application/json" in said
    for fine in ("application/json; charset=utf-8", "Application/JSON", "application/vnd.a+json"):
        server.refused(422, "POST", "jobs", data=b'{"goal": 3}', headers={"Content-Type": fine})


def bombs(count: int) -> dict[str, str]:
    """Images that name the largest size allowed, and hold no pixel."""
    text = base64.b64encode(huge_png(8192)).decode()
    return {str(number): text for number in range(count)}


def test_many_enormous_images_are_not_decoded(
    server: ApiServer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(
        "fresco.server.api.files.decode_sent_image", lambda name, *_: decoded.append(name)
    )
    body = {"path": str(clip), "goal": "propagation", "settings": SETTINGS}
    said = server.refused(413, "POST", "jobs", json=body | {"keyframes": bombs(100)})
    assert "pixels together" in said
    assert not decoded
    assert "10000" in server.refused(
        422, "POST", "jobs", json=body | {"keyframes": dict.fromkeys(map(str, range(10_001)), "A")})
    incoming = server.service.root / "jobs" / ".incoming"
    assert not incoming.exists() or not list(incoming.iterdir())


# JSON as it comes


def read(content: bytes, folder: Path, cuts: tuple[int, ...] = ()) -> Any:
    """The value of a body that comes in pieces, its files as their bytes."""
    with JsonBody(folder) as body:
        for first, last in zip((0, *cuts), (*cuts, len(content)), strict=True):
            body.write(content[first:last])

        def plain(value: Any) -> Any:
            if isinstance(value, EncodedFile):
                return whole(value)
            if isinstance(value, list):
                return [plain(item) for item in value]
            if isinstance(value, dict):
                return {name: plain(item) for name, item in value.items()}
            return value

        return plain(body.read())


def whole(file: EncodedFile) -> bytes:
    opened, parts = file.open("video"), []
    while block := opened.read():
        parts.append(block)
    return b"".join(parts)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text('ab"\\/\n{}[]', max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=4), max_leaves=12,
)


@given(VALUES, st.data(), st.booleans())
def test_json_is_read_alike_however_it_is_cut(value: Any, data: st.DataObject, ascii: bool) -> None:
    content = json.dumps(value, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    cuts = tuple(sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6))))
    try:
        expected = json.loads(content)
    except UnicodeDecodeError:
        return
    assert read(content, Path(), cuts) == expected


@pytest.mark.parametrize("size", [768, 1000, 5000, 49_152, 49_153, 200_000, 3_000_001])
@pytest.mark.parametrize("prefix", ["", "data:video/mp4;base64,"])
@pytest.mark.parametrize("escaped", [False, True])
def test_files_come_out_as_they_went_in(
    tmp_path: Path, size: int, prefix: str, escaped: bool
) -> None:
    data = os.urandom(size)
    text = prefix + base64.b64encode(data).decode()
    content = json.dumps({"a": [text, "b", text], "c": text}).encode()
    if escaped:
        content = content.replace(b"/", b"\\/")
    step = 65_521 if size > 10_000 else 7
    cuts = tuple(range(step, len(content), step))
    assert read(content, tmp_path, cuts) == {"a": [data, "b", data], "c": data}
    assert not list(tmp_path.iterdir())


def test_a_large_file_is_never_in_memory(tmp_path: Path) -> None:
    block = base64.b64encode(os.urandom(48_000))
    tracemalloc.start()
    try:
        with JsonBody(tmp_path) as body:
            body.write(b'{"video": "')
            for _ in range(400):
                body.write(block)
            body.write(b'"}')
            opened, size = body.read()["video"].open("video"), 0
            while part := opened.read():
                size += len(part)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == 400 * 48_000
    assert peak < 6_000_000


@pytest.mark.parametrize("text", [
    "A" * 70_000 + "!" + "A" * 70_000, "A" * 70_000 + "\\n" + "A" * 9, "A" * 70_000 + "=A==",
    "A" * 200_001, "A" * 70_000 + "é",
])
def test_what_is_not_base64_to_its_end_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="base64"):
        read(b'{"video": "' + text.encode() + b'"}', tmp_path, (70_000, 90_000))


def test_nobody_can_name_a_file_that_was_not_sent(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="longer than 1024"):
        read(b'{"' + b"A" * 2000 + b'": 1}', tmp_path)
    one, other = JsonBody(tmp_path), JsonBody(tmp_path)
    assert one._token != other._token


def test_a_video_within_json_is_kept(server: ApiServer, clip: Path) -> None:
    text = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    content = json.dumps({"video": text, "name": "a.mp4", "settings": SETTINGS}).encode()
    for sent in (content, content.replace(b"/", b"\\/")):
        known = server.json("POST", "jobs", data=sent, headers=JSON)
        kept = server.service.videos.get(known["video_id"])
        assert kept.path.read_bytes() == clip.read_bytes()
        server.json("DELETE", f"jobs/{known['id']}")
        server.json("DELETE", f"videos/{known['video_id']}")


# Forms


def form(data: bytes, before: bytes = b"") -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
    return before + head + data + b"\r\n--x--\r\n"


def send(file: UploadedFile, content: bytes) -> None:
    for place in range(0, len(content), 50_000):
        file.write(content[place:place + 50_000])


KIND = "multipart/form-data; boundary=x"


def test_an_upload_goes_to_its_place_and_leaves_nothing(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    with UploadedFile(KIND, tmp_path, 1) as file:
        content = form(data)
        for place in range(0, len(content), 777):
            file.write(content[place:place + 777])
        file.finish()
        assert (file.name, file.path.read_bytes()) == ("a.mp4", data)
    assert not list(tmp_path.iterdir())


def test_an_upload_above_the_limit_stops_there(tmp_path: Path) -> None:
    with UploadedFile(KIND, tmp_path, 1) as file, pytest.raises(TooLargeError, match="1 MB"):
        send(file, form(bytes(1_000_001)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("before", [
    b"junk " * 400_000,
    b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\n' + b"a" * 2_000_000 + b"\r\n",
])
def test_a_form_holds_little_besides_its_file(tmp_path: Path, before: bytes) -> None:
    with UploadedFile(KIND, tmp_path, 9) as file, pytest.raises(SettingsError, match="form"):
        send(file, before)


def test_long_headers_are_not_parsed(tmp_path: Path) -> None:
    """Old versions of the parser take time without end over them."""
    long = "; a=" + '"' * 5000
    with pytest.raises(SettingsError, match="4096"):
        UploadedFile(KIND + long, tmp_path, 1)
    with UploadedFile(KIND, tmp_path, 1) as file, pytest.raises(SettingsError, match="eader"):
        file.write(b"--x\r\nContent-Disposition: form-data" + long.encode() + b"\r\n\r\n")


def test_what_a_killed_server_was_receiving_is_removed(tmp_path: Path) -> None:
    old, new = tmp_path / ".incoming-0", tmp_path / ".incoming-1"
    for path in (old, new):
        path.write_bytes(b"half")
    past = time.time() - 7200
    os.utime(old, (past, past))
    with UploadedFile(KIND, tmp_path, 1):
        assert not old.exists()
        assert new.exists()


def test_a_disk_without_room_is_named(
    server: ApiServer, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("fresco.server.api.upload._open", lambda path: Full())
    with clip.open("rb") as file:
        said = server.refused(503, "POST", "videos", files={"video": ("a.mp4", file)})
    assert "disk is full" in said
