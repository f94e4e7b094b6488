"""Convert prompts to conditioning, by the text encoder of Stable Diffusion or the two of SDXL.

Prompts are read as the WebUI reads them: weights, BREAK, embeddings, and as many chunks of the
encoder's length as the words need.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fresco.errors import HostError
from fresco.hosts.diffusers.conditioning import Conditioning
from fresco.hosts.diffusers.embeddings import Embeddings
from fresco.planning.prompt_syntax import Fragment, read_fragments

_COMMA = ",</w>"
"""CLIP's token of a comma."""
_TAG = re.compile(r"<[^<>]*>")
"""An extra network in a prompt, which is no word of it."""
_BACKTRACK = 20
"""Tokens at the end of a chunk that move on to the next one, back to a comma; the WebUI's own."""


@dataclass(slots=True)
class _Item:
    """A part of a prompt that is never divided: a token, or the vectors of an embedding."""

    token: int
    weight: float
    vectors: tuple[Tensor, ...] | None = None
    """[n, C] for each text encoder."""

    def __len__(self) -> int:
        return 1 if self.vectors is None else len(self.vectors[0])


@dataclass(slots=True)
class _Chunk:
    """As many tokens as the encoder reads at once, without marks of begin and end."""

    items: list[_Item] = field(default_factory=list)
    last_comma: int = -1
    """Place of the last comma among the items."""

    def __len__(self) -> int:
        return sum(map(len, self.items))


class PromptEncoder:
    """Computes CLIP conditioning, once for each distinct prompt."""

    def __init__(
        self, tokenizer: Any, text_encoder: Any, *, second: tuple[Any, Any] | None = None,
        zero_empty: bool = False, embeddings_dir: str = "",
    ) -> None:
        """
        Args:
            second: tokenizer and text encoder that SDXL has besides; its words are the first one's
            zero_empty: whether an empty negative prompt is conditioning of zeros
        """
        self._tokenizer, self._zero_empty = tokenizer, zero_empty
        pairs = [(tokenizer, text_encoder), *([second] if second else [])]
        self._texts = [_TextModel(*pair, inner=second is not None) for pair in pairs]
        most = min(tokenizer.model_max_length,
                   *(text.model.config.max_position_embeddings for text in self._texts))
        self._length: int = most - 2  # begin and end
        self._comma = tokenizer.get_vocab().get(_COMMA, -1)
        self._embeddings = Embeddings(
            embeddings_dir, tokenizer, [text.model.config.hidden_size for text in self._texts]
        )
        self._known: dict[str, Conditioning] = {}

    def encode(self, prompts: Sequence[str], *, negative: bool = False) -> Conditioning:
        """Compute the conditioning of N frames from their prompts."""
        found = [self._encode_one(prompt) for prompt in prompts]
        if negative and self._zero_empty:
            found = [each if prompt else each.zeroed()
                     for prompt, each in zip(prompts, found, strict=True)]
        return Conditioning.concatenate(found)

    def count_tokens(self, prompt: str) -> tuple[int, int]:
        """Count the tokens of a prompt, and how many its chunks can have."""
        chunks = self._split(_TAG.sub("", prompt))
        full = self._length * (len(chunks) - 1)
        return full + len(chunks[-1]), full + self._length

    def digest(self, prompts: Iterable[str]) -> str:
        """Digest of what the syntax of prompts refers to; empty if they are plain words."""
        sha = hashlib.sha256()
        plain = True
        for prompt in prompts:
            chunks = self._split(prompt)
            plain = plain and self._is_plain(chunks, prompt)
            for chunk in chunks:
                for item in chunk.items:
                    sha.update(f"{item.token} {item.weight} ".encode())
                    for vectors in item.vectors or ():
                        sha.update(vectors.numpy().tobytes())
                sha.update(b"chunk ")
        return "" if plain else sha.hexdigest()

    def _is_plain(self, chunks: Sequence[_Chunk], prompt: str) -> bool:
        ids = self._tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
        return len(chunks) == 1 and all(i.vectors is None and i.weight == 1
                                        for i in chunks[0].items) \
            and [i.token for i in chunks[0].items] == list(ids)

    def _encode_one(self, prompt: str) -> Conditioning:
        if prompt not in self._known:
            self._known[prompt] = self._run(prompt)
        return self._known[prompt]

    @torch.no_grad()
    def _run(self, prompt: str) -> Conditioning:
        """Encode chunk by chunk and join along the tokens; the pooled vector is the first one's."""
        chunks = [self._encode_chunk(chunk) for chunk in self._split(prompt)]
        return Conditioning(torch.cat([tokens for tokens, _ in chunks], dim=1), chunks[0][1])

    def _split(self, prompt: str) -> list[_Chunk]:
        """Split a prompt into chunks; BREAK ends one."""
        groups = read_fragments(prompt)
        chunks: list[_Chunk] = []
        for left, group in zip(reversed(range(len(groups))), groups, strict=True):
            chunk = _Chunk()
            for item in self._list_items(group):
                fitted = True
                while (full := self._make_room(chunk, item)) is not None:
                    chunks.append(full)
                    fitted = False
                if fitted and item.token == self._comma and item.vectors is None:
                    chunk.last_comma = len(chunk.items)
                chunk.items.append(item)
            if chunk.items or left or not chunks:
                chunks.append(chunk)
        return chunks

    def _list_items(self, group: Iterable[Fragment]) -> Iterator[_Item]:
        for fragment in group:
            ids = self._tokenizer(
                fragment.text, add_special_tokens=False, truncation=False, verbose=False
            ).input_ids
            place = 0
            while place < len(ids):
                found = self._embeddings.find(ids, place)
                vectors, count = found or (None, 1)
                item = _Item(ids[place], fragment.weight, vectors)
                if len(item) > self._length:
                    raise HostError(
                        f"An embedding in {fragment.text!r} has {len(item)} vectors; the text "
                        f"encoder reads {self._length} tokens at once. Use a smaller one."
                    )
                yield item
                place += count

    def _make_room(self, chunk: _Chunk, item: _Item) -> _Chunk | None:
        """Begin a new chunk if an item does not fit; return the finished one.

        Words that follow a comma near the end move along.
        """
        if len(chunk) + len(item) <= self._length:
            return None
        keep = len(chunk.items)
        after_comma = chunk.last_comma + 1
        moved = sum(map(len, chunk.items[after_comma:]))
        if (chunk.last_comma >= 0 and item.token != self._comma and len(chunk) == self._length
                and moved < _BACKTRACK):
            keep = after_comma
        full = _Chunk(chunk.items[:keep])
        chunk.items, chunk.last_comma = chunk.items[keep:], -1
        return full

    def _encode_chunk(self, chunk: _Chunk) -> tuple[Tensor, Tensor | None]:
        """Encode one chunk, [1, tokens, C], weights applied, and its pooled vector, if any."""
        found = [text.encode(chunk, self._length, number)
                 for number, text in enumerate(self._texts)]
        return torch.cat([tokens for tokens, _ in found], dim=2), found[-1][1]


