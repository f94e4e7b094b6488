"""Run one process of the synthesis program, which paints many frames in the style of one keyframe.

Frames and answers go through pipes, by the protocol of ebsynth/README.md. A thread of its own
writes a request and reads the answer. So a run can be stopped whatever the process does: the
process is killed, and both pipes end.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, NoReturn

import numpy as np
from numpy.typing import NDArray

from fresco.errors import PropagationError
from fresco.progress import never_stop
from fresco.propagation.guides import Guide
from fresco.propagation.program import creation_flags

Image = NDArray[np.uint8]
Map = NDArray[np.float32]

PROTOCOL = 1
"""Version of the pipe protocol."""
WITH_FLOW, RESTART, WITH_TRACK = 1, 4, 8
"""Flags of a frame. They mean: a flow follows; forget the frame before; a track follows."""
DEFAULT_WEIGHT = -1.0
"""Stands for the program's default; that of the style is 1."""
SEARCH_VOTE_ROUNDS, SWEEPS = 12, 6
"""-searchvoteiters and -patchmatchiters, as FRESCO uses them (docs/propagation.md, section 4)."""
POLL = 0.1
"""Seconds between two checks whether to stop."""
ATTEMPTS = 2
"""Times that a frame is asked for: the system may have killed the process to free memory."""
CLOSING_SECONDS = 10.0
"""Seconds after which a process that was told to stop is killed."""
TAIL = 8
"""Number of last lines of stderr that an error message quotes."""

log = logging.getLogger("fresco")

_live: set[subprocess.Popen[bytes]] = set()


def kill_programs() -> None:
    """Kill every program that this process started."""
    for process in list(_live):
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(CLOSING_SECONDS)
        _live.discard(process)


