"""The time left of a whole job."""

from __future__ import annotations

import dataclasses

import pytest

from fresco.progress import StageStatus
from fresco.server.jobs.job import Goal, JobRequest
from fresco.server.jobs.outlook import Outlook, PastJob
from fresco.server.jobs.store import StagePace
from tests.helpers.job_environment import tiny_settings

REQUEST = JobRequest("clip.mp4", settings=tiny_settings({"output": {"measures": True}}))
PAST = PastJob(REQUEST, {
    "keyframes": StagePace(10, 10, 100.0), "propagate": StagePace(50, 25, 20.0),
    "write": StagePace(100, 100, 10.0), "measure": StagePace(100, 100, 5.0),
})
"""100 frames: 100 s of keyframes, 40 s of propagation, 10 s of writing, 5 s of measures."""


def status(stage: str, done: int, total: int, seconds: float, *, over: bool = False) -> StageStatus:
    return StageStatus(stage, done, total, seconds, finished=over)


def test_later_stages_count_by_the_latest_job_and_this_one_by_its_own_pace() -> None:
    outlook = Outlook(REQUEST, (PAST,), 200)
    assert outlook.take(status("keyframes", 0, 20, 30.0)) == pytest.approx(170 + 80 + 20 + 10)
    assert outlook.take(status("keyframes", 10, 20, 50.0)) == pytest.approx(50 + 80 + 20 + 10)
    assert outlook.take(status("keyframes", 20, 20, 100.0, over=True)) == pytest.approx(110)
    assert outlook.take(status("measure", 100, 200, 3.0)) == pytest.approx(3)


def test_what_is_not_asked_for_and_work_that_is_larger() -> None:
    settings = dataclasses.replace(
        REQUEST.settings,
        sampling=dataclasses.replace(REQUEST.settings.sampling, resolution=128),
        output=dataclasses.replace(REQUEST.settings.output, measures=False),
    )
    outlook = Outlook(dataclasses.replace(REQUEST, settings=settings), (PAST,), 100)
    assert outlook.take(status("keyframes", 0, 10, 0.0)) == pytest.approx(400 + 160 + 10)
    only = dataclasses.replace(REQUEST, goal=Goal.KEYFRAMES)
    assert Outlook(only, (PAST,), 100).take(status("keyframes", 5, 10, 40.0)) == pytest.approx(40)


def test_nothing_is_claimed_of_what_was_never_seen() -> None:
    begun = status("keyframes", 1, 10, 10.0)
    assert Outlook(REQUEST, (), 100).take(begun) is None
    keys = PastJob(dataclasses.replace(REQUEST, goal=Goal.KEYFRAMES), PAST.stages)
    assert Outlook(REQUEST, (keys,), 100).take(begun) is None
    assert Outlook(REQUEST, (PAST,)).take(begun) == pytest.approx(90 + 40 + 10 + 5), "same clip"
    other = dataclasses.replace(REQUEST, source="other.mp4")
    assert Outlook(other, (PAST,)).take(begun) is None
    assert Outlook(other, (PAST,)).take(status("scan", 100, 100, 1.0, over=True)) is not None
