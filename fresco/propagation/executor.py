"""Work on segments in a pool of processes.

Progress is reported for every frame, a run can be cancelled at any time, and no process is left
behind: a worker ends when the process that opened the pool ends.

The pool is loky's, which comes with joblib. Its workers do not run the main module again; with
spawn or forkserver a WebUI would start a second time. Without loky, processes are spawned.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import os
import platform
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_EXCEPTION,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2

from fresco.errors import PropagationError
from fresco.flow.estimator import create_estimator
from fresco.memory import is_out_of_memory, keep_freed_memory
from fresco.processes import end_with_parent
from fresco.progress import CancelToken
from fresco.propagation.cluster import open_cluster
from fresco.propagation.propagate import propagate_segment
from fresco.propagation.segment import SegmentJob, verify_segment
from fresco.propagation.synthesizer import die_with_programs, kill_programs
from fresco.settings import FlowSettings

if TYPE_CHECKING:
    from fresco.flow.interface import FlowEstimator
    from fresco.progress import Stage

logger = logging.getLogger("fresco")

POLL = 0.2
"""Seconds between two checks of progress and cancellation."""
CLUSTER_GRACE = 10.0
"""Seconds that the machines of a cluster have to notice that they should stop."""
GRACE = 2.0
"""Seconds that a worker has to end the programs it started, before it is killed itself."""
_AHEAD = 2
"""Segments handed to each worker at a time: one to work on, one that waits."""
ATTEMPTS = 2
"""A pool whose worker died is opened again: another program may have used up the memory."""


def count_workers(workers: int, jobs: int) -> int:
    """Number of processes to use: `workers`, or one a core if that is 0; never more than jobs."""
    return max(1, min(workers or count_cores(), jobs))


def count_cores() -> int:
    """Number of cores that this process may use."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return known or 1


def _begin_worker(parent: int) -> None:
    end_with_parent(parent, kill_programs)
    # Ctrl-C reaches the whole group of processes; only the parent decides when the workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, die_with_programs)
    _use_one_thread()


def _use_one_thread() -> None:
    """Let libraries of this process use one thread, because processes share the cores.

    The number of threads also changes the last digits of a flow.
    """
    cv2.setNumThreads(1)
    keep_freed_memory()
    if "torch" in sys.modules:  # OpenCV's flow does not need it
        sys.modules["torch"].set_num_threads(1)


def _open_process_pool(workers: int) -> Executor:
    try:
        from joblib.externals.loky.process_executor import ProcessPoolExecutor as LokyPool
    except ImportError:
        return ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_begin_worker,
            initargs=(os.getpid(),),
        )
    return LokyPool(workers, initializer=_begin_worker, initargs=(os.getpid(),))


def _kill_pool(pool: Executor) -> None:
    """Stop the processes of a pool, in the middle of their work."""
    processes: dict[int, Any] = dict(getattr(pool, "_processes", None) or {})
    for process in processes.values():
        process.terminate()
    for process in processes.values():
        # A worker in a long calculation does not react; the program it started ends with its pipe.
        process.join(GRACE)
        if process.is_alive():
            _kill_process(process.pid)
            process.join()


def _kill_process(pid: int) -> None:
    # loky's processes have no kill of their own. Windows has no harder signal than terminate.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


@contextlib.contextmanager
def open_executor(workers: int) -> Iterator[Executor]:
    """Open a pool of processes, or, for one worker, a single thread of this process.

    If the context is left by an exception, waiting tasks are dropped, and processes are killed. A
    thread cannot be killed: its task must check by itself whether to stop.
    """
    thread = "fresco-segment"  # the log names threads
    with _make_importable():
        pool = ThreadPoolExecutor(1, thread) if workers == 1 else _open_process_pool(workers)
        try:
            yield pool
        except BaseException:
            if isinstance(pool, ThreadPoolExecutor):
                pool.shutdown(cancel_futures=True)
            else:
                _kill_pool(pool)
                pool.shutdown()
            raise
        pool.shutdown()


@contextlib.contextmanager
def _make_importable() -> Iterator[None]:
    """Within the context, started processes can import this package.

    They search where this process searches. A WebUI removes the folder of an extension from that
    list once the extension's scripts are loaded.
    """
    root = str(Path(__file__).resolve().parents[2])
    missing = root not in sys.path
    if missing:
        sys.path.append(root)
    try:
        yield
    finally:
        if missing:
            with contextlib.suppress(ValueError):
                sys.path.remove(root)


