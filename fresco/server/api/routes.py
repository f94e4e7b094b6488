"""Add the routes under /fresco, which give programs the same jobs as the tab."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastapi import APIRouter, Depends, FastAPI

from fresco.server.api import models, upload
from fresco.server.api.access import Access
from fresco.server.api.endpoints import (
    IMAGE_TYPES,
    Lanes,
    take_json,
    take_json_of_job,
    take_keyframe,
    take_upload,
)
from fresco.server.api.jobs import JobRoutes
from fresco.server.api.order import OrderRoutes
from fresco.server.api.origins import learn_own_names
from fresco.server.api.pydantic_shim import make_schema
from fresco.server.api.route import Answer, make_route_class
from fresco.server.api.videos import ServerRoutes, VideoRoutes
from fresco.server.service import Service

PREFIX = "/fresco"


def add_routes(app: FastAPI, service: Service, access: Access) -> None:
    """Add the API's routes to the host's application."""
    learn_own_names()
    router = APIRouter(
        prefix=PREFIX, tags=["FRESCO"], default_response_class=Answer,
        route_class=make_route_class(access, service.page_key),
        dependencies=[Depends(dependency) for dependency in access.dependencies],
    )
    parts = _Parts(
        ServerRoutes(service), VideoRoutes(service), JobRoutes(service), OrderRoutes(service)
    )
    _add_plain_routes(router, parts)
    _add_routes_with_body(router, parts, service)
    app.include_router(router)


class _Parts(NamedTuple):
    """The handlers of the routes."""

    server: ServerRoutes
    videos: VideoRoutes
    jobs: JobRoutes
    order: OrderRoutes


def _add_plain_routes(router: APIRouter, parts: _Parts) -> None:
    """Add the routes whose requests have no body."""
    server, videos, jobs, order = parts
    for method, path, handler in (
        ("GET", "/version", server.version),
        ("GET", "/schema", server.schema),
        ("GET", "/models", server.models),
        ("GET", "/videos", videos.listed),
        ("GET", "/videos/{video}", videos.get),
        ("DELETE", "/videos/{video}", videos.delete),
        ("GET", "/space", order.space),
        ("GET", "/jobs", jobs.listed),
        ("GET", "/jobs/{job}", jobs.status),
        ("DELETE", "/jobs/{job}", jobs.delete),
        ("POST", "/jobs/{job}/cancel", jobs.cancel),
        ("GET", "/jobs/{job}/video", jobs.video),
        ("GET", "/jobs/{job}/source", jobs.source),
        ("GET", "/jobs/{job}/comparison", jobs.comparison),
        ("GET", "/jobs/{job}/keyframes", jobs.keyframes),
        ("GET", "/jobs/{job}/keyframes/{number}", jobs.keyframe),
        ("GET", "/jobs/{job}/drafts/{number}", jobs.draft),
        ("GET", "/jobs/{job}/frames/{number}", jobs.frame),
        ("GET", "/jobs/{job}/preview", jobs.preview),
        ("GET", "/jobs/{job}/judged", jobs.judged),
        ("GET", "/jobs/{job}/report", jobs.report),
        ("GET", "/jobs/{job}/log", jobs.log),
        ("GET", "/jobs/{job}/events", jobs.events),
    ):
        router.add_api_route(path, handler, methods=[method], responses=_ERRORS)


def _add_routes_with_body(router: APIRouter, parts: _Parts, service: Service) -> None:
    """Add the routes whose requests have a body, with its schema."""
    server, videos, jobs, order = parts
    plain, lanes = "application/json", Lanes(service)
    for path, handler, take, kind, payload in (
        ("/videos", videos.add, take_upload, "multipart/form-data", upload.SCHEMA),
        ("/settings", server.settings, take_upload, "multipart/form-data", upload.RESULT_SCHEMA),
        ("/keyframes", videos.keyframes, take_json, plain, make_schema(models.DetectionBody)),
        ("/hint", videos.hint, take_json, plain, make_schema(models.HintBody)),
        ("/jobs", jobs.submit, take_json, plain, make_schema(models.JobBody)),
        ("/jobs/{job}/resume", jobs.resume, take_json_of_job, plain,
         make_schema(models.ResumeBody)),
        ("/jobs/{job}/title", order.rename, take_json_of_job, plain,
         make_schema(models.TitleBody)),
        ("/jobs/{job}/place", order.place, take_json_of_job, plain,
         make_schema(models.PlaceBody)),
        ("/jobs/delete", order.delete, take_json, plain, make_schema(models.DeletionBody)),
        ("/space/empty", order.empty, take_json, plain, make_schema(models.EmptyingBody)),
        ("/jobs/{job}/keyframes/{number}", jobs.retouch, take_keyframe, plain,
         make_schema(models.KeyframeBody)),
    ):
        lane = lanes.detections if path in ("/keyframes", "/hint") else (
            lanes.uploads if take is take_upload else lanes.requests)
        # FastAPI does not read the body (see route.py); this is for its documentation only.
        content = {kind: {"schema": payload}}
        if take is take_keyframe:
            content |= {image: {"schema": _FILE} for image in IMAGE_TYPES}
        body = {"requestBody": {"content": content}}
        router.add_api_route(
            path, take(service, lane, handler), methods=["POST"], openapi_extra=body,
            name=handler.__name__, description=handler.__doc__, responses=_ERRORS,
        )


_FILE = {"type": "string", "format": "binary"}


def _error(description: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"detail": {"type": "string"}},
              "required": ["detail"]}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_ERRORS: dict[int | str, dict[str, Any]] = {
    401: _error("No, or a wrong, user and password."),
    404: _error("There is no such job, video or file."),
    409: _error("The state of the job does not allow it."),
    403: _error("Asked by the page of another site, or under an unknown name of this server."),
    408: _error("The request did not come in time."),
    413: _error("Larger than the limits of this server."),
    415: _error("The body is not of the type that the route takes."),
    422: _error("A value is wrong; the detail says which, and what to do."),
    503: _error("The server cannot do it now: too many requests, a full disk."),
}
