"""--api-auth guards every route of the API, and what others check besides is checked too."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from fresco.errors import SettingsError
from fresco.server.jobs.job import JobRequest
from tests.helpers.api_server import (
    Access,
    ApiServer,
    HTTPException,
    make_environment,
    serving,
    small_clip,
)

USERS = "ann:pass:word,böb:geheim€"
PAIRS = (("ann", "pass:word"), ("böb", "geheim€"))


def refuse_without_cookie(cookie: str) -> None:
    """As a login page of the host would."""
    if cookie != "known":
        raise HTTPException(401, "Log in first; the cookie is absent.")


def basic(user: str, password: str) -> dict[str, str]:
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    environment = make_environment(tmp_path_factory)
    root = tmp_path_factory.mktemp("root")
    with serving(root, environment, Access.of(USERS), idle=True) as found:
        yield found


@pytest.fixture(scope="module")
def calls(
    server: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, str]]:
    """Every method and path of the API, with ids of what is there."""
    clip = small_clip(tmp_path_factory.mktemp("clip") / "a.mp4")
    with clip.open("rb") as file:
        video = server.service.videos.add(file, "a.mp4").id
    job = server.service.engine.submit(JobRequest(str(clip))).id
    places = {"job": job, "video": video, "number": "0"}
    found = [
        (method, re.sub(r"{(\w+)}", lambda match: places[match[1]], path))
        for method, path in server.list_routes()
    ]
    assert len(found) >= 21
    return found


def test_no_route_is_open(server: ApiServer, calls: list[tuple[str, str]]) -> None:
    """Also those added later: the list is that of the application."""
    for method, path in calls:
        for headers in ({}, basic("ann", "wrong")):
            answer = requests.request(
                method, server.url + path, headers=headers, json={}, timeout=20
            )
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Basic ")
            assert "user and password" in answer.json()["detail"]
    assert len(server.service.videos.list_videos()) == 1
    assert len(server.service.engine.jobs()) == 1


def test_every_route_opens_with_a_password(
    server: ApiServer, calls: list[tuple[str, str]]
) -> None:
    """What changes things comes last; nothing is refused for who asks."""
    for method, path in sorted(calls, key=lambda call: ("GET", "POST", "DELETE").index(call[0])):
        answer = requests.request(
            method, server.url + path, headers=basic("böb", "geheim€"), json={}, timeout=20,
            stream=True,
        )
        answer.close()
        assert answer.status_code in (200, 404, 409, 422), (method, path)


def test_the_page_looks_and_retouches_by_its_key(server: ApiServer) -> None:
    """And does nothing else by it; another program's guess is none."""
    key = {"X-Fresco-Page": server.service.page_key}
    missing = "jobs/0123456789abcdef"
    assert server.ask("GET", f"{missing}/frames/0", headers=key).status_code == 404
    assert server.ask("POST", f"{missing}/keyframes/0", json={}, headers=key).status_code == 404
    server.refused(401, "GET", "jobs", headers=key)
    server.refused(401, "GET", f"{missing}/log", headers=key)
    for wrong in ("", "x" * 43):
        server.refused(401, "GET", f"{missing}/frames/0", headers={"X-Fresco-Page": wrong})


@pytest.mark.parametrize("pair", PAIRS)
def test_everybody_listed_may_come_in(server: ApiServer, pair: tuple[str, str]) -> None:
    assert server.ask("GET", "version", headers=basic(*pair)).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "", "Basic", "Basic ", "Basic !!!", "Basic YW5u", "Bearer x", "Basic " + "A" * 6000,
        "Basic " + base64.b64encode(b"ann:").decode(),
        "Basic " + base64.b64encode(b":pass:word").decode(),
        "Basic " + base64.b64encode(b"ann:pass:wor").decode(),
        "Basic " + base64.b64encode(b"ann:pass:word ").decode(),
        "Basic " + base64.b64encode("ann:geheim€".encode()).decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
        "Bearer " + base64.b64encode(b"ann:pass:word").decode(),
    ],
)
def test_nothing_else_opens(server: ApiServer, header: str) -> None:
    assert "user and password" in server.refused(
        401, "GET", "version", headers={"Authorization": header})


@pytest.mark.parametrize("path", ["videos", "jobs"])
def test_the_answer_comes_before_the_body(server: ApiServer, path: str) -> None:
    """Whoever may not come in cannot fill the disk, nor the memory."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    try:
        connection.putrequest("POST", f"/fresco/{path}")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(10**9))
        connection.endheaders()
        assert connection.getresponse().status == 401
    finally:
        connection.close()


def test_without_credentials_it_is_open(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    environment = make_environment(tmp_path_factory)
    with serving(tmp_path, environment, Access.of(None), idle=True) as server:
        assert server.ask("GET", "version").status_code == 200


def test_a_check_of_the_host_counts_besides(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    access = Access.of("ann:word", refuse_without_cookie)
    with serving(tmp_path, make_environment(tmp_path_factory), access, idle=True) as server:
        known, name = {"cookie": "known"}, basic("ann", "word")
        assert "user" in server.refused(401, "GET", "jobs", params=known)
        assert "cookie" in server.refused(401, "GET", "jobs?cookie=other", headers=name)
        assert server.json("GET", "jobs", params=known, headers=name)["jobs"] == []


def test_who_is_logged_in_on_the_page_may_read_but_not_change(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """The page shows the same; everything else wants the user and password of the API."""
    access = dataclasses.replace(
        Access.of("ann:word"), knows=lambda asked: asked.cookies.get("login") == "known"
    )
    with serving(tmp_path, make_environment(tmp_path_factory), access, idle=True) as server:
        job = server.service.engine.submit(JobRequest("a.mp4")).id
        login = {"cookies": {"login": "known"}}
        assert server.json("GET", f"jobs/{job}", **login)["id"] == job
        server.refused(404, "GET", f"jobs/{job}/video", **login)
        for method, path in (("POST", f"jobs/{job}/cancel"), ("DELETE", f"jobs/{job}")):
            server.refused(401, method, path, **login)
        server.session.cookies.clear()
        for wrong in ({}, {"cookies": {"login": "other"}}):
            server.session.cookies.clear()
            server.refused(401, "GET", f"jobs/{job}/video", **wrong)
        assert server.json("GET", f"jobs/{job}", headers=basic("ann", "word"))["id"] == job


@pytest.mark.parametrize("text", ["ann", "ann:", ":word", "a:b,c", ",", " "])
def test_a_list_that_guards_nothing_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--api-auth") as caught:
        Access.of(text)
    assert "word" not in str(caught.value).replace("password", "")


def test_the_list_is_read_as_the_webui_reads_it() -> None:
    assert Access.of("a:b, c:d,").credentials == (("a", "b"), ("c", "d"))
    assert Access.of("").credentials == ()
