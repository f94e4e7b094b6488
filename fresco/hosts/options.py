"""What a host's own model and sampling take beyond the settings. Nothing of a host is imported."""

from __future__ import annotations

from dataclasses import dataclass

from fresco.errors import SettingsError


@dataclass(frozen=True, slots=True)
class ControlUnit:
    """One ControlNet unit of the host, fed with each keyframe's own hint."""

    model: str
    """As the host lists it."""
    module: str = "none"
    """Preprocessor, as the host lists it."""
    weight: float = 1.0
    """Strength, 0 to 2."""
    start: float = 0.0
    """Share of the schedule where it begins, 0 to 1."""
    end: float = 1.0
    """Share of the schedule where it ends, 0 to 1."""

    def __post_init__(self) -> None:
        for name, value, high in (("weight", self.weight, 2), ("start", self.start, 1),
                                  ("end", self.end, 1)):
            if not 0 <= value <= high:
                raise SettingsError(f"control.{name} is {value}; give 0 to {high}.")
        if self.start > self.end:
            raise SettingsError(
                f"control.start is {self.start}, after its end {self.end}; swap them."
            )


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What the host's own model and sampling need beyond the settings. Empty: as the host is."""

    model: str = ""
    """Checkpoint, as the host lists it; empty: the one that is loaded."""
    sampler: str = ""
    """Sampler, as the host lists it; empty: the host's first."""
    scheduler: str = ""
    """Noise schedule, as the host lists it; empty: the sampler's own."""
    control: tuple[ControlUnit, ...] = ()
    """ControlNet units."""
