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
"""Invisible letters that words of some languages, and emoji, are made with."""


def clean_title(text: str) -> str:
    """A text to be shown in one line: without control characters, among them those that turn the
    direction of what stands around it."""
    return "".join(letter for letter in text if letter.isprintable() or letter in _JOINERS)


MASKS = "mask"
"""How the name of a job's folder of masks begins."""


class Goal(str, Enum):
    """How far a job goes."""

    PREVIEW = "preview"
    """The first keyframes alone."""
    KEYFRAMES = "keyframes"
    """All keyframes."""
    ALL = "all"
    """Keyframes, and every frame between them."""
    KEYFRAME = "keyframe"
    """One keyframe again, alone with its neighbours; those stay as they are."""
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
        """Whether nothing happens any more unless the job is resumed."""
        return self in (State.CANCELLED, State.FAILED, State.DONE)

    @property
    def going(self) -> bool:
        """Whether the job comes to its end unless somebody stops it."""
        return self in (State.QUEUED, State.RUNNING)


FOLLOWS: Mapping[State, tuple[State, ...]] = {
    State.QUEUED: (State.RUNNING, State.CANCELLED),
    State.RUNNING: (State.CANCELLING, State.DONE, State.FAILED),
    State.CANCELLING: (State.CANCELLED, State.FAILED, State.DONE),
    State.CANCELLED: (State.QUEUED,),
    State.FAILED: (State.QUEUED,),
    State.DONE: (State.QUEUED,),
}
"""The only changes of state there are. An ended job is queued again when it is resumed."""


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
    """For the host's sampling."""
    own_keys: str = ""
    """Folder of external keyframes, for the goal `propagation`."""
    preview: int = 1
    """Keyframes of the goal `preview`, from 1."""
    frame: int = -1
    """Keyframe of the goal `keyframe`, by its number in the source."""
    frame_seed: int | None = None
    """Seed of the goal `keyframe`; None: that of the settings, which all keyframes have."""
    title: str = ""
    """For people; empty: the source's name."""
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
    """What a person should know of a request before it runs."""
    seed = request.settings.sampling.seed
    drawn = (f"sampling.seed is {seed}, drawn at random.",) if request.random_seed else ()
    return (*drawn, *find_control_notes(request.host.control))


def list_folders(request: JobRequest) -> dict[str, str]:
    """The folders of images that a request names beside its source; empty: none."""
    return {"own": request.own_keys, MASKS: request.settings.mask.path}


def with_folders(request: JobRequest, folders: Mapping[str, str]) -> JobRequest:
    """The request with other folders of `list_folders`."""
    mask = dataclasses.replace(request.settings.mask, path=folders[MASKS])
    settings = dataclasses.replace(request.settings, mask=mask)
    return dataclasses.replace(request, own_keys=folders["own"], settings=settings)


def with_seed(request: JobRequest, seed: int) -> JobRequest:
    """The request with another seed of all keyframes."""
    sampling = dataclasses.replace(request.settings.sampling, seed=seed)
    return dataclasses.replace(
        request, settings=dataclasses.replace(request.settings, sampling=sampling)
    )


def draw_seeds(request: JobRequest) -> JobRequest:
    """The request with a drawn seed for every random one, so that a resumed job is the same."""
    if request.settings.sampling.seed == RANDOM_SEED:
        request = dataclasses.replace(with_seed(request, draw_seed()), random_seed=True)
    if request.frame_seed == RANDOM_SEED:
        request = dataclasses.replace(request, frame_seed=draw_seed())
    return request


def _require_types(request: JobRequest) -> None:
    """Raise SettingsError if a request from a file holds what no front end would ask for."""
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
    """Plain nested dict, for JSON."""
    return {**dataclasses.asdict(request), "goal": request.goal.value,
            "settings": to_dict(request.settings)}


def load_request(values: Mapping[str, Any]) -> JobRequest:
    """A request from the dict of `dump_request`, whose values are checked here, once."""
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
    """What a result says of the host, for JSON; of files and folders the names alone, as a result
    is shown to others."""
    told = dataclasses.asdict(host)
    for unit in told["control"]:
        unit["hints"] = PurePath(unit["hints"].replace("\\", "/")).name
    return told


_LATEST = 1e10
"""Seconds that are taken for a time: the year 2286. What is created later would be older."""
NEW_RESULT = "new"
"""The video is of the latest run."""
EARLIER_RESULT = "earlier"
"""The video is of a run before the latest, which has made none, or none yet."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The status of a job. Replaced whole, never edited."""

    id: str
    """Opaque; name of the job's folder."""
    state: State
    """Where it stands."""
    title: str
    """For people."""
    goal: Goal
    """How far it goes."""
    created: float
    """Seconds since 1970."""
    stage: str = ""
    """The stage at work, such as `keyframes`."""
    done: int = 0
    """Units of the stage that are finished."""
    total: int = 0
    """Units of the stage; 0 while unknown."""
    seconds_left: float | None = None
    """Of the stage, at its present rate."""
    job_seconds_left: float | None = None
    """Of the whole job, by the pace of the stage at work and of the latest jobs here; None: not
    known."""
    message: str = ""
    """A sentence for the user: what goes on, or why it failed and what to do."""
    started: float | None = None
    """Seconds since 1970 of the latest start."""
    ended: float | None = None
    """Seconds since 1970 of the end."""
    notes: tuple[str, ...] = ()
    """What a person should know of what was decided."""
    result: str = ""
    """The video there is: `NEW_RESULT`, `EARLIER_RESULT`, or empty."""
    version: int = 0
    """Raised with every change."""


def dump_status(status: JobStatus) -> dict[str, Any]:
    """Plain dict, for JSON."""
    return {**dataclasses.asdict(status), "state": status.state.value, "goal": status.goal.value,
            "notes": list(status.notes)}


def _require_status_types(status: JobStatus) -> None:
    """Raise SettingsError if a status from a file holds what this program does not write."""
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
    """A status from the dict of `dump_status`."""
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
