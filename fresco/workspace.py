"""The folder of one run: names, formats and checks of its files.

Every file is written whole or not at all (`writing`). It is in a folder whose name has a digest of
all inputs that it was made from (`digests`). So a run that was killed resumes where it was, and
after a change of settings old images are not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
import shutil
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fresco.errors import WorkspaceError
from fresco.writing import (
    clear_left,
    explain,
    find_part,
    is_part,
    list_hidden,
    lock_file,
    write_atomically,
    write_bytes,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

log = logging.getLogger("fresco")

_NAME_DIGITS = 16
_MOST_KEPT, _SHARE_KEPT = 4 << 30, 4
"""Bytes that may be kept for the length of a run at most, and as a share of the free disk: one in
so many."""
_ARTEFACT = re.compile(r"[a-z]+\d*-[0-9a-f]{16}(?:\.[a-z0-9]+)?")
"""Names of artefacts in the folder of a workspace; what else lies there may be somebody's own."""
_FLOW = "flow"
"""Folder of the flow between frames in a workspace."""
_CUT_NAME = re.compile(r"(?:scan\d*|sound)-[0-9a-f]*\.")
"""Part of the name of an artefact that remains in the name of its unfinished file."""
SEEN = "seen"
"""File of a workspace that says what its source was like at the last look."""
_LOCK = "lock"
_OTHER_NAMES = frozenset({_FLOW, SEEN, _LOCK, "plan.json", "random-seed.json"})
"""What else this program keeps in the folder of a workspace."""
_LARGEST_JSON = 1 << 28
"""Bytes; the scores of a day of video take a tenth of it."""
_DIGEST = "sha256"
"""Name of the digest in a file of tensors."""
_ARCHIVE_ERRORS = (
    OSError, zipfile.BadZipFile, zlib.error, struct.error, ValueError, RuntimeError, EOFError,
)
"""Errors of reading a damaged .npz."""
_PNG_MARK = b"\x89PNG\r\n\x1a\n"
_PNG_FILTER_UP = 2
"""A row is kept as its difference from the one above."""


