"""Store masks that were drawn on the page, and read them again."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fresco.errors import SettingsError
from fresco.server.encoded import decode_base64
from fresco.server.images import decode_sent_image
from fresco.server.service import Service
from fresco.settings import FrescoSettings, MaskSettings
from fresco.workspace import frame_name, write_image

_LARGEST, _MOST = 16_000_000, 200
"""Most letters of one drawing, and most drawings of one job."""
_MOST_DIGITS = 9
"""Most digits of a frame number."""


@contextmanager
def place_drawings(
    service: Service, settings: FrescoSettings, text: str
) -> Iterator[FrescoSettings]:
    """Within the context, settings with the page's drawings in a folder, if the mask is a drawing.

    An error within removes the folder.

    Args:
        text: JSON of PNG in base64 by frame number; empty: there are none.
    """
    drawn = _read(text) if settings.mask.source == "drawing" and text.strip() else {}
    if not drawn:
        yield settings
        return
    folder = service.engine.new_folder()
    try:
        for number, image in drawn.items():
            write_image(folder / frame_name(number), _decode(number, image))
        mask = dataclasses.replace(settings.mask, path=str(folder))
        yield dataclasses.replace(settings, mask=mask)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def read_drawings(service: Service, job: str) -> dict[int, str]:
    """Read the masks that were drawn for a job, as addresses of PNG images by frame number.

    SettingsError where the job has none of its own.
    """
    mask = service.engine.request(job).settings.mask
    folder = Path(mask.path)
    own = mask.source == "drawing" and service.is_sent(folder)
    found = {
        int(path.stem): path for path in (sorted(folder.glob("*.png")) if own else ())
        if path.stem.isdecimal() and len(path.stem) <= _MOST_DIGITS
    }
    if not found:
        raise SettingsError("No mask was drawn for the selected job in this tab.")
    return {
        number: f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
        for number, path in found.items()
    }


def describe_mask(settings: MaskSettings) -> dict[str, bool] | None:
    """Describe a job's mask for the page; None if it has none."""
    if settings.source == "none":
        return None
    return {"drawn": settings.source == "drawing", "invert": settings.invert}


def _read(text: str) -> dict[int, str]:
    try:
        sent = json.loads(text)
    except ValueError as error:
        raise SettingsError("The drawn masks cannot be read; draw them again.") from error
    known = sent if isinstance(sent, Mapping) else {}
    right = all(
        number.isdecimal() and len(number) <= _MOST_DIGITS and isinstance(image, str)
        and len(image) <= _LARGEST for number, image in known.items()
    )
    if not isinstance(sent, Mapping) or not right or len(known) > _MOST:
        raise SettingsError("The drawn masks cannot be read; draw them again.")
    return {int(number): image for number, image in known.items()}


def _decode(number: int, text: str) -> Any:
    name = f"The mask of frame {number}"
    return decode_sent_image(name, decode_base64(name, text, "draw it again."))
