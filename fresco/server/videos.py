"""Keep uploaded videos, and detect keyframes in a video.

Videos have opaque names, and are checked before they are accepted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.digests import digest, digest_content, remember_digest
from fresco.errors import SettingsError, VideoError
from fresco.planning.keyframes import KeyframePlan
from fresco.progress import Progress
from fresco.run.translate import detect_keyframes
from fresco.server.ids import is_id, make_id
from fresco.server.ports import Limits
from fresco.server.space import require_free
from fresco.settings import FrescoSettings
from fresco.video.color import Colour
from fresco.video.index import VideoInfo
from fresco.video.reader import open_source
from fresco.video.streams import find_video_stream
from fresco.workspace import read_json, write_json
from fresco.writing import explain

FORMATS = (
    "mov", "mp4", "matroska", "webm", "avi", "mpeg", "mpegts", "flv", "asf", "ogg", "gif", "m4v",
    "h264", "hevc", "mpegvideo", "ivf", "mxf", "nut", "dv", "apng",
)
"""Containers that hold their frames themselves; others are lists that name further files."""

SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv",
    ".ogv", ".gif", ".3gp", ".mxf",
})
"""Endings that an uploaded file keeps; its content decides what it is."""

MOST_PIXELS = 8192 * 8192
"""Largest number of pixels of a frame; a small file can claim a size that fills the memory."""

_FACTS = "clip.json"
_LARGEST = 10**9
"""Largest value of any number in the facts of a video."""
_BLOCK = 1 << 20
_MEGABYTE = 1_000_000
_NAME_LENGTH = 120
_QUALITY = 85
"""Quality of small JPEGs."""
_detecting = threading.Lock()
"""Detect in one video at a time, because a pass over it uses all cores."""


class Readable(Protocol):
    """A stream of bytes, such as an open file."""

    def read(self, size: int = -1, /) -> bytes:
        """Read some of the next bytes; empty at the end."""
        ...


class UnknownVideoError(SettingsError):
    """There is no video with this id."""


class TooLargeError(SettingsError):
    """An upload is above the limit of this server."""


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """An uploaded video that was read from its first frame to its last."""

    id: str
    """Opaque id, by which clients name it."""
    name: str
    """Name of the uploaded file; it is only shown, never used as a path."""
    path: Path
    """Path of the stored file."""
    info: VideoInfo
    """Facts about the video."""
    size: int
    """Size of the file in bytes."""


class VideoStore:
    """Stores uploaded videos, each in a folder of its own; the same file is stored only once.

    Args:
        root: folder of these folders; it contains nothing else.
        limits: called at each upload, so that a changed setting takes effect at once.
    """

    def __init__(self, root: Path, limits: Callable[[], Limits]) -> None:
        self._root = root
        self._limits = limits
        self._lock = threading.RLock()
        self._added: Counter[str] = Counter()
        """How often each video that is new in this process was added, minus `take_back` calls."""

    def add(self, data: Readable | Path, name: str) -> StoredVideo:
        """Store a video. It is read completely before it is accepted; a bad one is deleted.

        If the same file is already stored, it gets the new name.

        Args:
            data: its bytes, or a file on the same disk, which is moved.
        """
        video = make_id()
        folder = self._root / video
        suffix = Path(name.replace("\\", "/")).suffix.lower()
        path = folder / f"video{suffix if suffix in SUFFIXES else '.bin'}"
        shown = _shown_name(name)
        coming = data.stat().st_size if isinstance(data, Path) else 0
        if not coming:  # a file that is already on the disk needs no more space
            require_free(self._root, self._limits().free_megabytes, what="The upload")
        try:
            folder.mkdir(parents=True)
            content = self._take(data, path)
            with self._lock:
                known = self._give_again(content, path, shown)
            if known is None:
                facts = {"name": shown, "file": path.name, "content": content,
                         "info": _plain(_checked(path, shown))}
                with self._lock:
                    # Another request may have sent the same meanwhile.
                    known = self._give_again(content, path, shown) or self._keep(video, facts)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise explain(error, folder) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if known.id != video:
            shutil.rmtree(folder, ignore_errors=True)
        return known

    def take_back(self, video: str) -> None:
        """Undo one `add` whose request failed.

        The file is deleted unless it was stored before, or another request has added it, too.
        """
        with self._lock:
            if video not in self._added:
                return
            self._added[video] -= 1
            if self._added[video] > 0:
                return
            with contextlib.suppress(UnknownVideoError):
                self.delete(video)

    def _keep(self, video: str, facts: Mapping[str, Any]) -> StoredVideo:
        write_json(self._root / video / _FACTS, facts)
        self._added[video] = 1
        remember_digest(self._root / video / str(facts["file"]), str(facts["content"]))
        return self.get(video)

    def _give_again(self, content: str, path: Path, shown: str) -> StoredVideo | None:
        """Find a stored video with the same bytes as a new file and give it the new name; or None.
        """
        size = path.stat().st_size
        for folder in self._folders():
            facts = read_json(folder / _FACTS)
            if not isinstance(facts, Mapping) or not self._is_same(folder, facts, content, size):
                continue
            write_json(folder / _FACTS, {**facts, "name": shown, "content": content})
            if folder.name in self._added:
                self._added[folder.name] += 1
            return self._read(folder.name)
        return None

    def _is_same(self, folder: Path, facts: Mapping[str, Any], content: str, size: int) -> bool:
        kept = _find_kept(folder, facts)
        try:
            if kept is None or kept.stat().st_size != size:
                return False
            # Version 0.1 did not store the digest of the content.
            return content == (facts.get("content") or digest_content(kept))
        except OSError:
            return False

    def _take(self, data: Readable | Path, path: Path) -> str:
        """Move or copy a file to its place, and return the digest of its content."""
        if isinstance(data, Path):
            data.replace(path)
            return digest_content(path)
        return _copy(data, path, self._limits().upload_megabytes)

    def get(self, video: str) -> StoredVideo:
        """Get the video with this id."""
        found = self._read(video) if is_id(video) else None
        if found is None:
            raise UnknownVideoError(
                f"There is no video {video[:40]!r}; upload it first, and use the id of the answer."
            )
        return found

    def delete(self, video: str) -> None:
        """Delete the video with this id, with its facts and scores."""
        with self._lock:
            folder = self.get(video).path.parent
            # The facts are deleted first: without them the video no longer exists.
            (folder / _FACTS).unlink(missing_ok=True)
            self._added.pop(video, None)
        shutil.rmtree(folder, ignore_errors=True)

    def list_videos(self) -> tuple[StoredVideo, ...]:
        """All videos, newest first."""
        names = [path.name for path in self._folders()]
        found = [video for name in names if (video := self._read(name)) is not None]
        return tuple(sorted(found, key=lambda video: -_changed(video.path)))

    def find_id(self, source: str) -> str:
        """Find the id of an uploaded video by a job's source; empty if it is not an upload."""
        folder = Path(source).parent
        here = is_id(folder.name) and folder.parent.absolute() == self._root.absolute()
        return folder.name if here else ""

    def scan_folder(self, path: Path) -> Path:
        """Workspace of `detect` for a video; that of an upload is deleted with it."""
        if path.parent.parent == self._root:
            return path.parent / "scan"
        return self._root / "scans" / digest(str(path.absolute()))[:16]

    def _folders(self) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return [path for path in self._root.iterdir() if is_id(path.name)]
        return []

    def _read(self, video: str) -> StoredVideo | None:
        folder = self._root / video
        facts = read_json(folder / _FACTS)
        if not isinstance(facts, Mapping):
            return None
        path = _find_kept(folder, facts)
        if path is None:
            return None
        try:
            info = _info(facts["info"], path)
            return StoredVideo(video, _shown_name(str(facts["name"])), path, info,
                               path.stat().st_size)
        except (OSError, KeyError, TypeError, ValueError, ArithmeticError, AttributeError):
            return None  # the file was edited by hand


