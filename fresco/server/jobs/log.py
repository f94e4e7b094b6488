"""The log of a job: the lines of its run, in its folder."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Say = Callable[[str], None]
"""Writes a line of a job's log."""

_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_THREADS = "fresco-segment"
"""Beginning of the names of threads that propagate keyframes for the job."""


class _Lines(logging.Handler):
    """Adds lines to a file. A job does not fail because its log cannot be written."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._owner = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Accept only lines of this job; other threads may work for other users."""
        return record.thread == self._owner or str(record.threadName).startswith(_THREADS)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(self.format(record) + "\n")


@contextmanager
def open_log(path: Path) -> Iterator[Say]:
    """Within the context, also write what the job logs as `fresco` to a file."""
    lines = _Lines(path)
    lines.setFormatter(logging.Formatter(_FORMAT))
    logger = logging.getLogger("fresco")
    logger.addHandler(lines)

    def say(text: str) -> None:
        lines.handle(logger.makeRecord(logger.name, logging.INFO, "", 0, text, (), None))

    try:
        yield say
    finally:
        logger.removeHandler(lines)
        lines.close()
