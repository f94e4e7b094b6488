"""Find CLIP's tokenizer for a checkpoint in one file, without a download if possible."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from fresco.errors import HostError
from fresco.hosts.checkpoint import TextSizes
from fresco.hosts.diffusers.configurations import OPEN_CLIP_PAD
from fresco.temporary import open_temporary_folder

_HUB_TOKENIZERS = (
    "openai/clip-vit-large-patch14",
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-xl-base-1.0",
)
"""Repositories whose cached copies hold the tokenizer of CLIP."""
_PACKAGES = ("open_clip", "clip")
"""Python packages that ship the vocabulary of CLIP."""
_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2
_MARKS = ("<|startoftext|>", "<|endoftext|>")


def load_tokenizers(path: Path, texts: Sequence[TextSizes], *, offline: bool) -> list[Any]:
    """Load the tokenizer of each text encoder of a checkpoint.

    All have one vocabulary, and pad as their encoders were trained.
    """
    with open_temporary_folder() as place:
        folder = place / "tokenizer"
        write_tokenizer(folder, path, offline=offline)
        tokenizers: list[Any] = []
        for text in texts:
            _check_vocabulary(folder, path, text.vocabulary)
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
            if text.is_open_clip:
                tokenizer.pad_token = tokenizer.convert_ids_to_tokens(OPEN_CLIP_PAD)
            tokenizers.append(tokenizer)
    return tokenizers


def write_tokenizer(folder: Path, checkpoint: Path, *, offline: bool) -> None:
    """Write a CLIP tokenizer into a folder; the error says where one was looked for."""
    beside = checkpoint.parent
    places = [beside / checkpoint.stem / "tokenizer", beside / checkpoint.stem,
              beside / "tokenizer", beside]
    found = next((place for place in places if (place / "vocab.json").is_file()), None)
    if found is not None:
        folder.mkdir(parents=True)
        for name in ("vocab.json", "merges.txt"):
            shutil.copyfile(found / name, folder / name)
        _finish_tokenizer(folder)
    elif packed := _find_packaged_vocabulary(beside):
        unpack_vocabulary(packed, folder)
    elif not _save_from_hub(folder, offline=offline):
        raise HostError(
            f"{checkpoint.name} needs CLIP's tokenizer, and none was found beside it, in the "
            f"packages {', '.join(_PACKAGES)}, or in the cache of the hub. Put vocab.json and "
            f"merges.txt of {_HUB_TOKENIZERS[0]} into {places[2]}, or install open-clip-torch."
        )


def _find_packaged_vocabulary(beside: Path) -> Path | None:
    """Find CLIP's vocabulary file beside the checkpoint or in a package."""
    places = [beside]
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        places += [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    return next((p / _VOCABULARY for p in places if (p / _VOCABULARY).is_file()), None)


def unpack_vocabulary(packed: Path, folder: Path) -> None:
    """Make vocab.json and merges.txt from the vocabulary file of OpenAI's CLIP."""
    with gzip.open(packed, "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : _MERGES + 1]
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in kept] + [chr(256 + i) for i in range(256 - len(kept))]
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += [merge.replace(" ", "") for merge in merges]
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {token: number for number, token in enumerate([*tokens, *_MARKS])}
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    _finish_tokenizer(folder)


def _finish_tokenizer(folder: Path) -> None:
    """Write the two small files that diffusers needs, too."""
    names = {"bos_token": _MARKS[0]} | dict.fromkeys(
        ("eos_token", "unk_token", "pad_token"), _MARKS[1]
    )
    about = {"model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    _write(folder / "special_tokens_map.json", names)
    _write(folder / "tokenizer_config.json", names | about)


def _save_from_hub(folder: Path, *, offline: bool) -> bool:
    """Save the hub's tokenizer from its cache or, unless offline, from the network."""
    tries = [(name, True) for name in _HUB_TOKENIZERS]
    for name, local in [*tries, *([] if offline else [(_HUB_TOKENIZERS[0], False)])]:
        for inner in ("", "tokenizer"):
            try:
                found = CLIPTokenizer.from_pretrained(
                    name, local_files_only=local, subfolder=inner
                )
            except (OSError, ValueError, TypeError):
                continue
            if len(found) > len(_MARKS):
                found.save_pretrained(folder)
                return True
    return False


def _check_vocabulary(folder: Path, checkpoint: Path, vocabulary: int) -> None:
    path = folder / "vocab.json"
    count = len(json.loads(path.read_text("utf-8"))) if path.exists() else vocabulary
    if count != vocabulary:
        raise HostError(
            f"{checkpoint.name} knows {vocabulary} tokens, the tokenizer found has {count}; put "
            f"its own vocab.json and merges.txt into {checkpoint.parent / checkpoint.stem}."
        )


def _write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
