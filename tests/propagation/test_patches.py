"""A segment by patches: known truth, any interruption, both ends of a shot."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fresco.errors import Cancelled, PropagationError
from fresco.flow.dis import DisEstimator
from fresco.propagation import carriers
from fresco.propagation.ends import EndJob, propagate_end
from fresco.propagation.engine import PatchEngine
from fresco.propagation.program import OVERRIDE, require_program
from fresco.propagation.propagate import propagate_segment
from fresco.propagation.segment import SegmentJob
from fresco.workspace import frame_name, read_image, write_image
from tests.helpers.fake_ebsynth import fake_program
from tests.helpers.scenes import SlidingScene, contents, list_pictures, make_jobs, negative

SCENE = SlidingScene(7, square=0)
KEYS = [0, 6]
CHAIN = 2
"""Short, so that runs of few frames start restart on their way."""


@pytest.fixture(autouse=True)
def _short_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers.PatchCarrier, "restarts", CHAIN)


def picture(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image is not None
    return image.astype(int)


def asked(program: Path) -> list[int]:
    """Flags of every frame that the program was asked for."""
    path = program.parent / "frames"
    return [json.loads(line)[0] for line in path.read_text().splitlines()] if path.exists() else []


def stopped_with(path: Path) -> Callable[[], None]:
    """A check that stops as soon as a file is there."""
    def check() -> None:
        if path.exists():
            raise Cancelled("stop")
    return check


@pytest.mark.parametrize("scale", [1, 2])
def test_every_frame_is_near_the_moved_style(
    tmp_path: Path, engine: PatchEngine, fake: Path, scale: int
) -> None:
    (job,) = make_jobs(SCENE, KEYS, tmp_path, engine=engine, scale=scale)
    assert propagate_segment(job, DisEstimator()) == 5
    for frame in job.interior:
        wanted = negative(SCENE.image(frame))
        inner = picture(job.path(frame))[::scale, ::scale][:, 12:-12]
        assert np.abs(inner - wanted[:, 12:-12]).mean() < 12
    assert asked(fake) == [12, 9, 12, 9, 12] * 2
    assert list_pictures(contents(job.folder)) == [frame_name(frame) for frame in job.interior]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """The frames of an uninterrupted run, by a program of its own."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(OVERRIDE, str(fake_program(folder / "program")))
        patched.setattr(carriers.PatchCarrier, "restarts", CHAIN)
        program = require_program()
        engine = PatchEngine("balanced", program.fingerprint, program.version)
        (job,) = make_jobs(SCENE, KEYS, folder, engine=engine)
        propagate_segment(job, DisEstimator())
    return {frame: job.path(frame).read_bytes() for frame in job.interior}


@pytest.mark.parametrize(
    ("last", "done", "again"),
    [("behind-000004", 0, 0), ("forward-000001", 1, 1), ("forward-000002", 2, 0),
     ("forward-000003", 3, 1), ("forward-000005", 5, 0), ("backward-000005", 6, 1),
     ("backward-000002", 9, 0), ("evidence-000001", 10, 0)],
)
def test_stopped_anywhere_it_resumes_to_the_same_bytes(
    tmp_path: Path, engine: PatchEngine, fake: Path, whole: dict[int, bytes], last: str, done: int,
    again: int,
) -> None:
    """Only frames since the last new start of a chain are asked for again."""
    (job,) = make_jobs(SCENE, KEYS, tmp_path, engine=engine)
    before = len(asked(fake))
    with pytest.raises(Cancelled):
        propagate_segment(job, DisEstimator(), stopped_with(job.scratch / f"{last}.npz"))
    assert len(asked(fake)) - before == done
    propagate_segment(job, DisEstimator())
    assert len(asked(fake)) - before == 10 + again
    assert {frame: job.path(frame).read_bytes() for frame in job.interior} == whole
    assert not job.scratch.exists()


def test_stopped_while_writing_it_goes_on_with_the_next_frame(
    tmp_path: Path, engine: PatchEngine, fake: Path, whole: dict[int, bytes]
) -> None:
    (job,) = make_jobs(SCENE, KEYS, tmp_path, engine=engine)
    with pytest.raises(Cancelled):
        propagate_segment(job, DisEstimator(), stopped_with(job.path(2)))
    before = len(asked(fake))
    assert propagate_segment(job, DisEstimator()) == 3
    assert len(asked(fake)) == before
    assert {frame: job.path(frame).read_bytes() for frame in job.interior} == whole


