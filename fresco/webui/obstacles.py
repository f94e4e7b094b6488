"""Find out why parts of FRESCO cannot work in this WebUI, as one sentence for its user.

It checks whether names exist, not versions. Nothing of a WebUI is imported here by its name.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import ModuleType, TracebackType
from typing import Any

from fresco.errors import FrescoError, HostError
from fresco.webui.needs import list_missing_names, list_needed_names

log = logging.getLogger("fresco")

_WHAT_TO_DO = "Update the WebUI or FRESCO; FRESCO's README lists the WebUIs in which it was tried."
_MOST_NAMED = 3
"""Most missing names in one sentence."""
_HOST_PACKAGES = ("modules", "modules_forge", "backend")


class Part(Enum):
    """A part of FRESCO that may not work in every WebUI."""

    IMG2IMG = "the script in img2img"
    SERVER = "the tab and the API"
    JOBS = "jobs with a model"


_found: dict[Part, str] = {}


def look_for_obstacles(parts: Mapping[Part, Sequence[str]]) -> None:
    """Find out what this WebUI lacks, and tell the console once.

    Args:
        parts: the modules of FRESCO that each part begins with.
    """
    reasons = {part: _find_obstacle(roots) for part, roots in parts.items()}
    for reason in dict.fromkeys(filter(None, reasons.values())):
        affected = [part.value for part in parts if reasons[part] == reason]
        log.warning("FRESCO cannot offer %s here: %s", ", ".join(affected), reason)
    _found.clear()
    _found.update({
        part: f"FRESCO cannot offer {part.value} here: {reason}"
        for part, reason in reasons.items() if reason
    })


def get_obstacle(part: Part) -> str:
    """Why a part cannot work here; empty if no reason is known."""
    return _found.get(part, "")


def require_part(part: Part) -> None:
    """Raise HostError if a part cannot work here."""
    if reason := get_obstacle(part):
        raise HostError(reason)


def _find_obstacle(roots: Sequence[str]) -> str:
    try:
        if missing := list_missing_names(list_needed_names(*roots)):
            return _describe_missing(*missing)
        for root in roots:
            importlib.import_module(root)
    except Exception as error:
        return describe_obstacle(error)
    return ""


def describe_obstacle(error: BaseException) -> str:
    """Describe why something of FRESCO cannot work here."""
    if isinstance(error, FrescoError):
        return str(error)
    if missing := find_missing_name(error):
        return _describe_missing(missing)
    if isinstance(error, ImportError):
        return (
            f"{error}. Start the WebUI again, which installs the packages of its extensions, and "
            "read its console."
        )
    return f"{type(error).__name__}: {error}. The console says more."


def _describe_missing(*names: str) -> str:
    listed = ", ".join(names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"this WebUI has no {listed}{more}. {_WHAT_TO_DO}"


def find_missing_name(error: BaseException) -> str:
    """Find the name of the WebUI that FRESCO did not find; empty for another error."""
    if not _was_raised_by_fresco(error.__traceback__):
        return ""
    if isinstance(error, ImportError):
        module, name = error.name or "", getattr(error, "name_from", None)
        if name is None and str(error).startswith("cannot import name "):  # before Python 3.12
            name = str(error).split("'")[1]
        named = f"{module}.{name}" if name else module
    elif isinstance(error, AttributeError) and error.obj is not None:
        owner = type(error.obj)
        home = f"{owner.__module__}.{owner.__name__}"
        home = error.obj.__name__ if isinstance(error.obj, ModuleType) else home
        named = f"{home}.{error.name}"
    else:
        return ""
    return named if named.partition(".")[0] in _HOST_PACKAGES else ""


def _was_raised_by_fresco(trace: TracebackType | None) -> bool:
    """Whether the failed line is FRESCO's own, and not one of the WebUI."""
    names = []
    while trace is not None:
        names.append(str(trace.tb_frame.f_globals.get("__name__")))
        trace = trace.tb_next
    own = [name for name in names if not name.startswith("importlib")]
    return not own or own[-1].startswith("fresco.")


def report_obstacle(what: str, error: Exception) -> str:
    """Tell the console; return the sentence for the page.

    Args:
        what: what cannot work, such as "The tab FRESCO".
    """
    sentence = f"{what} cannot work here: {describe_obstacle(error)}"
    if isinstance(error, (FrescoError, ImportError)) or find_missing_name(error):
        log.warning("%s", sentence)
    else:
        log.error("%s", sentence, exc_info=error)
    return sentence


def guard_entrance(what: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """Run a function; a failure is reported and does not stop the WebUI."""

    @functools.wraps(work)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return work(*args, **kwargs)
        except Exception as error:
            report_obstacle(what, error)
            return None

    return run
