"""End a call of img2img with one sentence, on the page and in the API.

Nothing of a WebUI is imported, so that a call can be refused where much of it is missing.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import HTTPException

from fresco.options import rename_options
from fresco.webui.img2img.console import report_shortly
from fresco.webui.img2img.infotext import name_briefly

log = logging.getLogger("fresco")

_UNPROCESSABLE = 422
_STEPS = ("setup_prompts", "init", "sample")
"""Methods of a call that the WebUI calls after `before_process`, in this order; a failure in any of
them ends the call, other than one in a callback of a script."""


class CallRefused(HTTPException):
    """A request that cannot be done.

    The WebUI's page shows the text of the error, with options as the page calls them; what it
    prints of it is told in `console.py`. Its API answers with `status_code` and `detail`, with
    options by group and name; of a `HTTPException` it prints no traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_UNPROCESSABLE, message)
        self._shown = rename_options(message, name_briefly)

    def __str__(self) -> str:
        return self._shown


# The page shows the name of an error's class before its text.
CallRefused.__name__ = "FRESCO"


def make_refusal(message: str, *, by_page: bool) -> CallRefused:
    """Make the exception that ends a call; it has no cause, because its text says everything."""
    refusal = CallRefused(message)
    if by_page:
        report_shortly(refusal)
    return refusal


class RefusedCall:
    """A call in which every further step raises the refusal, until it is released."""

    def __init__(self, p: Any, message: str) -> None:
        self._p, self._before = p, {name: vars(p).get(name) for name in _STEPS}
        by_page = not getattr(p, "is_api", False)

        def refuse(*_: Any, **__: Any) -> Any:
            raise make_refusal(message, by_page=by_page)

        for name in _STEPS:
            setattr(p, name, refuse)

    def release(self) -> None:
        """Give the processing object its own methods back, because it may be used again."""
        for name, before in self._before.items():
            if before is not None:
                setattr(self._p, name, before)
            elif name in vars(self._p):
                delattr(self._p, name)
