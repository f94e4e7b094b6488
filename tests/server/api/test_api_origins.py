"""Pages of other sites may not use the API, and programs notice nothing of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.api_server import (
    Access,
    ApiServer,
    HTTPException,
    Origins,
    make_environment,
    serving,
    split_origins,
)

USER = {"Authorization": "Basic YW5uOndvcmQ="}  # ann:word


def refuse_without_cookie(cookie: str = "") -> None:
    if cookie != "known":
        raise HTTPException(401, "Log in first; the cookie is absent.")


class Further:
    """A setting that changes while the server runs."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self) -> tuple[str, ...]:
        return split_origins(self.text)


FURTHER = Further()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    hosts = ("sd.example.net", ".tunnel.example")
    origins = Origins(FURTHER, r"https://app\d\.example\.com", hosts)
    environment = make_environment(tmp_path_factory)
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getfqdn", lambda: "GPU.lab.example.edu")
        with serving(root, environment, Access.of(None, origins=origins), idle=True) as running:
            yield running


@pytest.fixture(autouse=True)
def nothing_changes(server: ApiServer) -> Iterator[None]:
    FURTHER.text = ""
    yield
    assert not list(server.service.engine.jobs())
    assert not list(server.service.videos.list_videos())


def own(server: ApiServer) -> str:
    """Host and port of the server."""
    return server.url.removeprefix("http://")


FOREIGN: list[dict[str, str]] = [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://localhost"}, {"Origin": "file://"}, {"Origin": "http://127.0.0.1"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "video"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Origin": "https://app1.example.com.evil.example"}, {"Origin": "https://" + "a" * 5000},
    {"Host": "evil.example"}, {"Host": "evil.example:7860"}, {"Host": "127.0.0.1.evil.example"},
    {"Host": "evil.example", "Origin": "http://evil.example"},
    {"Host": "evil.example", "X-Forwarded-Host": "localhost", "X-Forwarded-Proto": "https"},
    {"Host": "tunnel.example"}, {"Host": "gpu.lab.example.edu.evil.example"},
    {"Host": "localhost.evil.example"},
]


def short(headers: dict[str, str]) -> str:
    return str(headers)[:100]


@pytest.mark.parametrize("headers", FOREIGN, ids=short)
def test_pages_of_others_are_refused(server: ApiServer, headers: dict[str, str]) -> None:
    """Whatever a page can send without asking the server for leave first."""
    for method, path in (("GET", "jobs"), ("POST", "jobs"), ("POST", "videos")):
        said = server.refused(403, method, path, headers=headers, data=b'{"path": "/tmp"}')
        assert "settings, section FRESCO" in said


@pytest.mark.parametrize("headers", FOREIGN[:1] + FOREIGN[14:15], ids=short)
def test_no_route_is_open_to_them(server: ApiServer, headers: dict[str, str]) -> None:
    calls = server.list_routes()
    assert len(calls) >= 21
    for method, path in calls:
        path = path.removeprefix("/fresco/").format(
            job="0123456789abcdef", video="0123456789abcdef", number=0)
        server.refused(403, method, path, headers=headers, data=b'{"path": "/tmp"}')


OWN: list[dict[str, str]] = [
    {}, {"Host": "localhost"}, {"Host": "localhost:7860"}, {"Host": "192.168.1.5:7860"},
    {"Host": "[::1]:7860"}, {"Host": "gpu.lab.example.edu:7860"},
    {"Host": "workstation:7860"}, {"Host": "workstation.local"},
    {"Host": "workstation.lan:7860"}, {"Host": "sd.example.net"}, {"Host": "a.tunnel.example"},
    {"Origin": "http://{own}"}, {"Origin": "http://{own}", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin"},
    # Behind a proxy that tells the name it was asked by, or whose page has a safe origin.
    {"Origin": "https://sd.example.org", "X-Forwarded-Host": "sd.example.org"},
    {"Origin": "https://sd.example.org:8443", "X-Forwarded-Host": "sd.example.org:8443, inner"},
    {"Origin": "https://sd.example.org", "Sec-Fetch-Site": "same-origin"},
    {"Host": "sd.example.net", "Origin": "https://sd.example.net"},
    {"Host": "any.example", "Origin": "https://any.example", "Sec-Fetch-Site": "same-origin"},
    {"Host": "sd.example.net:443", "Origin": "https://SD.example.net"},
    {"Origin": "https://app1.example.com"},
]


@pytest.mark.parametrize("headers", OWN, ids=short)
def test_programs_and_own_pages_notice_nothing(
    server: ApiServer, headers: dict[str, str]
) -> None:
    headers = {name: value.replace("{own}", own(server)) for name, value in headers.items()}
    assert server.ask("GET", "version", headers=headers).status_code == 200
    assert "video is given" in server.refused(422, "POST", "jobs", json={}, headers=headers)


def test_a_link_to_a_result_may_be_followed(server: ApiServer) -> None:
    """From a chat, such as; it reads, and no page comes to know what."""
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document"}
    assert server.ask("GET", "jobs", headers=link).status_code == 200
    server.refused(403, "POST", "videos", headers=link, files={"video": ("a", b"a")})
    server.refused(403, "POST", "jobs", headers=link | {"Origin": "null"}, json={})


@pytest.mark.parametrize("text", [
    "https://sd.example.org", "http://other.example, https://SD.example.org/",
    "https://sd.example.org:443 http://a.example",
])
def test_a_setting_names_further_addresses(server: ApiServer, text: str) -> None:
    """As an origin and as a name of the server, at once."""
    page = {"Origin": "https://sd.example.org", "Sec-Fetch-Site": "cross-site"}
    named = {"Host": "sd.example.org"}
    for headers in (page, named):
        server.refused(403, "GET", "jobs", headers=headers)
    FURTHER.text = text
    for headers in (page, named, page | named):
        assert server.ask("GET", "jobs", headers=headers).status_code == 200
    server.refused(403, "GET", "jobs", headers={"Origin": "http://sd.example.org:8080"})
    FURTHER.text = "*"
    assert server.ask("GET", "jobs", headers={"Origin": "https://evil.example"}).status_code == 200
    assert server.ask("GET", "jobs", headers={"Host": "evil.example"}).status_code == 200


@pytest.mark.parametrize("access", [
    Access.of("ann:word"), Access.of(None, refuse_without_cookie),
], ids=["api-auth", "gradio-auth"])
def test_with_a_login_any_name_of_the_server_will_do(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Any, access: Access
) -> None:
    """A page under a foreign name has no password; but that of a foreign origin may."""
    with serving(tmp_path, make_environment(tmp_path_factory), access, idle=True) as running:
        known: dict[str, Any] = {"headers": USER, "params": {"cookie": "known"}}
        assert running.ask("GET", "jobs", **known).status_code == 200
        known["headers"] = USER | {"Host": "sd.example.org", "Origin": "https://sd.example.org"}
        assert running.ask("GET", "jobs", **known).status_code == 200
        known["headers"] = USER | {"Origin": "https://evil.example"}
        running.refused(403, "GET", "jobs", **known)
        running.refused(401, "GET", "jobs", headers={"Host": "sd.example.org"})


def test_origins_are_listed_with_commas_or_spaces() -> None:
    assert split_origins("") == split_origins("  ") == ()
    assert split_origins(" https://a, https://b\nhttps://c ") == (
        "https://a", "https://b", "https://c")
