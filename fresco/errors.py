"""The errors that this program raises on purpose.

A message says what is wrong, the value, and what to do. Any other exception is a bug.
"""

from __future__ import annotations

_MOST_LETTERS = 4000
"""Most letters of a message; a longer one is shortened in its middle."""


class FrescoError(Exception):
    """Base class of all errors raised on purpose."""

    def __str__(self) -> str:
        """The message, which says what is wrong and what to do."""
        text = super().__str__()
        if len(text) <= _MOST_LETTERS:
            return text
        half = _MOST_LETTERS // 2
        return f"{text[:half]} [{len(text) - 2 * half} letters] {text[-half:]}"


class SettingsError(FrescoError):
    """An option is unknown, of the wrong type, or out of its range."""


class VideoError(FrescoError):
    """A source cannot be read or a result cannot be written."""


class HostError(FrescoError):
    """The model or its host cannot do what was asked."""


class WeightsError(FrescoError):
    """A weight file is absent, damaged, or not what it claims to be."""


class PropagationError(FrescoError):
    """Keyframes could not be propagated to the other frames."""


class WorkspaceError(FrescoError):
    """The folder of a run cannot be used: read-only, full, or of another run."""


class OutOfMemoryError(HostError):
    """The device ran out of memory; a smaller batch may fit."""


class Cancelled(FrescoError):  # noqa: N818 - cancelling is not an error
    """The user asked to stop; everything finished so far is kept."""
