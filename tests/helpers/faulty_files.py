"""Files that fail at a chosen operation: errors of the disk, short writes, power cuts, signals.

An audit hook sees files opened, renamed and removed, and folders made, whoever asks for it in
Python; writes go through a file of ours, those of FFmpeg too; `os.fsync` is replaced. Operations
below the folder watched are counted, and one of them is struck.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import pathlib
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import av

CUT_EXIT = 77
"""Exit code of a process that lost its power."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
OPEN, WRITE, FSYNC, RENAME, REMOVE, MKDIR, RMDIR = (
    "open", "write", "fsync", "rename", "remove", "mkdir", "rmdir"
)
ALL = frozenset({OPEN, WRITE, FSYNC, RENAME, REMOVE, MKDIR, RMDIR})
GROWS = frozenset({OPEN, WRITE, FSYNC, RENAME, MKDIR})
"""What needs room on a disk."""


class Fault(Enum):
    """What happens at the operation."""

    EIO = "an error of the disk, once"
    ENOSPC = "the disk is full: half of the data is written, and from then on nothing"
    EFBIG = "a file is as large as it may be"
    SHORT = "a write takes half of its data, and says so"
    CUT = "the power is cut: what was not waited for by fsync is lost"
    SIGINT = "Ctrl-C"
    SIGTERM = "a kind signal"
    SIGKILL = "kill -9"

    @property
    def kinds(self) -> frozenset[str]:
        """Operations at which it can happen."""
        if self in (Fault.SHORT, Fault.EFBIG):
            return frozenset({WRITE})
        return GROWS if self is Fault.ENOSPC else ALL


DISK_FAULTS = (Fault.EIO, Fault.ENOSPC, Fault.EFBIG, Fault.SHORT)
SIGNALS = (Fault.SIGINT, Fault.SIGTERM, Fault.SIGKILL)


class PowerCut(BaseException):
    """Nothing runs any more; nobody catches it."""


