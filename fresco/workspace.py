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
from collections.abc import Iterator, Mapping
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

    def folder(self, kind: str, cache_key: str) -> Path:
        """The folder of artefacts of one kind made from inputs with that digest."""
        path = self.root / f"{kind}-{cache_key[:_NAME_DIGITS]}"
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, path) from error
        return path

    def file(self, kind: str, cache_key: str, suffix: str) -> Path:
        """The file of one artefact made from inputs with that digest."""
        return self.root / f"{kind}-{cache_key[:_NAME_DIGITS]}{suffix}"


def frame_name(frame: int) -> str:
    """File name of a frame's image, by its number in the source."""
    return f"{frame:06d}.png"
