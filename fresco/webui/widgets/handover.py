"""Pass the clip and the settings of the latest guided img2img calls to the tab.

The images themselves go through the page. Calls are kept in memory only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fresco.settings import FrescoSettings

_MOST = 16
"""Number of calls that are remembered."""


@dataclass(frozen=True, slots=True)
class Handover:
    """A guided call of img2img."""

    path: Path
    """Its video or folder."""
    uploaded: bool
    """Whether it was uploaded in img2img, and is to be kept as an upload of the tab."""
    settings: FrescoSettings
    """Its options and words; keyframes by hand are those that it made."""


_known: OrderedDict[tuple[str, tuple[int, ...]], Handover] = OrderedDict()
_lock = threading.Lock()


def hand_over(name: str, numbers: Sequence[int], call: Handover) -> None:
    """Store a call by its source's name and the numbers of its keyframes, as in infotexts."""
    with _lock:
        _known[name, tuple(numbers)] = call
        _known.move_to_end((name, tuple(numbers)))
        while len(_known) > _MOST:
            _known.popitem(last=False)


def take_over(name: str, numbers: Sequence[int]) -> Handover | None:
    """Find the latest call of that source whose keyframes include these; None if there is none."""
    with _lock:
        for (source, made), call in reversed(_known.items()):
            if source == name and set(numbers) <= set(made):
                return call
    return None