@dataclass
class FaultyFiles:
    """Within: the operation `at` of those that the fault can strike, counted from 0, is struck."""

    root: Path
    """Only what lies below it is watched."""
    fault: Fault = Fault.EIO
    at: int = -1
    """-1: none; the operations are counted only."""
    leave: bool = False
    """Whether a power cut ends the process; else `PowerCut` is raised."""
    kept: float = 1.0
    """Share of the latest changes of folders that a power cut leaves."""
    done: list[str] = field(default_factory=list)
    """The operations seen, each with the name of its file."""
    struck: str = ""
    """The one that was struck."""
    dead: bool = False
    """Whether the power was cut."""

    def __post_init__(self) -> None:
        self.root = self.root.resolve()
        self._disk = _Disk(self.root, self.kept)
        self._lock = threading.RLock()
        self._left: list[io.FileIO] = []
        self._off = True

    def __enter__(self) -> FaultyFiles:
        assert _watching is None, "one at a time"
        _set_watching(self)
        self._off = False
        return self

    def __exit__(self, *_: object) -> None:
        self._off = True
        _set_watching(None)
        for raw in self._left:
            raw.close()

    def watches(self, path: object) -> bool:
        """Whether operations on this path count."""
        if self._off or isinstance(path, int):
            return False
        try:
            return Path(os.path.abspath(os.fsdecode(path))).is_relative_to(self.root)  # noqa: PTH100
        except TypeError:
            return False

    def meet(self, kind: str, path: object, size: int = 0) -> int:
        """An operation is about to happen; bytes to be written, where it is a write."""
        with self._lock:
            if self.dead:
                raise PowerCut
            if self._off or kind not in self.fault.kinds:
                return size
            number = len(self.done)
            self.done.append(f"{kind} {Path(os.fsdecode(path)).name}")
            if number == self.at:
                self.struck = self.done[-1]
                return self._strike(kind, path, size)
            if self.struck and self.fault in (Fault.ENOSPC, Fault.EFBIG):
                self._fail(path)
            return size

    def _strike(self, kind: str, path: object, size: int) -> int:
        if self.fault is Fault.CUT:
            self._cut()
        if self.fault in SIGNALS:
            os.kill(os.getpid(), getattr(signal, self.fault.name))
            return size
        if kind == WRITE and size > 1 and self.fault in (Fault.SHORT, Fault.ENOSPC):
            return size // 2
        if self.fault is not Fault.SHORT:
            self._fail(path)
        return size

    def _fail(self, path: object) -> None:
        number = getattr(errno, self.fault.name)
        raise OSError(number, os.strerror(number), os.fsdecode(path))

    def _cut(self) -> None:
        self.dead = True
        with self.paused():
            self._disk.lose()
        if self.leave:
            os._exit(CUT_EXIT)
        raise PowerCut

    def close_later(self, raw: io.FileIO) -> None:
        """A file that nobody closes: FFmpeg does not, and after a power cut nothing is done."""
        self._left.append(raw)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within: nothing is watched."""
        before, self._off = self._off, True
        try:
            yield
        finally:
            self._off = before

    def note(self, kind: str, *arguments: Any) -> None:
        """Tell the model of the disk."""
        if self.fault is Fault.CUT and not self.dead:
            with self._lock, self.paused():
                getattr(self._disk, kind)(*arguments)


class _Disk:
    """What of the files below a folder would be there after a power cut.

    The content of a file is what it was at its last fsync. Changes of folders reach the disk in
    their order, but perhaps not the latest ones.
    """

    def __init__(self, root: Path, kept: float) -> None:
        self._root, self._kept = root, kept
        self._lasting: dict[int, bytes] = {}
        self._written: set[int] = set()
        self._undo: list[Callable[[], None]] = []

    def open(self, path: Path, flags: int) -> None:
        """A file is opened for writing."""
        if path.is_file():
            number = path.stat().st_ino
            if number not in self._written:
                self._written.add(number)
                self._lasting[number] = path.read_bytes()
        elif flags & os.O_CREAT:
            self._undo.append(lambda: path.unlink(missing_ok=True))

    def made(self, number: int) -> None:
        """A file with nothing in it that lasts."""
        self._written.add(number)

    def fsync(self, number: int, content: bytes) -> None:
        """All that was written of a file lasts now."""
        self._lasting[number] = content
        self._written.add(number)

    def rename(self, path: Path, target: Path) -> None:
        """A file or folder gets another name."""
        before = self._content(target) if target.is_file() else None

        def undo() -> None:
            target.replace(path)
            if before is not None:
                target.write_bytes(before)

        self._undo.append(undo)

    def remove(self, path: Path) -> None:
        """A file is removed."""
        if path.is_file() and not path.is_symlink():
            before = self._content(path)
            self._undo.append(lambda: path.write_bytes(before) and None)

    def mkdir(self, path: Path) -> None:
        """A folder is made."""
        if not path.exists():
            self._undo.append(path.rmdir)

    def rmdir(self, path: Path) -> None:
        """A folder is removed."""
        self._undo.append(lambda: path.mkdir(exist_ok=True))

    def _content(self, path: Path) -> bytes:
        number = path.stat().st_ino
        if number in self._written:
            return self._lasting.get(number, b"")
        return path.read_bytes()

    def lose(self) -> None:
        """Bring the folder into the state in which it is found after the cut."""
        for path in self._root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                number = path.stat().st_ino
                if number in self._written:
                    path.write_bytes(self._lasting.get(number, b""))
        lost = self._undo[round(len(self._undo) * self._kept):]
        for undo in reversed(lost):
            with contextlib.suppress(OSError):
                undo()


_watching: FaultyFiles | None = None
_installed = False
_open, _fsync, _av_open = io.open, os.fsync, av.open


def _set_watching(files: FaultyFiles | None) -> None:
    global _watching
    _install()
    _watching = files
    builtins.open = io.open = _open_watched if files else _open  # pyright: ignore
    os.fsync = _fsync_watched if files else _fsync
    av.open = _av_open_watched if files else _av_open
    accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10
    if accessor is not None:
        accessor.open = staticmethod(_open_watched if files else _open)


def _install() -> None:
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit events of files; what is raised here keeps the operation from happening."""
    files = _watching
    if files is None or event not in _EVENTS:
        return
    kind, folder_at = _EVENTS[event]
    if kind == OPEN and not (arguments[2] or 0) & WRITING:
        return
    path = _locate(arguments[0], arguments[folder_at] if folder_at else -1)
    if not files.watches(path):
        return
    files.meet(kind, path)
    if kind == RENAME:
        files.note(kind, Path(path), Path(os.fsdecode(arguments[1])))
    elif kind == OPEN:
        files.note(kind, Path(path), arguments[2])
    else:
        files.note(kind, Path(path))


