"""What jobs, tab and API need of the program around: its models, settings, folders and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fresco.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fresco.control import ControlUnit
    from fresco.guidance.ports import Host
    from fresco.hosts.options import HostOptions, Sliders
    from fresco.settings import FlowSettings, SamplingSettings


@dataclass(frozen=True, slots=True)
class Offer:
    """What there is to choose from."""

    models: tuple[str, ...]
    """Checkpoints; the loaded one first."""
    samplers: tuple[str, ...]
    """Samplers that FRESCO can guide; the default first."""
    schedulers: tuple[str, ...] = ()
    """Noise schedules; empty: there is no choice of them."""
    control_models: tuple[str, ...] = ()
    """ControlNets; empty: there is none."""
    control_modules: tuple[str, ...] = ()
    """ControlNet's preprocessors."""
    upscalers: tuple[str, ...] = ()
    """What can enlarge keyframes besides Lanczos."""
    loras: tuple[str, ...] = ()
    """LoRA files by the names that prompts call them by."""
    styles: tuple[str, ...] = ()
    """Styles of prompts."""
    control_units: int = 0
    """ControlNet units of a job at most; 0: there is no ControlNet."""
    control_sliders: Mapping[str, Sliders] = field(default_factory=dict)
    """Numbers of ControlNet's preprocessors that have some, by the fields of a unit."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the check of the installation."""

    name: str
    """What was looked at."""
    fine: bool
    """Whether it works."""
    text: str
    """What was found, and what to do where it does not work."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes on."""

    upload_megabytes: int = 2048
    """Largest upload."""
    frames: int = 0
    """Most frames of a job; 0: any number."""
    resolution: int = 1024
    """Largest short side of the frames the model sees."""
    workers: int = 0
    """Processes of a job that does not say how many; 0: as many as cores."""
    cluster: str = ""
    """Scheduler of a dask.distributed cluster that propagates; empty: this machine."""
    waiting_jobs: int = 100
    """Most jobs that wait for their turn; 0: any number."""
    free_megabytes: int = 1024
    """Disk space that jobs and uploads leave free."""
    webhooks: str = ""
    """Addresses that may be told of the end of jobs, with commas; empty: none."""


class Environment(Protocol):
    """The program around jobs: a WebUI, or a test."""

    @property
    def name(self) -> str:
        """Program and version, as shown to the user."""
        ...

    @property
    def device(self) -> str:
        """Where optical flow is estimated for jobs that need no model."""
        ...

    @property
    def limits(self) -> Limits:
        """As its settings say now."""
        ...

    def offer(self) -> Offer:
        """What there is to choose from now."""
        ...

    def resolve(self, options: HostOptions) -> HostOptions:
        """The options with every empty one filled in as it is now, so that a resumed job is the
        same job. Raises SettingsError naming what is not there."""
        ...

    def open(self, options: HostOptions, sampling: SamplingSettings) -> Host:
        """The model, for one job. Loads it when it is needed."""
        ...

    def draw_hint(self, unit: ControlUnit, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The hint [H, W, 3] RGB that a unit's preprocessor makes of a frame of that size. Raises
        SettingsError naming what is not there."""
        ...

    def add_styles(self, names: Sequence[str], prompt: str, negative: str) -> tuple[str, str]:
        """Prompt and negative prompt with styles added. Raises SettingsError for a name that is
        not among those offered."""
        ...

    def count_tokens(self, prompt: str) -> tuple[int, int] | None:
        """Tokens of a prompt, and how many its chunks hold; None: not known now."""
        ...

    def complete_flow(self, settings: FlowSettings) -> FlowSettings:
        """The settings with the folder of weights filled in, and downloads as they are allowed."""
        ...

    def require_allowed(self, path: str) -> None:
        """Raise SettingsError unless a client may name this path of the server."""
        ...

    def list_versions(self) -> Mapping[str, str]:
        """Package or program -> version, for reports."""
        ...

    def run_checks(self) -> tuple[Check, ...]:
        """Checks that only this program can make, such as of ControlNet."""
        ...


def require_styles(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise SettingsError for a style that is not there."""
    for name in names:
        if name not in known:
            raise SettingsError(
                f"styles hold {name!r}; choose among {', '.join(known) or 'none: there is none'}."
            )
