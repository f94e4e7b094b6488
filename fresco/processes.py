"""Processes that end with the one that started them, and threads with ordinary priority.

A program that is killed cannot tell its workers, and they would wait for it for ever. So each of
them checks twice a second, in a thread, whether it still runs; that works on every system. Linux
could signal it (PR_SET_PDEATHSIG), but does so when the thread that started the worker ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL = 0.5
"""Seconds between two checks."""
_SYNCHRONIZE, _FOREVER = 0x00100000, 0xFFFFFFFF
"""Windows: the right to wait for a process; to wait without limit."""


def end_with_parent(parent: int, finish: Callable[[], object] = lambda: None) -> None:
    """From now on, end this process as soon as its parent has ended.

    Args:
        parent: process id of the one that started this one, as that one knows it.
        finish: called before the end, to end what this process started in turn.
    """
    def watch() -> None:
        _wait_for_end(parent)
        try:
            finish()
        finally:
            os._exit(1)  # from a thread, whatever the others are doing

    threading.Thread(target=watch, name="fresco-parent", daemon=True).start()


def _wait_for_end(parent: int) -> None:
    if os.name == "nt":
        _wait_on_windows(parent)
        return
    # A process whose parent has ended gets another parent at once.
    while os.getppid() == parent:
        time.sleep(_POLL)


def _wait_on_windows(parent: int) -> None:
    import ctypes

    kernel = ctypes.WinDLL("kernel32")  # pyright: ignore[reportAttributeAccessIssue]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(_SYNCHRONIZE, False, parent)
    if handle:  # otherwise it has already ended
        kernel.WaitForSingleObject(ctypes.c_void_p(handle), _FOREVER)


@contextmanager
def ordinary_threads() -> Iterator[None]:
    """Restore the scheduling of this process's threads after the context.

    SVT-AV1 gives its threads, and the one that opens it, real-time priority if the system allows
    it, for example as root in a container. All other processes would then wait for them.
    """
    if not hasattr(os, "sched_setscheduler"):  # only Linux lets SVT-AV1 do that
        yield
        return
    before = _list_scheduling()
    usual = os.SCHED_OTHER, os.sched_param(0)
    try:
        yield
    finally:
        for thread, (policy, _) in _list_scheduling().items():
            known = before.get(thread, usual)
            if policy != known[0]:
                with suppress(ProcessLookupError):  # it has ended
                    os.sched_setscheduler(thread, *known)


def _list_scheduling() -> dict[int, tuple[int, os.sched_param]]:
    """Policy and priority of every thread of this process, by its number."""
    found: dict[int, tuple[int, os.sched_param]] = {}
    for entry in Path("/proc/self/task").iterdir():
        thread = int(entry.name)
        try:
            found[thread] = os.sched_getscheduler(thread), os.sched_getparam(thread)
        except ProcessLookupError:
            continue
    return found
