"""How frames are judged, against maps whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fresco.propagation.judgement import (
    FrameJudgement,
    judge_frame,
    name_judgements,
    read_judgements,
    shrink_share,
    write_judgements,
)

SIZE = (40, 60)


def test_error_is_that_of_the_side_that_was_taken() -> None:
    chosen = np.zeros(SIZE, np.float32)
    chosen[:, 30:] = 1
    costs = np.full(SIZE, 4.0, np.float32), np.full(SIZE, 16.0, np.float32)
    difference = np.full(SIZE, 3.0, np.float32)
    difference[:, 25:35] = 9
    hidden = np.zeros(SIZE, bool)
    hidden[:10] = True
    found = judge_frame(costs, hidden, chosen, difference)
    assert found == FrameJudgement(round(10**0.5, 3), 0.25, 9.0)
    alone = judge_frame(costs, hidden, np.zeros(SIZE, np.float32), difference)
    assert alone == FrameJudgement(2.0, 0.25, 0.0), "no side meets another one"


def test_kept_and_read_again(tmp_path: Path) -> None:
    path = name_judgements(tmp_path, 3, 9)
    assert read_judgements(path) == {}
    judged = {4: FrameJudgement(1.5, 0.1, 0.0), 5: FrameJudgement(2.0, 0.0, 3.0)}
    write_judgements(path, judged)
    assert read_judgements(path) == judged
    path.write_text('{"4": {"error": "x"}}')
    assert read_judgements(path) == {}


def test_the_share_is_kept_small() -> None:
    share = np.zeros((300, 600), np.float32)
    share[:, 300:] = 1
    small = shrink_share(share)
    assert small.shape == (128, 256, 3)
    assert small[:, :127].max() == 0
    assert small[:, 129:].min() == 255
