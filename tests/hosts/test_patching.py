"""Patches undo themselves exactly."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fresco.errors import HostError
from fresco.hosts.patching import Forward, pre_hook, replaced_forward, sole_owner


def doubled(previous: Forward) -> Forward:
    return lambda *args, **kwargs: 2 * previous(*args, **kwargs)


def state(module: nn.Module) -> dict[str, Any]:
    """All that an instance holds, hooks by their ids."""
    return {name: dict(value) if isinstance(value, dict) else value
            for name, value in vars(module).items()}


def fail_after_three_patches(layer: nn.Module, stack: ExitStack) -> None:
    stack.enter_context(replaced_forward(layer, doubled))
    stack.enter_context(replaced_forward(layer, doubled))
    stack.enter_context(pre_hook(layer, lambda module, args, kwargs: None))
    raise ZeroDivisionError


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 3)


@pytest.fixture
def x() -> Tensor:
    return torch.ones(1, 3)


def test_forward_that_was_not_there_is_deleted(layer: nn.Linear, x: Tensor) -> None:
    before, plain = state(layer), layer(x)
    with replaced_forward(layer, doubled):
        assert torch.equal(layer(x), 2 * plain)
        assert "forward" in vars(layer)
    assert state(layer) == before
    assert torch.equal(layer(x), plain)


def test_forward_that_was_there_comes_back(layer: nn.Linear, x: Tensor) -> None:
    theirs = doubled(layer.forward)
    layer.forward = theirs
    with replaced_forward(layer, doubled):
        assert torch.equal(layer(x), 2 * theirs(x))
    assert vars(layer)["forward"] is theirs


def test_foreign_patch_laid_over_ours_stays_and_ours_turns_inert(
    layer: nn.Linear, x: Tensor
) -> None:
    plain = layer(x)
    with replaced_forward(layer, doubled):
        inner = layer.forward
        foreign = lambda value: inner(value) + 1  # noqa: E731 - as extensions write it
        layer.forward = foreign
        assert torch.equal(layer(x), 2 * plain + 1)
    assert vars(layer)["forward"] is foreign
    assert torch.equal(layer(x), plain + 1)


def test_undo_runs_after_an_error_and_in_reverse(layer: nn.Linear, x: Tensor) -> None:
    before = state(layer)
    with pytest.raises(ZeroDivisionError), ExitStack() as stack:
        fail_after_three_patches(layer, stack)
    assert state(layer) == before


def test_hook_changes_arguments_and_leaves_nothing(layer: nn.Linear, x: Tensor) -> None:
    before, plain = state(layer), layer(x)
    with pre_hook(layer, lambda module, args, kwargs: ((args[0] * 0,), kwargs)):
        assert torch.equal(layer(x), layer.bias[None])
    assert state(layer) == before
    assert torch.equal(layer(x), plain)


def test_second_owner_raises_and_the_first_keeps(layer: nn.Linear) -> None:
    with sole_owner(layer):
        with pytest.raises(HostError, match="already installed on this Linear"), sole_owner(layer):
            pass
        with pytest.raises(HostError, match="already installed"), sole_owner(layer):
            pass
    with sole_owner(layer):
        pass