@functools.lru_cache(maxsize=1)
def _load_estimator(flow: FlowSettings, device: str) -> FlowEstimator:
    """The flow estimator of this worker process, which reads its weights once."""
    estimator = create_estimator(flow, device)
    _use_one_thread()  # a network has imported torch
    return estimator


def _work_in_process(job: SegmentJob) -> None:
    """Fill one segment in a worker process."""
    propagate_segment(job, _load_estimator(job.flow, job.device))
    verify_segment(job)


def _work_on_cluster(job: SegmentJob, stop: Path) -> list[str]:
    """Fill one segment on another machine.

    Nothing can kill it there, so it stops when the file `stop` appears.

    Returns:
        The workers that began it earlier in this run and were lost.
    """
    token = CancelToken()
    begun = _name_begun(job, stop)
    lost = begun.read_text().splitlines() if begun.exists() else []
    with begun.open("a") as file:
        file.write(f"process {os.getpid()} on {platform.node()}\n")

    def check() -> None:
        if stop.exists():
            token.cancel()
        token.check()

    try:
        _work_in_thread(job, _load_estimator(job.flow, job.device), check)
    finally:  # a worker that is lost does not get here
        begun.unlink(missing_ok=True)
    return lost


def _name_begun(job: SegmentJob, stop: Path) -> Path:
    """Path of the file that lists the cluster's workers that began a segment in this run."""
    return stop.with_name(f"{stop.name}-{job.first:06d}")


def _work_in_thread(job: SegmentJob, estimator: FlowEstimator, check: Callable[[], None]) -> None:
    """Fill one segment in a thread of this process."""
    _use_one_thread()
    propagate_segment(job, estimator, check)
    verify_segment(job)


class _Progress:
    """Counts the frames on disk and reports them to the stage."""

    def __init__(self, jobs: Sequence[SegmentJob], stage: Stage) -> None:
        self._left = {job.first: len(job.interior) for job in jobs}
        self._stage = stage

    def look(self, jobs: Sequence[SegmentJob], *, found: bool = False) -> None:
        """Count again for these jobs; raises if the run was cancelled.

        Args:
            found: whether the frames were made by an earlier run.
        """
        finished = 0
        for job in jobs:
            left = len(job.find_missing())
            finished += self._left[job.first] - left
            self._left[job.first] = left
        if finished > 0:
            self._stage.advance(finished, found=found)
        else:
            self._stage.check()


_Answer = Future[list[str] | None]
"""The result of a worker; on a cluster, the workers lost before it."""


class Preparation(Protocol):
    """Work that this process does for every segment, wherever the segment is filled."""

    def begin(self, job: SegmentJob, check: Callable[[], None]) -> None:
        """Prepare a segment before it is handed out; `check` raises to stop."""
        ...

    def end(self, job: SegmentJob) -> None:
        """Clean up after the segment was filled."""
        ...


@dataclass(frozen=True, slots=True)
class _Round:
    """One try to fill all segments."""

    jobs: Sequence[SegmentJob]
    progress: _Progress
    preparation: Preparation | None
    ahead: int
    """Segments handed out at a time if there is a preparation, because its files take space."""
    tell: Callable[[str], None]
    """Takes a sentence for the user."""

    def run(self, submit: Callable[[SegmentJob], _Answer]) -> None:
        """Hand out all jobs and wait for them; the first exception of any is raised."""
        waiting: dict[_Answer, SegmentJob] = {}
        for job in self.jobs:
            if self.preparation is not None:
                while len(waiting) >= self.ahead:
                    self._wait(waiting)
                self.preparation.begin(job, lambda: self._look(waiting))
            waiting[submit(job)] = job
        while waiting:
            self._wait(waiting)

    def _wait(self, waiting: dict[_Answer, SegmentJob]) -> None:
        """Wait a little, count frames, and remove the jobs that are done."""
        wait(waiting, timeout=POLL, return_when=FIRST_EXCEPTION)
        self._look(waiting)

    def _look(self, waiting: dict[_Answer, SegmentJob]) -> None:
        done = [future for future in waiting if future.done()]
        # Only segments that are being filled have a scratch folder; no others need to be counted.
        busy = [job for future, job in waiting.items() if future in done or job.scratch.exists()]
        for future in done:
            lost = future.result()
            job = waiting.pop(future)
            if lost:
                self.tell(
                    f"A worker of the cluster was lost at work on frames {job.first} to {job.last} "
                    f"({', '.join(lost)}); another one has made them."
                )
            if self.preparation is not None:
                self.preparation.end(job)
        self.progress.look(busy)


