"""Durations as people read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco.progress import Progress, StageStatus, format_seconds
from tests.helpers.shared import ROOT


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (0.26, "0.3 s"), (4.2, "4.2 s"), (8, "8 s"), (9.96, "10 s"), (59.4, "59 s"),
    (59.6, "1 min"), (200, "3 min 20 s"), (599.7, "10 min"), (620, "10 min"), (3599, "1 h 0 min"),
    (7500, "2 h 5 min"), (360000, "100 h 0 min"),
])
def test_a_duration_is_rounded_to_what_people_need(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.floats(0, 1e6))
def test_no_part_of_a_duration_reaches_the_next_one(seconds: float) -> None:
    text = format_seconds(seconds)
    parts = {unit: float(count) for count, unit in re.findall(r"([\d.]+) (s|min|h)", text)}
    assert parts.get("s", 0) < 60
    assert parts.get("min", 0) < 60
    told = 3600 * parts.get("h", 0) + 60 * parts.get("min", 0) + parts.get("s", 0)
    assert told == pytest.approx(seconds, abs=0.051 if seconds < 9 else 30.5)


def test_the_page_has_no_words_for_durations_of_its_own() -> None:
    page = "".join(path.read_text("utf-8") for path in (ROOT / "javascript").glob("*.js"))
    assert not re.search(r"[`'\"} ](min|h) ?[`'\"$]", page)


def test_the_total_may_be_found_out_on_the_way() -> None:
    seen: list[StageStatus] = []
    with Progress(seen.append).stage("batch") as stage:
        stage.expect(3)
        stage.advance(3)
    assert [(status.done, status.total) for status in seen] == [(0, 0), (0, 3), (3, 3), (3, 3)]
