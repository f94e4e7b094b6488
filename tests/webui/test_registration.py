"""Who may have the files of jobs: by the routes of the API alone, as the WebUI's flags say."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fresco.server.jobs.job import JobRequest
from tests.helpers.api_server import idle_service, make_environment
from tests.helpers.webui import shared
from tests.helpers.webui.double import DoubleHost

with warnings.catch_warnings():
    # Starlette imports python-multipart by its old name.
    warnings.simplefilter("ignore", PendingDeprecationWarning)
    from fastapi import Depends, FastAPI, HTTPException, Request
    from starlette.testclient import TestClient

USER, COOKIE = ("ann", "word"), {"Cookie": "access-token=known"}


@dataclass
class Page:
    """What of gradio's `Blocks` counts here."""

    blocked_paths: list[str] = field(default_factory=list)


def gradio_app(*, login: bool) -> Any:
    """An application with the login of gradio 3.41 and 4.40."""
    app: Any = FastAPI()
    app.auth, app.tokens = ({"bob": "secret"} if login else None), {"known": "bob"}

    def get_current_user(request: Request) -> str | None:
        return app.tokens.get(request.cookies.get("access-token"))

    def login_check(user: str = Depends(get_current_user)) -> None:
        if app.auth is not None and user is None:
            raise HTTPException(401, "Not authenticated")

    app.add_api_route("/config", lambda: {}, dependencies=[Depends(login_check)])
    return app


Opened = Callable[..., tuple[TestClient, Page, str]]


@pytest.fixture
def opened(
    double: DoubleHost, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Opened]:
    """The API as the WebUI has it, the page, and the address of a job."""
    registration = importlib.import_module("fresco.webui.registration")
    service = idle_service(tmp_path / "fresco", make_environment(tmp_path_factory))
    monkeypatch.setattr(registration, "service", lambda: service)
    job = service.engine.submit(JobRequest("a.mp4")).id

    def open_api(api_auth: str | None, *, login: bool) -> tuple[TestClient, Page, str]:
        monkeypatch.setattr(shared.cmd_opts, "api_auth", api_auth, raising=False)
        page, app = Page(), gradio_app(login=login)
        for _ in range(2):  # "Reload UI" comes back
            registration.add_api(page, app)
        return TestClient(app), page, f"/fresco/jobs/{job}"

    yield open_api
    service.engine.close()


@pytest.mark.parametrize(("api_auth", "login", "open_to"), [
    (None, False, {"nobody", "user", "page"}),
    ("ann:word", False, {"user"}),
    (None, True, {"page", "page and user"}),
    ("ann:word", True, {"user", "page", "page and user"}),
])
def test_files_want_what_the_flags_say(
    opened: Opened, api_auth: str | None, login: bool, open_to: set[str]
) -> None:
    client, _, address = opened(api_auth, login=login)
    ways: dict[str, dict[str, Any]] = {
        "nobody": {}, "user": {"auth": USER}, "page": {"headers": COOKIE},
        "wrong": {"auth": ("ann", "other"), "headers": {"Cookie": "access-token=other"}},
        "page and user": {"auth": USER, "headers": COOKIE},
    }
    ways = ways if login else {name: ways[name] for name in ("nobody", "user")}
    for name, given in ways.items():
        for part in ("", "/video"):
            status = client.get(address + part, **given).status_code
            assert (status != 401) == (name in open_to), (name, part)


def test_who_is_only_logged_in_changes_nothing_where_the_api_has_users(opened: Opened) -> None:
    client, _, address = opened("ann:word", login=True)
    assert client.post(f"{address}/cancel", headers=COOKIE).status_code == 401
    assert client.post(f"{address}/cancel", auth=USER).status_code == 200


def test_gradio_is_kept_from_the_folders_and_from_no_other(
    opened: Opened, tmp_path: Path
) -> None:
    _, page, _ = opened(None, login=False)
    root = tmp_path / "fresco"
    assert page.blocked_paths == [str(root / "jobs"), str(root / "videos")]
