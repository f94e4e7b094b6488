"""Masks drawn in the tab: the page paints them, and sends them with the job."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fresco.errors import SettingsError
from fresco.server.encoded import decode_base64
from fresco.server.images import decode_sent_image
from fresco.server.service import Service
from fresco.settings import FrescoSettings
from fresco.workspace import frame_name, write_image

_LARGEST, _MOST = 16_000_000, 200
"""Letters of one drawing, and drawings of one job."""
_LAST_FRAME = 10**9


def place_drawings(service: Service, settings: FrescoSettings, text: str) -> FrescoSettings:
    """The settings with the page's drawings in a folder, where the mask is to be a drawing.

    Args:
        text: JSON of PNG in base64 by frame number; empty: there are none.
    """
    if settings.mask.source != "drawing" or not text.strip():
        return settings
    images = {number: _decode(number, image) for number, image in _read(text).items()}
    if not images:
        return settings
    folder = service.engine.new_folder()
    for number, image in images.items():
        write_image(Path(folder) / frame_name(number), image)
    mask = dataclasses.replace(settings.mask, path=str(folder))
    return dataclasses.replace(settings, mask=mask)


def _read(text: str) -> dict[int, str]:
    try:
        sent = json.loads(text)
    except ValueError as error:
        raise SettingsError("The drawn masks cannot be read; draw them again.") from error
    known = sent if isinstance(sent, Mapping) else {}
    right = all(
        number.isdecimal() and int(number) < _LAST_FRAME and isinstance(image, str)
        and len(image) <= _LARGEST for number, image in known.items()
    )
    if not isinstance(sent, Mapping) or not right or len(known) > _MOST:
        raise SettingsError("The drawn masks cannot be read; draw them again.")
    return {int(number): image for number, image in known.items()}


def _decode(number: int, text: str) -> Any:
    name = f"The mask of frame {number}"
    return decode_sent_image(name, decode_base64(name, text, "draw it again."))
