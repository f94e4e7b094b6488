"""Numbers in names of images: gaps, doubles, series."""

from __future__ import annotations

from pathlib import Path

import pytest

from fresco.errors import VideoError
from fresco.video.numbering import (
    find_number,
    find_numbering_notes,
    number_images,
    refuse_doubles,
    sort_key,
)


def listed(*names: str) -> list[Path]:
    return [Path("clip") / name for name in names]


def numbered(*numbers: int) -> list[Path]:
    return listed(*(f"frame_{number:04d}.png" for number in numbers))


@pytest.mark.parametrize(("name", "number"), [
    ("000012.png", 12), ("take2_007.jpg", 7), ("7b.png", 7), ("cover.png", None), ("v2.mp4.png", 4),
])
def test_the_last_number_of_a_name_counts(name: str, number: int | None) -> None:
    assert find_number(Path(name)) == number


@pytest.mark.parametrize(("numbers", "words"), [
    ((1, 2, 3, 7, 8), "gaps: 4 to 6 missing"),
    ((0, 1, 3, 4, 6), "gaps: 2, 5 missing"),
    ((0, 2, 4, 8, 10), "gaps: 6 missing"),
    ((1, 5, 6), "gaps: 2 to 4 missing"),
    ((1, 2, 4, 8, 16), "do not count evenly"),
    (tuple(3 * n + m for n in range(9) for m in (0, 1)), "and 3 more gaps missing"),
])
def test_images_that_are_missing_are_told(numbers: tuple[int, ...], words: str) -> None:
    (note,) = find_numbering_notes(numbered(*numbers))
    assert words in note
    assert f"taken as {len(numbers)} frames" in note


@pytest.mark.parametrize("files", [
    numbered(0, 1, 2, 3), numbered(1, 2, 3), numbered(10, 20, 30), numbered(5), numbered(1, 9), [],
    listed("a.png", "b.png"), listed("b1.png", "b2.png", "c1.png", "cover.png")[:2],
])
def test_images_that_count_evenly_are_not_worth_a_word(files: list[Path]) -> None:
    assert find_numbering_notes(files) == ()


def test_two_series_in_one_folder_are_told() -> None:
    (note,) = find_numbering_notes(listed("frame_1.png", "frame_2.png", "mask_1.png", "mask_2.png"))
    assert "frame_1.png and mask_1.png" in note


def test_numbers_that_are_not_unique_name_no_image() -> None:
    assert number_images(numbered(1, 2, 5)) == {1: 0, 2: 1, 5: 2}
    assert number_images(listed("a1.png", "b1.png")) is None
    assert number_images(listed("1.png", "cover.png")) is None


def test_files_that_differ_in_more_than_their_ending_are_no_doubles() -> None:
    refuse_doubles(listed("1.png", "2.png", "1b.png", "a1.png", "a1b.jpg"))
    with pytest.raises(VideoError, match=r"1\.png and 001\.jpg"):
        refuse_doubles(listed("1.png", "001.jpg"))


def test_letters_that_only_look_like_digits_sort_as_letters() -> None:
    assert sort_key("x\u00b2.png") != sort_key("x2.png")
