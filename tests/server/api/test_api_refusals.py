"""What the API refuses: broken files, foreign paths, what is too large, what is not a request."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fresco.server.ports import Limits
from tests.helpers.api_server import SETTINGS, ApiServer, make_environment, serving, small_clip
from tests.helpers.broken_videos import broken_videos, huge_png, started_png

MEGABYTES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return small_clip(folder / "good.mp4")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[ApiServer]:
    (folder / "secret").mkdir()
    small_clip(folder / "secret" / "hidden.mp4")
    environment = make_environment(
        tmp_path_factory, Limits(MEGABYTES, frames=10, resolution=128),
        (str(folder / "secret"), "/etc", "/proc", "/dev"),
    )
    with serving(tmp_path_factory.mktemp("root"), environment, idle=True) as running:
        yield running


@pytest.fixture
def unchanged(server: ApiServer, video: str) -> Iterator[None]:
    """Nothing of what is refused is left, and the server is alive."""
    before = len(server.service.engine.jobs())
    yield
    assert [video.id for video in server.service.videos.list_videos()] == [video]
    names = {path.name for path in (server.service.root / "videos").iterdir()}
    assert names <= {video, "scans"}
    assert len(server.service.engine.jobs()) == before
    incoming = server.service.root / "jobs" / ".incoming"
    assert not incoming.exists() or not list(incoming.iterdir())
    assert server.json("GET", f"videos/{video}")["id"] == video


@pytest.mark.usefixtures("unchanged")
def test_broken_videos_are_refused(
    server: ApiServer, clip: Path, tmp_path: Path
) -> None:
    files = broken_videos(clip, tmp_path)
    assert len(files) >= 30
    for name, data in files.items():
        detail = server.refused(422, "POST", "videos", files={"video": (name, data)})
        assert name in detail
        assert str(server.service.root) not in detail
    for data in list(files.values())[::4]:
        text = base64.b64encode(data).decode()
        server.refused(422, "POST", "jobs", json={"video": text, "settings": SETTINGS})


def test_a_video_of_another_ending_is_taken_for_what_it_is(
    server: ApiServer, tmp_path: Path
) -> None:
    clip = small_clip(tmp_path / "other.mp4", 3)
    for name in ("film.txt", "film", "../../../film.exe", "a" * 300 + ".mp4", "film.png"):
        known = server.json("POST", "videos", files={"video": (name, clip.read_bytes())})
        place = server.service.videos.get(known["id"]).path
        assert place.parent == server.service.root / "videos" / known["id"]
        assert place.name in ("video.bin", "video.mp4")
        assert known["name"] == name.rpartition("/")[2][:120]
        server.json("DELETE", f"videos/{known['id']}")


FOREIGN = (
    "/etc/passwd", "/etc/../etc/passwd", "//etc/passwd", "/proc/self/environ", "/dev/zero",
    "{secret}/hidden.mp4", "{secret}/../secret/hidden.mp4", "{open}/../secret/hidden.mp4",
    "{open}/link.mp4", "{secret}",
)
ABSENT = (
    "nothing.mp4", "../../../../nothing", "a" * 5000, "file:///etc/passwd", "~root/a.mp4",
    "http://127.0.0.1:9/a.mp4", "\\\\host\\share\\a.mp4", "concat:/etc/passwd|/etc/passwd",
    "%2e%2e%2fetc%2fpasswd", "..\\..\\windows\\win.ini", "CON", "|id", "$(id)", "pipe:0",
)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("path", [*FOREIGN, *ABSENT])
def test_foreign_paths_are_refused(server: ApiServer, folder: Path, path: str) -> None:
    allowed = folder / "open"
    allowed.mkdir(exist_ok=True)
    link = allowed / "link.mp4"
    link.unlink(missing_ok=True)
    link.symlink_to(folder / "secret" / "hidden.mp4")
    path = path.replace("{secret}", str(folder / "secret")).replace("{open}", str(allowed))
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("keyframes", {"path": path}), ("jobs", {"path": path}),
        ("jobs", {"path": str(folder / "good.mp4"), "goal": "propagation", "keyframes": path,
                  "settings": SETTINGS}),
    ]
    for route, body in bodies:
        detail = server.refused(422, "POST", route, json=body)
        assert "root:" not in detail
    server.refused(422, "POST", "keyframes", json={
        "path": str(folder / "good.mp4"), "settings": {"keyframes": {"keys": path}}})


IDS = (
    "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "....", "0123456789abcdef", "0123456789ABCDEF",
    "0123456789abcde", "0123456789abcdef0", ".incoming", ".deleted-0123456789abcdef", "scans",
    "0123456789abcdef%00", "0123456789abcdef%0a", "%ff%fe", "%D9%A1%D9%A2%D9%A3" + "0" * 13,
    "a" * 3000, "*", "C:", "lock",
)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", IDS)
def test_ids_are_no_paths(server: ApiServer, name: str) -> None:
    """Asked as written, which no well-behaved client would."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    try:
        for method, route in (
            ("GET", "jobs/{}"), ("GET", "jobs/{}/video"), ("GET", "jobs/{}/log"),
            ("GET", "jobs/{}/keyframes/0"), ("GET", "jobs/{}/events"), ("DELETE", "jobs/{}"),
            ("POST", "jobs/{}/cancel"), ("POST", "jobs/{}/resume"), ("GET", "videos/{}"),
            ("DELETE", "videos/{}"),
        ):
            path = f"/fresco/{route}".format(name).encode().decode("latin-1")
            connection.putrequest(method, path, skip_host=False)
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status in (404, 405), (method, path, body)
            assert json.loads(body)["detail"]
    finally:
        connection.close()


