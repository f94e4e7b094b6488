"""Prompts to conditioning, by the text encoder of Stable Diffusion 1.x and 2.x."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from fresco.hosts.diffusers.conditioning import Conditioning

log = logging.getLogger("fresco")


class PromptEncoder:
    """CLIP conditioning, computed once for each distinct prompt."""

    def __init__(self, tokenizer: Any, text_encoder: Any) -> None:
        self._tokenizer, self._model = tokenizer, text_encoder
        self._known: dict[str, Conditioning] = {}

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning of N frames from their prompts."""
        return Conditioning.concatenate([self._encode_one(prompt) for prompt in prompts])

    def _encode_one(self, prompt: str) -> Conditioning:
        if prompt not in self._known:
            self._known[prompt] = self._run(prompt)
        return self._known[prompt]

    @torch.no_grad()
    def _run(self, prompt: str) -> Conditioning:
        length = self._tokenizer.model_max_length
        ids = self._tokenizer(
            prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        whole = self._tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(whole) > length:
            lost = self._tokenizer.decode(whole[length - 1 : -1])
            log.warning(
                "A prompt has %d tokens, the model reads %d: %r is left out.",
                len(whole) - 2, length - 2, lost,
            )
        return Conditioning(self._model(ids.to(self._model.device))[0])
