"""Errors of a script's callbacks, raised where the WebUI reports them.

The WebUI swallows what goes wrong in a script's callbacks, but not what goes wrong in `p.sample`.
So errors are kept, and raised there: a failed FRESCO never quietly becomes plain img2img.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from fresco.errors import FrescoError, HostError
from fresco.hosts.patching import replaced_method
from fresco.hosts.webui.batch import forget_failed_call
from fresco.options import rename_options
from fresco.webui.img2img.call import GuidedCall
from fresco.webui.img2img.infotext import name_briefly
from fresco.webui.img2img.refusal import make_refusal
from fresco.webui.img2img.request import Request
from fresco.webui.obstacles import describe_obstacle, find_missing_name

log = logging.getLogger("fresco")

class CallGuard:
    """Replaces `p.setup_prompts`, `p.init` and `p.sample`: raises what went wrong before, and
    guides the sampling."""

    def __init__(self, p: Any, forget: Callable[[], None]) -> None:
        """
        Args:
            forget: releases this guard after a failure, of which the script is not told.
        """
        self._error: Exception | None = None
        self._by_page = not getattr(p, "is_api", False)
        self._forget = forget
        self._attempting = False
        self._call: GuidedCall | None = None
        self._patches = ExitStack()
        self._patches.callback(setattr, p, "image_mask", getattr(p, "image_mask", None))
        # The first that the WebUI calls after `before_process`: other scripts, such as ControlNet,
        # never meet a call that is refused.
        self._patches.enter_context(replaced_method(p, "setup_prompts", self._checked))
        self._patches.enter_context(
            replaced_method(p, "init", lambda previous: self._checked(self._encoded(p, previous)))
        )
        self._patches.enter_context(
            replaced_method(p, "sample", lambda previous: self._guided(p, previous))
        )

    def release(self) -> None:
        """Give the processing object its own methods back."""
        self._patches.close()

    def attempt(self, work: Callable[[], None]) -> None:
        """Do a callback's work; what goes wrong there is raised in the sampling."""
        if self._error:
            return
        self._attempting = True
        try:
            work()
        except Exception as error:
            self._error = error
        finally:
            self._attempting = False

    def start(self, request: Request, p: Any) -> None:
        """Begin a call."""
        self._call = GuidedCall(request, p)
        self._call.arrange(p)
        for note in self.notes:
            p.comment(note)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the call, by the labels of img2img."""
        return tuple(rename_options(note, name_briefly) for note in self.call.notes)

    @property
    def call(self) -> GuidedCall:
        """The call, once it was started."""
        if self._call is None:
            raise HostError("FRESCO's call was not started; this is a fault of FRESCO.")
        return self._call

    def _require_none(self) -> None:
        if self._error:
            raise self._refused(self._error)

    def _checked(self, previous: Callable[..., Any]) -> Callable[..., Any]:
        """The method, unless something went wrong before."""
        def method(*args: Any, **kwargs: Any) -> Any:
            try:
                self._require_none()
                return previous(*args, **kwargs)
            except BaseException:
                if not self._attempting:  # within a callback: the sampling raises it later
                    self._forget()
                raise

        return method

    def _encoded(self, p: Any, previous: Callable[..., Any]) -> Callable[..., Any]:
        def init(*args: Any, **kwargs: Any) -> Any:
            return self.call.encode(p, lambda: previous(*args, **kwargs))

        return init

    def _guided(self, p: Any, previous: Callable[..., Any]) -> Callable[..., Any]:
        def sample(*args: Any, **kwargs: Any) -> Any:
            try:
                self._require_none()
                with self.call.sampling(p):
                    return previous(*args, **kwargs)
            except BaseException as error:
                forget_failed_call(p)
                self._forget()
                if (told := self._refused(error)) is error:
                    raise
                raise told from None

        return sample

    def _refused(self, error: BaseException) -> BaseException:
        """The refusal in place of an error that its text tells in full; any other as it is."""
        if isinstance(error, FrescoError):
            message = str(error)
        elif find_missing_name(error):
            message = f"FRESCO cannot work here: {describe_obstacle(error)}"
        else:
            return error
        log.debug("Refused.", exc_info=error)
        return make_refusal(message, by_page=self._by_page)
