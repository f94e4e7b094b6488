"""What a run reads stays as it was when the run began, or the run ends and keeps nothing of it.

A source that is replaced under a run gives frames of two videos under the digest of the first. So
it is looked at whenever a stage ends, and what was made since the last good look is dropped.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

from fresco.errors import Cancelled, VideoError
from fresco.video.folder import find_images
from fresco.workspace import digest_content, digest_source, is_part

Look = tuple[tuple[str, int, int, int, int], ...]
"""Names of files with all that changes when somebody writes or replaces them."""

_ARTEFACT = re.compile(r"[a-z]+\d*-[0-9a-f]{16}(?:\.[a-z0-9]+)?")
"""Names that a workspace gives; what else lies in its folder is somebody's own."""
_FLOW = "flow"
"""Folder of the flow between frames."""
_SHARE = 20
"""A look between two ends of stages may take one part in so many of a run's time."""
_OFTEN = 1.0
"""Seconds between two such looks at least."""


def look_at(path: Path) -> Look:
    """What tells whether a file, or the images of a folder, may have been written or replaced."""
    files = find_images(path)[0] if path.is_dir() else [path]
    states = [(file.name, file.stat()) for file in files]
    return tuple(
        (name, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        for name, state in states
    )


class Source:
    """A file, or a folder of images, that must not change while it is read."""

    def __init__(self, path: Path) -> None:
        """To be made before anything of it is read."""
        self.path = path
        self._look = self._see()
        self._content: str | None = None

    def read_content(self, *, once: bool = False) -> str:
        """Digest all of it, once what else is read at the beginning was read.

        Args:
            once: nobody will ask for it again, so that it need not be remembered.
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
        """Raise VideoError if it is not what it was. Only touched or copied anew, it is."""
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
    return VideoError(f"{path} cannot be read ({error.strerror or error}); check the file.")


class SourceWatch:
    """Looks at the source of a run, and knows what was made of it since it was last seen whole."""

    def __init__(self, source: Source, root: Path) -> None:
        """
        Args:
            root: folder of the workspace, held by this run.
        """
        self._source, self._root = source, root
        self._seen = _list_artefacts(root)
        self._change: VideoError | None = None
        self._next = time.monotonic() + _OFTEN

    def check(self) -> None:
        """Raise VideoError if the source has changed; once changed, it stays so."""
        start = time.monotonic()
        if self._change is None:
            made = _list_artefacts(self._root)  # before the look: what comes after is not known
            try:
                self._source.check()
            except VideoError as error:
                self._change = error
            else:
                self._seen = made
        if self._change is not None:
            raise self._change
        end = time.monotonic()
        self._next = end + max(_OFTEN, (end - start) * _SHARE)

    def glance(self) -> None:
        """`check`, unless the last one was a moment ago."""
        if time.monotonic() >= self._next:
            self.check()

    @contextlib.contextmanager
    def dropping(self) -> Iterator[None]:
        """Within: a run. Whatever ends it early, nothing stays of a source that has changed.

        Such a source is the error then, whatever came of reading it.
        """
        try:
            yield
            self.check()
        except BaseException as error:
            try:
                self.check()
            except VideoError as change:
                self._drop()
                if change is not error and _is_caused(error):
                    raise change from error
            raise

    def _drop(self) -> None:
        for name, state in _list_artefacts(self._root).items():
            if self._seen.get(name) != state:
                with contextlib.suppress(OSError):
                    (self._root / name).unlink()


def _is_caused(error: BaseException) -> bool:
    """Whether a changed source may be behind an error; nobody stops a run because of one."""
    return isinstance(error, Exception) and not isinstance(error, Cancelled)


def _list_artefacts(root: Path) -> dict[str, tuple[int, int, int]]:
    """The files that runs have made in a workspace, each with what changes when it is replaced."""
    found: dict[str, tuple[int, int, int]] = {}
    for place in root.iterdir():
        if not (_ARTEFACT.fullmatch(place.name) or place.name == _FLOW or is_part(place)):
            continue
        for path in place.rglob("*") if place.is_dir() else [place]:
            with contextlib.suppress(OSError):  # gone since it was listed
                state = path.stat()
                if not path.is_dir():
                    found[str(path.relative_to(root))] = (
                        state.st_ino, state.st_size, state.st_mtime_ns
                    )
    return found
