"""What the WebUI does with exceptions of extensions: it logs them and goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("webui")
caught: list[Exception] = []
"""Since the start, for tests to look at."""


@contextmanager
def swallowed(where: str) -> Iterator[None]:
    """Within: an exception ends the block and nothing else."""
    try:
        yield
    except Exception as error:
        log.exception("*** Error running %s", where)
        caught.append(error)
