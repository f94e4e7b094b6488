"""Run a job: reach its goal by a run with the host's model."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fresco.digests import digest, digest_source, list_state
from fresco.errors import SettingsError, VideoError
from fresco.guidance.ports import Host
from fresco.planning.ranges import check_ranges
from fresco.progress import Progress
from fresco.run.keyframes import PLAN_NAME
from fresco.run.translate import (
    RunResult,
    propagate_keys,
    retranslate_keyframe,
    translate,
)
from fresco.server.jobs.job import Goal, JobRequest, describe_host
from fresco.server.ports import Environment, Limits
from fresco.server.space import require_free
from fresco.settings import FrescoSettings
from fresco.video.codecs import FOLDERS, choose_suffix
from fresco.video.containers import CONTAINERS
from fresco.video.reader import VideoInfo, open_source
from fresco.video.size import working_size
from fresco.workspace import frame_name, read_json, write_json
from fresco.writing import explain

log = logging.getLogger("fresco")

_BYTES_PER_PIXEL = 2
"""Size of a PNG image; photographs need 1.5 to 2.5 bytes per pixel."""
_PIXELS_PER_BYTE = 4
"""Pixels for each byte of a video that is hard to compress, at the default quality."""
_LAST_FRAME = 10**9
"""Largest number of a frame that is accepted from a file."""
_RESULT = "result"
"""Name of a job's video without its ending."""
_NEXT = "next"
"""Folder of a job for the result of the running run; the earlier result is kept until this one is
complete."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job has made."""

    output: Path | None
    """The checked video; None if there is none."""
    keys: Mapping[int, Path]
    """Translated keyframes at working size, by frame number."""
    report: Path | None
    """Measures as JSON."""
    comparison: Path | None
    """Source, frame by frame and FRESCO side by side."""
    notes: tuple[str, ...]
    """Notes for the user about decisions of the run."""
    earlier: bool = False
    """Whether output, report and comparison were made by a run before the latest."""


Work = Callable[[JobRequest, Path, Progress], Outcome]
"""Runs a job in its folder; run again in the same folder, it resumes."""


def make_work(
    environment: Environment, find_scans: Callable[[Path], Path | None] = lambda source: None
) -> Work:
    """Make the function that runs jobs in an environment, which checked them when they were queued.

    Args:
        find_scans: finds a folder that may have scores of a source, made for its timeline.
    """

    def work(request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        # A file that cannot be read is not yet the source to hold on to.
        _require_disk(request, _info(request), folder, environment.limits.free_megabytes)
        _require_same_source(Path(request.source), folder)
        makes_video = request.goal in (Goal.ALL, Goal.PROPAGATION)
        place = _empty_folder(folder / _NEXT) if makes_video else folder
        result = _run(
            environment, request, folder,
            place / f"{_RESULT}{choose_suffix(request.settings.output.codec)}", progress,
            find_scans(Path(request.source)),
        )
        _require_same_source(Path(request.source), folder)
        if not makes_video:
            return Outcome(None, find_keyframes(folder), None, None, result.notes)
        _require_whole(result.output, request)
        _take_over(place, folder)
        output, report, comparison = (
            path and folder / path.name
            for path in (result.output, result.report, result.comparison)
        )
        return Outcome(output, find_keyframes(folder), report, comparison, result.notes)

    return work


def _require_disk(request: JobRequest, info: VideoInfo, folder: Path, kept: int) -> None:
    """Raise NoRoomError unless the disk has enough space for the files of the job."""
    space = folder / "workspace"  # files of an earlier run are used again
    there = sum(path.stat().st_size for path in space.rglob("*") if path.is_file())
    need = max(0, count_bytes(request, info) - there)
    require_free(folder, kept, need, what="The job")


def count_bytes(request: JobRequest, info: VideoInfo) -> int:
    """Estimate the bytes that a job writes, without files that it stores only if there is space."""
    settings, goal = request.settings, request.goal
    frames = max(1, _frames_used(info, settings))
    width, height = working_size(info.width, info.height, settings.sampling.resolution)
    image = width * height * _BYTES_PER_PIXEL
    carried = max(settings.propagation.resolution, min(width, height)) / min(width, height)
    if goal is Goal.KEYFRAME:
        return image
    if goal in (Goal.PREVIEW, Goal.KEYFRAMES):
        keys = frames // max(1, settings.keyframes.min_interval) + 1
        return image * (min(keys, request.preview) if goal is Goal.PREVIEW else keys)
    compared = settings.output.compare and goal is Goal.ALL
    encoded = info.width * info.height // _PIXELS_PER_BYTE
    if bits := FOLDERS.get(settings.output.codec):
        encoded = info.width * info.height * _BYTES_PER_PIXEL * bits // 8
    result = round(image * carried**2) + encoded
    return frames * (result + (2 * (image + encoded) if compared else 0))


def _empty_folder(place: Path) -> Path:
    """Make a folder, or empty it of files that a killed run left."""
    try:
        if place.is_symlink() or place.is_file():
            place.unlink()
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, place) from error
    return place


def _take_over(place: Path, folder: Path) -> None:
    """Replace the files of an earlier run of the job by the complete files of this run."""
    names = [path.name for path in sorted(place.iterdir())]
    try:
        shutil.rmtree(folder / _RESULT, ignore_errors=True)  # images of an earlier run
        for name in names:
            (place / name).replace(folder / name)
        place.rmdir()
        for ending in CONTAINERS:  # of an earlier run with another codec
            if f"{_RESULT}{ending}" not in names:
                (folder / f"{_RESULT}{ending}").unlink(missing_ok=True)
    except OSError as error:
        raise explain(error, folder) from error


