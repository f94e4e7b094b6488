"""What benchmarks of keyframes share: the measure of colours, and tables in pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import keyframes


def test_colour_distance_sees_colours_and_no_edges() -> None:
    grey = np.full((64, 64, 3), 120, np.uint8)
    assert keyframes.colour_distance(grey, grey) == 0.0
    # L of grey 120 is 50.43, that of 140 is 58.26; OpenCV takes it from a table.
    assert keyframes.colour_distance(grey, grey + np.uint8(20)) == pytest.approx(7.83, abs=0.2)
    fine = grey.copy()
    fine[:, ::2] += 8
    fine[:, 1::2] -= 8
    assert keyframes.colour_distance(grey, fine) < 0.3


def test_a_table_is_put_between_the_marks_of_its_name(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n")
    for _ in range(2):
        keyframes.write_table(page, "a", "| new |")
    assert page.read_text() == "Before\n<!-- a: begin -->\n| new |\n<!-- a: end -->\nafter\n"
    with pytest.raises(SystemExit, match="b: begin"):
        keyframes.write_table(page, "b", "")
