"""Timestamps that are wrong, missing, or start again: every other one stays as it is."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco.video.reader import open_source
from fresco.video.timing import find_typical_length, repair_stamps
from tests.helpers.clips import ClipOptions, moving_texture, write_clip

INTRA = {"crf": "10", "preset": "veryfast", "threads": "1", "g": "1", "bf": "0"}


def repaired(stamps: list[int | None], step: int = 40, gap: int | None = None) -> list:
    return list(repair_stamps(stamps, [step] * len(stamps), longest_gap=gap).stamps)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(-900, 900))
def test_rising_timestamps_stay(steps: list[int], start: int) -> None:
    stamps = [start + sum(steps[:number]) for number in range(len(steps))]
    found = repair_stamps(stamps, [40] * len(stamps))
    assert (list(found.stamps), found.replaced, found.shifts) == (stamps, frozenset(), (0,))


@pytest.mark.parametrize("place", [0, 1, 7, 10])
@pytest.mark.parametrize("wrong", [-100_000, 0, 3, 300, 100_000, None])
def test_one_wrong_timestamp_touches_no_other(place: int, wrong: int | None) -> None:
    stamps: list[int | None] = [100 + 40 * number for number in range(11)]
    true = list(stamps)
    stamps[place] = wrong
    got = repaired(stamps)
    got[place] = true[place] if abs(got[place] - true[place]) <= 40 else got[place]
    if place == 0 and isinstance(wrong, int) and wrong < 100:
        assert got[1:] == true[1:]  # a first frame may well be long before the others
    elif place == 10 and wrong in (300, 100_000):
        assert got[:10] == true[:10]  # and a last one long after
    else:
        assert got == true


@given(st.data())
def test_any_wrong_ones_leave_a_rising_order(data: st.DataObject) -> None:
    stamps: list[int | None] = [
        data.draw(st.one_of(st.none(), st.integers(-50, 50))) for _ in range(12)
    ]
    got = repaired(stamps, 3, data.draw(st.one_of(st.none(), st.just(20))))
    assert all(a < b for a, b in pairwise(got))


def test_several_missing_ones_lie_between_their_neighbours() -> None:
    assert repaired([0, None, None, 120, None]) == [0, 40, 80, 120, 160]
    assert repaired([None, None, 80]) == [0, 40, 80]
    assert repaired([0, None, None, 30], 40) == [0, 10, 20, 30]
    assert repaired([0, None, 300], 40) == [0, 40, 300]


@pytest.mark.parametrize("first", [1, 2, 12, 40])
@pytest.mark.parametrize("second", [2, 12, 41])
def test_a_clock_that_starts_again_is_carried_on(first: int, second: int) -> None:
    stamps: list[int | None] = [100 + 40 * number for number in (*range(first), *range(second))]
    assert repaired(stamps) == [100 + 40 * number for number in range(first + second)] or first == 1
    found = repair_stamps(stamps, [40] * len(stamps))
    assert found.shifts == (0, 40 * first) or first == 1
    assert found.parts == (0, first) or first == 1


def test_a_clock_that_starts_again_much_later() -> None:
    stamps: list[int | None] = [0, 40, 80, 90_000, 90_040]
    assert repaired(stamps) == stamps  # where clocks do not restart it is a frame that is held
    assert repaired(stamps, gap=10_000) == [0, 40, 80, 120, 160]


def test_a_typical_length_is_the_median() -> None:
    assert find_typical_length([0, 40, 80, None, 9000, 9040], 7) == 40
    assert find_typical_length([None, 5], 7) == 7


def test_one_bad_timestamp_in_a_file(tmp_path: Path) -> None:
    frames = moving_texture(20)
    path = write_clip(tmp_path / "a.mkv", frames, ClipOptions(options=INTRA))
    with av.open(str(path)) as container:
        payload = bytes(list(container.demux(video=0))[8])
    data = bytearray(path.read_bytes())
    assert data.count(payload) == 1
    place = data.index(payload)
    data[place - 3 : place - 1] = (7).to_bytes(2, "big")  # milliseconds of a block of Matroska
    path.write_bytes(data)
    with av.open(str(path)) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert stamps[8] < stamps[7] < stamps[9]
    with open_source(path) as source:
        assert source.info.timestamps == tuple(Fraction(number, 25) for number in range(20))
        assert source.info.rate == 25
        assert any("1 timestamps" in note for note in source.info.notes)
        straight = list(source.frames())
        order = list(range(20))
        random.Random(3).shuffle(order)
        for number in order:
            assert np.array_equal(source.frame(number), straight[number])


def test_a_joined_stream_is_whole(tmp_path: Path) -> None:
    how = ClipOptions(options=INTRA | {"g": "12", "bf": "2"})
    frames = moving_texture(12)
    part = write_clip(tmp_path / "part.ts", frames, how)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    with av.open(str(joined)) as container:
        marked = [packet for packet in container.demux(video=0) if packet.is_corrupt]
    assert marked  # the transport's counter jumps at the join, although nothing is lost
    with open_source(part) as source:
        once, start = list(source.frames()), source.info.timestamps[0]
    with open_source(joined) as source:
        assert source.info.frames == 24
        assert source.info.timestamps == tuple(start + Fraction(k, 25) for k in range(24))
        assert source.info.clock_shifts == (0, Fraction(12, 25))
        assert len(source.info.notes) == 1
        assert "starts again once" in source.info.notes[0]
        for got, true in zip(source.frames(), once * 2, strict=True):
            assert np.array_equal(got, true)
        for number in (23, 4, 13):
            assert np.array_equal(source.frame(number), (once * 2)[number])


def test_a_part_that_is_lost_on_the_way_is_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 96, 128, 3), dtype=np.uint8)
    path = write_clip(tmp_path / "a.ts", list(noise), ClipOptions(options=INTRA))
    data = path.read_bytes()
    with av.open(str(path)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size]
    assert starts[10] - starts[9] > 20 * 188
    path.write_bytes(data[: starts[9] + 10 * 188] + data[starts[9] + 12 * 188 :])
    with open_source(path) as source:
        assert source.info.frames == 20 == len(list(source.frames()))
        assert any(note.startswith("1 images") for note in source.info.notes)
