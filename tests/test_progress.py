"""Durations as people read them."""

from __future__ import annotations

import pytest

from fresco.progress import format_seconds


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (0.26, "0.3 s"), (4.2, "4.2 s"), (8, "8 s"), (9.96, "10 s"), (59.4, "59 s"),
    (59.6, "1 min"), (200, "3 min 20 s"), (599.7, "10 min"), (620, "10 min"), (3599, "1 h 0 min"),
    (7500, "2 h 5 min"), (360000, "100 h 0 min"),
])
def test_a_duration_is_rounded_to_what_people_need(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
