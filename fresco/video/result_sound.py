"""Put the source's sound into the result; it is copied if the container allows it.

Otherwise it is first encoded, as AAC, or as Opus for .webm, into a file whose packets are copied.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from av.container import OutputContainer

from fresco.errors import VideoError
from fresco.video.containers import CONTAINERS
from fresco.video.sound import SoundCopy, SoundError, SoundSource, read_sound_info
from fresco.video.sound_encoder import AAC, OPUS, encode_sound


def is_copied(codec: str, suffix: str, output: OutputContainer) -> bool:
    """Whether sound of this codec can be copied into an output with this ending."""
    container = CONTAINERS[suffix]
    if codec not in output.supported_codecs:
        return False
    if codec.startswith("pcm_"):
        return container.holds_pcm
    return container.copied is None or codec in container.copied


def open_sound(
    sound: SoundSource, suffix: str, output: OutputContainer, stack: ExitStack, scratch: Path,
    *, encode: bool = False,
) -> tuple[SoundCopy | None, tuple[str, ...]]:
    """Open the sound for an output, with notes; None for a silent file.

    Raises SoundError where the sound cannot be had.

    Args:
        scratch: folder where encoded sound is kept for the next time.
        encode: encode what could be copied.
    """
    try:
        info = read_sound_info(sound)
        if info is None:
            return None, ()
        if not encode and is_copied(info.codec, suffix, output):
            return SoundCopy(sound, info, output, stack), info.notes
        encoder, name = (OPUS, "Opus") if suffix == ".webm" else (AAC, "AAC")
        encoded = SoundSource(encode_sound(sound, scratch, encoder))
        known = read_sound_info(encoded)
        if known is None:
            raise SoundError("the encoder gave nothing")
        note = f"The sound ({info.codec}) does not fit {suffix}; it was re-encoded as {name}."
        return SoundCopy(encoded, known, output, stack), (note, *info.notes)
    except VideoError as error:
        raise SoundError(str(error)) from error
