"""Textual inversions: vectors in a folder that stand for the words of their file's name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fresco.errors import HostError
from fresco.hosts.detection import name_family
from fresco.hosts.tensor_file import TensorFile

log = logging.getLogger("fresco")

_SUFFIXES = (".pt", ".safetensors", ".bin")


class Embeddings:
    """The textual inversions of a folder; a file is read when a prompt names it."""

    def __init__(self, folder: str, tokenizer: Any, width: int) -> None:
        """
        Args:
            folder: where the files lie, in folders of it too; empty: there are none
            width: of the text encoder's tokens
        """
        self._width = width
        self._files: dict[int, list[tuple[tuple[int, ...], Path]]] = {}
        self._known: dict[Path, Tensor | None] = {}
        for path in _list_files(folder):
            ids = tuple(tokenizer(path.stem, add_special_tokens=False).input_ids)
            if ids:
                self._files.setdefault(ids[0], []).append((ids, path))
        for same_start in self._files.values():
            same_start.sort(key=lambda each: -len(each[0]))

    def find(self, ids: Sequence[int], place: int) -> tuple[Tensor, int] | None:
        """The vectors [n, C] for the tokens that begin there, and how many tokens they replace."""
        for name, path in self._files.get(ids[place], ()):
            if tuple(ids[place:place + len(name)]) == name:
                vectors = self._read(path)
                if vectors is not None:
                    return vectors, len(name)
        return None

    def _read(self, path: Path) -> Tensor | None:
        if path not in self._known:
            self._known[path] = self._load(path)
        return self._known[path]

    def _load(self, path: Path) -> Tensor | None:
        """The vectors of a file, or None with a warning where they are another model's."""
        file = TensorFile(path)
        fitting = [name for name, shape in file.shapes.items() if shape[-1:] == (self._width,)]
        if not fitting:
            widths = {shape[-1] for shape in file.shapes.values() if shape}
            made_for = name_family(min(widths)) if len(widths) == 1 else "another model"
            log.warning(
                "A prompt names the embedding %s, which is made for %s; the words stay words.",
                path.stem, made_for,
            )
            return None
        if len(file.shapes) > 1:
            raise HostError(
                f"The embedding {path} holds {len(file.shapes)} tensors; a textual inversion of "
                "Stable Diffusion 1.x holds one. Take it out of the folder, or use another."
            )
        vectors = file.read(fitting)[fitting[0]].reshape(-1, self._width)
        log.info("Embedding %s: %d vectors.", path.stem, len(vectors))
        return vectors


def _list_files(folder: str) -> Iterable[Path]:
    if not folder:
        return ()
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise HostError(f"sampling.embeddings_dir {path} is not a folder; check it.")
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
