"""The folder of one run: artefact names, atomic writes, resume.

Every artefact is written under a temporary name and renamed, and lies in a folder whose name holds
a hash of all inputs it was made from. So what exists is whole and belongs to this very run; a run
that was killed goes on where it was, and changed settings never use old images.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import re
import secrets
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fresco.errors import WorkspaceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

log = logging.getLogger("fresco")

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
_PART = re.compile(
    r"\.(?P<stem>.+\.)?(?P<tag>[0-9a-f]{8}|[0-9a-f]+\.part)(?:\.[^.]+)?", re.DOTALL
)
_ARTEFACT = re.compile(r"[a-z]+\d*-[0-9a-f]{16}(?:\.[a-z0-9]+)?")
"""Names of artefacts in the folder of a workspace; what else lies there may be somebody's own."""
_FLOW = "flow"
"""Folder of the flow between frames in a workspace."""
_CUT_NAME = re.compile(r"(?:scan\d*|sound)-[0-9a-f]*\.")
"""What is left of the name of an artefact that is a file in that of its part."""
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
"""What reading a damaged .npz raises."""
_PNG_MARK = b"\x89PNG\r\n\x1a\n"
_PNG_FILTER_UP = 2
"""A row is kept as its difference from the one above."""
_LEFT = 10.0
"""Seconds after which a file of `write_atomically`, which takes a moment, was left by a kill."""


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
        errno.EFBIG: "the file would be larger than the file system, or a limit of this user, "
        "allows. Choose another place, or make less",
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


def claim_part(path: Path) -> IO[bytes] | None:
    """Make a part, and hold it until the file that is given is closed, or the process ends.

    So no other run takes it for one that a killed run has left. None where the system itself
    forbids to remove a file that is open.
    """
    if os.name == "nt":
        return None
    while True:
        file = path.open("ab")
        try:
            _lock(file)
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
    """Whether a running process writes this part; None where that cannot be told."""
    if os.name == "nt":
        return False
    try:
        with path.open("r+b") as file:
            _lock(file)
    except BlockingIOError:
        return True
    except OSError:
        return None if path.exists() else False
    return False


def clear_parts(*targets: Path) -> None:
    """Remove what killed runs have left of writing these files.

    A part that a running process writes stays, and so does every file that is not the part of one
    of these: what merely looks like it may be somebody's own.
    """
    written = [follow_link(target) for target in targets]
    for folder in {target.parent for target in written}:
        near = [target for target in written if target.parent == folder]
        for path in _list_hidden(folder):
            found = _PART.fullmatch(path.name)
            if found and any(name_part(each, found["tag"]) == path for each in near):
                _clear_left(path, found["tag"])


def _list_hidden(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name.startswith(".")]
    except OSError:
        return []


def _clear_left(path: Path, tag: str) -> None:
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_file() or is_claimed(path) is not False:
            return
        if tag.endswith(".part") or time.time() - path.stat().st_mtime > _LEFT:
            path.unlink()


def require_names(*paths: Path) -> None:
    """WorkspaceError where the file system takes no name as long as one of these."""
    for path in paths:
        try:
            path.lstat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise explain(error, path) from error


def require_files(*paths: Path) -> None:
    """WorkspaceError unless files of these names may be written: see `require_names`, and no
    folder is in the way."""
    require_names(*paths)
    for path in paths:
        if path.is_dir():
            raise explain(IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)), path)


def require_folder(path: Path) -> None:
    """WorkspaceError unless a folder of that name is there or may be made."""
    require_names(path)
    if path.exists() and not path.is_dir():
        raise explain(FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)), path)


def follow_link(path: Path) -> Path:
    """Where a result is written: what a symbolic link of that name leads to, else the path."""
    if not path.is_symlink():
        return path
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop, before Python 3.13
        raise WorkspaceError(
            f"{path} is a symbolic link that leads nowhere; remove it or name another result."
        ) from error


def write_through(path: Path) -> None:
    """Wait until what was written of a file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def write_atomically(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """A temporary path in the same folder, renamed to `path` on success, removed on failure.

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


def write_arrays(path: Path, arrays: Mapping[str, NDArray]) -> None:
    """Write arrays as .npz, whole or not at all; for what a run needs for itself alone."""
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
    """Read JSON; None if the file is absent or damaged, so that its stage is done again."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_JSON:
            return None  # a pipe would never end
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write [H, W, 3] RGB as PNG, whole or not at all."""
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise WorkspaceError(f"{path} cannot be encoded as PNG; its shape is {image.shape}.")
    write_bytes(path, _encode_png(image))


def _encode_png(image: NDArray[np.uint8]) -> bytes:
    """[H, W, 3] RGB as PNG: differences of rows, runs and Huffman codes.

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


def read_arrays(path: Path) -> dict[str, NDArray] | None:
    """Read the arrays of an .npz, by their checksums; None if it is absent or damaged."""
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if archive.zip.testzip() is not None:  # before a damaged size is believed
                return None
            return {name: archive[name] for name in archive.files}
    except _ARCHIVE_ERRORS:
        return None


def _digest_tensors(data: bytes) -> tuple[str | None, str]:
    """The digest that a file of tensors holds, if it does, and the one that it should hold."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    facts = header.pop("__metadata__", {})
    sha = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    sha.update(memoryview(data)[end:])
    return facts.get(_DIGEST), sha.hexdigest()


def drop_damaged(folder: Path, size: tuple[int, int] | None = None) -> None:
    """Remove the images and arrays below a folder that cannot be read, so that they are made anew.

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
    """Whether the parts of a PNG have their checksums, without decoding it.

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


def _lock(file: IO[bytes]) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Workspace:
    """The folder of one run. Held by one process at a time."""

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

    def list_artefacts(self) -> list[Path]:
        """The files and folders that runs have made here, and nothing else that lies here."""
        return [
            path for path in self.root.iterdir()
            if _ARTEFACT.fullmatch(path.name) or path.name == _FLOW
        ]

    def tidy(self) -> None:
        """Remove what killed runs have left half written, and links to files that no run has made.

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
        for path in _list_hidden(self.root):
            found = _PART.fullmatch(path.name)
            # Somebody may have chosen the folder in which other things lie, too.
            if found and (alone or _CUT_NAME.fullmatch(found["stem"] or "")):
                _clear_left(path, found["tag"])

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
    free = find_free(folder)
    return free is not None and size <= min(_MOST_KEPT, free // _SHARE_KEPT)


def find_free(folder: Path) -> int | None:
    """Bytes that are free where a folder is, or will be; None where the system does not say."""
    try:
        there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        return shutil.disk_usage(there).free
    except OSError:
        return None


def frame_name(frame: int) -> str:
    """File name of a frame's image, by its number in the source."""
    return f"{frame:06d}.png"
