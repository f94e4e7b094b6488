"""Build the answers of the API as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fresco.planning.keyframes import KeyframePlan
from fresco.server.api.route import MissingError
from fresco.server.jobs.job import JobStatus
from fresco.server.videos import Detection, StoredVideo
from fresco.video.index import VideoInfo
from fresco.workspace import read_json


def describe_info(info: VideoInfo) -> dict[str, Any]:
    """Describe a video, without paths of the server."""
    return {
        "width": info.width, "height": info.height, "rate": float(info.rate),
        "rate_exact": str(info.rate), "frames": info.frames, "seconds": float(info.seconds),
        "has_sound": info.has_sound, "variable_rate": info.variable_rate,
        "notes": list(info.notes),
    }


def describe_video(video: StoredVideo, jobs: Iterable[JobStatus] = ()) -> dict[str, Any]:
    """Describe an uploaded video, and the jobs that need it."""
    return {"id": video.id, "name": video.name, "bytes": video.size,
            "jobs": [status.id for status in jobs], "info": describe_info(video.info)}


def describe_detection(found: Detection) -> dict[str, Any]:
    """Describe the detected shots and keyframes."""
    return {
        "keyframes": list(found.keyframes), "shots": [_shot(plan) for plan in found.plans],
        "first": found.first, "last": found.last, "size": list(found.size),
        "changes": list(found.changes), "info": describe_info(found.info),
        "notes": list(found.notes),
    }


def _shot(plan: KeyframePlan) -> dict[str, Any]:
    return {
        "first": plan.keyframes[0], "last": plan.keyframes[-1],
        "keyframes": list(plan.keyframes),
        "batches": [list(batch.all) for batch in plan.batches],
    }


def read_report(path: Path) -> dict[str, Any]:
    """Read the measures; infinity and NaN become null, because JSON does not have them."""
    known = read_json(path)
    if not isinstance(known, dict):
        raise MissingError("The report of the job is damaged; start a new job to have one.")
    return dict(_finite(known))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
