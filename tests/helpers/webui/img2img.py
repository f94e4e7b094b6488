"""`modules.img2img`: the Batch tab, which makes a call for every file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from tests.helpers.webui.process_images import Processed, process_images


def process_batch(p: Any, pictures: Sequence[Image.Image]) -> list[Processed]:
    """All files with one processing object."""
    done = []
    for picture in pictures:
        p.init_images = [picture] * p.batch_size
        done.append(process_images(p))
    return done
