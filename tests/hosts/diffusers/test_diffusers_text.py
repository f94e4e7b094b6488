"""Prompts: encoded once each, cut with a warning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from fresco.hosts.diffusers.text import PromptEncoder


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> PromptEncoder:
    return PromptEncoder(
        CLIPTokenizer.from_pretrained(tiny_model / "tokenizer"),
        CLIPTextModel.from_pretrained(tiny_model / "text_encoder"),
    )


def test_equal_prompts_are_encoded_once(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    run = encoder._run
    monkeypatch.setattr(encoder, "_run", lambda prompt: (calls.append(prompt), run(prompt))[1])
    text = encoder.encode(("a cat", "a dog", "a cat")).tokens
    assert calls == ["a cat", "a dog"]
    assert text.shape == (3, 77, 64)
    assert torch.equal(text[0], text[2])
    assert not torch.equal(text[0], text[1])


def test_words_beyond_the_limit_are_named(
    encoder: PromptEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    long = ", ".join(["a red car"] * 18) + ", watercolour forest"
    text = encoder.encode((long,)).tokens
    assert text.shape == (1, 77, 64)
    assert "has 74 tokens" not in caplog.text
    words = long + ", van gogh"
    encoder.encode((words,))
    assert "the model reads 75" in caplog.text
    assert "van gogh" in caplog.text
