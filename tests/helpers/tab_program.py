"""The tab in plain gradio as a program of its own, for tests and benchmarks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.source import ROOT


@dataclass
class TabProgram:
    """A running one."""

    address: str
    """Of its page and its API, without a slash at the end."""
    process: int
    """Its number."""


@contextmanager
def running_tab(folder: Path, **variables: str) -> Iterator[TabProgram]:
    """Within: the page answers; `folder` holds its files and its log."""
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONWARNINGS": "ignore",
                   "GRADIO_TEMP_DIR": str(folder / "gradio"), **variables}
    with (folder / "log").open("w") as log, subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.tab_app", folder], cwd=ROOT, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
    ) as program:
        assert program.stdout is not None
        line = ""
        while not line.startswith("http"):
            line = program.stdout.readline()
            assert line, (folder / "log").read_text()
        yield TabProgram(line.strip().rstrip("/"), program.pid)
        program.communicate()
