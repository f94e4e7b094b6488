"""Textual inversions: files of a folder, whose vectors replace the words of their names."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fresco.errors import HostError
from fresco.hosts.detection import SDXL, name_family
from fresco.hosts.tensor_file import TensorFile

log = logging.getLogger("fresco")

_SUFFIXES = (".pt", ".safetensors", ".bin")
_OF_TWO = (("clip_l", "text_encoders_0"), ("clip_g", "text_encoders_1"))
"""How files for SDXL name the vectors for its first text encoder, and for its second."""

Vectors = tuple[Tensor, ...]
"""[n, C] for each text encoder."""


class Embeddings:
    """The textual inversions of a folder; a file is read when a prompt names it."""

    def __init__(self, folder: str, tokenizer: Any, widths: Sequence[int]) -> None:
        """
        Args:
            folder: where the files lie, in folders of it too; empty: there are none
            widths: of the text encoders' tokens
        """
        self._widths = widths
        self._files: dict[int, list[tuple[tuple[int, ...], Path]]] = {}
        self._known: dict[Path, Vectors | None] = {}
        for path in _list_files(folder):
            ids = tuple(tokenizer(path.stem, add_special_tokens=False).input_ids)
            if ids:
                self._files.setdefault(ids[0], []).append((ids, path))
        for same_start in self._files.values():
            same_start.sort(key=lambda each: -len(each[0]))

    def find(self, ids: Sequence[int], place: int) -> tuple[Vectors, int] | None:
        """Find the vectors for the tokens at a place, and how many tokens they replace."""
        for name, path in self._files.get(ids[place], ()):
            if tuple(ids[place:place + len(name)]) == name:
                vectors = self._read(path)
                if vectors is not None:
                    return vectors, len(name)
        return None

    def _read(self, path: Path) -> Vectors | None:
        if path not in self._known:
            self._known[path] = self._load(path)
        return self._known[path]

    def _load(self, path: Path) -> Vectors | None:
        """Read the vectors of a file; None with a warning if they are for another model."""
        file = TensorFile(path)
        names = self._find_names(file)
        if names is None:
            log.warning(
                "A prompt names the embedding %s, which is made for %s; the words stay words.",
                path.stem, _name_model(file),
            )
            return None
        values = file.read(names)
        vectors = tuple(values[name].reshape(-1, width)
                        for name, width in zip(names, self._widths, strict=True))
        if len({len(each) for each in vectors}) > 1:
            raise HostError(
                f"The embedding {path} holds {len(vectors[0])} vectors for one text encoder and "
                f"{len(vectors[1])} for the other; it is damaged. Take it out of the folder."
            )
        log.info("Embedding %s: %d vectors.", path.stem, len(vectors[0]))
        return vectors

    def _find_names(self, file: TensorFile) -> list[str] | None:
        """Find the file's tensor for each text encoder; None if it is made for another model."""
        shapes, widths = file.shapes, self._widths
        named = _list_named(file)
        if named and (len(widths) > 1 or len(named) > 1):
            found = [name for name, width in zip(named, widths, strict=False)
                     if shapes[name][-1:] == (width,)]
            return found if len(found) == len(widths) == len(named) else None
        fitting = [name for name, shape in shapes.items() if shape[-1:] == (widths[0],)]
        if len(widths) > 1 or not fitting:
            return None
        if len(shapes) > 1:
            raise HostError(
                f"The embedding {file.path} holds {len(shapes)} tensors; a textual inversion of "
                "Stable Diffusion holds one. Take it out of the folder, or use another."
            )
        return fitting


def _list_named(file: TensorFile) -> list[str]:
    """Tensors of a file that are named by the text encoders of SDXL, in their order."""
    return [name for names in _OF_TWO for name in names if name in file.shapes]


def _name_model(file: TensorFile) -> str:
    """Name the model that an embedding is made for, by its tensors."""
    if len(_list_named(file)) > 1:
        return SDXL
    widths = {shape[-1] for shape in file.shapes.values() if shape}
    return name_family(min(widths)) if len(widths) == 1 else "another model"


def _list_files(folder: str) -> Iterable[Path]:
    if not folder:
        return ()
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise HostError(f"sampling.embeddings_dir {path} is not a folder; check it.")
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
