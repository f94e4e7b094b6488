"""Read motion from files of other programs: .flo, .npz or .exr.

Every file holds the motion of one frame's pixels. Its number is that of the frame.

- .npz: arrays `forward` and `backward` [H, W, 2] in pixels, x then y (down), to the next and to the
  previous frame. Either may be absent. `forward_occlusion` and `backward_occlusion` [H, W], not 0 =
  hidden there, may stand beside them.
- .flo (Middlebury): one flow; `forward` or `backward` stands in the name of the file or its folder.
- .exr: Blender's Vector pass, of a layer or as RGBA: X and Y lead to the previous frame, Z and W
  are turned round and lead to the next one, y upward.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco.errors import SettingsError
from fresco.flow.arrays import Flow, Mask, resize_flow
from fresco.workspace import reading_arrays

SUFFIXES = frozenset({".npz", ".flo", ".exr"})
"""Endings of files that hold motion."""
FORWARD, BACKWARD = "forward", "backward"
"""Directions: to the next frame, to the previous one."""
_FLO_MARK = 202021.25
"""First number of a .flo file."""
_MOST_SIDE = 65536
"""Longest side that a file may state."""
_VECTOR = "XYZW"
"""Channels of Blender's Vector pass; without layers they are R, G, B and A."""

Size = tuple[int, int]
"""Width and height."""


@dataclass(frozen=True, slots=True)
class FileFlow:
    """Motion of a frame's pixels to a neighbouring frame."""

    flow: Flow
    """[H, W, 2] pixels, x then y."""
    hidden: Mask | None = None
    """[H, W], True = the other frame does not show the pixel; None: the file does not say."""

    def resize(self, size: Size) -> FileFlow:
        """Resize to (width, height); the vectors are scaled, too."""
        height, width = self.flow.shape[:2]
        if (width, height) == size:
            return self
        hidden = None if self.hidden is None else np.asarray(cv2.resize(
            self.hidden.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST
        ), np.uint8) > 0
        return FileFlow(resize_flow(self.flow, (size[1], size[0])), hidden)


@dataclass(frozen=True, slots=True)
class FlowFiles:
    """The files of a folder, by direction and number."""

    paths: Mapping[str, Mapping[int, Path]] = field(default_factory=dict)
    """For `forward` and `backward`: number -> file."""


