"""Answer requests with the reason why the API cannot work.

Without this they would get 404, which means a server without FRESCO.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.responses import JSONResponse

_UNAVAILABLE = 503
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def add_reason(app: FastAPI, reason: str, prefix: str = "/fresco") -> None:
    """Answer every request below a path with the reason."""
    def answer(path: str = "") -> Any:
        return JSONResponse({"detail": reason}, _UNAVAILABLE)

    for place in (prefix, prefix + "/{path:path}"):
        app.add_api_route(
            place, answer, methods=list(_METHODS), include_in_schema=False, response_model=None
        )
