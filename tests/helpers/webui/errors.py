"""What the WebUI does with exceptions of extensions: it logs them and goes on."""

from __future__ import annotations

import logging
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("webui")
caught: list[Exception] = []
"""Since the start, for tests to look at."""


def report(message: str, *, exc_info: bool = False) -> None:
    """Print a message, and the exception that is handled."""
    for line in message.splitlines():
        sys.stderr.write(f"*** {line}\n")
    if exc_info:
        sys.stderr.write(textwrap.indent(traceback.format_exc(), "    "))


def display(error: Exception, task: str, *, full_traceback: bool = False) -> None:
    """Print an exception of a task, such as a cell of a plot."""
    sys.stderr.write(f"{task}: {type(error).__name__}\n{traceback.format_exc()}")


@contextmanager
def swallowed(where: str) -> Iterator[None]:
    """Within: an exception ends the block and nothing else."""
    try:
        yield
    except Exception as error:
        log.exception("*** Error running %s", where)
        caught.append(error)
