"""Progress bars, log lines and Ctrl-C; no other module uses the terminal."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from fresco.cli.flags import with_flags
from fresco.errors import SettingsError
from fresco.progress import CancelToken, StageStatus, format_seconds

log = logging.getLogger("fresco")


class Bars:
    """Shows stages on stderr: as bars with rate and time left, or without a terminal as lines.

    A reporter for `Progress` and a context manager; leaving it closes bars of unfinished stages.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._open: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for bar in reversed(self._open.values()):
            bar.close()
        self._open.clear()

    def __call__(self, status: StageStatus) -> None:
        """Show one status."""
        if self._quiet:
            return
        with self._lock:
            if self._terminal:
                self._draw(status)
            elif status.finished:
                count = f"{status.done} of {status.total}" if status.total else str(status.done)
                sys.stderr.write(f"{status.stage}: {count} in {format_seconds(status.seconds)}\n")

    def _draw(self, status: StageStatus) -> None:
        bar = self._open.get(status.stage)
        if bar is None:
            # A stage within another, such as a batch, leaves no line behind.
            bar = self._open[status.stage] = _new_bar(status, leave=not self._open)
        bar.total = status.total or None  # some stages learn the total during their work
        bar.update(status.done - bar.n)
        if status.message:
            bar.set_postfix_str(status.message)
        if status.finished:
            self._open.pop(status.stage).close()


def _new_bar(status: StageStatus, *, leave: bool) -> Any:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise SettingsError(
            "tqdm is not installed, which draws the progress; install it, or give --quiet."
        ) from error
    return tqdm(
        total=status.total or None, desc=status.stage, file=sys.stderr, dynamic_ncols=True,
        leave=leave,
    )


class _LogLines(logging.Handler):
    """Writes log lines to stderr without breaking the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        text = with_flags(self.format(record))
        tqdm = sys.modules.get("tqdm")
        if tqdm is None:
            sys.stderr.write(f"{text}\n")
        else:
            tqdm.tqdm.write(text, file=sys.stderr)


@contextlib.contextmanager
def logging_to_stderr(level: int) -> Iterator[None]:
    """Within the context, log lines of this program from `level` on go to stderr."""
    handler, before = _LogLines(), log.level
    warned = logging.Formatter("%(levelname)s: %(message)s")
    plain = logging.Formatter("%(message)s")
    handler.setFormatter(warned if level <= logging.DEBUG else plain)
    log.addHandler(handler)
    log.setLevel(level)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


@contextlib.contextmanager
def stopping_on_ctrl_c(token: CancelToken) -> Iterator[None]:
    """Within the context, the first Ctrl-C or SIGTERM asks the run to stop; a second ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if token.cancelled:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise KeyboardInterrupt
        token.cancel()
        sys.stderr.write("\nStopping after the unit in progress; Ctrl-C again stops at once.\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
