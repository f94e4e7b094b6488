"""Accept img2img requests without `init_images` if FRESCO is on, because it reads the frames.

The WebUI answers them with 404 before any script (docs/webui-hosts.md, section 2.8).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

_PATH = "/sdapi/v1/img2img"
_NAME = "fresco"
"""Title of the script in small letters, as the WebUI compares names."""


def allow_absent_images(app: Any) -> None:
    """Let the route accept a request without images if FRESCO is on."""
    for route in app.routes:
        if getattr(route, "path", "") == _PATH and hasattr(route, "dependant"):
            route.dependant.call = _with_images(route.dependant.call)


def _with_images(call: Callable[..., Any]) -> Callable[..., Any]:
    if getattr(call, "takes_absent_images", False):
        return call

    @functools.wraps(call)
    def img2img(**values: Any) -> Any:
        for body in values.values():
            if getattr(body, "init_images", ()) is None and _asks_for_fresco(body):
                body.init_images = []
        return call(**values)

    img2img.takes_absent_images = True  # type: ignore[attr-defined]
    return img2img


def _asks_for_fresco(body: Any) -> bool:
    """Whether FRESCO is on in a request, by the first of its arguments."""
    scripts = getattr(body, "alwayson_scripts", None)
    for name, wanted in scripts.items() if isinstance(scripts, Mapping) else ():
        arguments = wanted.get("args") if isinstance(wanted, Mapping) else None
        if str(name).lower() == _NAME and isinstance(arguments, list) and arguments:
            first = arguments[0]
            return first.get("enabled", True) is True if isinstance(first, Mapping) else bool(first)
    return False
