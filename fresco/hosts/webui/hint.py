"""Make the hint of one frame by the WebUI's ControlNet, to be viewed before a job."""

# pyright: reportMissingImports=false
from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from modules import scripts
from modules.call_queue import queue_lock
from numpy.typing import NDArray

from fresco.control import ControlUnit
from fresco.errors import HostError
from fresco.hosts.webui.controlnet import (
    find_adapter,
    list_fields,
    require_control,
    resolve_unit,
)
from fresco.hosts.webui.script_arguments import PAGE

_PATIENCE, _PAUSE = 5.0, 0.1
"""Seconds that a hint waits for the WebUI to end what it makes, and between looks at it."""


def draw_hint(unit: ControlUnit, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make the hint of a frame [H, W, 3] RGB, as the unit's network gets it."""
    PAGE.wait()
    unit = resolve_unit(unit)
    script = require_control(scripts.scripts_img2img)
    with _turn(), torch.no_grad():
        return find_adapter(script).draw_hint(script, list_fields(unit), frame)


@contextmanager
def _turn() -> Iterator[None]:
    """Hold the WebUI's queue within the context; HostError if it is not free within seconds."""
    end = time.monotonic() + _PATIENCE
    while not queue_lock.acquire(blocking=False):
        if time.monotonic() > end:
            raise HostError("The WebUI is making images; ask for the hint when it is done.")
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        queue_lock.release()