def die_with_programs(signum: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM in a worker: kill its programs, too."""
    kill_programs()
    signal.signal(signum, signal.SIG_DFL)
    signal.raise_signal(signum)
    raise SystemExit(1)


MOST_THREADS = 256
"""Largest number of threads of one process, however many cores the machine reports. The result does
not depend on it."""


@dataclass(frozen=True, slots=True)
class SynthesisOptions:
    """Options of the program."""

    quality: str = "balanced"
    """`best` or `balanced`, see ebsynth/README.md."""
    threads: int = 1
    """Threads of the process; the result does not depend on it."""


class _Lost(Exception):  # noqa: N818 - not an error yet: the frame is asked for once more
    """A process died, or its answer makes no sense."""


def build_command(program: Path, options: SynthesisOptions) -> list[str]:
    """Build the command line that starts the program."""
    return [
        str(program), "-sequence", "-quality", options.quality,
        "-searchvoteiters", str(SEARCH_VOTE_ROUNDS), "-patchmatchiters", str(SWEEPS),
        "-threads", str(max(1, min(options.threads, MOST_THREADS))),
    ]


class _Process:
    """A running program whose stderr is read all the time, so that it never blocks."""

    def __init__(self, words: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                creationflags=creation_flags(), start_new_session=True,
            )
        except OSError as error:
            raise PropagationError(
                f"{words[0]} cannot be started: {error.strerror or error}."
            ) from error
        _live.add(self._process)
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL)
        self._drain = threading.Thread(target=self._read_stderr, daemon=True)
        self._drain.start()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._tail.append(line.decode("utf-8", "replace").rstrip())

    @property
    def stdin(self) -> IO[bytes]:
        """The pipe for requests."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """The pipe of answers."""
        assert self._process.stdout is not None
        return self._process.stdout

    def read_into(self, array: NDArray) -> None:
        """Fill an array from the answers; raise if they end before it is full."""
        view = array.reshape(-1).view(np.uint8).data
        count = 0
        while count < len(view):
            got = self.stdout.readinto(view[count:])  # pyright: ignore[reportAttributeAccessIssue]
            if not got:
                raise _Lost(f"its answer ended after {count} of {len(view)} bytes")
            count += got

    def finish(self) -> int:
        """Ask it to end, and return its exit code."""
        self.stdin.write(b"STOP")
        self.stdin.close()
        if surplus := self.stdout.read():
            raise _Lost(f"it answered {len(surplus)} bytes too many")
        return self._process.wait()

    def end(self) -> str:
        """Kill it, and return how it ended, with the last lines of its stderr."""
        # If it closed its pipes, it is about to end, with an exit code that says why.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(POLL)
        self._process.kill()
        code = self._process.wait()
        _live.discard(self._process)
        self._drain.join(CLOSING_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        said = " / ".join(line for line in self._tail if line)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}; it said: {said}" if said else f"{how}, without a word"


class PatchSynthesizer:
    """Paints frames in the style of a keyframe, by one process that starts at the first frame."""

    def __init__(
        self, program: Path, style: Image, options: SynthesisOptions, *,
        check: Callable[[], None] = never_stop,
    ) -> None:
        self._words, self._style, self._check = build_command(program, options), style, check
        self._process: _Process | None = None
        self._closed = False
        self._pipes = ThreadPoolExecutor(1, thread_name_prefix="fresco-synthesis")

    def __enter__(self) -> PatchSynthesizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._process and error is None:
                self._close(self._process)
        finally:
            self._closed = True
            self._drop()
            self._pipes.shutdown()
            self._drop()  # one that was being started meanwhile

    def frame(
        self, guides: Sequence[Guide], flow: Map | None = None, track: Map | None = None, *,
        restart: bool = False,
    ) -> tuple[Image, Map]:
        """Paint a frame [H, W, C]; also return the distance of every patch [H, W].

        Args:
            guides: the same guides in the same order for every frame; only their targets change.
            flow: [H, W, 2] pixels, x then y: where every pixel was in the frame before.
            track: [H, W, 2] pixels, x then y: where every pixel lies in the keyframe.
            restart: forget the frame before.
        """
        reason = ""
        for _ in range(ATTEMPTS):
            begin = restart or self._process is None
            work = self._pipes.submit(self._exchange, guides, flow, track, begin)
            try:
                return _await_answer(work, self._check)
            except (_Lost, OSError) as error:
                reason = f"{error} ({self._drop()})"
                log.warning("%s was lost at a frame: %s.", self._words[0], reason)
            except BaseException:
                self._drop()
                raise
        raise PropagationError(
            f"{self._words[0]} was lost {ATTEMPTS} times at the same frame: {reason}. Start again, "
            "with fewer propagation.workers or a lower sampling.resolution if memory ran out; "
            "propagation.method flow does without this program."
        )

    def _drop(self) -> str:
        """Kill the process and return how it ended; the next frame starts another."""
        process, self._process = self._process, None
        return process.end() if process else "it could not be started"

    def _exchange(
        self, guides: Sequence[Guide], flow: Map | None, track: Map | None, restart: bool
    ) -> tuple[Image, Map]:
        if self._process is None:
            self._process = _Process(self._words)
            if self._closed:
                raise _Lost("the synthesizer was closed meanwhile")
            for part in pack_setup(self._style, guides):
                self._process.stdin.write(part)
        process = self._process
        for part in pack_frame(guides, None if restart else flow, track, restart):
            process.stdin.write(part)
        process.stdin.flush()
        tag = np.empty(4, np.uint8)
        process.read_into(tag)
        if tag.tobytes() != b"DONE":
            raise _Lost(f"it answered {tag.tobytes()!r} where DONE was due")
        height, width = guides[0].target.shape[:2]
        image = np.empty((height, width, *self._style.shape[2:]), np.uint8)
        error = np.empty((height, width), np.dtype("<f4"))
        process.read_into(image)
        process.read_into(error)
        if not np.isfinite(error).all() or error.min() < 0:
            raise _Lost("its error map holds values that are not distances")
        return image, error.astype(np.float32, copy=False)

    def _close(self, process: _Process) -> None:
        """Let the process end by itself, and check its exit code."""
        future = self._pipes.submit(process.finish)
        try:
            code = future.result(CLOSING_SECONDS)
        except NotYet:
            return  # all frames are there and were checked; leaving kills it
        except (_Lost, OSError) as error:
            self._process = None
            raise PropagationError(
                f"{self._words[0]} ended badly: {error} ({process.end()}). Start again."
            ) from error
        if code:
            self._process = None
            raise PropagationError(
                f"{self._words[0]} ended badly ({process.end()}). Start again."
            )


def _await_answer(
    future: Future[tuple[Image, Map]], check: Callable[[], None]
) -> tuple[Image, Map]:
    while not wait([future], POLL).done:
        check()
    return future.result()


def _view_bytes(array: NDArray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _count_channels(image: NDArray) -> int:
    return image.shape[2] if image.ndim == 3 else 1


def pack_setup(style: Image, guides: Sequence[Guide]) -> Iterator[bytes | memoryview]:
    """Yield the parts of the message that is sent once, at the start."""
    height, width = style.shape[:2]
    yield b"EBSQ" + struct.pack(
        "<4If", PROTOCOL, width, height, _count_channels(style), DEFAULT_WEIGHT
    )
    yield _view_bytes(style)
    yield struct.pack("<I", len(guides))
    for guide in guides:
        if guide.source.shape[:2] != (height, width):
            raise ValueError(f"the source of {guide.name} is not of the style's size")
        yield struct.pack("<If", _count_channels(guide.source), guide.weight)
        yield _view_bytes(guide.source)
    target = guides[0].target
    yield struct.pack("<2I", target.shape[1], target.shape[0])


def pack_frame(
    guides: Sequence[Guide], flow: Map | None, track: Map | None, restart: bool
) -> Iterator[bytes | memoryview]:
    """Yield the parts of the message that is sent for a frame."""
    given = ((flow, WITH_FLOW, "flow"), (track, WITH_TRACK, "track"))
    flags = sum(flag for steps, flag, _ in given if steps is not None) | (RESTART * restart)
    yield b"FRAM" + struct.pack("<I", flags)
    size = guides[0].target.shape[:2]
    for guide in guides:
        wanted = (*size, *guide.source.shape[2:])
        if guide.target.shape != wanted or guide.target.dtype != np.uint8:
            raise ValueError(f"the target of {guide.name} is {guide.target.shape}, not {wanted}")
        yield _view_bytes(guide.target)
    for steps, _, name in given:
        if steps is None:
            continue
        if steps.shape != (*size, 2):
            raise ValueError(f"the {name} is {steps.shape}, not {(*size, 2)}")
        yield _view_bytes(steps.astype("<f4", copy=False))
