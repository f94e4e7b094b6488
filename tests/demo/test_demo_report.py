"""The page about a run: self-contained, true to the report, safe against any text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from demo import report
from fresco.workspace import write_image
from tests.helpers.clips import moving_texture, write_clip

MEASURES = {
    "fresco": {"warp_error": 0.002, "flicker": 1.5, "pairs": 9},
    "frame_by_frame": {"warp_error": 0.004, "flicker": None, "pairs": 9},
}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    video = tmp_path / "out.mp4"
    video.write_bytes(b"video")
    video.with_name("out-comparison.mp4").write_bytes(b"beside")
    facts = {
        "source": "/clips/a<b>.mp4", "frames": 10, "measured_frames": 10,
        "keyframes": [0, 5, 9], "propagation": "patches", "working_size": [320, 192],
        "notes": ["<script>alert(1)</script>"],
        "settings": {"sampling": {"prompt": "a & b", "seed": 3}},
        "measures": {"frames": MEASURES, "keyframes": MEASURES},
        "definitions": {"flicker": "how much it flickers"},
    }
    video.with_name("out-report.json").write_text(json.dumps(facts))
    return video


class _Checker(HTMLParser):
    """Collects tags and addresses; fails on a tag that closes nothing."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_holds_all_it_shows(output: Path) -> None:
    path = output.with_name("report.html")
    report.main([str(output), "-o", str(path)])
    checker = _Checker()
    checker.feed(path.read_text("utf-8"))
    assert not checker.open
    assert len(checker.addresses) == checker.tags.count("video") == 2
    assert all(address.startswith("data:video/mp4;base64,") for address in checker.addresses)
    assert [p.name for p in output.parent.glob("*.new")] == []


def test_the_painted_clip_is_measured_and_shown(output: Path) -> None:
    """What flickers has the longer bar."""
    frames = moving_texture(6, 64, 64)
    clip = write_clip(output.with_name("clip.mp4"), frames)
    facts = json.loads(output.with_name("out-report.json").read_text())
    output.with_name("out-report.json").write_text(json.dumps(facts | {"source": str(clip)}))
    alone = output.with_name("alone")
    for number, frame in enumerate(frames):
        lit = np.clip(frame + 30.0 * (number % 2), 0, 255).astype(np.uint8)
        write_image(alone / f"{number}.png", lit)
    painted = report.Painted(alone, clip, output)
    measures = report.measure_painted(clip, painted)
    assert measures["alone"]["flicker"] > 10 * measures["carried"]["flicker"]
    made = report.page(output, painted)
    assert made.count("<video") == 3
    assert made.count("each frame painted alone") == 3  # the caption, and two charts
    assert re.search(r"Carried keyframes have [\d.e+]+ times less flicker and ", made)


def test_text_of_a_run_is_text_on_the_page(output: Path) -> None:
    made = report.page(output)
    assert "<script" not in made
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in made
    assert "a &amp; b" in made
    assert "a&lt;b&gt;.mp4" in made
    assert "<td>sampling.seed</td><td>3</td>" in made


def test_a_page_without_a_comparison_has_one_clip(output: Path) -> None:
    output.with_name("out-comparison.mp4").unlink()
    assert report.page(output).count("<video") == 1


def test_bars_are_as_long_as_their_values() -> None:
    values = {"fresco": 1.5, "frame_by_frame": 3.0, "source": 0.0}
    drawn = report.chart("Flicker", "Lower is steadier.", values)
    assert re.findall(r"width:([\d.]+)%", drawn) == ["50.0", "100.0", "0.0"]
    assert "frame by frame" in drawn
    assert "<b>1.5</b>" in drawn


def test_only_measures_that_can_be_compared_are_drawn(output: Path) -> None:
    made = report.page(output)
    assert made.count("<strong>Warp error</strong>") == 2
    assert ">2</b>" in made  # 0.002, in thousandths
    assert "<strong>Flicker" not in made
    assert "FRESCO has 2 times less warp error than frames translated one by one." in made
    assert "Border jump: not measured" in made
