"""Prompts: the encoder's own calls by hand are the truth for chunks, weights and embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from fresco.errors import HostError
from fresco.hosts.diffusers.text import PromptEncoder

LENGTH = 75


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return CLIPTokenizer.from_pretrained(tiny_model / "tokenizer")


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """With a mean that is not zero, as a trained one has."""
    model: Any = CLIPTextModel.from_pretrained(tiny_model / "text_encoder")
    norm = next(m for name, m in model.named_modules() if name.endswith("final_layer_norm"))
    with torch.no_grad():
        norm.bias.fill_(0.2)
    return model.eval()


@pytest.fixture
def encoder(tokenizer: Any, model: Any) -> PromptEncoder:
    return PromptEncoder(tokenizer, model)


def encode(encoder: PromptEncoder, prompt: str) -> Tensor:
    return encoder.encode([prompt]).tokens


def list_ids(tokenizer: Any, *texts: str) -> list[int]:
    return [i for text in texts for i in tokenizer(text, add_special_tokens=False).input_ids]


def call(tokenizer: Any, model: Any, ids: list[int]) -> Tensor:
    """One call of the encoder, padded as CLIP was trained."""
    assert len(ids) <= LENGTH
    end = [tokenizer.eos_token_id]
    row = [tokenizer.bos_token_id, *ids, *end * (LENGTH + 1 - len(ids))]
    with torch.no_grad():
        return model(torch.tensor([row]))[0]


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


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
@pytest.mark.parametrize("prompt", [
    "", "a red car", "oil painting, a man; 12:30 | x <3", ", ".join(["a red car"] * 18), "ü 猫 \n",
])
def test_plain_words_are_what_one_call_gives(
    tokenizer: Any, model: Any, prompt: str, pad: str
) -> None:
    """Byte for byte, whatever the tokenizer pads with, and without a mark in the cache key."""
    before = tokenizer.pad_token
    try:
        tokenizer.pad_token = pad
        ids = tokenizer(
            prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            expected = model(ids)[0]
        encoder = PromptEncoder(tokenizer, model)
        assert torch.equal(encode(encoder, prompt), expected)
        assert encoder.digest([prompt]) == ""
    finally:
        tokenizer.pad_token = before


@pytest.mark.parametrize("prompt", ["(a:1.2)", "a BREAK b", r"\(a\)", "a, " * 40, "a # b"])
def test_syntax_and_long_prompts_are_in_the_cache_key(encoder: PromptEncoder, prompt: str) -> None:
    assert encoder.digest(["x", prompt]) not in ("", encoder.digest(["y", prompt]))
    assert encoder.digest(["x", prompt]) == encoder.digest(["x", prompt])


def test_a_weighted_word_is_multiplied_and_the_mean_restored(
    encoder: PromptEncoder, tokenizer: Any, model: Any
) -> None:
    first, second, third = (list_ids(tokenizer, t) for t in ("a ", "red car", ", night"))
    plain = call(tokenizer, model, first + second + third)
    expected = plain.clone()
    start = 1 + len(first)
    expected[:, start:start + len(second)] *= 1.3
    expected *= plain.mean() / expected.mean()
    found = encode(encoder, "a (red car:1.3), night")
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert not torch.equal(found, plain)
    assert torch.equal(encode(encoder, "a (red car:1.0), night"), plain)


def test_a_long_prompt_is_read_in_chunks(
    encoder: PromptEncoder, tokenizer: Any, model: Any
) -> None:
    words = " ".join(["red car blue city"] * 40)
    ids = list_ids(tokenizer, words)
    assert len(ids) == 160
    expected = [call(tokenizer, model, ids[at:at + LENGTH]) for at in range(0, 160, LENGTH)]
    assert torch.equal(encode(encoder, words), torch.cat(expected, dim=1))


@pytest.mark.parametrize(("before", "moved"), [(70, 4), (56, 18), (55, 19), (54, 0), (74, 0)])
def test_words_behind_a_comma_near_the_end_move_along(
    encoder: PromptEncoder, tokenizer: Any, model: Any, before: int, moved: int
) -> None:
    """At most nineteen of them: the comma is then one of the last twenty tokens."""
    words = f"{' '.join(['red'] * before)}, {' '.join(['car'] * 60)}"
    ids = list_ids(tokenizer, words)
    cut = LENGTH - moved
    expected = [call(tokenizer, model, part) for part in (ids[:cut], ids[cut:])]
    assert torch.equal(encode(encoder, words), torch.cat(expected, dim=1))


@pytest.mark.parametrize(("prompt", "chunks"), [
    ("a red BREAK car", ["a red", "car"]), ("a BREAK", ["a"]), ("BREAK a", ["", "a"]),
    ("a BREAK BREAK b", ["a", "", "b"]), ("BREAK BREAK", ["", ""]),
])
def test_a_break_begins_a_chunk(
    encoder: PromptEncoder, tokenizer: Any, model: Any, prompt: str, chunks: list[str]
) -> None:
    expected = [call(tokenizer, model, list_ids(tokenizer, text)) for text in chunks]
    assert torch.equal(encode(encoder, prompt), torch.cat(expected, dim=1))


def test_prompts_of_unequal_length_stand_side_by_side(encoder: PromptEncoder) -> None:
    """The last token of the shorter one is repeated."""
    both = encoder.encode(["a BREAK b", "a"]).tokens
    assert both.shape == (2, 154, 64)
    short = encode(encoder, "a")[0]
    assert torch.equal(both[1, :77], short)
    assert torch.equal(both[1, 77:], short[-1:].expand(77, -1))


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    folder = tmp_path / "embeddings"
    (folder / "more").mkdir(parents=True)
    torch.manual_seed(3)
    save_file({"emb_params": torch.randn(3, 64)}, folder / "bad-hands.safetensors")
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.randn(1, 64)},
                "name": "other"}, folder / "more" / "bad.pt")
    torch.save({"<style>": torch.randn(64)}, folder / "vangogh.bin")
    save_file({"emb_params": torch.zeros(2, 1024)}, folder / "two.safetensors")
    save_file({"clip_g": torch.zeros(2, 1280), "clip_l": torch.zeros(2, 768)},
              folder / "large.safetensors")
    (folder / "broken.pt").write_bytes(b"never read")
    return folder


def call_with(model: Any, tokenizer: Any, rows: list[int | Tensor]) -> Tensor:
    """One call from vectors that were looked up and put together by hand."""
    table = model.get_input_embeddings().weight.detach()
    vectors = torch.cat([table[row][None] if isinstance(row, int) else row for row in rows])
    end = table[tokenizer.eos_token_id].expand(LENGTH + 1 - len(vectors), -1)
    whole = torch.cat([table[tokenizer.bos_token_id][None], vectors, end])
    found = model.get_input_embeddings().register_forward_hook(lambda *_: whole[None])
    try:
        return call(tokenizer, model, [0] * len(vectors))
    finally:
        found.remove()


def test_embeddings_stand_for_the_names_of_their_files(
    tokenizer: Any, model: Any, embeddings: Path
) -> None:
    """The longest name counts, whatever its case, and a file is read when it is named."""
    encoder = PromptEncoder(tokenizer, model, embeddings_dir=str(embeddings))
    hands = load_file(embeddings / "bad-hands.safetensors")["emb_params"]
    bad = torch.load(embeddings / "more" / "bad.pt")["string_to_param"]["*"]
    gogh = torch.load(embeddings / "vangogh.bin")["<style>"][None]
    rows = [*list_ids(tokenizer, "a red"), hands, *list_ids(tokenizer, ","), bad,
            *list_ids(tokenizer, "car"), gogh]
    prompt = "a red Bad-Hands, bad car vangogh"
    assert torch.equal(encode(encoder, prompt), call_with(model, tokenizer, rows))
    plain = PromptEncoder(tokenizer, model)
    assert encoder.digest([prompt]) != "" == plain.digest([prompt])
    assert torch.equal(encode(encoder, "a car"), encode(plain, "a car"))
    with pytest.raises(Exception, match=r"broken\.pt"):
        encode(encoder, "a broken car")


def test_an_embedding_is_weighted_and_never_parted(
    tokenizer: Any, model: Any, embeddings: Path
) -> None:
    encoder = PromptEncoder(tokenizer, model, embeddings_dir=str(embeddings))
    hands = load_file(embeddings / "bad-hands.safetensors")["emb_params"]
    words = list_ids(tokenizer, " ".join(["red"] * 73))
    first, second = call(tokenizer, model, words), call_with(model, tokenizer, [hands])
    weighted = second.clone()
    weighted[:, 1:4] *= 1.5
    weighted *= second.mean() / weighted.mean()
    found = encode(encoder, f"{' '.join(['red'] * 73)} (bad-hands:1.5)")
    torch.testing.assert_close(found, torch.cat([first, weighted], dim=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "family"), [
    ("two", r"Stable Diffusion 2\.x"), ("large", "SDXL"),
])
def test_embeddings_of_other_models_stay_words_with_a_warning(
    tokenizer: Any, model: Any, embeddings: Path, caplog: pytest.LogCaptureFixture, name: str,
    family: str,
) -> None:
    encoder = PromptEncoder(tokenizer, model, embeddings_dir=str(embeddings))
    plain = PromptEncoder(tokenizer, model)
    assert torch.equal(encode(encoder, f"{name} cars"), encode(plain, f"{name} cars"))
    encode(encoder, f"other {name}")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert f"the embedding {name}" in warnings[0]
    assert family.replace("\\", "") in warnings[0]


def test_embeddings_that_cannot_be_used_are_refused(
    tokenizer: Any, model: Any, embeddings: Path, tmp_path: Path
) -> None:
    save_file({"emb_params": torch.zeros(76, 64)}, embeddings / "huge.safetensors")
    save_file({"a": torch.zeros(1, 64), "b": torch.zeros(1, 64)}, embeddings / "twin.safetensors")
    encoder = PromptEncoder(tokenizer, model, embeddings_dir=str(embeddings))
    for prompt, words in (("huge", "has 76 vectors"), ("twin", "holds 2 tensors")):
        with pytest.raises(HostError, match=words):
            encode(encoder, prompt)
    with pytest.raises(HostError, match=r"sampling\.embeddings_dir .* is not a folder"):
        PromptEncoder(tokenizer, model, embeddings_dir=str(tmp_path / "nowhere"))


def test_weights_that_cancel_out_are_refused(encoder: PromptEncoder) -> None:
    with pytest.raises(HostError, match="no finite conditioning"):
        encode(encoder, "(a:1e0)(b:99999999999999999999999999999999999999999)")
