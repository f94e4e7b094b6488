"""Patch a model temporarily, and restore it exactly.

Two primitives, each a context manager: a torch hook, and a replaced `forward` of one instance.
An adapter enters them in one `ExitStack`, so undo runs in reverse.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from weakref import WeakSet

from torch import nn

from fresco.errors import HostError

Forward = Callable[..., Any]
"""A module's `forward`."""
PreHook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]
"""Sees a module's arguments before it runs; returns None or (args, kwargs)."""

_owned: WeakSet[nn.Module] = WeakSet()
_lock = threading.Lock()


@contextmanager
def sole_owner(module: nn.Module) -> Iterator[None]:
    """Claim a model for one set of patches; a second claim raises."""
    with _lock:
        if module in _owned:
            raise HostError(
                f"FRESCO is already installed on this {type(module).__name__}; "
                "wait for the other run to end."
            )
        _owned.add(module)
    try:
        yield
    finally:
        with _lock:
            _owned.discard(module)


@contextmanager
def pre_hook(module: nn.Module, hook: PreHook) -> Iterator[None]:
    """Run `hook` before every call of the module."""
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def replaced_forward(
    module: nn.Module, make: Callable[[Forward], Forward]
) -> AbstractContextManager[None]:
    """Replace `forward` of this one instance within the context; see `replaced_method`."""
    return replaced_method(module, "forward", make)


@contextmanager
def replaced_method(
    owner: Any, name: str, make: Callable[[Forward], Forward]
) -> Iterator[None]:
    """Replace a method of this one object by `make(previous method)` within the context.

    If another extension has replaced it meanwhile, that patch stays in place, and ours below it
    only passes calls on to the original.
    """
    before = vars(owner).get(name)
    previous: Forward = getattr(owner, name)
    inner, active = make(previous), True

    def method(*args: Any, **kwargs: Any) -> Any:
        return (inner if active else previous)(*args, **kwargs)

    setattr(owner, name, method)
    try:
        yield
    finally:
        active = False
        if vars(owner).get(name) is method:
            if before is None:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
