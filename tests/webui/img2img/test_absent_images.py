"""The WebUI's img2img route without images: a route that answers as that of WebUI 1.10.1 does."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from fresco.webui.img2img.absent_images import allow_absent_images

with warnings.catch_warnings():
    # Starlette imports python-multipart by its old name.
    warnings.simplefilter("ignore", PendingDeprecationWarning)
    from fastapi import FastAPI, HTTPException
    from pydantic import BaseModel
    from starlette.testclient import TestClient

NOT_FOUND = 404


class Request(BaseModel):
    """What of the WebUI's request counts here."""

    init_images: Any = None
    alwayson_scripts: Any = None


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()

    def img2img(img2imgreq: Request) -> dict[str, Any]:
        if img2imgreq.init_images is None:
            raise HTTPException(NOT_FOUND, "Init image not found")
        return {"images": img2imgreq.init_images}

    app.add_api_route("/sdapi/v1/img2img", img2img, methods=["POST"])
    app.add_api_route("/other", img2img, methods=["POST"])
    for _ in range(2):  # "Reload UI" comes back
        allow_absent_images(app)
    return TestClient(app)


@pytest.mark.parametrize(("arguments", "status"), [
    ([{"path": "/a.mp4"}], 200), ([True, None, "/a.mp4"], 200), ([{}], 200),
    ([{"path": "/a.mp4", "enabled": False}], NOT_FOUND), ([False], NOT_FOUND), ([], NOT_FOUND),
    (None, NOT_FOUND),
])
def test_images_may_be_absent_where_fresco_is_on(
    client: TestClient, arguments: Any, status: int
) -> None:
    for name in ("FRESCO", "fresco"):
        body = {"alwayson_scripts": {"other": {"args": [True]}, name: {"args": arguments}}}
        answer = client.post("/sdapi/v1/img2img", json=body)
        assert answer.status_code == status
        if status == 200:
            assert answer.json() == {"images": []}
    assert client.post("/other", json=body).status_code == NOT_FOUND


@pytest.mark.parametrize("scripts", [None, {}, [], {"FRESCO": None}, {"FRESCO": {}}])
def test_any_other_request_is_as_ever(client: TestClient, scripts: Any) -> None:
    body = {"alwayson_scripts": scripts}
    assert client.post("/sdapi/v1/img2img", json=body).status_code == NOT_FOUND
    given = client.post("/sdapi/v1/img2img", json=body | {"init_images": ["x"]})
    assert given.json() == {"images": ["x"]}
