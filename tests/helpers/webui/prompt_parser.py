"""`modules.prompt_parser`: conditionings of prompts, and what of them a step uses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ScheduledPromptConditioning(NamedTuple):
    """A conditioning [tokens, C] and the last step it is for."""

    end_at_step: int
    cond: Tensor


@dataclass
class ComposableScheduledPromptConditioning:
    """One of the prompts that AND joins."""

    schedules: list[ScheduledPromptConditioning]
    weight: float = 1.0


@dataclass
class MulticondLearnedConditioning:
    """Of every picture: the prompts that AND joins."""

    batch: list[list[ComposableScheduledPromptConditioning]]


def get_learned_conditioning(model: Any, prompts: list[str], steps: int
                             ) -> list[list[ScheduledPromptConditioning]]:
    """Of every picture, its conditioning over the steps."""
    return [[ScheduledPromptConditioning(steps, model.embed(prompt))] for prompt in prompts]


def get_multicond_learned_conditioning(model: Any, prompts: list[str], steps: int
                                       ) -> MulticondLearnedConditioning:
    """The same of prompts that may be composed."""
    batch = []
    for prompt in prompts:
        parts = [part.strip() for part in re.split(r"\bAND\b", prompt)]
        schedules = get_learned_conditioning(model, parts, steps)
        batch.append([ComposableScheduledPromptConditioning(schedule) for schedule in schedules])
    return MulticondLearnedConditioning(batch)


def _at(schedule: list[ScheduledPromptConditioning], step: int) -> Tensor:
    return next((e.cond for e in schedule if step <= e.end_at_step), schedule[0].cond)


def reconstruct_cond_batch(c: list[list[ScheduledPromptConditioning]], current_step: int
                           ) -> Tensor:
    """[N, tokens, C] of one step."""
    return _stacked([_at(schedule, current_step) for schedule in c])


def reconstruct_multicond_batch(c: MulticondLearnedConditioning, current_step: int
                                ) -> tuple[list[list[tuple[int, float]]], Tensor]:
    """Rows and weights of every picture's prompts, and all rows [M, tokens, C]."""
    rows: list[Tensor] = []
    kinds: list[list[tuple[int, float]]] = []
    for prompts in c.batch:
        kinds.append([(len(rows) + place, part.weight) for place, part in enumerate(prompts)])
        rows += [_at(part.schedules, current_step) for part in prompts]
    return kinds, _stacked(rows)


def _stacked(rows: list[Tensor]) -> Tensor:
    """Shorter ones repeat their last token."""
    longest = max(len(row) for row in rows)
    return torch.stack([
        torch.cat([row, row[-1:].expand(longest - len(row), -1)]) for row in rows
    ])
