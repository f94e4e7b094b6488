"""Keyframes in and out of the timeline, its curve, and that no text is taken for markup."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco.errors import SettingsError
from fresco.planning.parsing import parse_keys
from fresco.server.ports import Check
from fresco.video.index import VideoInfo
from fresco.webui.tab.chart import draw_report
from fresco.webui.tab.text import render_checks, render_facts, render_note
from fresco.webui.tab.timeline import (
    Timeline,
    dump_timeline,
    export_keys,
    format_words,
    import_keys,
    import_words,
    sample_curve,
)

MARKUP = '<img src=x onerror="alert(1)">'


@pytest.mark.parametrize("text", [
    "0,11,23", "0 11 23", "0_11_23", "keyframe:0,11,23", "0\n11\n23", "[0, 11, 23]", "23;11|0",
    '{"keyframes": [0, 11, 23]}',
])
def test_every_way_of_writing_keyframes_is_understood(text: str) -> None:
    assert import_keys(text, 0, 30) == ((0, 11, 23), {})


def test_a_schedule_of_prompts_brings_its_keyframes() -> None:
    keys, words = import_keys("0: a cat\n12: a dog, running", 0, 30)
    assert keys == (0, 12)
    assert words == {"0": "a cat", "12": "a dog, running"}


@given(
    st.lists(st.integers(5, 400), min_size=1, unique=True),
    st.dictionaries(st.integers(5, 400).map(str), st.text("abc ,:é").map(str.strip), max_size=5),
)
def test_what_is_exported_is_imported_again(keys: list[int], words: dict[str, str]) -> None:
    text = export_keys(sorted(keys), words)
    assert import_keys(text, 5, 400) == (tuple(sorted(keys)), words)
    assert parse_keys(text, 401, first=5) == tuple(sorted(keys)), "the command line reads it too"


def test_words_come_back_from_their_text() -> None:
    words = {"3": "closed eyes", "12": "a hat, red"}
    assert import_words(format_words(words)) == words
    assert format_words({"12": "b", "3": "a", "4": ""}) == "3: a\n12: b"


def test_a_keyframe_outside_the_clip_is_named() -> None:
    with pytest.raises(SettingsError, match=r"Keyframe 31 .* 0 to 30"):
        import_keys("0,31", 0, 30)


def test_no_file_of_the_server_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("4711", "utf-8")
    for read in (lambda text: import_keys(text, 0, 9999), import_words):
        for name in (str(secret), "/etc/passwd", "0.txt", "12: x.json"):
            with pytest.raises(SettingsError) as caught:
                read(name)
            assert "4711" not in str(caught.value)


def test_an_empty_text_means_automatic() -> None:
    assert import_keys(" \n", 0, 9) == ((), {})
    assert import_words("") == {}


def test_the_curve_keeps_its_peaks_however_long_the_clip() -> None:
    changes = [0.0] * 100_000
    changes[77_777] = 0.5
    points, stride = sample_curve(changes)
    assert len(points) <= 20_000
    assert points[77_777 // stride] == 0.5
    assert sample_curve([0.1, 0.2]) == ([0.1, 0.2], 1)


def test_the_ends_of_shots_are_marked() -> None:
    timeline = Timeline(10, 29, 25.0, (0.0,) * 20, ((10, 19), (20, 29)), (10, 15, 19, 20, 29))
    shown = dump_timeline(timeline)
    assert shown["ends"] == [10, 19, 20, 29]
    assert json.loads(json.dumps(shown)) == shown


def clip_info(**changes: object) -> VideoInfo:
    values = {
        "path": "x.mp4", "width": 640, "height": 272, "rate": Fraction(24000, 1001), "frames": 250,
        "seconds": Fraction(250 * 1001, 24000), "has_sound": True, "rotation": 0,
        "timestamps": (), "variable_rate": False,
    }
    return VideoInfo(**(values | changes))  # type: ignore[arg-type]


def test_facts_say_what_was_read() -> None:
    shown = render_facts("clip.mp4", clip_info())
    for text in ("640 x 272", "23.976 fps", "250", "10.4 s", "yes"):
        assert f"<dd>{text}</dd>" in shown
    assert "none" in render_facts("clip.mp4", clip_info(has_sound=False))


def test_texts_of_files_and_users_are_no_markup() -> None:
    report = {"measures": {"frames": {MARKUP: {"warp_error": 1.0}}}}
    for shown in (
        render_facts(MARKUP, clip_info(notes=(MARKUP,))), render_note(MARKUP, "bad"),
        draw_report(report),
        render_checks([Check(MARKUP, False, MARKUP)]),
    ):
        assert "<img" not in shown
        assert "&lt;img" in shown


def test_the_chart_draws_every_measure_to_scale() -> None:
    report = {"measures": {"frames": {
        "fresco": {"warp_error": 0.01, "flicker_ratio": 2.0, "pairs": 9, "colour_drift": None},
        "source": {"warp_error": 0.02, "flicker_ratio": 1.0, "pairs": 9},
    }}}
    drawing = ElementTree.fromstring(draw_report(report))
    bars = [bar for bar in drawing if bar.tag == "rect"]
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert len(widths) == 4, "what has no number is left out"
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.01)
    assert widths[2] / widths[3] == pytest.approx(2, rel=0.01)
    assert [bar.attrib["class"] for bar in bars].count("fresco_bar_own") == 2


@pytest.mark.parametrize("report", [{}, {"measures": {}}, {"measures": {"frames": {"a": 3}}}])
def test_no_measures_no_chart(report: dict[str, object]) -> None:
    assert draw_report(report) == ""
