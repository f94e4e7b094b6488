"""Requests and states of jobs, as values; imports nothing of a host."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Any

from fresco.control import ControlUnit
from fresco.errors import SettingsError
from fresco.hosts.options import HostOptions, find_control_notes
from fresco.options import draw_seed, from_dict, to_dict
from fresco.settings import RANDOM_SEED, FrescoSettings

_JOINERS = "\u200c\u200d"
"""Invisible letters that are needed inside words of some languages, and inside emoji."""


def clean_title(text: str) -> str:
    """Clean a text for display in one line.

    Control characters are removed, also those that change the direction of the text around it.
    """
    return "".join(letter for letter in text if letter.isprintable() or letter in _JOINERS)


MASKS = "mask"
"""Beginning of the name of a job's folder of masks."""


class Goal(str, Enum):
    """How far a job goes."""

    PREVIEW = "preview"
    """Only the first keyframes."""
    KEYFRAMES = "keyframes"
    """All keyframes."""
    ALL = "all"
    """Keyframes, and every frame between them."""
    KEYFRAME = "keyframe"
    """One keyframe again, together with its neighbours, which are not changed."""
    PROPAGATION = "propagation"
    """External keyframes, propagated to every frame; no model is needed."""

    def __str__(self) -> str:
        return self.value


class State(str, Enum):
    """The states of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    DONE = "done"

    def __str__(self) -> str:
        return self.value

    @property
    def ended(self) -> bool:
        """Whether the job has ended and does nothing unless it is resumed."""
        return self in (State.CANCELLED, State.FAILED, State.DONE)

    @property
    def going(self) -> bool:
        """Whether the job waits or runs, and nobody has stopped it."""
        return self in (State.QUEUED, State.RUNNING)


FOLLOWS: Mapping[State, tuple[State, ...]] = {
    State.QUEUED: (State.RUNNING, State.CANCELLED),
    State.RUNNING: (State.CANCELLING, State.DONE, State.FAILED),
    State.CANCELLING: (State.CANCELLED, State.FAILED, State.DONE),
    State.CANCELLED: (State.QUEUED,),
    State.FAILED: (State.QUEUED,),
    State.DONE: (State.QUEUED,),
}
"""The possible changes of state. An ended job is queued again when it is resumed."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The request of a job."""

    source: str
    """Path of the video or folder of images."""
    goal: Goal = Goal.ALL
    """How far it goes."""
    settings: FrescoSettings = field(default_factory=FrescoSettings)
    """All options."""
    host: HostOptions = field(default_factory=HostOptions)
    """Options of the host's model and sampling."""
    own_keys: str = ""
    """Folder of external keyframes, for the goal `propagation`."""
    preview: int = 1
    """Number of keyframes of the goal `preview`, at least 1."""
    frame: int = -1
    """Keyframe of the goal `keyframe`, by its number in the source."""
    frame_seed: int | None = None
    """Seed of the goal `keyframe`; None: the seed in the settings, which all keyframes have."""
    title: str = ""
    """Name of the job, as shown; empty: the source's name."""
    webhook: str = field(default="", compare=False)
    """Address that is told when the job ends; empty: none."""
    random_seed: bool = field(default=False, compare=False)
    """Whether a random seed was asked for; that of the settings is the one that was drawn."""

    def __post_init__(self) -> None:
        if isinstance(self.title, str):
            object.__setattr__(self, "title", clean_title(self.title))
        if self.goal is Goal.PROPAGATION and not self.own_keys:
            raise SettingsError(
                "The goal is propagation but there are no keyframes; give your own stylised ones, "
                "or choose another goal."
            )
        if self.goal is Goal.KEYFRAME and self.frame < 0:
            raise SettingsError(
                "The goal is keyframe but no frame is named; give the number of a keyframe."
            )


def list_request_notes(request: JobRequest) -> tuple[str, ...]:
    """List notes for the user about a request, before it runs."""
    seed = request.settings.sampling.seed
    drawn = (f"sampling.seed is {seed}, drawn at random.",) if request.random_seed else ()
    return (*drawn, *find_control_notes(request.host.control))


def list_folders(request: JobRequest) -> dict[str, str]:
    """List the folders of images that a request names besides its source; empty if none."""
    return {"own": request.own_keys, MASKS: request.settings.mask.path}


def with_folders(request: JobRequest, folders: Mapping[str, str]) -> JobRequest:
    """Replace the folders of `list_folders` in a request."""
    mask = dataclasses.replace(request.settings.mask, path=folders[MASKS])
    settings = dataclasses.replace(request.settings, mask=mask)
    return dataclasses.replace(request, own_keys=folders["own"], settings=settings)


def with_seed(request: JobRequest, seed: int) -> JobRequest:
    """Replace the seed of all keyframes in a request."""
    sampling = dataclasses.replace(request.settings.sampling, seed=seed)
    return dataclasses.replace(
        request, settings=dataclasses.replace(request.settings, sampling=sampling)
    )


def draw_seeds(request: JobRequest) -> JobRequest:
    """Draw a seed for every random one in a request, so that a resumed job stays the same."""
    if request.settings.sampling.seed == RANDOM_SEED:
        request = dataclasses.replace(with_seed(request, draw_seed()), random_seed=True)
    if request.frame_seed == RANDOM_SEED:
        request = dataclasses.replace(request, frame_seed=draw_seed())
    return request


