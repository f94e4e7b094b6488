"""Whether processes are gone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path


def left_running(pids: Iterable[int], seconds: float = 5.0) -> list[int]:
    """Those that still run after a while: one that lost its parent ends with its pipe, a bit later.

    Dead ones that nobody has waited for yet do not count: after its parent, that is init's matter.
    """
    end = time.monotonic() + seconds
    while running := [pid for pid in pids if _runs(pid)]:
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return running


def _runs(pid: int) -> bool:
    try:
        # After the name, which may hold anything: the state.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
