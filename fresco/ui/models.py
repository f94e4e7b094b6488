"""Find files of models, and give them names by which the page and the API choose them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fresco.errors import SettingsError

_SUFFIXES = (".safetensors", ".ckpt")
_FOLDER_MARKS = ("model_index.json", "config.json")
"""What a diffusers folder holds: a whole model, a single network."""


def list_models(named: Iterable[str], folder: str, *, what: str) -> dict[str, str]:
    """Map names to files, folders or hub names: first those that were named, then a folder's.

    Args:
        named: as they were given; each has to be there, or to be a name on the hub.
        folder: searched with all folders in it; empty: none.
        what: the option of the folder, for messages.
    """
    paths: list[str] = []
    for text in [*named, *map(str, _search(folder, what))]:
        path = Path(text).expanduser()
        place = str(path.resolve()) if path.exists() else text
        if place not in paths:
            paths.append(place)
    return _name_apart(paths)


def _search(folder: str, what: str) -> Iterator[Path]:
    if not folder:
        return
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise SettingsError(f"{what} is {folder!r}, which is not a folder; check it.")
    yield from _walk(root)


def _walk(folder: Path) -> Iterator[Path]:
    """List the models in a folder, sorted; the content of a diffusers folder is a part of it."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if any((path / mark).is_file() for mark in _FOLDER_MARKS):
                yield path
            else:
                yield from _walk(path)
        elif path.suffix in _SUFFIXES:
            yield path


def _name_apart(paths: Sequence[str]) -> dict[str, str]:
    """Name each by its last part, or by as many parts as make it unique."""
    names = {path: Path(path).parts for path in paths}
    result: dict[str, str] = {}
    for path, parts in names.items():
        length = 1
        while length < len(parts) and _is_shared(parts[-length:], path, names):
            length += 1
        result["/".join(parts[-length:])] = path
    return result


def _is_shared(end: Sequence[str], path: str, names: Mapping[str, Sequence[str]]) -> bool:
    return any(tuple(other[-len(end):]) == tuple(end)
               for place, other in names.items() if place != path)
