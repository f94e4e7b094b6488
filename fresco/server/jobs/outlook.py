"""Estimate how long a whole job takes, from the stages of the latest jobs on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fresco.progress import StageStatus
from fresco.server.jobs.job import Goal, JobRequest
from fresco.server.jobs.store import StagePace

_KEYFRAMES = "keyframes"
_SCAN = "scan"
"""The first stage of every run; its units are the frames."""
_CARRY = frozenset({"propagate", "write", "measure", "measure keyframes", "compare",
                    "frame by frame", "ends", "enlarge", "colours", "join"})
"""Stages that only a job that makes a video has."""
_OPTIONAL: Mapping[str, Callable[[JobRequest], bool]] = {
    "compare": lambda request: request.settings.output.compare,
    "frame by frame": lambda request: request.settings.output.compare,
    "colours": lambda request: request.settings.propagation.even_colours,
    "join": lambda request: request.settings.propagation.join_keyframes,
    "measure": lambda request: request.settings.output.measures,
    "measure keyframes": lambda request: request.settings.output.measures,
}
"""Stages that run only if an option asks for them."""


@dataclass(frozen=True, slots=True)
class PastJob:
    """A finished job from which later ones are estimated."""

    request: JobRequest
    """Its request."""
    stages: Mapping[str, StagePace]
    """Its stages, in the order in which they ran."""


@dataclass(slots=True)
class Outlook:
    """Estimates the time left of a running job.

    For the running stage its own pace is used, once it has one. For later stages the pace of the
    latest job that had them is used, scaled by frames and pixels, and for keyframes also by steps.
    If a later stage never ran on this machine, no time is given.
    """

    request: JobRequest
    """Request of the job."""
    past: Sequence[PastJob]
    """Finished jobs, the latest first."""
    frames: int = 0
    """Number of frames of the job; 0 until a scan has counted them."""
    _over: set[str] = field(default_factory=set, init=False)

    def take(self, status: StageStatus) -> float | None:
        """Estimate the seconds left of the whole job from an outermost stage's status, or None."""
        if status.stage == _SCAN and status.total:
            self.frames = status.total
        if status.finished:
            self._over.add(status.stage)
        return self._count(status)

    def _count(self, status: StageStatus) -> float | None:
        now: float | None = 0.0
        if not status.finished:
            now = status.seconds_left
            if now is None:
                whole = self._expect(status.stage)
                now = None if whole is None else max(0.0, whole - status.seconds)
        later = [self._expect(stage) for stage in self._list_later(status.stage)]
        known = [now, *later]
        if (not later and not self._is_planned()) or any(part is None for part in known):
            return None
        return sum(part for part in known if part is not None)

    def _is_planned(self) -> bool:
        """Whether a job of this kind has run before."""
        return any(_is_alike(past.request, self.request) for past in self.past)

    def _list_later(self, stage: str) -> list[str]:
        """List the later stages, in the order of the latest job that had at least these stages."""
        for past in self.past:
            if not _is_alike(past.request, self.request):
                continue
            names = list(past.stages)
            begin = names.index(stage) + 1 if stage in names else 0
            return [name for name in names[begin:]
                    if name not in self._over and name != stage and self._has(name)]
        return []

    def _has(self, stage: str) -> bool:
        asked = _OPTIONAL.get(stage)
        if stage in _CARRY and not _makes_video(self.request):
            return False
        return asked is None or asked(self.request)

    def _expect(self, stage: str) -> float | None:
        """Estimate the seconds of a whole stage from the latest job that had it."""
        for past in self.past:
            pace = past.stages.get(stage)
            if pace is None or not pace.made:
                continue
            longer = self._compare_length(past)
            if longer is None:
                continue
            whole = pace.seconds * pace.total / pace.made
            return whole * longer * _compare_work(stage, past.request, self.request)
        return None

    def _compare_length(self, past: PastJob) -> float | None:
        """Ratio of the frames of this job to those of an earlier one."""
        frames = next((past.stages[name].total for name in ("write", _SCAN)
                       if name in past.stages), 0)
        if frames and self.frames:
            return self.frames / frames
        return 1.0 if _get_range(past.request) == _get_range(self.request) else None


def _get_range(request: JobRequest) -> tuple[str, int, int]:
    output = request.settings.output
    return request.source, output.first_frame, output.last_frame


def _makes_video(request: JobRequest) -> bool:
    return request.goal in (Goal.ALL, Goal.PROPAGATION)


def _is_alike(past: JobRequest, request: JobRequest) -> bool:
    """Whether a job had at least the stages of another."""
    if (past.goal is Goal.PROPAGATION) != (request.goal is Goal.PROPAGATION):
        return False
    return past.goal is Goal.ALL or past.goal is request.goal


def _compare_work(stage: str, past: JobRequest, request: JobRequest) -> float:
    """Ratio of the cost of a frame in a stage to that in an earlier job."""
    before, now = past.settings.sampling, request.settings.sampling
    if stage in (_SCAN, "write"):
        return 1.0  # at the size of the source
    pixels = (now.resolution / before.resolution) ** 2
    if stage not in (_KEYFRAMES, "frame by frame"):
        return pixels
    calls = [max(1.0, each.steps * each.strength) + 1 for each in (before, now)]
    return pixels * calls[1] / calls[0]
