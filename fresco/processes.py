"""Processes that end with the one that started them, however that one ends.

A program that is killed cannot tell its workers, and they would wait for it for ever. So each of
them watches for its end. A thread that looks twice a second is enough, and does the same on every
system; Linux alone could signal it (PR_SET_PDEATHSIG), but at the end of the thread that started
the worker, not of its process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

_POLL = 0.5
"""Seconds between two looks."""
_SYNCHRONIZE, _FOREVER = 0x00100000, 0xFFFFFFFF
"""Windows: the right to wait for a process; to wait without limit."""


def end_with_parent(parent: int, finish: Callable[[], object] = lambda: None) -> None:
    """From now on this process ends as soon as its parent has ended.

    Args:
        parent: process id of the one that started this one, as that one knows it.
        finish: called before the end, to end what this process started in turn.
    """
    def watch() -> None:
        _wait_for_end(parent)
        try:
            finish()
        finally:
            os._exit(1)  # from a thread, and whatever the others are at

    threading.Thread(target=watch, name="fresco-parent", daemon=True).start()


def _wait_for_end(parent: int) -> None:
    if os.name == "nt":
        _wait_on_windows(parent)
        return
    # An orphan is given another parent at once.
    while os.getppid() == parent:
        time.sleep(_POLL)


def _wait_on_windows(parent: int) -> None:
    import ctypes

    kernel = ctypes.WinDLL("kernel32")  # pyright: ignore[reportAttributeAccessIssue]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(_SYNCHRONIZE, False, parent)
    if handle:  # else it is gone already
        kernel.WaitForSingleObject(ctypes.c_void_p(handle), _FOREVER)
