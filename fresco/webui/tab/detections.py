"""Detect keyframes in the background, and tell the page about it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fresco.errors import SettingsError
from fresco.progress import CancelToken, Progress, StageStatus
from fresco.server.ids import make_id
from fresco.server.videos import Detection, detect
from fresco.settings import FrescoSettings
from fresco.webui.tab.text import describe_error, with_labels
from fresco.webui.tab.timeline import Timeline, dump_timeline

_KEPT = 16
"""Number of latest detections whose answers are kept."""


@dataclass(slots=True)
class _Pass:
    """One detection; only its thread writes to it."""

    token: CancelToken = field(default_factory=CancelToken)
    status: StageStatus | None = None
    found: Detection | None = None
    error: str = ""


class Detections:
    """The running and latest detections, by their ids."""

    def __init__(self) -> None:
        self._passes: dict[str, _Pass] = {}
        self._lock = threading.Lock()

    def start(self, path: Path, settings: FrescoSettings, workspace: Path) -> str:
        """Start a detection, and return its id."""
        identity, began = make_id(), _Pass()
        with self._lock:
            self._passes[identity] = began
            for old in list(self._passes)[:-_KEPT]:
                self._passes.pop(old).token.cancel()

        def work() -> None:
            progress = Progress(lambda status: setattr(began, "status", status), began.token)
            try:
                began.found = detect(path, settings, workspace, progress)
            except Exception as error:
                began.error = describe_error(error)

        threading.Thread(target=work, name="fresco-detection", daemon=True).start()
        return identity

    def look(self, identity: str) -> dict[str, Any]:
        """The progress or the result of a detection, for JSON."""
        with self._lock:
            began = self._passes.get(identity)
        if began is None:
            raise SettingsError("This detection is no longer known; press Detect keyframes again.")
        if began.error:
            return {"state": "failed", "message": began.error}
        if began.found is None:
            status = began.status
            return {"state": "running", "done": status.done if status else 0,
                    "total": status.total if status else 0}
        return {"state": "done", "timeline": dump_timeline(build_timeline(began.found)),
                "size": list(began.found.size),
                "whole": [began.found.info.width, began.found.info.height]}


def build_timeline(found: Detection) -> Timeline:
    """Make the data of the timeline from a detection."""
    shots = tuple((plan.keyframes[0], plan.keyframes[-1]) for plan in found.plans)
    return Timeline(
        found.first, found.last, float(found.info.rate), found.changes, shots, found.keyframes,
        tuple(with_labels(text) for text in found.notes),
    )
