"""`alwayson_scripts` of version 0.1: by name, by group, and by position."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fresco.options import to_dict
from fresco.webui.img2img.infotext import write_infotext
from fresco.webui.img2img.request import list_arguments, parse_arguments
from tests.helpers.old_samples import SAMPLES, holds

STORED = json.loads((SAMPLES / "payloads.json").read_text("utf-8"))


def test_the_order_of_positional_arguments_is_that_of_0_1() -> None:
    """A later option comes behind the masks."""
    order = ["video", "path", *STORED["order"], "masks"]
    assert list(list_arguments())[:len(order)] == order


@pytest.mark.parametrize("stored", STORED["payloads"], ids=lambda stored: stored["name"])
def test_a_payload_asks_for_the_same(stored: dict[str, Any]) -> None:
    request = parse_arguments(stored["args"])
    if request is None:
        assert stored["meant"] is None
        return
    found = {
        "settings": to_dict(request.settings), "path": request.path, "data": request.data.hex(),
        "masks": [data.hex() for data in request.masks], "masks_path": request.masks_path,
        "infotext": write_infotext(request) | {"FRESCO": stored["meant"]["infotext"]["FRESCO"]},
    }
    assert holds(json.loads(json.dumps(found)), stored["meant"])