def list_flow_files(folder: Path) -> FlowFiles:
    """List the files of a folder and its subfolders, by direction and number.

    Raises SettingsError where there are none, or what one is cannot be told.
    """
    if not folder.is_dir():
        raise SettingsError(f"flow.path is {folder}, which is not a folder; give one with motion.")
    found: dict[str, dict[int, Path]] = {FORWARD: {}, BACKWARD: {}}
    paths = sorted(path for path in (*folder.glob("*"), *folder.glob("*/*"))
                   if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    for path in paths:
        number = _find_number(path)
        for direction in _find_directions(path, folder):
            other = found[direction].setdefault(number, path)
            if other is not path:
                raise SettingsError(
                    f"{other.name} and {path.name} in {folder} both are the {direction} motion of "
                    f"frame {number}; keep one."
                )
    if not paths:
        raise SettingsError(
            f"{folder} holds no motion; give .npz, .flo or .exr files, one or two a frame."
        )
    return FlowFiles(found)


def _find_number(path: Path) -> int:
    numbers = re.findall(r"\d{1,9}", path.stem, re.ASCII)
    if not numbers:
        raise SettingsError(f"{path} holds no frame number; name it such as forward_000012.flo.")
    return int(numbers[-1])


def _find_directions(path: Path, folder: Path) -> tuple[str, ...]:
    name = str(path.relative_to(folder)).lower()
    named = tuple(
        direction for direction, words in ((FORWARD, ("forward", "fwd")),
                                           (BACKWARD, ("backward", "bwd")))
        if any(word in name for word in words)
    )
    if path.suffix.lower() == ".npz":
        with _open_archive(path) as archive:
            held = tuple(d for d in (FORWARD, BACKWARD) if f"{d}.npy" in archive.namelist())
        if not held:
            raise SettingsError(
                f"{path} holds no array `forward` or `backward`; save one of these."
            )
        return held
    if path.suffix.lower() == ".exr":
        return named or (FORWARD, BACKWARD)
    if len(named) != 1:
        raise SettingsError(
            f"{path} does not say which way it leads; put forward or backward into its name, or "
            "into that of its folder."
        )
    return named


def _open_archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise SettingsError(f"{path} cannot be read as .npz ({error}); write it again.") from error


def measure_flow(path: Path, direction: str) -> Size:
    """Width and height of the motion in a file; of most kinds only the header is read."""
    kind = path.suffix.lower()
    if kind == ".flo":
        return _read_flo_size(path)
    if kind == ".npz":
        with _open_archive(path) as archive, archive.open(f"{direction}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                    else np.lib.format.read_array_header_2_0)
            with reading_arrays:
                shape = read(file)[0]
        if len(shape) != 3 or shape[2] != 2:
            raise SettingsError(f"{path} has `{direction}` of shape {shape}; give [H, W, 2].")
        return shape[1], shape[0]
    channels = _read_exr(path)
    height, width = channels[0].shape
    return width, height


def read_flow(path: Path, direction: str) -> FileFlow:
    """Read the motion in a file; values that are not finite count as hidden later."""
    kind = path.suffix.lower()
    if kind == ".flo":
        return FileFlow(_read_flo(path))
    if kind == ".npz":
        return _read_npz(path, direction)
    x, y, z, w = _read_exr(path)
    return FileFlow(np.stack([x, -y] if direction == BACKWARD else [-z, w], axis=-1))


def _read_npz(path: Path, direction: str) -> FileFlow:
    try:
        with reading_arrays, np.load(path, allow_pickle=False) as archive:
            flow = archive[direction].astype(np.float32)
            name = f"{direction}_occlusion"
            hidden = archive[name] != 0 if name in archive.files else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SettingsError(f"{path} cannot be read ({error}); write it again.") from error
    if hidden is not None and hidden.shape != flow.shape[:2]:
        raise SettingsError(f"{path} has `{name}` of shape {hidden.shape}; give {flow.shape[:2]}.")
    return FileFlow(flow, hidden)


def _read_flo_size(path: Path) -> Size:
    try:
        with path.open("rb") as file:
            head = file.read(12)
            length = path.stat().st_size
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}); check it.") from error
    if len(head) < 12 or np.frombuffer(head[:4], "<f4")[0] != np.float32(_FLO_MARK):
        raise SettingsError(f"{path} is not a .flo file; write it again.")
    width, height = (int(side) for side in np.frombuffer(head[4:], "<i4"))
    if not (0 < width < _MOST_SIDE and 0 < height < _MOST_SIDE) or (
        length < 12 + width * height * 8
    ):
        raise SettingsError(f"{path} is cut off or damaged ({length} bytes); write it again.")
    return width, height


def _read_flo(path: Path) -> Flow:
    width, height = _read_flo_size(path)
    values = np.fromfile(path, "<f4", width * height * 2, offset=12)
    return values.reshape(height, width, 2).astype(np.float32, copy=False)


def _import_openexr() -> ModuleType:
    try:
        import OpenEXR  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SettingsError(
            "The package OpenEXR is not installed, and .exr files need it; install it by "
            "pip install OpenEXR, or save the motion as .npz or .flo."
        ) from error
    return OpenEXR


def _read_exr(path: Path) -> tuple[NDArray[np.float32], ...]:
    """Read X, Y, Z and W of a Vector pass, each [H, W]."""
    openexr = _import_openexr()
    try:
        with openexr.File(str(path), separate_channels=True) as file:
            channels = {name: np.asarray(channel.pixels, np.float32)
                        for part in file.parts for name, channel in part.channels.items()}
    except Exception as error:  # the package raises errors of several classes
        raise SettingsError(
            f"{path} cannot be read as OpenEXR ({error}); write it again."
        ) from error
    return _pick_vector(channels, path)


def _pick_vector(channels: Mapping[str, Any], path: Path) -> tuple[NDArray[np.float32], ...]:
    layers = {name.rpartition(".")[0] for name in channels}
    named = sorted(layer for layer in layers if layer.lower().endswith("vector"))
    for layer, letters in (*((layer, _VECTOR) for layer in named), ("", _VECTOR), ("", "RGBA")):
        names = [f"{layer}.{letter}" if layer else letter for letter in letters]
        if all(name in channels for name in names):
            return tuple(channels[name] for name in names)
    raise SettingsError(
        f"{path} holds no Vector pass (channels {', '.join(sorted(channels)[:12])}); switch it on "
        "in Blender's view layer, and save OpenEXR MultiLayer with full floats."
    )
