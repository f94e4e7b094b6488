"""Prompts: once each, cut with a warning, never composed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from fresco.errors import HostError
from fresco.hosts.diffusers.text import PromptEncoder, check_prompt
from tests.helpers.tiny_models import tiny_host


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
    text = encoder.encode(("a cat", "a dog", "a cat"))
    assert calls == ["a cat", "a dog"]
    assert text.shape == (3, 77, 64)
    assert torch.equal(text[0], text[2])
    assert not torch.equal(text[0], text[1])


def test_words_beyond_the_limit_are_named(
    encoder: PromptEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    long = ", ".join(["a red car"] * 18) + ", watercolour forest"
    text = encoder.encode((long,))
    assert text.shape == (1, 77, 64)
    assert "has 74 tokens" not in caplog.text
    words = long + ", van gogh"
    encoder.encode((words,))
    assert "the model reads 75" in caplog.text
    assert "van gogh" in caplog.text


@pytest.mark.parametrize("prompt", ["a cat AND a dog", "AND", "sky AND, sea"])
def test_composed_prompts_are_refused(prompt: str) -> None:
    with pytest.raises(HostError, match="holds AND"):
        check_prompt(prompt)


@pytest.mark.parametrize("prompt", ["a cat and a dog", "ANDROID", "HAND, SAND", ""])
def test_other_prompts_pass(prompt: str) -> None:
    check_prompt(prompt)


def test_prompts_of_single_keyframes_are_checked_before_the_run(tiny_model: Path) -> None:
    with pytest.raises(HostError, match="holds AND"):
        tiny_host(tiny_model, key_prompts={"38": "one AND two"})
