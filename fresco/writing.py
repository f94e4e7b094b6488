"""Write files whole or not at all.

A file is written under a hidden name beside its own (a part), and then renamed. The process that
writes a part holds a lock on it, so parts of killed runs can be recognised.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fresco.errors import WorkspaceError

_LONGEST_SUFFIX = 16
"""Most letters of an ending that a part keeps."""
_PART = re.compile(
    r"\.(?P<stem>.+\.)?(?P<tag>[0-9a-f]{8}|[0-9a-f]+\.part)(?:\.[^.]+)?", re.DOTALL
)
_LEFT = 10.0
"""Seconds after which a file of `write_atomically` counts as left by a killed process."""


def explain(error: OSError, path: Path) -> WorkspaceError:
    """Make a sentence for an error of the file system."""
    reasons = {
        errno.ENOSPC: "the disk is full. Free some space and start again; what is done is kept",
        errno.EDQUOT: "the quota is used up. Free some space and start again",
        errno.EROFS: "the file system is read-only. Choose another folder",
        errno.EACCES: "there is no permission to write there. Choose another folder",
        errno.EPERM: "there is no permission to write there. Choose another folder",
        errno.ENOTDIR: "a part of the path is a file. Choose another folder",
        errno.EEXIST: "a file of that name is in the way. Choose another folder",
        errno.EISDIR: "a folder of that name is in the way. Choose another name",
        errno.EFBIG: "the file would be larger than the file system, or a limit of this user, "
        "allows. Choose another place, or make less",
        errno.ENAMETOOLONG: "the name is too long. Choose a shorter one",
    }
    reason = reasons.get(error.errno or 0, f"{error.strerror or error}. Choose another folder")
    return WorkspaceError(f"{path} cannot be written: {reason}.")


def name_part(path: Path, tag: str) -> Path:
    """Make a hidden path beside a file, for the time that it is written.

    Its name is no longer than the file's own, so that whatever may have that name may be written;
    only names shorter than the tag become longer. The suffix stays last: writers of images and
    containers choose the format by it.
    """
    suffix = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ""

    def fits(name: str) -> bool:
        # File systems count bytes of UTF-8, or units of UTF-16.
        return all(
            len(name.encode(code, "surrogatepass")) <= len(path.name.encode(code, "surrogatepass"))
            for code in ("utf-8", "utf-16-le")
        )

    for length in range(len(path.stem), 0, -1):
        name = f".{path.stem[:length]}.{tag}{suffix}"
        if fits(name):
            return path.with_name(name)
    return path.with_name(f".{tag}{suffix}")


def find_part(path: Path) -> re.Match[str] | None:
    """Split a name of `name_part` into `stem` and `tag`; None for another name."""
    return _PART.fullmatch(path.name)


def is_part(path: Path) -> bool:
    """Whether a name is one of `name_part`."""
    return find_part(path) is not None


def claim_part(path: Path) -> IO[bytes] | None:
    """Make a part, and hold it until the returned file is closed or the process ends.

    So no other run takes it for one that a killed run has left. None on systems that cannot remove
    a file that is open.
    """
    if os.name == "nt":
        return None
    while True:
        file = path.open("ab")
        try:
            lock_file(file)
            if _is_at(file, path):
                return file
        except BlockingIOError:
            file.close()
            raise
        except OSError:
            return file  # this file system knows no locks
        file.close()  # another run removed it in between


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def is_claimed(path: Path) -> bool | None:
    """Whether a running process writes this part; None if that is not known."""
    if os.name == "nt":
        return False
    try:
        with path.open("r+b") as file:
            lock_file(file)
    except BlockingIOError:
        return True
    except OSError:
        return None if path.exists() else False
    return False


def clear_parts(*targets: Path) -> None:
    """Remove parts of these files that killed runs have left.

    A part that a running process writes stays, and so does every file that is not the part of one
    of these: what merely looks like it may be somebody's own.
    """
    written = [follow_link(target) for target in targets]
    for folder in {target.parent for target in written}:
        near = [target for target in written if target.parent == folder]
        for path in list_hidden(folder):
            found = find_part(path)
            if found and any(name_part(each, found["tag"]) == path for each in near):
                clear_left(path, found["tag"])


def list_hidden(folder: Path) -> list[Path]:
    """List the files of a folder whose names begin with a dot; empty if it cannot be read."""
    try:
        return [path for path in folder.iterdir() if path.name.startswith(".")]
    except OSError:
        return []


def clear_left(path: Path, tag: str) -> None:
    """Remove a part, unless a running process writes it or may still do so.

    Args:
        tag: of its name, see `find_part`.
    """
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_file() or is_claimed(path) is not False:
            return
        if tag.endswith(".part") or time.time() - path.stat().st_mtime > _LEFT:
            path.unlink()


def require_names(*paths: Path) -> None:
    """Raise WorkspaceError if the file system does not accept a name as long as one of these."""
    for path in paths:
        try:
            path.lstat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise explain(error, path) from error


def require_files(*paths: Path) -> None:
    """Raise WorkspaceError unless files with these names can be written."""
    require_names(*paths)
    for path in paths:
        if path.is_dir():
            raise explain(IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)), path)


def require_folder(path: Path) -> None:
    """Raise WorkspaceError unless a folder exists or can be made."""
    require_names(path)
    if path.exists() and not path.is_dir():
        raise explain(FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)), path)


def follow_link(path: Path) -> Path:
    """Find where a result is written: the target of a symbolic link, or the path itself."""
    if not path.is_symlink():
        return path
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop, before Python 3.13
        raise WorkspaceError(
            f"{path} is a symbolic link that leads nowhere; remove it or name another result."
        ) from error


def write_through(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def write_atomically(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it on success, remove it on failure.

    Args:
        lasting: it is on the disk before it gets its name, so that a power cut leaves no empty
            file under it; not for what a run needs for itself alone.
    """
    temporary = name_part(path, secrets.token_hex(4))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if lasting:
            write_through(temporary)
        temporary.replace(path)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)


def copy_file(source: Path, target: Path, *, lasting: bool = True) -> None:
    """Copy a file whole or not at all.

    Args:
        lasting: see `write_atomically`.
    """
    with write_atomically(target, lasting=lasting) as temporary:
        shutil.copyfile(source, temporary)


def lock_file(file: IO[bytes]) -> None:
    """Lock an open file until it is closed; OSError if another process has locked it."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
