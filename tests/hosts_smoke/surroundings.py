"""What of a WebUI is not ours, and must answer alike with FRESCO and without."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from PIL import Image

from tests.helpers.webui.http_host import HttpHost, text_of
from tests.hosts_smoke.cases import PAYLOAD
from tests.hosts_smoke.reference import digest

NAME = "fresco"
"""Begins the names of all that is ours, in small letters."""


def describe_surroundings(host: HttpHost, frame: Image.Image) -> dict[str, Any]:
    """Scripts and their arguments, settings, routes, and the pixels of plain requests."""
    scripts = host.ask("/sdapi/v1/scripts")
    told = {
        f"{script['name']} of {'img2img' if script['is_img2img'] else 'txt2img'}":
        leave_out_ours(script) for script in host.ask("/sdapi/v1/script-info")
        if script["name"] != NAME
    }
    return told | {
        "scripts": {
            tab: sorted(name for name in names if name != NAME) for tab, names in scripts.items()
        },
        "settings": sorted(
            name for name in host.ask("/sdapi/v1/options") if not name.startswith(NAME)
        ),
        "samplers": [sampler["name"] for sampler in host.ask("/sdapi/v1/samplers")],
        "routes": sorted(
            path for path in host.ask("/openapi.json")["paths"] if not path.startswith(f"/{NAME}")
        ),
        "txt2img": ask_plain(host, "/sdapi/v1/txt2img"),
        "img2img": ask_plain(host, "/sdapi/v1/img2img", init_images=[text_of(frame)]),
    }


def leave_out_ours(value: Any) -> Any:
    """Without choices that name FRESCO: the axes that it adds to the X/Y/Z plot."""
    if isinstance(value, dict):
        return {name: leave_out_ours(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [
            leave_out_ours(item) for item in value
            if isinstance(item, dict) or NAME not in json.dumps(item).lower()
        ]
    return value


def ask_plain(host: HttpHost, path: str, **payload: Any) -> str:
    """The pixels of a request that says nothing of FRESCO."""
    done = host.ask(path, PAYLOAD | {"save_images": False} | payload)
    assert len(done["images"]) == 1, f"{len(done['images'])} images instead of one"
    return digest(Image.open(io.BytesIO(base64.b64decode(done["images"][0]))))


def name_differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What of two descriptions differs."""
    return [name for name in before if before[name] != after.get(name)]