class _TextModel:
    """One text encoder with the marks of its tokenizer."""

    def __init__(self, tokenizer: Any, model: Any, *, inner: bool) -> None:
        """
        Args:
            inner: whether what goes into the last layer is taken, as in SDXL, not the end
        """
        self.model = model
        self._inner = inner
        self._begin: int = tokenizer.bos_token_id
        self._end: int = tokenizer.eos_token_id
        self._pad: int = tokenizer.pad_token_id

    def encode(self, chunk: _Chunk, length: int, number: int) -> tuple[Tensor, Tensor | None]:
        """Encode a chunk: [1, length + 2, C], weights applied, and the pooled [1, P] or None.

        Args:
            number: place of the encoder, by which embeddings have their vectors
        """
        ids, weights = [self._begin], [1.0]
        vectors: list[tuple[int, Tensor]] = []
        for item in chunk.items:
            if item.vectors is not None:
                vectors.append((len(ids), item.vectors[number]))
            ids += [item.token] * len(item)
            weights += [item.weight] * len(item)
        missing = length + 1 - len(ids)
        ids += [self._end] + [self._pad] * missing
        weights += [1.0] * (1 + missing)
        device = self.model.device
        with self._replacing(vectors):
            output = self.model(
                torch.tensor([ids], device=device), output_hidden_states=self._inner
            )
        encoded = output.hidden_states[-2] if self._inner else output[0]
        pooled = getattr(output, "text_embeds", None)
        if all(weight == 1 for weight in weights):
            return encoded, pooled
        return _apply_weights(encoded, torch.tensor(weights, device=device)), pooled

    @contextmanager
    def _replacing(self, vectors: Sequence[tuple[int, Tensor]]) -> Iterator[None]:
        """Within the context, the encoder gets these vectors in place of tokens."""
        if not vectors:
            yield
            return

        def replace(module: Any, inputs: Any, embedded: Tensor) -> Tensor:
            embedded = embedded.clone()
            for place, values in vectors:
                embedded[:, place:place + len(values)] = values.to(embedded)
            return embedded

        handle = self.model.get_input_embeddings().register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


def _apply_weights(encoded: Tensor, weights: Tensor) -> Tensor:
    """Multiply each token by its weight, and restore the mean of all, as the WebUI does."""
    weighted = encoded * weights[None, :, None]
    result = weighted * (encoded.mean() / weighted.mean())
    if not bool(torch.isfinite(result).all()):
        raise HostError(
            "The weights of a prompt give no finite conditioning; use weights nearer to 1."
        )
    return result