def png_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"settings": {"sampling": {"stepz": 4}}}, "did you mean steps"),
        ({"settings": {"samplng": {}}}, "did you mean sampling"),
        ({"settings": {"sampling": {"steps": 0}}}, "1 to 1000"),
        ({"settings": {"sampling": {"steps": "4"}}}, "whole number"),
        ({"settings": {"sampling": {"steps": True}}}, "whole number"),
        ({"settings": {"sampling": {"steps": 4.5}}}, "whole number"),
        ({"settings": {"sampling": {"guidance_scale": 10**400}}}, "range"),
        ({"settings": {"sampling": {"seed": 2**63}}}, "seed"),
        ({"settings": {"sampling": {"resolution": 512}}}, "up to 128"),
        ({"settings": {"sampling": {"key_prompts": {"x": "blue"}}}}, "frame number"),
        ({"settings": {"sampling": {"prompt": "a AND b"}}}, "AND"),
        ({"settings": {"sampling": {"model": "some/hub"}}}, "host.model"),
        ({"settings": {"sampling": {"vae": "/etc/passwd"}}}, "vae"),
        ({"settings": {"flow": {"weights_dir": "/tmp"}}}, "weights_dir"),
        ({"settings": {"propagation": {"cluster": "tcp://127.0.0.1:9"}}}, "cluster"),
        ({"settings": {"propagation": {"enabled": False}}}, "goal keyframes"),
        ({"settings": {"keyframes": {"min_interval": 9, "max_interval": 3}}}, "max_interval"),
        ({"settings": []}, "object"),
        ({"settings": {"sampling": 3}}, "object"),
        ({"setings": {}}, "did you mean settings"),
        ({"goal": "everything"}, "choose one of"),
        ({"goal": ["all"]}, "choose one of"),
        ({"goal": "propagation"}, "stylised"),
        ({"goal": "keyframe"}, "frame"),
        ({"keyframes": {"0": "AAAA"}}, "goal"),
        ({"preview": 0}, "whole number"),
        ({"title": "a" * 201}, "200"),
        ({"title": "half \ud800 a pair"}, "character"),
        ({"title": "a\0b"}, "character"),
        ({"host": {"model": "none such"}}, "tiny two"),
        ({"host": {"sampler": 3}}, "text"),
        ({"host": {"modle": "tiny"}}, "did you mean model"),
        ({"controlnet": [{"model": "none such"}]}, "tiny control"),
        ({"controlnet": [{"module": "canny"}]}, "model"),
        ({"controlnet": [{"model": "tiny control", "weight": 3}]}, "0 to 2"),
        ({"controlnet": [{"model": "tiny control", "weight": "1"}]}, "number"),
        ({"controlnet": [{"model": "tiny control", "start": 0.9, "end": 0.1}]}, "swap"),
        ({"controlnet": {}}, "list"),
        ({"controlnet": [{"model": "tiny control", "module": "openpose"}]}, "does not bring"),
        ({"controlnet": [{"model": "tiny control", "hints": "/nowhere"}]}, "does not exist on the"),
        ({"path": "/tmp"}, "exactly one"),
        ({"video": "AAAA"}, "exactly one"),
    ],
)
def test_wrong_values_are_named(
    server: ApiServer, video: str, body: dict[str, Any], said: str
) -> None:
    small = {"sampling": {"resolution": 64}}
    sent = {"video_id": video, "settings": small} | body
    if isinstance(body.get("settings"), dict):
        groups = body["settings"]
        if isinstance(groups.get("sampling", {}), dict):
            sampling = small["sampling"] | groups.get("sampling", {})
            sent["settings"] = groups | {"sampling": sampling}
    assert said in server.refused(422, "POST", "jobs", json=sent)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "no image"), ([], "no image"), (3, "no image"), ({"x": "AAAA"}, "frame number"),
        ({"-1": "AAAA"}, "frame number"), ({"0": "no base64!"}, "base64"), ({"0": ""}, "empty"),
        ({"0": png_text(b"GIF89a" + bytes(50))}, "not a PNG or JPEG"),
        ({"0": png_text(b"<svg xmlns='http://www.w3.org/2000/svg'/>")}, "not a PNG or JPEG"),
        ({"0": png_text(started_png(16))}, "PNG"),
        ({"0": png_text(huge_png(9000))}, "9000x9000"),
        ({"0": png_text(started_png(50000))}, "too large"),
        ([{"name": "a.png", "image": "AAAA"}], "frame number"),
        ([{"name": "1.png", "image": "AAAA"}, {"name": "x01.png", "image": "AAAA"}], "twice"),
        ([{"name": "1.png", "picture": "AAAA"}], "picture"), (["1.png"], "object"),
        ({"0": 3}, "text"),
    ],
)
def test_wrong_pictures_are_named(server: ApiServer, video: str, keys: Any, said: str) -> None:
    body = {"video_id": video, "goal": "propagation", "settings": SETTINGS, "keyframes": keys}
    assert said in server.refused(422, "POST", "jobs", json=body)


