"""Functions that the adapters of both ControlNets share; imports nothing of a WebUI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fresco.errors import HostError
from fresco.hosts.patching import replaced_method


@contextmanager
def changed_values(owner: Any, **values: Any) -> Iterator[None]:
    """Within the context, attributes of this one object have other values."""
    before = {name: vars(owner)[name] for name in values if name in vars(owner)}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name in values:
            if name in before:
                setattr(owner, name, before[name])
            else:
                delattr(owner, name)


@contextmanager
def started(script: Any, p: Any, **values: Any) -> Iterator[None]:
    """Within the context, an error in ControlNet before the sampling ends the call.

    Otherwise the call would give images without ControlNet.

    Args:
        values: attributes of the processing object while ControlNet prepares.
    """
    errors: list[Exception] = []

    def note(previous: Callable[..., Any]) -> Callable[..., Any]:
        def get_ready(*args: Any, **kwargs: Any) -> Any:
            try:
                with changed_values(p, **values):
                    return previous(*args, **kwargs)
            except Exception as error:
                errors.append(error)
                raise

        return get_ready

    def check(previous: Callable[..., Any]) -> Callable[..., Any]:
        def sample(*args: Any, **kwargs: Any) -> Any:
            if errors:
                raise HostError(
                    f"ControlNet could not get ready for the frames: {errors[0]!r}; the console "
                    "says more. Correct its units, or switch them off."
                )
            return previous(*args, **kwargs)

        return sample

    with (
        replaced_method(script, "process_before_every_sampling", note),
        replaced_method(p.sampler, "sample_img2img", check),
    ):
        yield
