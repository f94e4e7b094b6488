"""What stands beside a result: its keyframes, exactly those in force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fresco.planning.keyframes import KeyframePlan, plan_batches, plan_segments
from fresco.run.result import export_keyframes
from fresco.workspace import frame_name, read_image, write_image


def plans(*keys: int) -> tuple[KeyframePlan, ...]:
    return (KeyframePlan(keys, plan_batches(keys, 8), plan_segments(keys)),)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for number in (0, 7, 10, 20):
        write_image(tmp_path / "keys" / frame_name(number), np.full((8, 8, 3), number, np.uint8))
    return tmp_path / "keys"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


def test_keyframes_of_an_earlier_run_do_not_stay(keys: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    folder = export_keyframes(keys, output, plans(0, 10, 20))
    assert names(folder) == [frame_name(n) for n in (0, 10, 20)]
    assert export_keyframes(keys, output, plans(0, 7, 20)) == folder
    assert names(folder) == [frame_name(n) for n in (0, 7, 20)]


def test_what_a_person_put_there_or_retouched_stays(keys: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    folder = export_keyframes(keys, output, plans(0, 10, 20))
    mine = np.full((8, 8, 3), 200, np.uint8)
    for number in (0, 10, 15):
        write_image(folder / frame_name(number), mine)
    export_keyframes(keys, output, plans(0, 7, 20))
    assert names(folder) == [frame_name(n) for n in (0, 7, 10, 15, 20)]
    kept = read_image(folder / frame_name(0))
    assert kept is not None
    assert np.array_equal(kept, mine)
    write_image(keys / frame_name(0), np.full((8, 8, 3), 1, np.uint8))  # translated again
    export_keyframes(keys, output, plans(0, 7, 20))
    new = read_image(folder / frame_name(0))
    assert new is not None
    assert int(new[0, 0, 0]) == 1
