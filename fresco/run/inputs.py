"""Check that the files a run reads do not change, and end the run if they do.

If a source is replaced during a run, the run reads frames of two videos and stores them under the
digest of the first. So the source is checked at the end of every stage. If it has changed, all that
was made since the last check is deleted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from fresco.digests import digest_content, digest_source
from fresco.errors import Cancelled, VideoError
from fresco.video.folder import find_images
from fresco.workspace import SEEN, Workspace, read_json, write_json

Look = tuple[tuple[str, int, int, int, int], ...]
"""Names of files, with the numbers that change when a file is written or replaced."""

FileState = tuple[int, int, int]
"""Inode number, size and time of change of a file."""
_SHARE = 20
"""Checks during a stage may take this part of a run's time: one in `_SHARE`."""
_OFTEN = 1.0
"""Shortest time in seconds between two such checks."""


def look_at(path: Path) -> Look:
    """Read the state of a file, or of the images of a folder, in which a change would show."""
    files = find_images(path)[0] if path.is_dir() else [path]
    states = [(file.name, file.stat()) for file in files]
    return tuple(
        (name, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        for name, state in states
    )


class Source:
    """A file, or a folder of images, that must not change while it is read."""

    def __init__(self, path: Path) -> None:
        """Take its state; to be created before anything of it is read."""
        self.path = path
        self._look = self._see()
        self._content: str | None = None

    @property
    def look(self) -> Look:
        """Its state at the last check that found no change."""
        return self._look

    def read_content(self, *, once: bool = False) -> str:
        """Digest of its whole content; to be read after everything else that is read first.

        Args:
            once: it is not needed again, so it is not kept.
        """
        try:
            read = digest_content if once else digest_source
            content = self._content = read(self.path)
        except OSError as error:
            raise _explain_unreadable(self.path, error) from error
        if self._see() != self._look:
            raise VideoError(f"{self.path} changed while it was read. Start again.")
        return content

    def check(self) -> None:
        """Raise VideoError if its content has changed; a new date alone does not count."""
        look = self._see()
        if look == self._look:
            return
        try:
            same = self._content is not None and digest_content(self.path) == self._content
        except OSError as error:
            raise _explain_unreadable(self.path, error) from error
        if not same or self._see() != look:
            raise VideoError(
                f"{self.path} has changed since the run began. What was made of it since is "
                "dropped and what was finished before is kept; put the old file back to go on, or "
                "start again with the new one."
            )
        self._look = look

    def _see(self) -> Look:
        try:
            return look_at(self.path)
        except OSError as error:
            raise _explain_unreadable(self.path, error) from error


def _explain_unreadable(path: Path, error: OSError) -> VideoError:
    if isinstance(error, FileNotFoundError):
        return VideoError(f"{path} does not exist; check the path.")
    return VideoError(f"{path} cannot be read ({error.strerror or error}); check the file.")


class SourceWatch:
    """Checks the source of a run, and remembers the files made since the last check."""

    def __init__(self, source: Source, workspace: Workspace) -> None:
        """
        Args:
            workspace: the workspace, locked by this run.
        """
        self._source, self._workspace = source, workspace
        self._drop_unseen()
        self._seen: dict[Path, FileState] = {}
        self._keep(_list_files(workspace))
        self._change: VideoError | None = None
        self._next = time.monotonic() + _OFTEN

    def check(self) -> None:
        """Raise VideoError if the source has changed; once it has, every later call raises."""
        start = time.monotonic()
        made = _list_files(self._workspace)  # before the check, which says nothing of later files
        change = self._find_change()
        if change is not None:
            raise change
        self._keep(made)
        end = time.monotonic()
        self._next = end + max(_OFTEN, (end - start) * _SHARE)

    def glance(self) -> None:
        """Do the same as `check`, but not too often."""
        if time.monotonic() >= self._next:
            self.check()

    @contextlib.contextmanager
    def dropping(self) -> Iterator[None]:
        """Run in this context: if it ends early and its source has changed, remove its new files.

        The error is then that the source has changed, whatever error that led to.
        """
        try:
            yield
            self.check()
        except BaseException as error:
            change = self._find_change()
            if change is not None:
                self._drop()
                if change is not error and _is_caused(error):
                    raise change from error
            raise

    def _find_change(self) -> VideoError | None:
        """Describe how the source has changed; None if it has not. The first change is kept."""
        if self._change is None:
            try:
                self._source.check()
            except VideoError as error:
                self._change = error
        return self._change

    def _keep(self, made: dict[Path, FileState]) -> None:
        """Record, also for a later run, that these files were made from the unchanged source."""
        self._seen = made
        latest = max((time_changed for _, _, time_changed in made.values()), default=0)
        write_json(self._workspace.root / SEEN, [self._source.look, latest])

    def _drop_unseen(self) -> None:
        """Remove what a killed run made after its last check, if the source may have changed.

        It may have been replaced before the run was killed, and put back.
        """
        known = read_json(self._workspace.root / SEEN)
        if not isinstance(known, list) or len(known) != 2 or type(known[1]) is not int:
            return
        if known[0] == [list(file) for file in self._source.look]:
            return
        for path, (_, _, time_changed) in _list_files(self._workspace).items():
            if time_changed > known[1]:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _drop(self) -> None:
        for path, state in _list_files(self._workspace).items():
            if self._seen.get(path) != state:
                with contextlib.suppress(OSError):
                    path.unlink()


def _is_caused(error: BaseException) -> bool:
    """Whether a changed source may have caused an error; it never causes a cancellation."""
    return isinstance(error, Exception) and not isinstance(error, Cancelled)


def _list_files(workspace: Workspace) -> dict[Path, FileState]:
    """List the files that runs have made in a workspace, with their states."""
    found: dict[Path, FileState] = {}
    for place in workspace.list_artefacts():
        for path in place.rglob("*") if place.is_dir() else [place]:
            with contextlib.suppress(OSError):  # deleted since it was listed
                state = path.stat()
                if not path.is_dir():
                    found[path] = state.st_ino, state.st_size, state.st_mtime_ns
    return found
