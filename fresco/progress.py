"""Stages, progress and cancellation.

Cancellation is an exception, so every context is closed on the way out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fresco.errors import Cancelled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class StageStatus:
    """The state of one stage. It is replaced as a whole, never changed."""

    stage: str
    """Name of the stage, such as `keyframes`."""
    done: int
    """Units finished."""
    total: int
    """Units in all; 0 while unknown."""
    seconds: float
    """Seconds since the stage began."""
    message: str = ""
    """A sentence for the user, or nothing."""
    finished: bool = False
    """True in the last status of a stage."""
    found: int = 0
    """Number of finished units that an earlier run had made."""

    @property
    def made(self) -> int:
        """Number of units that this run has made."""
        return self.done - self.found

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the present rate; None if not known."""
        if not self.made or not self.total:
            return None
        return self.seconds / self.made * (self.total - self.done)


def format_seconds(seconds: float) -> str:
    """Describe a duration in words: `4.2 s`, `12 s`, `3 min 20 s`, `15 min`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


Reporter = Callable[[StageStatus], None]


class CancelToken:
    """A request to stop, which any thread can make; the run obeys at its next check."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the run to stop."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Cancelled` if the run was asked to stop."""
        if self._event.is_set():
            raise Cancelled("The run was cancelled. What is finished is kept; start it again.")


def never_stop() -> None:
    """A check that never stops."""


class Watch(Protocol):
    """Checks whether a run may continue; raises the error that ends it."""

    def check(self) -> None:
        """Check at the end of every stage."""
        ...

    def glance(self) -> None:
        """Check, cheaply, whenever units are finished."""
        ...


class _Unwatched:
    """Lets every run continue."""

    def check(self) -> None:
        """Do nothing."""

    def glance(self) -> None:
        """Do nothing."""


Look = Callable[[], "NDArray[np.uint8] | None"]
"""Draws what a stage is making now, RGB [H, W, 3]; None: there is nothing to see yet. Called by
another thread than that of the run."""


class _Window:
    """Holds the function that draws a preview of the running stage."""

    def __init__(self) -> None:
        self.look: Look | None = None


class Stage:
    """One running stage."""

    def __init__(
        self, name: str, total: int, report: Reporter, token: CancelToken, watch: Watch,
        window: _Window,
    ) -> None:
        self._name, self._total, self._report, self._token = name, total, report, token
        self._watch, self._window = watch, window
        self._done, self._found, self._start = 0, 0, time.monotonic()
        self.say("")

    @property
    def total(self) -> int:
        """Number of units; 0 if not known."""
        return self._total

    def show(self, look: Look) -> None:
        """Set the function that draws a preview of this stage, until it ends."""
        self._window.look = look

    def expect(self, total: int) -> None:
        """Set the number of units, if it becomes known during the work."""
        self._total = total
        self.say("")

    def say(self, message: str, *, finished: bool = False) -> None:
        """Report the present state with a message."""
        seconds = time.monotonic() - self._start
        status = StageStatus(
            self._name, self._done, self._total, seconds, message, finished, self._found
        )
        self._report(status)

    def advance(self, units: int = 1, message: str = "", *, found: bool = False) -> None:
        """Count finished units, report, and stop here if the run was asked to.

        Args:
            found: an earlier run had made them, so they do not count for the pace.
        """
        self._done += units
        self._found += units if found else 0
        self.say(message)
        self._token.check()
        self._watch.glance()

    def check(self) -> None:
        """Raise `Cancelled` if the run was asked to stop."""
        self._token.check()


class Progress:
    """Reports the state of a run, and receives the request to stop."""

    def __init__(
        self, report: Reporter | None = None, token: CancelToken | None = None,
        watch: Watch | None = None, window: _Window | None = None,
    ) -> None:
        self._report = report or (lambda status: None)
        self.token = token or CancelToken()
        self._watch = watch or _Unwatched()
        self._window = window or _Window()

    def look(self) -> NDArray[np.uint8] | None:
        """Draw a preview of the running stage, RGB [H, W, 3]; None if there is none."""
        look = self._window.look
        return look() if look else None

    def watched(self, watch: Watch) -> Progress:
        """The same, with a further watch that its stages check."""
        return Progress(self._report, self.token, watch, self._window)

    @contextmanager
    def stage(self, name: str, total: int = 0) -> Iterator[Stage]:
        """Open a stage of `total` units (0: not known)."""
        self.token.check()
        stage = Stage(name, total, self._report, self.token, self._watch, self._window)
        before = self._window.look
        try:
            yield stage
        finally:
            self._window.look = before  # it may hold large arrays
        self._watch.check()
        stage.say("", finished=True)