def _find_kept(folder: Path, facts: Mapping[str, Any]) -> Path | None:
    """Find the video that the facts name; None unless it is in the folder itself."""
    path = folder / str(facts.get("file") or "")
    try:
        inside = path.is_file() and path.resolve().parent == folder.resolve()
    except (OSError, RuntimeError, ValueError):
        return None
    return path if inside and path.name == facts.get("file") else None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # deleted meanwhile
        return 0.0


def _shown_name(name: str) -> str:
    """Clean the name of a file for display: no folders and no invisible characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:_NAME_LENGTH] or "video"


def too_large(megabytes: int) -> TooLargeError:
    """Make the error for an upload above the limit."""
    return TooLargeError(
        f"The upload is larger than {megabytes} MB, the limit of this server; send a shorter or "
        "more compressed video, or raise the limit in its settings."
    )


def _copy(data: Readable, path: Path, megabytes: int) -> str:
    """Write the file, up to a limit, and return the digest of its content (`digest_content`)."""
    left, sha = megabytes * _MEGABYTE, hashlib.sha256()
    with path.open("wb") as file:
        while block := data.read(_BLOCK):
            sha.update(block)
            left -= len(block)
            if left < 0:
                raise too_large(megabytes)
            file.write(block)
    return sha.hexdigest()


def _checked(path: Path, shown: str) -> VideoInfo:
    """Read the facts of a new file; a VideoError has the name that the sender knows."""
    if not path.stat().st_size:
        raise VideoError(f"{shown} is empty (0 bytes); send the file again.")
    try:
        probe_video(path, shown)
        with open_source(path) as source:
            return source.info
    except VideoError as error:
        # The sender must not see a path of the server.
        raise VideoError(str(error).replace(str(path), shown)) from error
    except (av.FFmpegError, ValueError, MemoryError, ArithmeticError) as error:
        raise VideoError(
            f"{shown} cannot be read as video ({error}); re-encode it first."
        ) from error


def probe_video(path: Path, shown: str) -> None:
    """Refuse lists of other files, and enormous frames, before anything is decoded."""
    allowed = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}
    try:
        container = av.open(str(path.absolute()), container_options=allowed)
    except av.FFmpegError as error:
        raise VideoError(
            f"{shown} cannot be read as video ({error.strerror}); it is damaged, cut off, an "
            "image, or another kind of file. Send a file that plays, such as an MP4."
        ) from error
    with container:
        stream = find_video_stream(container, path)
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MOST_PIXELS:
            raise VideoError(
                f"{shown} has frames of {width}x{height}; at most {MOST_PIXELS} pixels are read. "
                "Scale it down first."
            )


def _plain(info: VideoInfo) -> dict[str, Any]:
    """Convert facts for JSON: fractions become texts."""
    values = dataclasses.asdict(info)
    for name in ("rate", "seconds", "pixel_aspect"):
        values[name] = str(values[name])
    for name in ("timestamps", "clock_shifts"):
        values[name] = [str(time) for time in values[name]]
    return values


def _info(values: Mapping[str, Any], path: Path) -> VideoInfo:
    whole = {name: Fraction(values[name]) for name in ("rate", "seconds", "pixel_aspect")}
    times = {
        name: tuple(Fraction(time) for time in values.get(name, ()))
        for name in ("timestamps", "clock_shifts")
    }
    notes = tuple(map(str, values["notes"]))
    colour = Colour(**{name: int(each) for name, each in values.get("colour", {}).items()})
    info = VideoInfo(
        **{**values, **whole, **times, "notes": notes, "path": str(path), "colour": colour}
    )
    numbers = info.width, info.height, info.frames, info.rotation
    if not all(type(number) is int and abs(number) < _LARGEST for number in numbers):
        raise ValueError("no such numbers")
    sizes = info.width, info.height, info.frames, info.rate, info.pixel_aspect, info.seconds
    if not all(0 < size < _LARGEST for size in sizes):
        raise ValueError("nothing to show")
    if len(info.timestamps) != info.frames:
        raise ValueError("not as many times as frames")
    return info


@dataclass(frozen=True, slots=True)
class Detection:
    """Shots and keyframes of a video, as some settings choose them."""

    info: VideoInfo
    """Facts about the whole video."""
    first: int
    """First frame used."""
    last: int
    """Last frame used, included."""
    size: tuple[int, int]
    """Width and height of the frames the model sees."""
    changes: tuple[float, ...]
    """Change of every frame used against the one before; the first is 0."""
    plans: tuple[KeyframePlan, ...]
    """One for each shot; frames are numbered as in the video."""
    notes: tuple[str, ...]
    """Notes for the user."""

    @property
    def keyframes(self) -> tuple[int, ...]:
        """The keyframes of all shots, rising."""
        return tuple(number for plan in self.plans for number in plan.keyframes)


def detect(
    path: Path, settings: FrescoSettings, workspace: Path, progress: Progress
) -> Detection:
    """Read a video and choose its keyframes; what was read is stored in `workspace`."""
    while not _detecting.acquire(timeout=0.2):
        progress.token.check()
    try:
        clip, scan, plans, notes = detect_keyframes(path, settings, progress, workspace)
    finally:
        _detecting.release()
    notes = (*clip.info.notes, *notes)
    return Detection(
        clip.info, clip.first, clip.last, clip.frames.size, scan.changes, plans, notes
    )


def make_thumbnails(path: Path, numbers: Sequence[int], height: int) -> dict[int, bytes]:
    """Make small JPEGs of frames, of a height in pixels, by frame number."""
    with open_source(path) as source:
        scale = height / source.info.height
        size = (max(1, round(source.info.width * scale)), height)
        shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return {
            number: encode_jpeg(
                cv2.resize(source.frame(number), size, interpolation=shrink), _QUALITY
            )
            for number in _in_order(numbers)
        }


def _in_order(numbers: Iterable[int]) -> list[int]:
    """Sort numbers, so that no frame is decoded twice."""
    return sorted(set(numbers))


def encode_jpeg(rgb: cv2.typing.MatLike, quality: int) -> bytes:
    """Encode RGB [H, W, 3] as JPEG."""
    done, data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise VideoError(f"A frame of shape {rgb.shape} cannot be saved as JPEG.")
    return data.tobytes()


def read_frame(path: Path, number: int) -> NDArray[np.uint8]:
    """Read one frame of a video, RGB [H, W, 3]."""
    with open_source(path) as source:
        return source.frame(number)
