"""Work that is done once: decoding, hashing and scanning the source, and motion between frames."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fresco.video.reader as reader
from fresco import digests, workspace
from fresco.digests import digest_source
from fresco.errors import Cancelled
from fresco.flow.dis import DisEstimator
from fresco.guidance.ports import Host
from fresco.hosts.diffusers.load import load_host
from fresco.options import from_dict
from fresco.progress import CancelToken, Progress, StageStatus
from fresco.propagation.engine import ENGINES
from fresco.propagation.executor import run_segments
from fresco.run import propagate
from fresco.run.clip import open_clip
from fresco.run.context import open_run
from fresco.run.translate import detect_keyframes, translate
from fresco.server.jobs.job import Goal, JobRequest, State
from fresco.server.service import open_service
from fresco.server.videos import detect
from fresco.settings import FrescoSettings
from tests.helpers.clips import moving_texture, write_clip
from tests.helpers.job_bench import ended
from tests.helpers.job_environment import TinyEnvironment, tiny_settings
from tests.helpers.motion_scenes import Still
from tests.helpers.scenes import SlidingScene, contents, make_jobs

FRAMES = 10


@pytest.fixture(scope="module")
def settings(demo_model: Path) -> FrescoSettings:
    return from_dict({
        "sampling": {"model": str(demo_model), "resolution": 64, "steps": 2, "strength": 0.5},
        "guidance": {"optimization_iterations": 1},
        "keyframes": {"min_interval": 2, "max_interval": 3, "batch_size": 3,
                      "detect_shots": False},
        "flow": {"estimator": "dis"}, "propagation": {"workers": 1},
        "output": {"compare": True},
    })


@pytest.fixture(scope="module")
def host(settings: FrescoSettings) -> Host:
    return load_host(settings.sampling, offline=True)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", moving_texture(FRAMES, 64, 64))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Frames decoded and passes that index, by the name of the file."""
    counts: Counter[str] = Counter()
    decode, index = reader.decode_frames, reader.index_video

    def counted(container: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for frame in decode(container, *args, **kwargs):
            counts[Path(container.name).name] += 1
            yield frame

    def indexed(path: Path, **kwargs: Any) -> Any:
        counts[f"index of {path.name}"] += 1
        return index(path, **kwargs)

    monkeypatch.setattr(reader, "decode_frames", counted)
    monkeypatch.setattr(reader, "index_video", indexed)
    return counts


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Pairs of images whose motion was estimated; forward and backward are estimated together."""
    counts: Counter[str] = Counter()
    estimate = DisEstimator.estimate_frames

    def counted(self: DisEstimator, first: np.ndarray, second: np.ndarray) -> Any:
        names = [hashlib.sha256(each.tobytes()).hexdigest() for each in (first, second)]
        counts["".join(names)] += 1
        return estimate(self, first, second)

    monkeypatch.setattr(DisEstimator, "estimate_frames", counted)
    return counts


def test_a_whole_run_decodes_its_source_three_times(
    clip: Path, settings: FrescoSettings, host: Host, tmp_path: Path, decoded: Counter[str],
    estimated: Counter[str],
) -> None:
    """To learn what is in it; for scores and all work at working size; for the comparison."""
    result = translate(clip, tmp_path / "r.mp4", settings, lambda: host, Progress())
    assert decoded["index of clip.mp4"] == 1
    assert decoded["clip.mp4"] == 2 * FRAMES
    # The other engine takes the motion of neighbours; it asks for that to the keyframes itself,
    # which next to one is that of neighbours.
    assert sorted(set(estimated.values())) == [1, 2]
    assert sum(count - 1 for count in estimated.values()) < FRAMES
    left = {path.name.partition("-")[0] for path in result.workspace.iterdir() if path.is_dir()}
    assert left == {"keys", "frames", "flow", "alone"}


def test_keyframes_alone_are_decoded_in_one_pass(
    clip: Path, settings: FrescoSettings, host: Host, tmp_path: Path, decoded: Counter[str]
) -> None:
    keys = from_dict({"propagation": {"enabled": False}}, settings)
    translate(clip, tmp_path / "r.mp4", keys, lambda: host, Progress())
    assert decoded["clip.mp4"] == 2 * FRAMES  # for scores, and up to the last keyframe


def _images(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))
    }


def test_no_motion_is_estimated_twice_and_without_room_to_keep_it_the_images_are_the_same(
    clip: Path, settings: FrescoSettings, host: Host, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, decoded: Counter[str], estimated: Counter[str],
) -> None:
    plain = from_dict({"output": {"compare": False}}, settings)
    kept = translate(clip, tmp_path / "kept.mp4", plain, lambda: host, Progress())
    assert decoded["clip.mp4"] == FRAMES
    assert len(estimated) > FRAMES
    assert set(estimated.values()) == {1}
    monkeypatch.setattr(workspace, "_MOST_KEPT", 0)
    full = translate(clip, tmp_path / "full.mp4", plain, lambda: host, Progress())
    assert decoded["clip.mp4"] > 3 * FRAMES
    assert _images(full.workspace) == _images(kept.workspace)
    assert full.output.read_bytes() == kept.output.read_bytes()


def test_an_interrupted_run_goes_on_with_the_frames_it_had(
    clip: Path, settings: FrescoSettings, host: Host, tmp_path: Path, decoded: Counter[str]
) -> None:
    plain = from_dict({"output": {"compare": False, "measures": False}}, settings)
    token = CancelToken()

    def stop(status: StageStatus) -> None:
        if status.stage == "batch 2":
            token.cancel()

    with pytest.raises(Cancelled):
        translate(clip, tmp_path / "r.mp4", plain, lambda: host, Progress(stop, token))
    translate(clip, tmp_path / "r.mp4", plain, lambda: host, Progress())
    assert decoded["clip.mp4"] == FRAMES


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose bytes were hashed."""
    names: list[str] = []
    content = digests.digest_content

    def counted(path: Path) -> str:
        names.append(path.name)
        return content(path)

    monkeypatch.setattr(digests, "digest_content", counted)
    return names


def test_a_source_is_hashed_once_as_long_as_it_stays(
    clip: Path, settings: FrescoSettings, tmp_path: Path, hashed: list[str]
) -> None:
    """As when somebody moves a slider again and again."""
    for interval in (2, 3, 4):
        moved = from_dict({"keyframes": {"max_interval": interval}}, settings)
        detect_keyframes(clip, moved, Progress(), tmp_path / "scan")
    assert hashed == ["clip.mp4"]
    before = digest_source(clip)
    write_clip(clip, moving_texture(FRAMES, 64, 64, seed=3))
    assert digest_source(clip) != before
    again = digest_source(clip)
    os.utime(clip, (1, 1))
    assert digest_source(clip) == again
    assert hashed == ["clip.mp4"] * 3


def test_a_folder_is_hashed_again_when_any_of_its_files_changes(
    tmp_path: Path, hashed: list[str]
) -> None:
    (tmp_path / "frames").mkdir()
    for name in "ab":
        (tmp_path / "frames" / name).write_text(name)
    digests = [digest_source(tmp_path / "frames") for _ in range(2)]
    (tmp_path / "frames" / "b").write_text("another")
    digests.append(digest_source(tmp_path / "frames"))
    assert digests[0] == digests[1] != digests[2]
    assert hashed == ["frames", "frames"]


def test_a_job_takes_the_scan_of_the_timeline(
    clip: Path, tmp_path: Path, decoded: Counter[str], hashed: list[str]
) -> None:
    """Also at another resolution, on which no score depends; and nothing is hashed anew."""
    service = open_service(tmp_path / "service", TinyEnvironment(tmp_path / "models"))
    try:
        with clip.open("rb") as data:
            video = service.videos.add(data, clip.name)
        found = detect(
            video.path, from_dict({}), service.videos.scan_folder(video.path), Progress()
        )
        assert found.keyframes
        part = {"output": {"last_frame": FRAMES - 1}}
        asked = JobRequest(str(video.path), Goal.PREVIEW, tiny_settings(part))
        job = ended(service.engine, service.submit(asked).id)
        assert job.state is State.DONE, job.message
        log = service.engine.log(job.id)
    finally:
        service.engine.close()
    assert "keyframes: begins" in log
    assert "scan: begins" not in log
    assert decoded["index of video.mp4"] == 1
    assert decoded["video.mp4"] == FRAMES + 1  # of the timeline, and the one keyframe
    assert "video.mp4" not in hashed  # its bytes were read as it was uploaded


# Where flow is estimated


@pytest.mark.parametrize(("device", "method", "workers", "wanted"), [
    ("cpu", "patch", 3, ("cpu", 3, False)), ("cpu", "flow", 3, ("cpu", 3, False)),
    ("cuda", "flow", 3, ("cuda", 1, False)), ("cuda", "patch", 1, ("cuda", 1, False)),
    ("cuda", "patch", 3, ("cpu", 3, True)),
])
def test_an_accelerator_is_used_by_one_process(
    clip: Path, settings: FrescoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    device: str, method: str, workers: int, wanted: tuple[str, int, bool],
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        propagate, "create_estimator", lambda flow, device: opened.append(device) or Still()
    )
    many = from_dict({"propagation": {"workers": workers}}, settings)
    engine = ENGINES[method](many.propagation)
    jobs = make_jobs(SlidingScene(9), [0, 4, 8], tmp_path / "scene", engine=engine)
    with open_run(open_clip(clip, many), many, tmp_path / "r.mp4", Progress(), None) as run:
        placed, count, ahead = propagate._place_flow(run, jobs, many.flow, device)
    assert (placed[0].device, count, ahead is not None) == wanted
    assert opened == ([device] if ahead else [])
    assert (placed[0].motion is not None) is (ahead is not None)


@pytest.mark.parametrize("forget", [True, False])
def test_motion_estimated_ahead_is_what_segments_are_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: bool
) -> None:
    """An estimator that sees no motion, in this process alone."""
    scene = SlidingScene(9, height=40, width=48)

    def leave_tracks() -> None:
        """Flow straight to the keyframe is estimated by workers, and is none of this test's."""
        monkeypatch.setattr("fresco.propagation.tracks.estimate_motion", lambda *_: None)
        monkeypatch.setattr("fresco.propagation.tracks._straighten", lambda fit, seen, pair: seen)

    leave_tracks()

    def fill(name: str, **how: Any) -> dict[str, bytes]:
        jobs = make_jobs(scene, [0, 4, 8], tmp_path / name)
        if ahead := how.get("preparation"):
            jobs = [dataclasses.replace(job, motion=ahead.folder) for job in jobs]
        with Progress().stage("propagate", 6) as stage:
            run_segments(jobs, 1, stage, **how)
        return contents(jobs[0].folder)

    seen = fill("dis")
    monkeypatch.setattr("fresco.propagation.executor.create_estimator", lambda *_: Still())
    still = fill("still")
    assert still != seen

    def never(self: DisEstimator, *images: Any) -> None:
        raise AssertionError("estimated by a worker")

    monkeypatch.undo()
    leave_tracks()
    monkeypatch.setattr(DisEstimator, "estimate_frames", never)
    ahead = propagate._MotionAhead(Still(), tmp_path / "motion", forget=forget)
    assert fill("ahead", preparation=ahead) == still
    assert len(list((tmp_path / "motion").iterdir())) == (0 if forget else 2 * 8)