def killed(job: SegmentJob) -> None:
    """As kill -9 leaves things, in the middle of a write."""
    with pytest.raises(Cancelled):
        propagate_segment(job, DisEstimator(), stopped_with(job.scratch / "forward-000005.npz"))
    (job.scratch / ".forward-000003.1234.npz").write_bytes(b"half")


def test_half_written_arrays_are_no_arrays(
    tmp_path: Path, engine: PatchEngine, whole: dict[int, bytes]
) -> None:
    (job,) = make_jobs(SCENE, KEYS, tmp_path, engine=engine)
    killed(job)
    propagate_segment(job, DisEstimator())
    assert {frame: job.path(frame).read_bytes() for frame in job.interior} == whole


@pytest.mark.parametrize("what", ["key", "quality", "program"])
def test_arrays_of_other_inputs_are_not_taken(
    tmp_path: Path, engine: PatchEngine, fake: Path, what: str
) -> None:
    (job,) = make_jobs(SCENE, KEYS, tmp_path, engine=engine)
    killed(job)
    done = len(asked(fake))
    assert done == 5
    if what == "key":
        write_image(job.first_key, SCENE.image(0))
    else:
        change = {"quality": {"quality": "best"}, "program": {"fingerprint": "other"}}[what]
        job = dataclasses.replace(job, engine=dataclasses.replace(engine, **change))
    if what == "program":
        with pytest.raises(PropagationError, match="not the program that the run began with"):
            propagate_segment(job, DisEstimator())
        return
    propagate_segment(job, DisEstimator())
    assert len(asked(fake)) == done + 10


def test_a_lost_frame_does_not_end_the_run(tmp_path: Path, engine: PatchEngine, fake: Path) -> None:
    (fake.parent / "mode").write_text("die 2 7")
    (job,) = make_jobs(SCENE, KEYS, tmp_path, engine=engine)
    propagate_segment(job, DisEstimator())
    assert job.find_missing() == []
    assert len(asked(fake)) == 12


@pytest.mark.parametrize("backward", [False, True])
def test_an_end_of_a_shot_follows_its_key(
    tmp_path: Path, engine: PatchEngine, fake: Path, backward: bool
) -> None:
    key, end = (6, 0) if backward else (0, 6)
    write_image(tmp_path / "key.png", negative(SCENE.image(key)))

    def fill(folder: Path, check: Callable[[], None] = lambda: None) -> dict[str, bytes]:
        job = EndJob(key, end, tmp_path / "key.png", SCENE, folder, engine)
        frames: list[int] = []
        propagate_end(
            job, DisEstimator(), advanced=lambda: (frames.append(1), check()), check=check
        )
        assert len(frames) == 6
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    pictures = fill(tmp_path / "whole")
    assert list(pictures) == [frame_name(n) for n in range(7) if n != key]
    for frame in range(7):
        if frame != key:
            inner = picture(tmp_path / "whole" / frame_name(frame))[:, 12:-12]
            assert np.abs(inner - negative(SCENE.image(frame))[:, 12:-12]).mean() < 12
    with pytest.raises(Cancelled):
        fill(tmp_path / "resumed", stopped_with(tmp_path / "resumed" / frame_name(3)))
    before = len(asked(fake))
    assert fill(tmp_path / "resumed") == pictures
    assert len(asked(fake)) - before < 6
    before = len(asked(fake))
    assert fill(tmp_path / "resumed") == pictures
    assert len(asked(fake)) == before


def test_the_program_is_another_after_an_update(
    tmp_path: Path, engine: PatchEngine, fake: Path
) -> None:
    (job,) = make_jobs(SCENE, KEYS, tmp_path, engine=engine)
    shutil.move(fake, tmp_path / "old")
    fake.write_text((tmp_path / "old").read_text() + "# changed\n")
    os.chmod(fake, 0o755)  # noqa: PTH101
    with pytest.raises(PropagationError, match="not the program that the run began with"):
        propagate_segment(job, DisEstimator())


def test_a_copy_of_the_program_is_the_same(
    tmp_path: Path, engine: PatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRESCO_EBSYNTH", str(fake_program(tmp_path / "another place")))
    (job,) = make_jobs(SCENE, KEYS, tmp_path, engine=engine)
    assert propagate_segment(job, DisEstimator()) == 5