@pytest.mark.usefixtures("unchanged")
def test_limits_hold(server: ApiServer, folder: Path, clip: Path) -> None:
    large = bytes(MEGABYTES * 1_000_000 + 1)
    assert f"{MEGABYTES} MB" in server.refused(
        413, "POST", "videos", files={"video": ("a.mp4", large)})
    server.refused(413, "POST", "videos", files={"video": ("a.mp4", large * 3)})
    server.refused(413, "POST", "jobs", json={"video": base64.b64encode(large).decode()})
    server.refused(413, "POST", "jobs", json={"title": "a" * 9_000_000})
    server.refused(413, "POST", "jobs", data=(b" " * 100_000 for _ in range(90)),
                   headers={"Content-Type": "application/json"})
    long = small_clip(folder / "long.mp4", 12)
    body = {"path": str(long), "settings": {"sampling": {"resolution": 64}}}
    assert "12 frames" in server.refused(422, "POST", "jobs", json=body)
    assert "12 frames" in server.refused(422, "POST", "keyframes", json=body)
    body["settings"]["output"] = {"last_frame": 9}
    assert server.json("POST", "keyframes", json=body)["last"] == 9


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "application/json"), (b"{", "application/json"), (b"[]", "application/json"),
        (b"3", "application/json"), (b"null", "application/json"), (b'"a"', "application/json"),
        (b"\xff\xfe", "application/json"), (b'{"settings": NaN}', "application/json"),
        (b"[" * 100_000, "application/json"), (b'{"preview": ' + b"9" * 5000 + b"}", "a/json"),
        (b'{"preview": ' + b"9" * 5000 + b"}", "application/json"),
        (b'{"preview": 1e999}', "application/json"), (b"a=b", "application/x-www-form-urlencoded"),
        (b'{"video_id": "a"}', "text/plain"), (b"--x", "multipart/form-data; boundary=x"),
        (b'{"title": "a", "title": "\\ud800"}', "application/json"),
    ],
)
def test_what_is_no_request_is_refused(server: ApiServer, data: bytes, kind: str) -> None:
    for route in ("jobs", "keyframes", "videos"):
        answer = server.ask("POST", route, data=data, headers={"Content-Type": kind})
        assert 400 <= answer.status_code < 500, answer.text
        assert isinstance(answer.json()["detail"], str)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("form", [{}, {"video": "text"}, {"film": ("a.mp4", b"1234")}])
def test_a_form_without_a_file_is_refused(server: ApiServer, form: dict[str, Any]) -> None:
    assert "video" in server.refused(422, "POST", "videos", files=form or {"x": ("", b"")})