def write_arrays(path: Path, arrays: Mapping[str, NDArray]) -> None:
    """Write arrays as .npz, whole or not at all, for files that only this run needs."""
    import numpy as np

    # In memory first: an archive whose writing fails half-way would be ended later, by the garbage
    # collector, in a file that is gone.
    archive = io.BytesIO()
    np.savez(archive, **arrays)  # pyright: ignore[reportArgumentType] - names are not its options
    with write_atomically(path, lasting=False) as temporary:
        # Not `getbuffer()`: where the write fails, a view that the traceback holds makes the
        # garbage collector of Python 3.12.1 crash (gh-111049).
        temporary.write_bytes(archive.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_bytes(path, json.dumps(value, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> Any | None:
    """Read JSON; None if the file is absent or damaged."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_JSON:
            return None  # a pipe would never end, so only files are read
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write [H, W, 3] RGB as PNG, whole or not at all."""
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise WorkspaceError(f"{path} cannot be encoded as PNG; its shape is {image.shape}.")
    write_bytes(path, _encode_png(image))


def _encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode [H, W, 3] RGB as PNG: differences of rows, runs and Huffman codes.

    In half the time that OpenCV takes for the same, at 1.15 times the size.
    """
    import numpy as np

    height, width = image.shape[:2]
    values = np.ascontiguousarray(image).reshape(height, -1)
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = _PNG_FILTER_UP
    rows[0, 1:] = values[0]
    np.subtract(values[1:], values[:-1], out=rows[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    data = packer.compress(rows.data) + packer.flush()
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    chunks = (b"IHDR", header), (b"IDAT", data), (b"IEND", b"")
    return _PNG_MARK + b"".join(
        struct.pack(">I", len(content)) + name + content
        + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))
        for name, content in chunks
    )


def read_image(path: Path) -> NDArray[np.uint8] | None:
    """Read an image as [H, W, 3] RGB; None if it is absent or damaged."""
    import cv2
    import numpy as np

    try:
        data = np.fromfile(path, np.uint8)
    except OSError:
        return None
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:  # such as more pixels than it takes
        image = None
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors with a digest, whole or not at all."""
    from safetensors.torch import save

    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    _, content = _digest_tensors(save(plain))
    write_bytes(path, save(plain, {_DIGEST: content}))


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """Read safetensors; None if the file is absent or damaged.

    Files of version 0.1 hold no digest, and are taken as they are.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
        stored, content = _digest_tensors(data)
        return load(data) if stored in (None, content) else None
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError, RecursionError):
        return None


reading_arrays = threading.Lock()
"""Held while numpy reads a file: it parses the head by `ast`, and CPython 3.11's parser raises
SystemError where two threads are in it at once."""


def read_arrays(path: Path) -> dict[str, NDArray] | None:
    """Read the arrays of an .npz and check them; None if it is absent or damaged."""
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if archive.zip.testzip() is not None:  # before a damaged size is used
                return None
            with reading_arrays:
                return {name: archive[name] for name in archive.files}
    except _ARCHIVE_ERRORS:
        return None


def _digest_tensors(data: bytes) -> tuple[str | None, str]:
    """The digest in a file of tensors, if it has one, and the digest of its content."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    facts = header.pop("__metadata__", {})
    sha = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    sha.update(memoryview(data)[end:])
    return facts.get(_DIGEST), sha.hexdigest()


def drop_damaged(folder: Path, size: tuple[int, int] | None = None) -> None:
    """Remove images and arrays below a folder that cannot be read, so that they are made again.

    Args:
        size: width and height of the images in the folder itself; None: any.
    """
    for path in sorted(folder.rglob("*")):
        whole = _CHECKS.get(path.suffix)
        wanted = size if path.parent == folder else None
        if whole is None or not path.is_file() or whole(path, wanted):
            continue
        log.warning("%s is damaged and is made anew.", path)
        try:
            path.unlink()
        except OSError as error:
            raise explain(error, path) from error


def is_whole_image(path: Path, size: tuple[int, int] | None) -> bool:
    """Whether the parts of a PNG have correct checksums; nothing is decoded.

    Args:
        size: width and height that it must have; None: any.
    """
    try:
        data = memoryview(path.read_bytes())
    except OSError:
        return False
    if data[:8] != _PNG_MARK or data[12:16] != b"IHDR":
        return False
    if size is not None and size != struct.unpack(">II", data[16:24]):
        return False
    place, kind = 8, b""
    while kind != b"IEND":
        head = data[place:place + 8]
        if len(head) < 8:
            return False
        kind, end = bytes(head[4:]), place + 8 + int.from_bytes(head[:4], "big")
        if zlib.crc32(data[place + 4:end]) != int.from_bytes(data[end:end + 4], "big"):
            return False
        place = end + 4
    return True


def _is_whole_archive(path: Path, _: object) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except _ARCHIVE_ERRORS:
        return False


_CHECKS: Mapping[str, Callable[[Path, tuple[int, int] | None], bool]] = {
    ".png": is_whole_image, ".npz": _is_whole_archive,
}
"""Whether a file of a kind is whole, by its suffix."""


class Workspace:
    """The folder of one run; one process at a time holds it."""

    LOCK = _LOCK
    """Name of the file in it that says whether it is held."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock_file: IO[bytes] | None = None

    def __enter__(self) -> Workspace:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.root / self.LOCK).open("a+b")
        except OSError as error:
            raise explain(error, self.root) from error
        try:
            # The system releases the lock when the process ends, for any reason.
            lock_file(self._lock_file)
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

    def list_artefacts(self) -> list[Path]:
        """List the files and folders that runs have made here, and nothing else."""
        return [
            path for path in self.root.iterdir()
            if _ARTEFACT.fullmatch(path.name) or path.name == _FLOW
        ]

    def tidy(self) -> None:
        """Remove what killed runs have left half written, and links that no run has made.

        To be called by who holds the folder.
        """
        for place in self.list_artefacts():
            for path in place.rglob("*") if place.is_dir() else ():
                if path.is_symlink() or (is_part(path) and path.is_file()):
                    with contextlib.suppress(OSError):
                        path.unlink()
        alone = all(
            _ARTEFACT.fullmatch(path.name) or path.name in _OTHER_NAMES or is_part(path)
            for path in self.root.iterdir()
        )
        for path in list_hidden(self.root):
            found = find_part(path)
            # The user may have chosen a folder that has other files, too.
            if found and (alone or _CUT_NAME.fullmatch(found["stem"] or "")):
                clear_left(path, found["tag"])

    def name(self, kind: str, cache_key: str) -> str:
        """Name of the folder for files of one kind that were made from inputs with this digest."""
        return f"{kind}-{cache_key[:_NAME_DIGITS]}"

    def folder(
        self, kind: str, cache_key: str, former: Callable[[], str | None] = lambda: None
    ) -> Path:
        """Make the folder for files of one kind that were made from inputs with this digest.

        Args:
            former: returns the digest as an earlier version computed it; that folder is used if it
                exists. It is called only if there may be one.
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
        """Path of a single file that was made from inputs with this digest."""
        return self.root / f"{kind}-{cache_key[:_NAME_DIGITS]}{suffix}"


def has_room(folder: Path, size: int) -> bool:
    """Whether the disk has space for this number of temporary bytes, besides the run's other files.
    """
    free = find_free(folder)
    return free is not None and size <= min(_MOST_KEPT, free // _SHARE_KEPT)


def find_free(folder: Path) -> int | None:
    """Number of free bytes where a folder is or will be; None if the system does not say."""
    try:
        there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        return shutil.disk_usage(there).free
    except OSError:
        return None


def frame_name(frame: int) -> str:
    """File name of a frame's image, by its number in the source."""
    return f"{frame:06d}.png"
