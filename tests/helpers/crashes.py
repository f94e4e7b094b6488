"""Commands and jobs in processes of their own, to be signalled and killed."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from fresco.cli.main import main
from fresco.hosts.options import HostOptions
from fresco.progress import StageStatus
from fresco.run import compare, translate
from fresco.server.jobs.engine import JobEngine
from fresco.server.jobs.job import State
from fresco.server.jobs.runner import make_work
from tests.helpers.faulty_files import Fault, FaultyFiles
from tests.helpers.job_bench import ended, watched
from tests.helpers.job_environment import TinyEnvironment, tiny_settings

__all__ = ["compare", "translate"]
"""Imported once for all commands."""
MODELS = "FRESCO_TEST_MODELS"
"""Environment variable: folder of the models that a fork server loads for all its processes."""
PATIENCE = 240
"""Seconds after which a process hangs; a busy machine takes its time."""
MARK = "FRESCO_TEST_MARK"
"""Environment variable that tells the processes of a test from others."""


def _loaded(folder: Path) -> TinyEnvironment:
    """Environment whose first model is in memory already."""
    environment = TinyEnvironment(folder)
    environment.open(HostOptions(), tiny_settings().sampling)
    return environment


ENVIRONMENT = _loaded(Path(os.environ[MODELS])) if MODELS in os.environ else None


def open_fork_server(models: Path) -> ForkServerContext:
    """Processes that need not import everything and load the model anew; `MODELS` must be set."""
    assert os.environ[MODELS] == str(models)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.crashes"])
    return context


@dataclass(frozen=True)
class Blow:
    """A signal, and when it comes."""

    fault: Fault
    """`SIGINT`, `SIGTERM`, `SIGKILL`, or a power cut."""
    at: int | None = None
    """At this file operation; None: at the moment `after`."""
    after: float = 0.0
    """Seconds after the start."""


@dataclass(frozen=True)
class Place:
    """Where a test runs its processes."""

    out: Path
    """What is written there is watched."""
    temporary: Path
    """The system's folder of temporary files."""
    notes: Path
    """What the processes say."""


def _settle(place: Place) -> None:
    torch.set_num_threads(1)
    os.environ["TMPDIR"] = str(place.temporary)
    os.environ[MARK] = str(place.out)
    tempfile.tempdir = None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    errors = (place.notes / "stderr").open("w")
    sys.stdout = sys.stderr = errors


@contextlib.contextmanager
def _struck(place: Place, blow: Blow | None):
    if blow is None or blow.at is None:
        yield
        return
    with FaultyFiles(place.out, blow.fault, blow.at, leave=True) as files:
        yield
        (place.notes / "count").write_text(str(len(files.done)))


def run_command(words: list[str], place: Place, blow: Blow | None) -> None:
    """One command of the command line; ends with its exit code."""
    _settle(place)
    with _struck(place, blow):
        code = main(words)
    atexit._run_exitfuncs()  # as at the end of a program; processes of multiprocessing have none
    sys.stdout.flush()
    os._exit(code)


def run_job(root: Path, models: Path, job: str, place: Place, blow: Blow | None) -> None:
    """Run or resume a job to its end."""
    _settle(place)
    with _struck(place, blow):
        _finish(JobEngine(root, make_work(ENVIRONMENT or TinyEnvironment(models))), job)


def run_job_to_stage(
    root: Path, models: Path, job: str, survived: set[str] | None, note: Path
) -> None:
    """Run or resume a job to its end, or die without a word at the begin of a stage.

    Args:
        survived: stages at which it does not die; None: all.
        note: file for the stage at which it dies.
    """
    torch.set_num_threads(1)

    def die(folder: Path, status: StageStatus) -> None:
        if survived is not None and status.stage not in survived:
            note.write_text(status.stage)
            os.kill(os.getpid(), signal.SIGKILL)

    work = make_work(ENVIRONMENT or TinyEnvironment(models))
    _finish(JobEngine(root, watched(work, die)), job)


def _finish(engine: JobEngine, job: str) -> None:
    if engine.status(job).state.ended:
        engine.resume(job)
    engine.start()
    status = ended(engine, job, patience=PATIENCE)
    engine.close()
    assert status.state is State.DONE, status.message


def strike(process: BaseProcess, blow: Blow | None) -> int:
    """Start a process and let the blow fall; its exit code."""
    process.start()
    if blow is not None and blow.at is None:
        process.join(blow.after)
        if process.pid is not None and process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, getattr(signal, blow.fault.name))
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"it did not end: {blow}")
    return process.exitcode


def list_marked(place: Place, seconds: float = 30.0) -> list[str]:
    """Programs that a test has started, and that still run after a while."""
    end = time.monotonic() + seconds
    while found := _find_marked(str(place.out)):
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return found


def _find_marked(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
    return found
