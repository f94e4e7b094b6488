"""The pipe to the synthesis program: what is said, and whatever may go wrong with it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fresco.errors import Cancelled, PropagationError
from fresco.propagation.guides import Guide, KeySources
from fresco.propagation.synthesizer import PatchSynthesizer, SynthesisOptions, _live, build_command
from tests.helpers.fake_ebsynth import fake_program, starts
from tests.helpers.scenes import negative, texture

HEIGHT, WIDTH = 20, 24
OPTIONS = SynthesisOptions("best", 2)
FRAME = texture(HEIGHT, WIDTH, 3)
STYLE = negative(FRAME)
SOURCES = KeySources.from_frame(FRAME, STYLE)
STILL = np.zeros((HEIGHT, WIDTH, 2), np.float32)


def guides() -> tuple[Guide, ...]:
    return SOURCES.make_guides(FRAME, STILL)


def alive(program: Path) -> list[int]:
    """Processes of the program that are still there, dead but not waited for included."""
    pids = [json.loads(line)[0] for line in starts(program)]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def paint(program: Path, frames: int, check: Callable[[], None] = lambda: None) -> None:
    with PatchSynthesizer(program, STYLE, OPTIONS, check=check) as synthesizer:
        for _ in range(frames):
            synthesizer.frame(guides())


def test_a_frame_comes_back_whole_and_the_next_one_along_the_flow(tmp_path: Path) -> None:
    program = fake_program(tmp_path)
    with PatchSynthesizer(program, STYLE, OPTIONS) as synthesizer:
        for _ in range(3):
            image, error = synthesizer.frame(guides(), STILL)
            np.testing.assert_array_equal(image, STYLE)
            assert error.shape == (HEIGHT, WIDTH)
            assert error.max() == 0
        synthesizer.frame(guides(), STILL, restart=True)
        assert len(alive(program)) == 1
    assert alive(program) == []
    said = [json.loads(line) for line in (tmp_path / "frames").read_text().splitlines()]
    assert said == [[4, 0], [1, STILL.nbytes], [1, STILL.nbytes], [4, 0]]
    (words,) = [json.loads(line)[1:] for line in starts(program)]
    assert words == build_command(program, OPTIONS)[1:]
    assert words == ["-sequence", "-quality", "best", "-searchvoteiters", "12",
                     "-patchmatchiters", "6", "-threads", "2"]


def test_any_path_will_do(tmp_path: Path) -> None:
    program = fake_program(tmp_path / "mit Leerzeichen & 'Umläuten' äöü $HOME 日本")
    with PatchSynthesizer(program, STYLE, OPTIONS) as synthesizer:
        np.testing.assert_array_equal(synthesizer.frame(guides())[0], STYLE)


def test_targets_may_be_of_another_size_than_the_key(tmp_path: Path) -> None:
    large = KeySources.from_frame(np.tile(FRAME, (2, 3, 1)), np.tile(STYLE, (2, 3, 1)))
    still = np.zeros((*large.edge.shape, 2), np.float32)
    sources = [Guide(g.name, g.source, t.target, g.weight) for g, t in zip(
        guides(), large.make_guides(large.frame, still), strict=True)]
    with PatchSynthesizer(fake_program(tmp_path), STYLE, OPTIONS) as synthesizer:
        image, error = synthesizer.frame(sources)
    assert image.shape == (2 * HEIGHT, 3 * WIDTH, 3)
    assert error.shape == image.shape[:2]


def test_a_process_that_dies_once_is_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = fake_program(tmp_path, "die 2")
    with PatchSynthesizer(program, STYLE, OPTIONS) as synthesizer:
        for _ in range(3):
            np.testing.assert_array_equal(synthesizer.frame(guides(), STILL)[0], STYLE)
    assert len(starts(program)) == 2
    said = [json.loads(line)[0] for line in (tmp_path / "frames").read_text().splitlines()]
    assert said == [4, 1, 4, 1]
    assert "no memory for so much paint" in caplog.text


def test_one_that_dies_twice_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    program = fake_program(tmp_path, "die 2 3")
    with PatchSynthesizer(program, STYLE, OPTIONS) as synthesizer:
        synthesizer.frame(guides())
        with pytest.raises(
            PropagationError,
            match=r"lost 2 times .*exit code 4; it said: warming up / no memory for so much paint"
        ):
            synthesizer.frame(guides())
    assert alive(program) == []


@pytest.mark.parametrize(
    ("mode", "words"),
    [("short", "its answer ended after 1913 of 1920 bytes"),
     ("wrong", "it answered b'WHAT' where DONE was due"),
     ("endless", "its error map holds values that are not distances")],
)
def test_answers_that_cannot_be_are_an_error(tmp_path: Path, mode: str, words: str) -> None:
    program = fake_program(tmp_path, mode)
    synthesizer = PatchSynthesizer(program, STYLE, OPTIONS)
    with synthesizer, pytest.raises(PropagationError, match=f"lost 2 times .*{words}"):
        synthesizer.frame(guides())
    assert len(starts(program)) == 2
    assert alive(program) == []


def test_too_long_an_answer_is_seen_at_the_next_frame_or_at_the_end(tmp_path: Path) -> None:
    program = fake_program(tmp_path, "large")
    with pytest.raises(PropagationError, match="it answered 4 bytes too many"):
        paint(program, 1)
    with pytest.raises(PropagationError, match="bytes too many"):
        paint(program, 2)  # a new process answers the second one
    assert len(starts(program)) == 3
    assert alive(program) == []


def test_the_exit_code_at_the_end_counts(tmp_path: Path) -> None:
    program = fake_program(tmp_path, "bitter")
    with pytest.raises(PropagationError, match=r"ended badly .*exit code 1.*all in vain"):
        paint(program, 1)
    assert alive(program) == []


def test_a_talkative_process_blocks_nothing(tmp_path: Path) -> None:
    with PatchSynthesizer(fake_program(tmp_path, "loud"), STYLE, OPTIONS) as synthesizer:
        for _ in range(2):
            synthesizer.frame(guides())


def test_what_cannot_be_started_says_so(tmp_path: Path) -> None:
    synthesizer = PatchSynthesizer(tmp_path / "none", STYLE, OPTIONS)
    with synthesizer, pytest.raises(PropagationError, match="none cannot be started: No such"):
        synthesizer.frame(guides())


def cancelled_when(ready: Callable[[], bool], seen: list[float]) -> Callable[[], None]:
    def check() -> None:
        if ready():
            seen.append(time.monotonic())
            raise Cancelled("stop")
    return check


@pytest.mark.parametrize("at", [1, 2])
def test_stopping_kills_a_process_that_hangs(tmp_path: Path, at: int) -> None:
    program, seen = fake_program(tmp_path, f"hang {at}"), list[float]()
    check = cancelled_when((tmp_path / "hanging").exists, seen)
    with pytest.raises(Cancelled):
        paint(program, at, check)
    assert time.monotonic() - seen[0] < 2
    assert alive(program) == []
    assert not [t.name for t in threading.enumerate() if t.name.startswith("fresco-synthesis")]


def test_stopped_while_the_program_starts_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, begun = fake_program(tmp_path), threading.Event()
    start, started = subprocess.Popen, []

    def slow(*words: Any, **named: Any) -> Any:
        begun.set()
        time.sleep(0.3)
        started.append(start(*words, **named))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", slow)
    with pytest.raises(Cancelled):
        paint(program, 1, cancelled_when(begun.is_set, []))
    assert not _live
    assert [process.poll() is None for process in started] == [False]


def test_an_error_of_the_caller_kills_it_too(tmp_path: Path) -> None:
    program = fake_program(tmp_path)
    with contextlib.suppress(KeyError), PatchSynthesizer(program, STYLE, OPTIONS) as synthesizer:
        synthesizer.frame(guides())
        assert len(alive(program)) == 1
        raise KeyError("x")
    assert alive(program) == []


def test_guides_of_wrong_size_are_refused_before_the_program_sees_them(tmp_path: Path) -> None:
    program = fake_program(tmp_path)
    with PatchSynthesizer(program, STYLE, OPTIONS) as synthesizer:
        synthesizer.frame(guides())
        with pytest.raises(ValueError, match="the flow is"):
            synthesizer.frame(guides(), STILL[1:])
    wrong = [Guide(g.name, g.source[1:], g.target, g.weight) for g in guides()]
    with PatchSynthesizer(program, STYLE, OPTIONS) as synthesizer, \
            pytest.raises(ValueError, match="source of colour is not of the style's size"):
        synthesizer.frame(wrong)


@pytest.mark.parametrize(("asked", "given"), [(0, "1"), (-3, "1"), (7, "7"), (10**12, "256")])
def test_the_program_is_asked_for_a_bounded_number_of_threads(asked: int, given: str) -> None:
    words = build_command(Path("ebsynth"), SynthesisOptions(threads=asked))
    assert words[words.index("-threads") + 1] == given
