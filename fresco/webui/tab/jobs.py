"""Make a job from the values of the tab's controls, or continue the selected one."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco.errors import SettingsError
from fresco.run.external_keyframes import number_keyframes
from fresco.server.jobs.engine import UnknownJobError
from fresco.server.jobs.job import Goal, JobRequest, JobStatus, with_seed
from fresco.server.service import Service
from fresco.settings import RANDOM_SEED, FrescoSettings
from fresco.video.folder import IMAGE_SUFFIXES
from fresco.webui.tab.drawings import place_drawings
from fresco.webui.tab.text import NO_VIDEO
from fresco.webui.tab.values import list_entries, read_values
from fresco.writing import copy_file

_REACH = {Goal.PREVIEW: 0, Goal.KEYFRAMES: 1, Goal.ALL: 2}
"""Goals that continue one another, from the nearest to the farthest."""
_OF_KEYFRAMES = {"keys", "key_prompts", "ranges"}
"""Options that have no effect on finding keyframes."""
_ANY_LENGTH = 10**9
_PRESS = 2.0
"""Seconds within which the same button counts as pressed once, where every press draws a seed."""


@dataclass(frozen=True, slots=True)
class LoadedClip:
    """The video or folder in the tab; stored on the server, so that a page cannot name another."""

    path: str
    """File or folder."""
    name: str
    """Name for users."""
    last: int
    """Its last frame."""
    loading: str = ""
    """Number that differs at every loading, because edits belong to one loading."""


def read_detection_settings(values: Sequence[Any], last: int) -> FrescoSettings:
    """Read the settings for finding keyframes, without keyframes by hand."""
    without = [
        "" if entry.name in _OF_KEYFRAMES else value
        for entry, value in zip(list_entries(), values, strict=False)
    ]
    return read_values([*without, *values[len(without):]], last)[0]


def _given(source: LoadedClip | None) -> LoadedClip:
    if source is None:
        raise SettingsError(NO_VIDEO)
    return source


def translate_job(
    service: Service, job: str, goal: Goal, source: LoadedClip | None, values: Sequence[Any], *,
    drawings: str = "",
) -> tuple[JobStatus, str]:
    """Start or continue a translation; return the job and a sentence about it.

    Args:
        job: id of the selected job, which is continued where the settings are its own.
        drawings: masks that the page has drawn.
    """
    source = _given(source)
    settings, host = read_values(values, source.last)
    with place_drawings(service, settings, drawings) as settings:
        request = JobRequest(source.path, goal, settings, host, title=source.name)
        if continued := _continue(service, job, request):
            status = service.resume_once(job, continued)
            return status, f"Continues job {status.title}; every finished batch is used again."
        return _submit(service, request)


def _submit(service: Service, request: JobRequest) -> tuple[JobStatus, str]:
    status, fresh = service.submit_once(request, pressed=_PRESS)
    return status, "" if fresh else f"Job {status.title} is {status.state} already."


def _continue(service: Service, job: str, request: JobRequest) -> JobRequest | None:
    """Make the request that continues the selected job; None if the settings need another job.

    A random seed continues what was begun with one, but asks for other images of the same goal.
    """
    try:
        before, state = service.engine.request(job), service.engine.status(job).state
    except UnknownJobError:
        return None
    if before.goal is Goal.PROPAGATION and request.goal is not Goal.PROPAGATION:
        return None  # keyframes from elsewhere are no beginning of a translation
    request = dataclasses.replace(request, title=before.title)  # it may have been renamed
    reach, asked = _REACH.get(before.goal, 9), _REACH[request.goal]
    again = before.goal is Goal.KEYFRAME
    if request.settings.sampling.seed == RANDOM_SEED:
        if not (before.random_seed and (reach < asked or again)):
            return None
        drawn = with_seed(request, before.settings.sampling.seed)
        request = dataclasses.replace(drawn, random_seed=True)
    # Keyframes and frames do not depend on the mask, and those of other ranges are used again.
    sampling = dataclasses.replace(
        request.settings.sampling, ranges=before.settings.sampling.ranges
    )
    settings = dataclasses.replace(
        request.settings, mask=before.settings.mask, sampling=sampling
    )
    same = dataclasses.replace(
        request, settings=settings, goal=before.goal,
        host=service.environment.resolve(request.host), frame=before.frame,
        frame_seed=before.frame_seed,
    )
    return request if state.ended and (reach <= asked or again) and same == before else None


def propagate_job(
    service: Service, job: str, source: LoadedClip | None, files: Sequence[Path], folder: str,
    values: Sequence[Any], *, drawings: str = "",
) -> tuple[JobStatus, str]:
    """Propagate external keyframes if there are any, else those of the selected job."""
    if files or folder.strip():
        there = _given(source)
        settings, _ = read_values(values, there.last)
        with place_drawings(service, settings, drawings) as settings, \
                _own_folder(service, files, folder.strip().strip('"')) as own:
            return _submit(service, JobRequest(
                there.path, Goal.PROPAGATION, settings, own_keys=own, title=there.name
            ))
    try:
        before = service.engine.request(job)
    except UnknownJobError as error:
        raise SettingsError(
            "There are no keyframes to propagate: run keyframes first, select a job that has them, "
            "or give external keyframes."
        ) from error
    last = source.last if source and source.path == before.source else _ANY_LENGTH
    now, _ = read_values(values, last)
    with place_drawings(service, now, drawings) as now:
        # The keyframes stay those of the job: only what comes after them is taken from the tab.
        output = dataclasses.replace(
            now.output, first_frame=before.settings.output.first_frame,
            last_frame=before.settings.output.last_frame,
        )
        settings = dataclasses.replace(
            before.settings, propagation=now.propagation, blend=now.blend, mask=now.mask,
            output=output,
        )
        goal = before.goal if before.goal is Goal.PROPAGATION else Goal.ALL
        changed = dataclasses.replace(before, goal=goal, settings=settings)
        status = service.resume_once(job, changed)
    return status, f"Propagates the keyframes of job {status.title} to every frame."


@contextmanager
def _own_folder(service: Service, files: Sequence[Path], folder: str) -> Iterator[str]:
    """Within the context, a folder of external keyframes: one of the server, or of uploaded files.
    """
    if not files:
        service.environment.require_allowed(folder)
        yield folder
        return
    for path in files:
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise SettingsError(f"{path.name} is not an image; give PNG or JPEG keyframes.")
    number_keyframes(files)
    place = service.engine.new_folder()
    try:
        for path in files:
            copy_file(path, place / path.name, lasting=False)
        yield str(place)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
