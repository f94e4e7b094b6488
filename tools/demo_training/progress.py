"""What the trainings share: their loop, a running mean of weights, a state to go on from."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

_WARM_UP = 200
"""Steps over which the learning rate rises."""
_HELD = 2000
"""Steps for which it stays; from then on it falls with the root of the steps."""
_REMEMBERED = 0.1
"""Share of the steps done that the running mean of weights reaches back, about."""
_TOLD = 50
"""Steps from one line of the log to the next."""
_SAVED = 300.0
"""Seconds from one saving to the next."""

logger = logging.getLogger("fresco.training")
Network = TypeVar("Network", bound=nn.Module)


def learning_rate(step: int, highest: float) -> float:
    """Rises, stays, then falls with the root of the steps.

    It does not depend on where the training ends, so that a training can go on from anywhere.
    """
    return highest * min(1.0, (step + 1) / _WARM_UP) * min(1.0, (_HELD / (step + 1)) ** 0.5)


def share_kept(step: int) -> float:
    """Of the running mean of weights at a step; the mean reaches back a tenth of all steps."""
    return 1 - 1 / (1 + _REMEMBERED * step)


def fast_arithmetic(device: torch.device) -> torch.autocast:
    """bfloat16 where the device multiplies it; elsewhere float32 is several times faster."""
    if device.type == "cpu":
        native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    else:
        native = device.type != "cuda" or torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


@dataclass(slots=True)
class Budget:
    """How long a training may go on."""

    steps: int
    """In all, those done before included."""
    ends: float = float("inf")
    """`time.monotonic()` at which it stops early; its state is saved."""


@dataclass(slots=True)
class Checkpoint:
    """Weights, their running mean, optimiser and what was measured, in one file."""

    path: Path
    model: nn.Module
    mean: nn.Module
    optimizer: torch.optim.Optimizer
    losses: list[tuple[int, float]] = field(default_factory=list)
    """Step, and the mean loss since the step before."""
    measured: list[tuple[int, float]] = field(default_factory=list)
    """Step, and what the measure said of the running mean."""

    def load(self) -> int:
        """Take up what was saved; the number of steps done, 0 for none."""
        if not self.path.exists():
            return 0
        saved = torch.load(self.path, weights_only=True, map_location="cpu")
        self.model.load_state_dict(saved["model"])
        self.mean.load_state_dict(saved["mean"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.losses = [(int(step), float(loss)) for step, loss in saved["losses"]]
        self.measured = [(int(step), float(value)) for step, value in saved["measured"]]
        return int(saved["steps"])

    def save(self, steps: int) -> None:
        """Write the state; the file is whole at any time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        torch.save({
            "model": self.model.state_dict(), "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(), "losses": self.losses,
            "measured": self.measured, "steps": steps,
        }, fresh)
        fresh.replace(self.path)


@dataclass(slots=True)
class Log:
    """The mean loss since it was told last, and the seconds a step takes."""

    state: Checkpoint
    steps: int
    """How many there will be."""
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    """Steps since it began."""
    total: float = 0.0
    summed: int = 0

    def add(self, step: int, loss: float) -> None:
        """Note the loss of a step; tell the mean where it is time to."""
        self.done, self.total, self.summed = self.done + 1, self.total + loss, self.summed + 1
        if step % _TOLD:
            return
        mean, seconds = self.total / self.summed, (time.monotonic() - self.began) / self.done
        self.state.losses.append((step, mean))
        logger.info("%s step %d of %d: loss %.4f, %.2f s a step", self.state.path.stem, step,
                    self.steps, mean, seconds)
        self.total, self.summed = 0.0, 0


def take_step(
    state: Checkpoint, parameters: Sequence[nn.Parameter], loss: Tensor, *, rate: float, kept: float
) -> None:
    """One step of Adam with clipped gradients, and of the running mean of the weights.

    Args:
        kept: share of the running mean that stays.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    state.optimizer.step()
    with torch.no_grad():
        olds: list[Tensor] = list(state.mean.parameters())
        news: list[Tensor] = list(state.model.parameters())
        torch._foreach_lerp_(olds, news, 1 - kept)


def train(
    path: Path, model: Network, parameters: Sequence[nn.Parameter], *, budget: Budget, rate: float,
    loss_of: Callable[[int], Tensor], measure: Callable[[Network], float] | None = None,
) -> tuple[Network, int]:
    """Train by Adam, going on from the state in the file if there is one.

    Args:
        path: of the state; its name stands in the log.
        parameters: of the model, those that are trained.
        rate: the highest learning rate.
        loss_of: the loss of a step, by its number.
        measure: what to say of the running mean at every saving.

    Returns:
        The running mean of the weights, and the number of steps done.
    """
    mean = deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99))
    state = Checkpoint(path, model, mean, optimizer)
    step = first = state.load()
    log, saved = Log(state, budget.steps), time.monotonic()

    def save() -> None:
        if measure is not None:
            state.measured.append((step, measure(mean)))
            logger.info("%s step %d: measured %.2f", path.stem, *state.measured[-1])
        state.save(step)

    while step < budget.steps and time.monotonic() < budget.ends:
        loss = loss_of(step)
        take_step(state, parameters, loss, rate=learning_rate(step, rate), kept=share_kept(step))
        step += 1
        log.add(step, float(loss.detach()))
        if time.monotonic() - saved > _SAVED:
            save()
            saved = time.monotonic()
    if step > first:
        save()
    return mean.eval(), step
