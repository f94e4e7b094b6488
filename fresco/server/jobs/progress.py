"""Convert the nested stages of a run to the single stage in a job's status."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Protocol

from fresco.progress import StageStatus, format_seconds
from fresco.server.jobs.log import Say

_PUBLISHED = 0.1
"""Shortest time in seconds between two statuses in memory, unless a stage begins or ends."""
_WRITTEN = 0.3
"""The same for statuses on disk."""


class Publish(Protocol):
    """Publishes changed fields of a job's status."""

    def __call__(self, *, to_disk: bool, **changes: Any) -> None:
        """Publish them."""
        ...


class StageTracker:
    """Publishes the outermost stage; the stage that runs within it is named in the message."""

    def __init__(
        self, publish: Publish, say: Say, clock: Callable[[], float] = time.monotonic, *,
        keep: Callable[[StageStatus], None] = lambda status: None,
        foresee: Callable[[StageStatus], float | None] = lambda status: None,
    ) -> None:
        """
        Args:
            keep: hears the last status of every outermost stage.
            foresee: the seconds left of the whole job after a word of an outermost stage.
        """
        self._foresee = foresee
        self._publish, self._say, self._clock, self._keep = publish, say, clock, keep
        self._open: dict[str, tuple[StageStatus, float]] = {}
        self._published = self._written = float("-inf")

    def report(self, status: StageStatus) -> None:
        """Receive the status of a stage; a `Reporter`."""
        begins = status.stage not in self._open
        self._open[status.stage] = status, self._clock()
        if begins:
            self._say(f"{status.stage}: begins" + (f", {status.total}" if status.total else ""))
        self._tell(turn=begins or status.finished)
        if status.finished:
            made = f", {status.made} made" if status.found else ""
            self._say(f"{status.stage}: done in {format_seconds(status.seconds)}{made}")
            if next(iter(self._open)) == status.stage:
                self._keep(status)
            self._forget(status.stage)

    def flush(self) -> None:
        """Publish the last status, if it was held back."""
        if self._open:
            self._tell(turn=True)

    def _forget(self, stage: str) -> None:
        """Forget a stage that has ended, with all stages within it, also failed ones."""
        names = list(self._open)
        for name in names[names.index(stage):]:
            del self._open[name]

    def _tell(self, *, turn: bool) -> None:
        now = self._clock()
        if not turn and now - self._published < _PUBLISHED:
            return
        to_disk = turn or now - self._written >= _WRITTEN
        self._published = now
        self._written = now if to_disk else self._written
        (outer, since), *inner = list(self._open.values())
        # Computed from the units finished until now, so that a long unit does not reduce it to 0.
        passed = dataclasses.replace(outer, seconds=outer.seconds + now - since)
        self._publish(
            to_disk=to_disk, stage=outer.stage, done=outer.done, total=outer.total,
            seconds_left=passed.seconds_left, job_seconds_left=self._foresee(passed),
            message=_words(outer, inner[-1][0] if inner else None),
        )


def _words(outer: StageStatus, inner: StageStatus | None) -> str:
    if inner is None:
        return outer.message
    count = f" {inner.done} of {inner.total}" if inner.total else ""
    return f"{inner.stage}{count}" + (f": {inner.message}" if inner.message else "")
