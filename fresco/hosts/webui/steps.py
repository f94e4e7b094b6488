"""The steps of a sampling as a stage of the run. Nothing of a WebUI is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fresco.hosts.patching import Forward, replaced_forward, replaced_method
from fresco.progress import Stage


class StepCounter:
    """Tells a stage of every step, however often a sampler calls the model for it."""

    def __init__(self, stage: Stage, count_steps: Callable[[], int]) -> None:
        """
        Args:
            count_steps: asked once the sampler is at work, which decides how many there are.
        """
        self._stage, self._count_steps = stage, count_steps
        self._total = self._done = 0

    @contextmanager
    def counting(self, sampler: Any) -> Iterator[None]:
        """Within: the sampler of a call is counted, and stopped where a stop was asked for."""
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
        """Some samplers count past their steps, or begin again."""
        further = min(done, self._total) - self._done
        if further > 0:
            self._done += further
            self._stage.advance(further)
