"""`fresco ui` as a program of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.source import ROOT


@dataclass
class UiProgram:
    """A running one."""

    address: str
    """Of its page."""
    process: subprocess.Popen[str]
    """The program."""
    log: Path
    """What it says."""

    def interrupt(self) -> int:
        """Press Ctrl-C; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


def _start(folder: Path, *words: object, **variables: str) -> subprocess.Popen[str]:
    """The program; its log goes into the folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **variables}
    command = [sys.executable, "-m", "fresco", "ui", "--no-browser", "--device", "cpu",
               "--offline", *map(str, words)]
    with (folder / "ui.log").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE,
                                stderr=log, text=True)


@contextmanager
def running_ui(folder: Path, *words: object, **variables: str) -> Iterator[UiProgram]:
    """Within: the page answers."""
    with _start(folder, "--port", 0, *words, **variables) as process:
        assert process.stdout is not None
        address, log = "", folder / "ui.log"
        while not address.startswith("http"):
            address = process.stdout.readline()
            assert address, log.read_text()
        try:
            yield UiProgram(address.strip(), process, log)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
