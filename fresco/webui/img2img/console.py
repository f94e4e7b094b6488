"""Print refusals on the console as one line, without a traceback.

The WebUI reports whatever exception ends a call of its page by `modules.errors`, with all
arguments of the call and a traceback (docs/webui-hosts.md, section 2.7). Forge kinds make calls of
the page in a thread of their own, which prints the traceback itself.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from fresco.hosts.patching import replaced_method

log = logging.getLogger("fresco")

_REPORTERS = ("report", "display")
"""Functions of the WebUI that print an exception: of a call of the page, and of a plot's cell."""
_FORGE_THREAD = "modules_forge.main_thread"
_WAITING = 4
"""Largest number of refusals that wait for their report."""

_waiting: deque[ExitStack] = deque()


def report_shortly(refusal: Exception) -> None:
    """Let the WebUI report this one exception by its sentence; all others as before."""
    patches = ExitStack()
    owners = [(sys.modules.get("modules.errors"), name) for name in _REPORTERS]
    if _FORGE_THREAD in sys.modules:
        owners.append((traceback, "print_exc"))
    for owner, name in owners:
        if hasattr(owner, name):
            patches.enter_context(replaced_method(owner, name, _shortened(refusal, patches)))
    _waiting.append(patches)
    while len(_waiting) > _WAITING:
        _waiting.popleft().close()


def _shortened(
    refusal: Exception, patches: ExitStack
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def report(*args: Any, **kwargs: Any) -> Any:
            if sys.exc_info()[1] is not refusal:
                return previous(*args, **kwargs)
            patches.close()
            log.warning("FRESCO: %s", refusal)
            return None

        return report

    return make
