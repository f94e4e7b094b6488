"""Threads keep the scheduling that they had before a block."""

from __future__ import annotations

import os
import threading

import pytest

from fresco.processes import ordinary_threads

linux = pytest.mark.skipif(
    not hasattr(os, "sched_setscheduler"), reason="only Linux lets a program change it unasked"
)


@linux
def test_threads_are_ordinary_again() -> None:
    """The one that runs the block, and those that the block starts."""
    begun, end, found = threading.Event(), threading.Event(), []

    def work() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        begun.set()
        end.wait(30)
        found.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    with ordinary_threads():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        thread.start()
        assert begun.wait(30)
    end.set()
    thread.join()
    assert found == [os.SCHED_OTHER]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@linux
def test_what_was_chosen_before_stays() -> None:
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        with ordinary_threads():
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
