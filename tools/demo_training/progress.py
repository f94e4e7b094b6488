"""What both trainings share: the learning rate over time, and a state that can be gone on from."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

_WARM_UP = 50
"""Steps over which the learning rate rises."""
_LAST = 0.02
"""Share of it that is left at the end."""


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Rises over the first steps, then falls along half a cosine."""
    fall = 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / max(1, steps)))
    return highest * min(1.0, (step + 1) / _WARM_UP) * (_LAST + (1 - _LAST) * fall)


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
