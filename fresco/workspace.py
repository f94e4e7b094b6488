"""The folder of one run: artefact names, atomic writes, resume.

Every artefact is written under a temporary name and renamed, and lies in a folder whose name holds
a hash of all inputs it was made from. So what exists is whole and belongs to this very run; a run
that was killed goes on where it was, and changed settings never use old images.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fresco.errors import WorkspaceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_HASH_BLOCK = 1 << 20
_NAME_DIGITS = 16
_LONGEST_SUFFIX = 16
_MOST_DIGESTS = 64
State = tuple[tuple[str, int, int], ...]
"""Names of files with their sizes and times of change."""
_digests: dict[tuple[Path, State], str] = {}
"""Digests of sources by path and state."""
_MOST_KEPT, _SHARE_KEPT = 4 << 30, 4
"""Bytes that may be kept for the length of a run at most, and as a share of the free disk: one in
so many."""
_PART = re.compile(r"\.(?:.+\.)?(?:[0-9a-f]{8}|[0-9a-f]+\.part)(?:\.[^.]+)?", re.DOTALL)


def digest(*values: Any) -> str:
    """Hex sha256 over JSON-like values: the identity of a stage's inputs."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_content(path: Path) -> str:
    """Hex sha256 over a file's bytes, or over the names and bytes of a folder's files."""
    sha = hashlib.sha256()
    for item in sorted(path.iterdir()) if path.is_dir() else [path]:
        if item.is_dir():
            continue
        if path.is_dir():
            sha.update(item.name.encode())
        with item.open("rb") as file:
            while block := file.read(_HASH_BLOCK):
                sha.update(block)
    return sha.hexdigest()


def list_state(path: Path) -> State:
    """What tells quickly whether a file, or a folder's files, may have changed."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(file.name, file.stat()) for file in files]
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


def digest_source(path: Path) -> str:
    """`digest_content` of a source, read once as long as size and time of its files stay."""
    state = list_state(path)  # before it is read: a file that changes meanwhile is another one
    content = _digests.get((path.absolute(), state))
    if content is None:
        content = digest_content(path)
        _remember(path, state, content)
    return content


def remember_digest(path: Path, content: str) -> None:
    """Take the digest of a source from who has read all of it already, such as an upload."""
    _remember(path, list_state(path), content)


def _remember(path: Path, state: State, content: str) -> None:
    while len(_digests) >= _MOST_DIGESTS:
        _digests.pop(next(iter(_digests)), None)
    _digests[path.absolute(), state] = content


def explain(error: OSError, path: Path) -> WorkspaceError:
    """A sentence for an error of the file system."""
    reasons = {
        errno.ENOSPC: "the disk is full. Free some space and start again; what is done is kept",
        errno.EDQUOT: "the quota is used up. Free some space and start again",
        errno.EROFS: "the file system is read-only. Choose another folder",
        errno.EACCES: "there is no permission to write there. Choose another folder",
        errno.EPERM: "there is no permission to write there. Choose another folder",
        errno.ENOTDIR: "a part of the path is a file. Choose another folder",
        errno.EEXIST: "a file of that name is in the way. Choose another folder",
        errno.EISDIR: "a folder of that name is in the way. Choose another name",
        errno.ENAMETOOLONG: "the name is too long. Choose a shorter one",
    }
    reason = reasons.get(error.errno or 0, f"{error.strerror or error}. Choose another folder")
    return WorkspaceError(f"{path} cannot be written: {reason}.")


def name_part(path: Path, tag: str) -> Path:
    """A hidden path beside a file, for as long as it is written.

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


def is_part(path: Path) -> bool:
    """Whether a name is one that `name_part` gave."""
    return _PART.fullmatch(path.name) is not None


def require_names(*paths: Path) -> None:
    """WorkspaceError where the file system takes no name as long as one of these."""
    for path in paths:
        try:
            path.lstat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise explain(error, path) from error


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, renamed to `path` on success, removed on failure."""
    temporary = name_part(path, secrets.token_hex(4))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
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


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_bytes(path, json.dumps(value, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> Any | None:
    """Read JSON; None if the file is absent or damaged, so that its stage is done again."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write [H, W, 3] RGB as PNG, whole or not at all."""
    import cv2

    done, data = cv2.imencode(".png", image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 2])
    if not done:
        raise WorkspaceError(f"{path} cannot be encoded as PNG; its shape is {image.shape}.")
    write_bytes(path, data.tobytes())


def read_image(path: Path) -> NDArray[np.uint8] | None:
    """Read an image as [H, W, 3] RGB; None if it is absent or damaged."""
    import cv2
    import numpy as np

    try:
        data = np.fromfile(path, np.uint8)
    except OSError:
        return None
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    return None if image is None else np.ascontiguousarray(image[:, :, ::-1], np.uint8)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all."""
    from safetensors.torch import save

    write_bytes(path, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """Read safetensors; None if the file is absent or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError):
        return None


def _lock(file: IO[bytes]) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Workspace:
    """The folder of one run. Held by one process at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock_file: IO[bytes] | None = None

    def __enter__(self) -> Workspace:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.root / "lock").open("a+b")
        except OSError as error:
            raise explain(error, self.root) from error
        try:
            # The system drops the lock when the process dies, however it dies.
            _lock(self._lock_file)
        except OSError as error:
            self._lock_file.close()
            raise WorkspaceError(
                f"{self.root} is in use by another run. Wait for it, or choose another "
                "workspace."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock_file:
            self._lock_file.close()
            self._lock_file = None

    def name(self, kind: str, cache_key: str) -> str:
        """Name of the folder of artefacts of one kind made from inputs with that digest."""
        return f"{kind}-{cache_key[:_NAME_DIGITS]}"

    def folder(
        self, kind: str, cache_key: str, former: Callable[[], str | None] = lambda: None
    ) -> Path:
        """The folder of artefacts of one kind made from inputs with that digest.

        Args:
            former: the digest as an earlier version computed it, whose folder is used on; asked
                only where it may be there.
        """
        path = self.root / self.name(kind, cache_key)
        if not path.exists() and any(self.root.glob(f"{kind}-*")):
            before = former()
            if before and (old := self.root / self.name(kind, before)).is_dir():
                return old
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, path) from error
        return path

    def file(self, kind: str, cache_key: str, suffix: str) -> Path:
        """The file of one artefact made from inputs with that digest."""
        return self.root / f"{kind}-{cache_key[:_NAME_DIGITS]}{suffix}"


def has_room(folder: Path, size: int) -> bool:
    """Whether so many bytes may lie in a folder for a while, beside what else a run writes."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        return False
    return size <= min(_MOST_KEPT, free // _SHARE_KEPT)


def frame_name(frame: int) -> str:
    """File name of a frame's image, by its number in the source."""
    return f"{frame:06d}.png"
