"""Open a file, and choose the video and the sound among its streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from fresco.errors import VideoError

_DEFAULT, _ATTACHED_PICTURE, _THUMBNAILS = 1, 1 << 10, 1 << 11
"""Bits of a stream's disposition: the one to play, cover art, images for a seek bar."""

_WORDS = {
    "audio": "sound", "video": "a cover picture", "subtitle": "subtitles", "data": "data",
    "attachment": "attached files",
}
"""Words for streams of each type, for a message about a file without video."""

AnyStream = TypeVar("AnyStream", AudioStream, VideoStream)


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open a local file within the context; VideoError if FFmpeg cannot open it."""
    _refuse_playlist(path)
    try:
        # An absolute path cannot be taken for an address; nothing can reach the network.
        # Not `options`, which PyAV 12 also hands to streams it has not met yet, and crashes.
        container = av.open(str(path.absolute()), container_options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise VideoError(
            f"{path} cannot be read as video ({error.strerror}); it is damaged, cut off or not a "
            "video. Give a file that plays, or re-mux it first."
        ) from error
    with container:
        if container.format.name == "tty":
            raise VideoError(f"{path} is a text file; give a video file or a folder of images.")
        yield container


def _refuse_playlist(path: Path) -> None:
    """Refuse playlists, for which FFmpeg would wait minutes and open other files."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \r\n")
    except OSError as error:
        raise VideoError(f"{path} cannot be read ({error.strerror}); check its rights.") from error
    if start.startswith((b"#EXTM3U", b"ffconcat")):
        raise VideoError(f"{path} is a playlist, which only names videos; give a video itself.")


def read_disposition(stream: Any) -> int | None:
    """Read the bits of a stream's disposition; None if PyAV does not tell (before 14)."""
    flags = getattr(stream, "disposition", None)
    # PyAV 17.0 has a plain Flag here, which `int` refuses; all others have an integer.
    return None if flags is None else int(getattr(flags, "value", flags))


def list_video_streams(container: InputContainer) -> list[VideoStream]:
    """List the streams that are videos; cover art, thumbnails and stills do not count."""
    videos = [stream for stream in container.streams.video if not _is_cover(container, stream)]
    # An animated AVIF has a still of its first image before the animation.
    moving = [stream for stream in videos if stream.frames != 1]
    return moving or videos


def find_video_stream(container: InputContainer, path: Path) -> VideoStream:
    """Find the video that a player would choose: the one marked as default, else the first."""
    stream = _choose_default(list_video_streams(container))
    if stream is None:
        raise VideoError(
            f"{path} holds {_describe_contents(container)} but no video; give a video file."
        )
    if stream.codec_context is None:
        raise VideoError(
            f"{path} holds video of a kind that PyAV {av.__version__} cannot decode; re-encode it "
            "first."
        )
    stream.thread_type = "AUTO"
    return stream


def choose_sound_stream(container: InputContainer) -> AudioStream | None:
    """Choose the sound that a player would choose; None in a silent file."""
    return _choose_default(container.streams.audio)


def _choose_default(streams: Sequence[AnyStream]) -> AnyStream | None:
    """Choose the stream marked as default, else the first; None if there is none."""
    marked = (stream for stream in streams if (read_disposition(stream) or 0) & _DEFAULT)
    return next(marked, streams[0] if streams else None)


def explain_choice(streams: Sequence[AnyStream], chosen: AnyStream, kind: str) -> tuple[str, ...]:
    """Make a note about which of several streams was chosen.

    Args:
        kind: what the streams are, such as `sound`.
    """
    if len(streams) < 2:
        return ()
    number = [stream.index for stream in streams].index(chosen.index) + 1
    return (f"The source has {len(streams)} {kind} streams; number {number} was taken.",)


def _is_cover(container: InputContainer, stream: VideoStream) -> bool:
    bits = read_disposition(stream)
    if bits is not None:
        return bool(bits & (_ATTACHED_PICTURE | _THUMBNAILS))
    # Where the bit is hidden: cover art is a still-image codec beside sound.
    name = stream.codec_context.name if stream.codec_context else ""
    still = name in ("mjpeg", "png", "bmp")
    return still and bool(container.streams.audio) and stream.frames <= 1


def _describe_contents(container: InputContainer) -> str:
    """Describe a file without video, such as `sound and a cover picture`."""
    # A dictionary keeps the order and drops repetitions.
    kinds = list(dict.fromkeys(_WORDS.get(s.type, s.type) for s in container.streams))
    if len(kinds) < 2:
        return kinds[0] if kinds else "nothing"
    return f"{', '.join(kinds[:-1])} and {kinds[-1]}"