def _require_types(request: JobRequest) -> None:
    """Raise SettingsError if a request from a file has values that no front end would send."""
    texts = {name: getattr(request, name) for name in ("source", "own_keys", "title", "webhook")}
    for name, value in (texts | dataclasses.asdict(request.host)).items():
        if name != "control" and not isinstance(value, str):
            raise SettingsError(f"{name} is {value!r}; give a text.")
    for unit in request.host.control:
        for name in ("model", "module", "hints"):
            if not isinstance(getattr(unit, name), str):
                raise SettingsError(f"control.{name} is {getattr(unit, name)!r}; give a text.")
        _require_whole("control.resolution", unit.resolution, 0)
    _require_whole("preview", request.preview, 1)
    _require_whole("frame", request.frame, -1)
    if not isinstance(request.random_seed, bool):
        raise SettingsError(f"random_seed is {request.random_seed!r}; give true or false.")
    if request.frame_seed is not None:
        _require_whole("frame_seed", request.frame_seed, 0)


def _require_whole(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**63:
        raise SettingsError(f"{name} is {value!r}; give a whole number from {low}.")


def dump_request(request: JobRequest) -> dict[str, Any]:
    """Convert a request to a nested dict for JSON."""
    return {**dataclasses.asdict(request), "goal": request.goal.value,
            "settings": to_dict(request.settings)}


def load_request(values: Mapping[str, Any]) -> JobRequest:
    """Read a request from the dict of `dump_request`, and check its values."""
    known = dict(values)
    try:
        settings = from_dict(known.pop("settings", {}))
        goal = Goal(known.pop("goal", Goal.ALL.value))
        host = dict(known.pop("host", {}))
        control = tuple(ControlUnit(**unit) for unit in host.pop("control", ()))
        request = JobRequest(
            goal=goal, settings=settings, host=HostOptions(**host, control=control), **known
        )
        _require_types(request)
    except (TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f"The job cannot be read: {error}.") from error
    return request


def describe_host(host: HostOptions) -> dict[str, Any]:
    """Describe the host's options for JSON in a result.

    Of files and folders only the names are included, because a result is shown to others.
    """
    told = dataclasses.asdict(host)
    for unit in told["control"]:
        unit["hints"] = PurePath(unit["hints"].replace("\\", "/")).name
    return told


_LATEST = 1e10
"""Largest number of seconds that counts as a time: the year 2286."""
NEW_RESULT = "new"
"""The video was made by the latest run."""
EARLIER_RESULT = "earlier"
"""The video was made by an earlier run; the latest has made none, or none yet."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The status of a job. It is replaced as a whole, never changed."""

    id: str
    """Opaque id, which is the name of the job's folder."""
    state: State
    """State of the job."""
    title: str
    """Name of the job, as shown."""
    goal: Goal
    """How far it goes."""
    created: float
    """Seconds since 1970."""
    stage: str = ""
    """The running stage, such as `keyframes`."""
    done: int = 0
    """Finished units of the stage."""
    total: int = 0
    """Units of the stage; 0 while unknown."""
    seconds_left: float | None = None
    """Time left of the stage, at its present rate."""
    job_seconds_left: float | None = None
    """Time left of the whole job, from the pace of the running stage and of the latest jobs on this
    machine; None if not known."""
    message: str = ""
    """A sentence for the user: what happens now, or why the job failed and what to do."""
    started: float | None = None
    """Seconds since 1970 of the latest start."""
    ended: float | None = None
    """Seconds since 1970 of the end."""
    notes: tuple[str, ...] = ()
    """Notes for the user about decisions of the run."""
    result: str = ""
    """Which video exists: `NEW_RESULT`, `EARLIER_RESULT`, or empty for none."""
    version: int = 0
    """Increased with every change."""


def dump_status(status: JobStatus) -> dict[str, Any]:
    """Convert a status to a dict for JSON."""
    return {**dataclasses.asdict(status), "state": status.state.value, "goal": status.goal.value,
            "notes": list(status.notes)}


def _require_status_types(status: JobStatus) -> None:
    """Raise SettingsError if a status from a file has values that this program does not write."""
    for name in ("id", "title", "stage", "message"):
        if not isinstance(getattr(status, name), str):
            raise SettingsError(f"{name} is {getattr(status, name)!r}; give a text.")
    if not all(isinstance(note, str) for note in status.notes):
        raise SettingsError(f"notes are {status.notes!r}; give texts.")
    if status.result not in ("", NEW_RESULT, EARLIER_RESULT):
        raise SettingsError(f"result is {status.result!r}; that is no result.")
    for name in ("done", "total", "version"):
        _require_whole(name, getattr(status, name), 0)
    _require_number("created", status.created)
    for name in ("started", "ended", "seconds_left", "job_seconds_left"):
        if getattr(status, name) is not None:
            _require_number(name, getattr(status, name))


def _require_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (
        -_LATEST < value < _LATEST  # not a number is in no range
    ):
        raise SettingsError(f"{name} is {value!r}; give seconds, fewer than {_LATEST:.0e}.")


def load_status(values: Mapping[str, Any]) -> JobStatus:
    """Read a status from the dict of `dump_status`."""
    known = dict(values)
    try:
        notes = known.pop("notes", [])
        status = JobStatus(
            state=State(known.pop("state")), goal=Goal(known.pop("goal")), notes=tuple(notes),
            **known,
        )
        _require_status_types(status)
        return dataclasses.replace(status, title=clean_title(status.title))
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"The status of a job cannot be read: {error}.") from error