def check_sizes(settings: FrescoSettings, limits: Limits) -> None:
    """Raise SettingsError if frames are larger than the server's limit."""
    for name, resolution in (
        ("sampling", settings.sampling.resolution),
        ("propagation", settings.propagation.resolution),
    ):
        if resolution > limits.resolution:
            raise SettingsError(
                f"{name}.resolution is {resolution}; this server takes up to {limits.resolution}."
            )


def check_limits(request: JobRequest, limits: Limits) -> None:
    """Raise SettingsError if a job is larger than the server's limits, or than its source."""
    check_sizes(request.settings, limits)
    if not limits.frames and not request.settings.sampling.ranges:
        return
    info = _info(request)
    check_ranges(request.settings.sampling, info.frames)
    if limits.frames:
        frames = _frames_used(info, request.settings)
        if frames > limits.frames:
            raise SettingsError(
                f"The job has {frames} frames; this server takes up to {limits.frames}. Choose a "
                "part by output.first_frame and output.last_frame."
            )


def _info(request: JobRequest) -> VideoInfo:
    with open_source(request.source, last_frame=request.settings.output.last_frame) as source:
        return source.info


def _frames_used(info: VideoInfo, settings: FrescoSettings) -> int:
    first, last = settings.output.first_frame, settings.output.last_frame
    return (info.frames - 1 if last < 0 else last) - first + 1


def _run(
    environment: Environment, request: JobRequest, folder: Path, output: Path, progress: Progress,
    scans: Path | None,
) -> RunResult:
    propagation = request.settings.propagation
    settings = dataclasses.replace(
        request.settings, flow=environment.complete_flow(request.settings.flow),
        propagation=dataclasses.replace(
            propagation, enabled=request.goal in (Goal.ALL, Goal.PROPAGATION),
            workers=propagation.workers or environment.limits.workers,
            cluster=propagation.cluster or environment.limits.cluster,
        ),
    )
    source, workspace = Path(request.source), folder / "workspace"
    if request.goal is Goal.PROPAGATION:
        return propagate_keys(
            source, Path(request.own_keys), output, settings, progress, workspace=workspace,
            scans=scans, device=environment.device, most=environment.limits.resolution,
        )

    def open_host() -> Host:
        return environment.open(request.host, settings.sampling)

    if request.goal is Goal.KEYFRAME:
        return retranslate_keyframe(
            source, output, settings, request.frame, open_host, progress, seed=request.frame_seed,
            workspace=workspace, scans=scans, control=request.host.control,
        )
    preview = request.preview if request.goal is Goal.PREVIEW else None
    return translate(
        source, output, settings, open_host, progress, preview=preview,
        workspace=workspace, scans=scans, about=describe_host(request.host),
        control=request.host.control,
    )


def find_keyframes(folder: Path) -> dict[int, Path]:
    """Find the keyframes that the job in this folder has made so far."""
    planned = _list_planned(folder)
    return {
        number: path for number, path in planned.items()
        if path.is_file() and not path.is_symlink()
    }


def _list_planned(folder: Path) -> dict[int, Path]:
    """List the paths of all keyframes that the job in this folder will have."""
    plan = read_json(folder / "workspace" / PLAN_NAME)
    if not isinstance(plan, dict) or not isinstance(plan.get("folder"), str):
        return {}
    place, numbers = folder / "workspace" / plan["folder"], plan.get("keyframes")
    if place.parent.parent != folder or place.name in ("", ".", ".."):
        return {}
    if place.is_symlink() or place.parent.is_symlink():
        return {}
    if not isinstance(numbers, list) or not all(
        type(number) is int and 0 <= number <= _LAST_FRAME for number in numbers
    ):
        return {}
    return {number: place / frame_name(number) for number in numbers}


def is_whole(request: JobRequest, folder: Path, outcome: Outcome) -> bool:
    """Whether all files that a finished job should have still exist."""
    if request.goal in (Goal.ALL, Goal.PROPAGATION):
        return outcome.output is not None and not outcome.earlier
    if request.goal is Goal.KEYFRAME:
        return request.frame in outcome.keys
    wanted = _list_planned(folder)
    if request.goal is Goal.PREVIEW:
        return 0 < min(request.preview, len(wanted)) <= len(outcome.keys)
    return 0 < len(wanted) == len(outcome.keys)


def _state(source: Path) -> dict[str, str]:
    """Facts that show quickly whether a source may have changed."""
    return {"path": str(source), "files": digest(list_state(source))}


def _require_same_source(source: Path, folder: Path) -> None:
    """Raise VideoError if the source is not the one with which the job began."""
    path = folder / "source.json"
    known = read_json(path)
    try:
        state = _state(source)
        if isinstance(known, dict) and known.get("path") == str(source):
            if known.get("files") == state["files"]:
                return
            if digest_source(source) != known.get("content"):
                raise VideoError(
                    f"{source} has changed since the job began, so what is finished no longer "
                    "fits; put the old file back, or start a new job."
                )
        write_json(path, {**state, "content": digest_source(source)})
    except OSError as error:
        raise VideoError(
            f"{source} cannot be read ({error.strerror or error}); check the file."
        ) from error


def _require_whole(output: Path, request: JobRequest) -> None:
    """Raise VideoError unless the result can be opened and read from first to last frame."""
    wanted = _frames_used(_info(request), request.settings)
    with open_source(output) as result:
        frames = result.info.frames
        if frames != wanted:
            raise VideoError(
                f"{output} holds {frames} of {wanted} frames; resume the job to write it again."
            )
        result.frame(0)
        result.frame(frames - 1)
