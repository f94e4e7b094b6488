"""The smoke test's own judgement: what counts as equal, and what as an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.webui.client import Refused
from tests.hosts_smoke import reference
from tests.hosts_smoke.__main__ import COLUMNS, format_head, format_row
from tests.hosts_smoke.cases import CASES, draw_frames, join_frames
from tests.hosts_smoke.smoke import Outcome, find_errors
from tests.hosts_smoke.surroundings import leave_out_ours, name_differences


@pytest.fixture
def strip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Image.Image:
    """Stored as the images of a case."""
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    made = join_frames(draw_frames("demo"))
    reference.write_strip("demo", "DDIM", made)
    return made


@pytest.mark.parametrize(("levels", "passed"), [(0, True), (2, True), (3, False)])
def test_two_levels_are_allowed_at_most(strip: Image.Image, levels: int, passed: bool) -> None:
    pixels = np.array(strip)
    pixels[5, 70, 1] -= levels
    found = reference.compare_strip("demo", "DDIM", Image.fromarray(pixels))
    assert found is not None
    assert (found.most, found.passed) == (levels, passed)


def test_images_that_are_not_stored_are_not_compared(strip: Image.Image) -> None:
    assert reference.compare_strip("demo", "cfg 1", strip) is None


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_the_stored_images_are_of_the_frames_that_are_sent(case: str) -> None:
    with Image.open(reference.find_strip("demo", case)) as stored:
        assert stored.size == join_frames(draw_frames("demo")).size


def test_what_differs_with_and_without_is_named() -> None:
    before = {"scripts": {"txt2img": ["a"]}, "routes": ["/x"]}
    assert name_differences(before, {"scripts": {"txt2img": ["a"]}, "routes": []}) == ["routes"]
    assert name_differences(before, dict(before)) == []


def test_only_choices_that_name_the_extension_are_left_out() -> None:
    script = {"name": "x/y/z plot", "args": [
        {"label": "X type", "choices": ["Steps", "[FRESCO] Strength", ["[FRESCO] Seed", 1]]},
        {"label": "of FRESCO", "choices": None},
    ]}
    assert leave_out_ours(script) == {"name": "x/y/z plot", "args": [
        {"label": "X type", "choices": ["Steps"]}, {"label": "of FRESCO", "choices": None},
    ]}


def test_errors_of_the_console_that_name_the_extension() -> None:
    bad = "*** Error loading script: fresco.py"
    lines = [bad, "*** Error loading script: other.py", "WARNING:fresco:DIS is used",
             "*** Failed reading extension data from Git repository (sd-webui-fresco)"]
    assert find_errors("\n".join(lines)) == [bad]


def test_a_failure_is_kept_whole_and_the_row_has_a_cell_for_every_column() -> None:
    outcome = Outcome("Forge", "f2", "demo")

    def refuse() -> str:
        raise Refused(422, "a reason | with a bar")

    outcome.note("DDIM", refuse)
    outcome.note("cfg 1", lambda: "max 1, mean 0.02")
    assert outcome.failures == ["Forge, DDIM: 422: a reason | with a bar"]
    row = format_row(outcome)
    assert row.count("|") == format_head().splitlines()[0].count("|") == len(COLUMNS) + 5
    assert "**failed**" in row
