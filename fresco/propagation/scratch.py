"""Arrays of one segment put aside on disk, so that memory does not grow with its length."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fresco.workspace import explain


class Scratch:
    """A folder that lives as long as a segment is at work.

    One left behind tells that its segment was never finished; the next attempt starts afresh.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Scratch:
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            self._folder.mkdir(parents=True)
        except OSError as error:
            raise explain(error, self._folder) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def put(self, name: str, frame: int, **arrays: NDArray) -> None:
        """Keep arrays under a name and a frame; float32 is kept as float16.

        Half precision holds a flow of 64 pixels to 1/32, the precision of OpenCV's sampling.
        """
        small = {
            key: value.astype(np.float16) if value.dtype == np.float32 else value
            for key, value in arrays.items()
        }
        path = self._path(name, frame)
        try:
            np.savez(path, **small)
        except OSError as error:
            raise explain(error, path) from error

    def get(self, name: str, frame: int) -> dict[str, NDArray]:
        """The arrays again; float16 comes back as float32."""
        with np.load(self._path(name, frame), allow_pickle=False) as archive:
            return {
                key: archive[key].astype(np.float32) if archive[key].dtype == np.float16
                else archive[key]
                for key in archive.files
            }

    def drop(self, name: str, frame: int) -> None:
        """Give the space back."""
        self._path(name, frame).unlink(missing_ok=True)

    def _path(self, name: str, frame: int) -> Path:
        return self._folder / f"{name}-{frame:06d}.npz"
