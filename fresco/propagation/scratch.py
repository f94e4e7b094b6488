"""Arrays of one segment put aside on disk, so that memory does not grow with its length."""

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
from fresco.writing import explain, write_atomically, write_bytes

Arrays = dict[str, NDArray]

_LENGTHS = 26
"""Bytes in front of a member of an archive before the lengths of its name and of what follows."""


class Scratch:
    """A folder that lives until its segment is finished.

    One left behind by an interruption is used again if it was made from the very same inputs;
    what lies in it is whole, since everything is renamed into place.
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
        """Keep arrays under a name and a frame; float32 is kept as float16.

        Half precision holds a flow of 64 pixels to 1/32, the precision of OpenCV's sampling.

        Returns:
            The arrays as `get` will give them, so that an interruption changes nothing.
        """
        return save_arrays(self._path(name, frame), arrays)

    def get(self, name: str, frame: int, *only: str) -> Arrays:
        """The arrays again, all or those named; float16 comes back as float32."""
        return load_arrays(self._path(name, frame), *only)

    def has(self, name: str, frame: int) -> bool:
        """Whether arrays were put there, now or before an interruption."""
        return self._path(name, frame).exists()

    def count_leading(self, name: str, frames: Sequence[int]) -> int:
        """How many of these frames, from the first one on without a gap, are there."""
        return next((n for n, frame in enumerate(frames) if not self.has(name, frame)),
                    len(frames))

    def give(self, name: str, frame: int, folder: Path) -> None:
        """Leave arrays in another folder, which outlives this one."""
        path = self._path(name, frame)
        _link(path, folder / path.name)

    def take(self, name: str, frame: int, folder: Path) -> bool:
        """Bring arrays from another folder; False if they are not there."""
        path = self._path(name, frame)
        try:
            _link(folder / path.name, path)
        except FileNotFoundError:
            return False
        return True

    def _path(self, name: str, frame: int) -> Path:
        return self._folder / f"{name}-{frame:06d}.npz"


def save_arrays(path: Path, arrays: Arrays) -> Arrays:
    """Write arrays whole or not at all, float32 as float16; as `load_arrays` will give them."""
    small = _narrow(arrays)
    write_arrays(path, small)
    return _widen(small)


def load_arrays(path: Path, *only: str) -> Arrays:
    """Arrays of `save_arrays`, all or those named; float16 comes back as float32."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = {Path(member.filename).stem: member for member in archive.infolist()}
        return _widen({key: _read_member(file, members[key]) for key in only or members})


def _read_member(file: IO[bytes], member: zipfile.ZipInfo) -> NDArray:
    """An array of an archive, right from the file: what was renamed into place is whole."""
    file.seek(member.header_offset + _LENGTHS)
    name, extra = struct.unpack("<2H", file.read(4))
    file.seek(name + extra, os.SEEK_CUR)
    with reading_arrays:
        return np.lib.format.read_array(file, allow_pickle=False)


def round_arrays(arrays: Arrays) -> Arrays:
    """Arrays as `load_arrays` will give them once they were saved."""
    return _widen(_narrow(arrays))


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the disk knows no links."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except FileExistsError:
        return  # another process was faster
    except OSError:
        with write_atomically(target, lasting=False) as temporary:
            shutil.copyfile(source, temporary)


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
