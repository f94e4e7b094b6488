"""`modules.img2img`: a call of the page, and the Batch tab, which makes one for every file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from tests.helpers.webui import errors
from tests.helpers.webui.process_images import Processed, process_images


def call_by_page(p: Any) -> Processed | str:
    """What Generate shows: the result, or the error as the WebUI words it, having reported it."""
    try:
        return process_images(p)
    except Exception as error:
        errors.report(f"Error completing request\nArguments: {vars(p)}", exc_info=True)
        return f"{type(error).__name__}: {error}"


def process_batch(p: Any, pictures: Sequence[Image.Image]) -> list[Processed]:
    """All files with one processing object."""
    done = []
    for picture in pictures:
        p.init_images = [picture] * p.batch_size
        done.append(process_images(p))
    return done
