"""What keeps FRESCO from running in the WebUI around, as one sentence for its user.

Found by looking at what is there, not at versions. Nothing of a WebUI is imported.
"""

from __future__ import annotations

import logging
from types import ModuleType

from fresco.errors import FrescoError

log = logging.getLogger("fresco")

_WHAT_TO_DO = (
    "Update the WebUI or FRESCO; FRESCO's README lists the WebUIs in which it was tried."
)
_HOST_PACKAGES = ("modules", "modules_forge", "backend", "lib_controlnet", "gradio")


def describe_obstacle(error: Exception) -> str:
    """Why something of FRESCO cannot work here."""
    if isinstance(error, FrescoError):
        return str(error)
    if missing := find_missing_name(error):
        return f"This WebUI has no {missing}, which FRESCO needs. {_WHAT_TO_DO}"
    if isinstance(error, ImportError):
        return f"{error}. {_WHAT_TO_DO}"
    return f"{type(error).__name__}: {error}. The console says more."


def find_missing_name(error: BaseException) -> str:
    """The name of the WebUI that an error says is missing; empty: it says something else."""
    if isinstance(error, ImportError):
        module, name = error.name or "", getattr(error, "name_from", None)
        if name is None and "cannot import name " in str(error):
            name = str(error).split("'")[1]
        named = f"{module}.{name}" if name else module
    elif isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        named = f"{error.obj.__name__}.{error.name}"
    else:
        return ""
    return named if named.partition(".")[0] in _HOST_PACKAGES else ""


def report_obstacle(what: str, error: Exception) -> str:
    """Tell the console once; returns the sentence for the page.

    Args:
        what: the part of FRESCO that cannot work, such as "FRESCO's tab".
    """
    sentence = f"{what} cannot work: {describe_obstacle(error)}"
    if isinstance(error, (FrescoError, ImportError)) or find_missing_name(error):
        log.warning("%s", sentence)
    else:
        log.error("%s", sentence, exc_info=error)
    return sentence
