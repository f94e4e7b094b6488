"""Raise errors of the script's callbacks where the WebUI reports them.

The WebUI swallows errors in a script's callbacks, but not those in `p.sample`. So errors are
stored, and raised there. Otherwise a failed FRESCO call would become a plain img2img call.
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
    """Replaces `p.setup_prompts`, `p.init` and `p.sample`, to raise stored errors and to guide."""

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
        """Run a callback's work; its error is stored and raised in the sampling."""
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
        """Notes for the user about the call, with the labels of img2img."""
        return tuple(rename_options(note, name_briefly) for note in self.call.notes)

    @property
    def call(self) -> GuidedCall:
        """The call, after it has started."""
        if self._call is None:
            raise HostError("FRESCO's call was not started; this is a fault of FRESCO.")
        return self._call

    def _require_none(self) -> None:
        if self._error:
            raise self._refused(self._error)

    def _checked(self, previous: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a method so that it first raises a stored error."""
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
        """Convert an error that users can act on to a refusal; return any other unchanged."""
        if isinstance(error, FrescoError):
            message = str(error)
        elif find_missing_name(error):
            message = f"FRESCO cannot work here: {describe_obstacle(error)}"
        else:
            return error
        log.debug("Refused.", exc_info=error)
        return make_refusal(message, by_page=self._by_page)
