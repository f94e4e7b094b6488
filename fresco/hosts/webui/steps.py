"""Report the steps of a sampling as a stage of the run; imports nothing of a WebUI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fresco.hosts.patching import Forward, replaced_forward, replaced_method
from fresco.progress import Stage


class StepCounter:
    """Reports every step to a stage, also if a sampler calls the model several times a step."""

    def __init__(self, stage: Stage, count_steps: Callable[[], int]) -> None:
        """
        Args:
            count_steps: asked once the sampler is at work, which decides how many there are.
        """
        self._stage, self._count_steps = stage, count_steps
        self._total = self._done = 0

    @contextmanager
    def counting(self, sampler: Any) -> Iterator[None]:
        """Within the context, the sampler's steps are counted, and it stops if asked to."""
        with replaced_forward(sampler.model_wrap_cfg, self._around_call), \
                replaced_method(sampler, "callback_state", self._around_step):
            yield
        self._reach(self._total)

    def _around_call(self, previous: Forward) -> Forward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self._total:
                self._total = max(1, self._count_steps())
                self._stage.expect(self._total)
            output = previous(*args, **kwargs)
            self._stage.check()
            return output

        return forward

    def _around_step(self, previous: Callable[..., Any]) -> Callable[..., Any]:
        def callback(told: dict[str, Any]) -> Any:
            answer = previous(told)
            self._reach(int(told["i"]) + 1)
            return answer

        return callback

    def _reach(self, done: int) -> None:
        """Report a step; some samplers count past their steps, or begin again."""
        further = min(done, self._total) - self._done
        if further > 0:
            self._done += further
            self._stage.advance(further)
