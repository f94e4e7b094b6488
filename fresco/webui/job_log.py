"""The log of a job: the lines of its run, in its folder."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fresco.workspace import explain

_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_THREADS = "fresco-segment"
"""How the names of threads begin that carry keyframes for the job."""


@contextmanager
def job_log(path: Path) -> Iterator[Callable[[str], None]]:
    """Within: what the job logs as `fresco` goes to the file too. Gives: write a line."""
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise explain(error, path) from error
    handler.setFormatter(logging.Formatter(_FORMAT))
    owner = threading.get_ident()
    # Other threads of the program log the pictures of other people.
    handler.addFilter(
        lambda record: record.thread == owner or str(record.threadName).startswith(_THREADS)
    )
    logger = logging.getLogger("fresco")
    logger.addHandler(handler)

    def say(text: str) -> None:
        handler.handle(logger.makeRecord(logger.name, logging.INFO, "", 0, text, (), None))

    try:
        yield say
    finally:
        logger.removeHandler(handler)
        handler.close()
