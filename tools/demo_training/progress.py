"""What the trainings share: their loop, the learning rate over time, a state to go on from."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

_WARM_UP = 50
"""Steps over which the learning rate rises."""
_LAST = 0.02
"""Share of it that is left at the end."""
_SAVED = 50
"""Steps from one saving to the next."""

logger = logging.getLogger("fresco.training")


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Rises over the first steps, then falls along half a cosine."""
    fall = 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / max(1, steps)))
    return highest * min(1.0, (step + 1) / _WARM_UP) * (_LAST + (1 - _LAST) * fall)


def fast_arithmetic() -> torch.autocast:
    """bfloat16 where the processor multiplies it; elsewhere float32 is several times faster."""
    native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.autocast("cpu", torch.bfloat16, enabled=native)


class Checkpoint:
    """Weights, optimiser and losses of a training in one file."""

    def __init__(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._path, self._model, self._optimizer = path, model, optimizer
        self.losses: list[tuple[int, float]] = []
        """Step, and the mean loss since the step before."""

    def load(self) -> int:
        """Take up what was saved; the number of steps done, 0 for none."""
        if not self._path.exists():
            return 0
        saved = torch.load(self._path, weights_only=True)
        self._model.load_state_dict(saved["model"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self.losses = [(int(step), float(loss)) for step, loss in saved["losses"]]
        return int(saved["steps"])

    def save(self, steps: int) -> None:
        """Write the state; the file is whole at any time."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        torch.save({
            "model": self._model.state_dict(), "optimizer": self._optimizer.state_dict(),
            "losses": self.losses, "steps": steps,
        }, fresh)
        fresh.replace(self._path)


def train(
    name: str, path: Path, model: nn.Module, parameters: Sequence[nn.Parameter], *, steps: int,
    rate: float, loss_of: Callable[[int], Tensor], after: Callable[[int], None] | None = None,
) -> None:
    """Adam with clipped gradients, going on from the state in the file if there is one.

    Args:
        name: in the log.
        model: what is saved; it holds the parameters.
        rate: the highest learning rate.
        loss_of: the loss of a step, by its number.
        after: what else a step does, once the parameters have moved.
    """
    optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99))
    state = Checkpoint(path, model, optimizer)
    first = state.load()
    began, total = time.monotonic(), 0.0
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, rate)
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if after is not None:
            after(step)
        total += float(loss.detach())
        if (step + 1) % _SAVED == 0:
            mean, seconds = total / _SAVED, (time.monotonic() - began) / (step + 1 - first)
            logger.info("%s step %d of %d: loss %.4f, %.2f s a step", name, step + 1, steps, mean,
                        seconds)
            state.losses.append((step + 1, mean))
            total = 0.0
            state.save(step + 1)
    state.save(steps)
