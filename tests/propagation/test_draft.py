"""Drafts: exact copies of what was only moved, holes filled from the other side, same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fresco.errors import Cancelled, PropagationError
from fresco.flow.dis import DisEstimator
from fresco.progress import never_stop
from fresco.propagation import draft
from fresco.propagation.draft import DraftSegment, draw_draft, shrink_frame
from fresco.propagation.ends import EndJob, propagate_end
from fresco.propagation.engine import DraftEngine, create_engine
from fresco.propagation.propagate import propagate_segment
from fresco.propagation.segment import SegmentJob
from fresco.settings import PropagationSettings
from fresco.workspace import frame_name, read_image
from tests.helpers.scenes import SlidingScene, make_jobs, negative

SLIDE = SlidingScene(7, height=96, width=128, square=0)
SQUARES = SlidingScene(7, height=96, width=128)
LAST = 6
EDGE = 8
"""Pixels at a border where the search has less to go by."""


def filled(folder: Path, scene: SlidingScene, *, scale: int = 1) -> SegmentJob:
    (job,) = make_jobs(scene, [0, LAST], folder, scale=scale, engine=DraftEngine())
    assert propagate_segment(job, DisEstimator()) == LAST - 1
    return job


def picture(path: Path) -> NDArray[np.uint8]:
    image = read_image(path)
    assert image is not None
    return image


@pytest.mark.parametrize("scale", [1, 2])
def test_what_only_moves_is_copied_exactly(tmp_path: Path, scale: int) -> None:
    """Also from keyframes of another size than the frames."""
    job = filled(tmp_path, SLIDE, scale=scale)
    keys, step = [picture(path) for path in (job.first_key, job.last_key)], SLIDE.speed * scale
    for frame in job.interior:
        image, inside = picture(job.path(frame)), EDGE * scale
        copies = np.zeros(image.shape[:2], bool)
        for key, shift in zip(keys, (frame * step, (frame - LAST) * step), strict=True):
            copies |= (np.roll(key, shift, axis=1) == image).all(axis=-1)
        assert copies[inside:-inside, inside:-inside].mean() > 0.8


def test_what_a_keyframe_does_not_show_comes_from_the_other(tmp_path: Path) -> None:
    """The texture comes in on the left, where the first keyframe has none of it."""
    job = filled(tmp_path, SLIDE)
    for frame in job.interior:
        image, wanted = picture(job.path(frame)), negative(SLIDE.image(frame))
        coming = image[EDGE:-EDGE, :SLIDE.speed * frame].astype(int)
        assert np.abs(coming - wanted[EDGE:-EDGE, :SLIDE.speed * frame]).mean() < 6


def test_a_square_before_a_ground_is_near_the_truth(tmp_path: Path) -> None:
    job = filled(tmp_path, SQUARES)
    ends = [negative(SQUARES.image(key)).astype(float) for key in (0, LAST)]
    for frame in job.interior:
        wanted = negative(SQUARES.image(frame))
        fade = np.abs(ends[0] + (ends[1] - ends[0]) * frame / LAST - wanted).mean()
        assert np.abs(picture(job.path(frame)).astype(float) - wanted).mean() < 0.35 * fade


def test_frames_are_the_same_in_any_order_and_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = filled(tmp_path / "whole", SQUARES)
    (job,) = make_jobs(SQUARES, [0, LAST], tmp_path / "stopped", engine=DraftEngine())
    calls = iter(range(100))

    def stop() -> None:
        if next(calls) == LAST + 1 + LAST - 1 + 2:  # read, back, two frames
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        propagate_segment(job, DisEstimator(), stop)
    assert job.find_missing() == [3, 4, 5]
    monkeypatch.setattr(draft, "_IN_MEMORY", 0)  # as of a long segment
    propagate_segment(job, DisEstimator())
    keys = job.read_keys()
    segment = DraftSegment(SQUARES(0, LAST), LAST)
    for frame in (4, 1, 5, 2, 3):
        assert whole.path(frame).read_bytes() == job.path(frame).read_bytes()
        drawn = draw_draft(keys, segment.find(frame))
        assert (drawn == picture(whole.path(frame))).all()
    assert sorted(path.name for path in job.folder.iterdir()) == [
        frame_name(frame) for frame in job.interior
    ]


def test_both_keyframes_can_be_followed_side_by_side() -> None:
    apart, along = (DraftSegment(SQUARES(0, LAST), LAST) for _ in range(2))
    apart.reach(1, 2)
    apart.reach(0, 2)
    one, other = apart.find(2), along.find(2)
    assert one.share is not None
    assert other.share is not None
    assert (one.share == other.share).all()
    for flow, same in zip(one.flows, other.flows, strict=True):
        assert (flow == same).all()


@pytest.mark.parametrize(("key", "end"), [(0, 4), (5, 2)])
def test_ends_of_a_shot_follow_their_keyframe(tmp_path: Path, key: int, end: int) -> None:
    make_jobs(SLIDE, [0, 5], tmp_path)
    job = EndJob(key, end, tmp_path / "keys" / frame_name(key), SLIDE, tmp_path, DraftEngine())
    advanced: list[None] = []
    propagate_end(job, DisEstimator(), advanced=lambda: advanced.append(None), check=never_stop)
    assert len(advanced) == len(job.numbers)
    for frame in job.numbers:
        image, wanted = picture(job.path(frame)), negative(SLIDE.image(frame))
        inside = slice(EDGE + 2 * abs(frame - key), -EDGE - 2 * abs(frame - key))
        assert np.abs(image.astype(int) - wanted)[EDGE:-EDGE, inside].mean() < 3


def test_the_quality_names_the_engine() -> None:
    for method in ("patch", "flow"):
        engine = create_engine(PropagationSettings(method=method, quality="draft"))
        assert engine == DraftEngine()


def test_large_frames_are_searched_small() -> None:
    assert shrink_frame(np.zeros((1080, 1920, 3), np.uint8)).shape == (256, 455, 3)
    with pytest.raises(PropagationError, match="300x8; a draft needs 16 pixels"):
        shrink_frame(np.zeros((8, 300, 3), np.uint8))


def test_a_source_that_gives_too_few_frames_is_named(tmp_path: Path) -> None:
    class Short(SlidingScene):
        def __call__(self, first: int, last: int) -> Iterator[np.ndarray]:
            yield from super().__call__(first, last - 2)

    (job,) = make_jobs(Short(7, height=96, width=128), [0, LAST], tmp_path, engine=DraftEngine())
    with pytest.raises(PropagationError, match="gave 5 of the 7 frames"):
        propagate_segment(job, DisEstimator())
