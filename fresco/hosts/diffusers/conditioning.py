"""The conditioning of the model, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Conditioning of N frames, one row for each."""

    tokens: Tensor
    """[N, tokens, C] the encoded prompts."""
    pooled: Tensor | None = None
    """[N, P] the prompts in one vector each, for models that take it, such as SDXL."""
    ids: Tensor | None = None
    """[N, 6] size and crop of the images, for the same models."""

    @classmethod
    def concatenate(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """Join the frames of all parts, in order; the parts have the same fields.

        Where prompts differ in length, the last token of the shorter ones is repeated, as in the
        WebUI.
        """
        longest = max(part.tokens.shape[1] for part in parts)
        tokens = torch.cat([_lengthen(part.tokens, longest) for part in parts])
        pooled = [part.pooled for part in parts if part.pooled is not None]
        ids = [part.ids for part in parts if part.ids is not None]
        return cls(tokens, torch.cat(pooled) if pooled else None, torch.cat(ids) if ids else None)

    def zeroed(self) -> Conditioning:
        """The same, with zeros for the prompts."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return replace(self, tokens=torch.zeros_like(self.tokens), pooled=pooled)

    def sized(self, height: int, width: int) -> Conditioning:
        """The same for uncropped images of this size, if the model takes sizes."""
        if self.pooled is None:
            return self
        sizes = [height, width, 0, 0, height, width]
        ids = torch.tensor(sizes, dtype=torch.float32, device=self.tokens.device)
        return replace(self, ids=ids.repeat(len(self.tokens), 1))

    def arguments(self, dtype: torch.dtype) -> dict[str, Any]:
        """Make the arguments for UNets and ControlNets of diffusers."""
        arguments: dict[str, Any] = {"encoder_hidden_states": self.tokens.to(dtype)}
        if self.pooled is not None and self.ids is not None:
            arguments["added_cond_kwargs"] = {
                "text_embeds": self.pooled.to(dtype), "time_ids": self.ids,
            }
        return arguments


def _lengthen(tokens: Tensor, length: int) -> Tensor:
    missing = length - tokens.shape[1]
    return torch.cat([tokens, tokens[:, -1:].expand(-1, missing, -1)], dim=1) if missing else tokens
