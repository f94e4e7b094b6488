"""Find the numbers in names of images, and numbers that are missing or occur twice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from fresco.errors import VideoError

_SHOWN = 5
"""Largest number of ranges of missing numbers that a note lists."""


def sort_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key that places frame2 before frame10."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def find_number(path: Path) -> int | None:
    """Find the number of an image: the last one in its name."""
    numbers = re.findall(r"\d+", path.stem, re.ASCII)
    return int(numbers[-1]) if numbers else None


def number_images(files: Sequence[Path]) -> dict[int, int] | None:
    """Map numbers to the places of images in the folder; None unless every number occurs once."""
    places = {find_number(path): place for place, path in enumerate(files)}
    if None in places or len(places) != len(files):
        return None
    return {number: place for number, place in places.items() if number is not None}


def refuse_doubles(files: Iterable[Path]) -> None:
    """Raise VideoError if two images differ only in their endings, as a frame saved twice."""
    seen: dict[tuple[tuple[int, int | str], ...], Path] = {}
    for path in files:
        other = seen.setdefault(tuple(sort_key(path.stem)), path)
        if other is not path:
            raise VideoError(
                f"{other.name} and {path.name} in {path.parent} are the same image by their names; "
                "keep one kind of file in the folder."
            )


def find_numbering_notes(files: Sequence[Path]) -> tuple[str, ...]:
    """Make notes if numbers of a folder's images suggest that some are missing."""
    series: dict[str, list[Path]] = {}
    for path in files:
        if find_number(path) is not None:
            series.setdefault(re.sub(r"\d+(?=\D*$)", "#", path.stem.lower()), []).append(path)
    notes = [note for paths in series.values() if (note := _find_gaps(paths))]
    numbers = [{find_number(path) for path in paths} for paths in series.values()]
    if any(one & other for at, one in enumerate(numbers) for other in numbers[:at]):
        names = " and ".join(paths[0].name for paths in series.values())
        notes.append(
            f"There are several series of images, which begin with {names}; they are read one "
            "after the other. Put each into a folder of its own if they are not one clip."
        )
    return tuple(notes)


def _find_gaps(paths: Sequence[Path]) -> str:
    """Make a note about numbers that are not evenly spaced; empty if they are."""
    numbers = [int(number) for path in paths if (number := find_number(path)) is not None]
    steps = [after - before for before, after in pairwise(numbers)]
    if len(set(steps)) < 2:
        return ""
    counts = Counter(steps)
    step = max(counts, key=lambda each: (counts[each], -each))
    where = f"The images {paths[0].name} to {paths[-1].name}"
    taken = f"They are taken as {len(numbers)} frames in a row"
    if 2 * counts[step] < len(steps) or step < 1:
        return f"{where} do not count evenly. {taken}."
    missing = [(before + step, after - step) for before, after in pairwise(numbers)
               if after - before > step]
    if not missing:
        return f"{where} do not count evenly. {taken}."
    shown = ", ".join(str(low) if low >= high else f"{low} to {high}"
                      for low, high in missing[:_SHOWN])
    more = f" and {len(missing) - _SHOWN} more gaps" if len(missing) > _SHOWN else ""
    return f"{where} have gaps: {shown}{more} missing. {taken}; add what is missing."
