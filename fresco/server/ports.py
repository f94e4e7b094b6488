"""The interface of jobs, tab and API to the program around them: models, settings and limits."""

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
    """The models and options that a user can choose from."""

    models: tuple[str, ...]
    """Checkpoints; the loaded one first."""
    samplers: tuple[str, ...]
    """Samplers that FRESCO can guide; the default first."""
    schedulers: tuple[str, ...] = ()
    """Noise schedules; empty if they cannot be chosen."""
    control_models: tuple[str, ...] = ()
    """ControlNets; empty if there are none."""
    control_modules: tuple[str, ...] = ()
    """ControlNet's preprocessors."""
    upscalers: tuple[str, ...] = ()
    """Upscalers for keyframes, in addition to Lanczos."""
    loras: tuple[str, ...] = ()
    """LoRA files, by their names in prompts."""
    styles: tuple[str, ...] = ()
    """Styles of prompts."""
    control_units: int = 0
    """Largest number of ControlNet units of a job; 0 if there is no ControlNet."""
    control_sliders: Mapping[str, Sliders] = field(default_factory=dict)
    """Adjustable numbers of ControlNet's preprocessors, by the fields of a unit."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the check of the installation."""

    name: str
    """What was checked."""
    fine: bool
    """Whether it works."""
    text: str
    """What was found, and what to do if it does not work."""
    needed: bool = True
    """Whether jobs need it; what is optional is shown as missing, not as broken."""


def count(number: int, thing: str) -> str:
    """A number of things in words: `1 model`, `2 models`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a server."""

    upload_megabytes: int = 2048
    """Largest upload in megabytes."""
    frames: int = 0
    """Largest number of frames of a job; 0: any number."""
    resolution: int = 1024
    """Largest short side of the frames the model sees."""
    workers: int = 0
    """Number of processes of a job that does not set it; 0: one for each core."""
    cluster: str = ""
    """Scheduler of a dask.distributed cluster for propagation; empty: this machine is used."""
    waiting_jobs: int = 100
    """Largest number of waiting jobs; 0: any number."""
    free_megabytes: int = 1024
    """Megabytes of disk space that jobs and uploads must leave free."""
    webhooks: str = ""
    """Addresses that may be called at the end of jobs, with commas; empty: none."""


class Environment(Protocol):
    """The program in which jobs run: a WebUI, `fresco ui`, or a test."""

    @property
    def name(self) -> str:
        """Program and version, as shown to the user."""
        ...

    @property
    def device(self) -> str:
        """Device on which optical flow is estimated for jobs that need no model."""
        ...

    @property
    def limits(self) -> Limits:
        """The limits that its settings have now."""
        ...

    def offer(self) -> Offer:
        """The models and options that can be chosen now."""
        ...

    def resolve(self, options: HostOptions) -> HostOptions:
        """Fill in every empty option with its current value, so that a resumed job stays the same.

        Raises SettingsError with the name of what does not exist.
        """
        ...

    def open(self, options: HostOptions, sampling: SamplingSettings) -> Host:
        """Open the model for one job, and load it if necessary."""
        ...

    def draw_hint(self, unit: ControlUnit, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw the hint [H, W, 3] RGB of a unit's preprocessor for a frame of that size.

        Raises SettingsError with the name of what does not exist.
        """
        ...

    def add_styles(self, names: Sequence[str], prompt: str, negative: str) -> tuple[str, str]:
        """Add styles to the prompt and the negative prompt; SettingsError for an unknown name."""
        ...

    def count_tokens(self, prompt: str) -> tuple[int, int] | None:
        """Number of tokens in a prompt, and how many its chunks can have; None if not known now."""
        ...

    def complete_flow(self, settings: FlowSettings) -> FlowSettings:
        """Fill in the folder of weights, and whether downloads are allowed."""
        ...

    def require_allowed(self, path: str) -> None:
        """Raise SettingsError unless a client may name this path of the server."""
        ...

    def list_versions(self) -> Mapping[str, str]:
        """Versions of packages and programs, by name, for reports."""
        ...

    def run_checks(self) -> tuple[Check, ...]:
        """Run the checks that only this program can make, such as of ControlNet."""
        ...


def require_styles(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise SettingsError for an unknown style."""
    for name in names:
        if name not in known:
            raise SettingsError(
                f"styles hold {name!r}; choose among {', '.join(known) or 'none: there is none'}."
            )