def _run_on_this_machine(tried: _Round, workers: int) -> None:
    """Run all jobs on this machine; an exception in one of them stops the others."""
    stop = CancelToken()
    with open_executor(workers) as pool:
        try:
            if workers == 1:
                first = tried.jobs[0]
                estimator = create_estimator(first.flow, first.device)
                tried.run(lambda job: pool.submit(_work_in_thread, job, estimator, stop.check))
            else:
                tried.run(lambda job: pool.submit(_work_in_process, job))
        except BaseException:
            stop.cancel()
            raise


def _run_on_cluster(tried: _Round, address: str) -> None:
    """Run all jobs on a cluster whose machines see the same folders."""
    stop = tried.jobs[0].folder / f".stop-{secrets.token_hex(4)}"
    with open_cluster(address) as pool:
        waiting: list[_Answer] = []

        def submit(job: SegmentJob) -> _Answer:
            waiting.append(pool.submit(_work_on_cluster, job, stop))
            return waiting[-1]

        try:
            tried.run(submit)
        except BaseException:
            with contextlib.suppress(OSError):
                stop.touch()
            # Segments that have not begun end at once, too. If a machine is too busy to notice the
            # file in time, the file stays for it.
            if not wait(waiting, timeout=CLUSTER_GRACE).not_done:
                stop.unlink(missing_ok=True)
            raise
        finally:
            for job in tried.jobs:
                _name_begun(job, stop).unlink(missing_ok=True)


def share_cores(jobs: int, workers: int, cores: int) -> list[int]:
    """Choose the number of threads of every job, for jobs begun in this order.

    In the last turn, when some workers have nothing to do, the remaining jobs share all cores.
    """
    last = jobs % workers
    turns = [workers] * (jobs - last) + [last] * last
    return [max(1, (cores + turn - 1 - place % turn) // turn) for place, turn in enumerate(turns)]


def run_segments(
    jobs: Sequence[SegmentJob], workers: int, stage: Stage, *, cluster: str = "",
    preparation: Preparation | None = None,
) -> list[str]:
    """Fill all segments. `stage` advances for every finished frame, also for earlier ones.

    Args:
        jobs: segments of any number of shots; a segment may have no frames between its keys.
        workers: number of processes; 0: one a core, 1: this process only.
        cluster: address of a dask.distributed scheduler, whose workers replace the processes.
        preparation: what this process does for each segment before it is handed out.

    Returns:
        Sentences for the user that say which workers were lost.
    """
    notes: list[str] = []

    def tell(note: str) -> None:
        logger.warning("%s", note)
        notes.append(note)

    # The longest first, so that no long one is left for a single process at the end.
    jobs = sorted((job for job in jobs if job.interior), key=lambda job: -len(job.interior))
    if not jobs:
        return notes
    if len({(job.flow, job.device) for job in jobs}) > 1 or jobs[0].flow.estimator == "auto":
        raise ValueError("all segments need one flow estimator, given by name")
    progress = _Progress(jobs, stage)
    progress.look(jobs, found=True)
    # On a cluster its workers divide the cores among themselves; here we do.
    count = count_workers(workers, len(jobs))
    shares = [1] * len(jobs) if cluster else share_cores(len(jobs), count, count_cores())
    jobs = [
        dataclasses.replace(job, threads=threads)
        for job, threads in zip(jobs, shares, strict=True)
    ]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            tried = _Round(jobs, progress, preparation, _AHEAD * (workers or count_cores()), tell)
            if cluster:
                _run_on_cluster(tried, cluster)
            else:
                _run_on_this_machine(tried, count)
        except Exception as error:
            if not isinstance(error, BrokenExecutor) and not is_out_of_memory(error):
                raise
            where = _describe_interrupted(jobs)
            if attempt == ATTEMPTS:
                raise PropagationError(
                    f"A worker process died {attempt} times {where}; most likely memory ran out. "
                    "What is finished is kept: start again with fewer workers (propagation."
                    "workers) or a lower resolution."
                ) from error
            tell(f"A worker process died {where}; its segments were begun once more.")
        else:
            break
    return notes


def _describe_interrupted(jobs: Sequence[SegmentJob]) -> str:
    """Where a worker process was when it died."""
    broken = ", ".join(f"{job.first} to {job.last}" for job in jobs if job.scratch.exists())
    return f"at work on frames {broken}" if broken else "before any frame was at work"
