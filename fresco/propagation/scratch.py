"""Keep the arrays of one segment on disk, so that memory does not grow with its length."""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fresco.flow.arrays import to_float, to_half
from fresco.workspace import reading_arrays, write_arrays
from fresco.writing import copy_file, explain, write_bytes

Arrays = dict[str, NDArray]

_LENGTHS = 26
"""Bytes of an archive member's header before the lengths of its name and of its extra field."""


class Scratch:
    """A folder that exists until its segment is finished.

    After an interruption it is used again if it was made from the same inputs. Its files are
    complete, because each is written under another name and then renamed.
    """

    def __init__(self, folder: Path, cache_key: str) -> None:
        self._folder, self._cache_key = folder, cache_key.encode()

    def __enter__(self) -> Scratch:
        mark = self._folder / "identity"
        if not mark.is_file() or mark.read_bytes() != self._cache_key:
            shutil.rmtree(self._folder, ignore_errors=True)
            try:
                self._folder.mkdir(parents=True)
            except OSError as error:
                raise explain(error, self._folder) from error
            write_bytes(mark, self._cache_key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def put(self, name: str, frame: int, **arrays: NDArray) -> Arrays:
        """Store arrays under a name and a frame; float32 is stored as float16.

        Half precision stores a flow of 64 pixels to 1/32, which is the precision of OpenCV's
        sampling.

        Returns:
            The arrays as `get` will return them, so that an interruption changes no result.
        """
        return save_arrays(self._path(name, frame), arrays)

    def get(self, name: str, frame: int, *only: str) -> Arrays:
        """Read arrays, all or those named; float16 becomes float32."""
        return load_arrays(self._path(name, frame), *only)

    def has(self, name: str, frame: int) -> bool:
        """Whether arrays are stored, from this run or from before an interruption."""
        return self._path(name, frame).exists()

    def count_leading(self, name: str, frames: Sequence[int]) -> int:
        """Count the frames that are stored, from the first one up to the first gap."""
        return next((n for n, frame in enumerate(frames) if not self.has(name, frame)),
                    len(frames))

    def give(self, name: str, frame: int, folder: Path) -> None:
        """Copy arrays to another folder, which exists longer than this one."""
        path = self._path(name, frame)
        _link(path, folder / path.name)

    def take(self, name: str, frame: int, folder: Path) -> bool:
        """Copy arrays from another folder; False if they are not there."""
        path = self._path(name, frame)
        try:
            _link(folder / path.name, path)
        except FileNotFoundError:
            return False
        return True

    def _path(self, name: str, frame: int) -> Path:
        return self._folder / f"{name}-{frame:06d}.npz"


def save_arrays(path: Path, arrays: Arrays) -> Arrays:
    """Write arrays completely or not at all, float32 as float16.

    Returns:
        The arrays as `load_arrays` will return them.
    """
    small = _narrow(arrays)
    write_arrays(path, small)
    return _widen(small)


def load_arrays(path: Path, *only: str) -> Arrays:
    """Read arrays of `save_arrays`, all or those named; float16 becomes float32."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = {Path(member.filename).stem: member for member in archive.infolist()}
        return _widen({key: _read_member(file, members[key]) for key in only or members})


def _read_member(file: IO[bytes], member: zipfile.ZipInfo) -> NDArray:
    """Read an array straight from an archive, without its checksum: the file is complete."""
    file.seek(member.header_offset + _LENGTHS)
    name, extra = struct.unpack("<2H", file.read(4))
    file.seek(name + extra, os.SEEK_CUR)
    with reading_arrays:
        return np.lib.format.read_array(file, allow_pickle=False)


def round_arrays(arrays: Arrays) -> Arrays:
    """Round arrays to the values that `load_arrays` will return once they are saved."""
    return _widen(_narrow(arrays))


def _link(source: Path, target: Path) -> None:
    """Link a file to another name, or copy it if the file system has no links."""
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, target) from error
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except FileExistsError:
        return  # another process was faster
    except OSError:
        copy_file(source, target, lasting=False)


def _narrow(arrays: Arrays) -> Arrays:
    return {
        key: to_half(value) if value.dtype == np.float32 else value
        for key, value in arrays.items()
    }


def _widen(arrays: Arrays) -> Arrays:
    return {
        key: to_float(value) if value.dtype == np.float16 else value
        for key, value in arrays.items()
    }