_EVENTS = {
    "open": (OPEN, 0), "os.rename": (RENAME, 0), "os.remove": (REMOVE, 1), "os.mkdir": (MKDIR, 2),
    "os.rmdir": (RMDIR, 1),
}
"""Audit event -> the operation, and the place of the number of a folder among its arguments."""


def _locate(path: Any, folder: Any) -> Any:
    if isinstance(folder, int) and folder >= 0 and not isinstance(path, int):
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))  # noqa: PTH115, PTH118
    return path


class _Raw(io.FileIO):
    """A file whose writes are counted."""

    def __init__(self, files: FaultyFiles, path: Any, mode: str) -> None:
        super().__init__(path, mode)
        self._files, self._path = files, path
        if files.fault is Fault.CUT:
            files.close_later(self)
        if os.fstat(self.fileno()).st_size == 0:
            files.note("made", os.fstat(self.fileno()).st_ino)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._files.dead:
            return len(view)  # what is still held in memory is written nowhere
        size = self._files.meet(WRITE, self._path, len(view))
        return super().write(view[:size]) or 0


def _open_watched(
    file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
    errors: str | None = None, newline: str | None = None, *rest: Any, **named: Any,
) -> Any:
    files = _watching
    if files is None or not set(mode) & set("wax+") or not files.watches(file):
        return _open(file, mode, buffering, encoding, errors, newline, *rest, **named)
    raw = _Raw(files, file, mode.replace("t", ""))
    whole: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    if "b" in mode:
        return whole
    return io.TextIOWrapper(whole, encoding, errors, newline)


def _fsync_watched(file: Any) -> None:
    files = _watching
    number = file if isinstance(file, int) else file.fileno()
    state = os.fstat(number)
    path = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
    if files is None or not files.watches(path) or not stat.S_ISREG(state.st_mode):
        _fsync(number)
        return
    # To wait for a disk that is never cut would cost time only.
    files.meet(FSYNC, path)
    with files.paused():
        files.note("fsync", state.st_ino, Path(path).read_bytes())


class _Through:
    """A file for FFmpeg: all that it writes is counted, and nothing of it is held back."""

    def __init__(self, files: FaultyFiles, path: str) -> None:
        self._raw = _Raw(files, path, "w")
        files.close_later(self._raw)
        self.name = path
        self.seek, self.tell, self.read = self._raw.seek, self._raw.tell, self._raw.read

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        with contextlib.suppress(PowerCut):  # FFmpeg hears of it at the next operation
            while view:
                view = view[self._raw.write(view):]
        return len(data)


def _av_open_watched(file: Any, mode: str | None = None, **options: Any) -> Any:
    files = _watching
    if files is None or mode != "w" or not files.watches(file):
        return _av_open(file, mode, **options) if mode else _av_open(file, **options)
    return _av_open(_Through(files, os.fspath(file)), mode, **options)


def choose_count(usual: int) -> int | None:
    """How many cases of a long list are tried: as FRESCO_FAULTS says, where None is all."""
    wanted = os.environ.get("FRESCO_FAULTS", "")
    return None if wanted == "all" else int(wanted or usual)


def count(root: Path, fault: Fault, act: Callable[[], object]) -> list[str]:
    """The operations of an undisturbed run that a fault can strike."""
    with FaultyFiles(root, fault) as files:
        act()
    return files.done

