"""The API on a real server: uvicorn, the job engine, a tiny model."""

from __future__ import annotations

import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from fresco.server.drafts import Drafts
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.runner import make_work
from fresco.server.ports import Limits
from fresco.server.service import Service, open_service
from fresco.server.videos import VideoStore
from tests.helpers.clips import ClipOptions, moving_texture, write_clip
from tests.helpers.job_environment import TINY, TinyEnvironment

with warnings.catch_warnings():
    # Starlette imports python-multipart by its old name.
    warnings.simplefilter("ignore", PendingDeprecationWarning)
    import uvicorn
    from fastapi import FastAPI, HTTPException
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.testclient import TestClient

    from fresco.server.api import body as bodies
    from fresco.server.api.access import Access
    from fresco.server.api.answers import describe_video
    from fresco.server.api.json_body import JsonBody
    from fresco.server.api.origins import Origins, split_origins
    from fresco.server.api.routes import add_routes
    from fresco.server.api.upload import UploadedFile

__all__ = ["Access", "ApiServer", "FastAPI", "HTTPException", "JsonBody", "Origins",
           "TestClient", "UploadedFile", "add_routes", "bodies", "describe_video",
           "split_origins"]

SETTINGS: dict[str, Any] = dict(TINY)
ENDED = ("cancelled", "failed", "done")


@dataclass
class ApiServer:
    """A server under test."""

    url: str
    """Its root."""
    service: Service
    """What it serves."""
    app: FastAPI
    """Its application."""
    session: requests.Session
    """Asks it."""

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """The answer to a request below /fresco."""
        return self.session.request(method, f"{self.url}/fresco/{path}", timeout=60, **options)

    def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The object of an answer that must be 200."""
        answer = self.ask(method, path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, code: int, method: str, path: str, **options: Any) -> str:
        """The detail of an answer that must be that error."""
        answer = self.ask(method, path, **options)
        assert answer.status_code == code, answer.text
        detail = answer.json()["detail"]
        assert isinstance(detail, str)
        assert len(detail) > 10
        return detail

    def list_routes(self) -> list[tuple[str, str]]:
        """Method and path of every route; new versions of FastAPI nest `app.routes`."""
        return [
            (method.upper(), path) for path, methods in self.app.openapi()["paths"].items()
            for method in methods
        ]

    def upload(self, path: Path) -> str:
        """The id of an uploaded video."""
        with path.open("rb") as file:
            return self.json("POST", "videos", files={"video": (path.name, file)})["id"]

    def ended(self, job: str, seconds: float = 60) -> dict[str, Any]:
        """The status of a job once it has ended."""
        end = time.monotonic() + seconds
        while (status := self.json("GET", f"jobs/{job}"))["state"] not in ENDED:
            assert time.monotonic() < end, status
            time.sleep(0.1)
        return status


def webui_middleware(app: FastAPI) -> None:
    """As the WebUI has it: everything is compressed, and passes through a function."""
    app.add_middleware(GZipMiddleware, minimum_size=1000)

    async def passed(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=passed)


def models_folder(factory: pytest.TempPathFactory) -> Path:
    """Where all tests of a session share the tiny models."""
    return factory.getbasetemp() / "job-models"


@contextmanager
def serving(
    root: Path, environment: TinyEnvironment, access: Access | None = None, *, idle: bool = False
) -> Iterator[ApiServer]:
    """A server on a free port, and nothing of it afterwards.

    Args:
        idle: run no job.
    """
    service = idle_service(root, environment) if idle else open_service(root, environment)
    app = FastAPI()
    webui_middleware(app)
    add_routes(app, service, access or Access())
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        config = uvicorn.Config(
            app, log_level="error", ws="none", lifespan="off", timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            with requests.Session() as session:
                yield ApiServer(f"http://127.0.0.1:{port}", service, app, session)
        finally:
            service.engine.close()
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


def idle_service(root: Path, environment: TinyEnvironment) -> Service:
    """Jobs that stay in the queue."""
    engine = JobEngine(root / "jobs", make_work(environment))
    videos = VideoStore(root / "videos", lambda: environment.limits)
    return Service(environment, engine, videos, root, Drafts(engine))


def make_environment(
    factory: pytest.TempPathFactory, limits: Limits | None = None, forbidden: tuple[str, ...] = ()
) -> TinyEnvironment:
    """An environment of tiny models."""
    return TinyEnvironment(models_folder(factory), limits, forbidden)


def small_clip(path: Path, frames: int = 6) -> Path:
    """A clip of some 64x64 frames, with sound."""
    return write_clip(path, moving_texture(frames, 64, 64), ClipOptions(sound=("aac",)))
