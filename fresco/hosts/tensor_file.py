"""Read files of weights: names and shapes first, values on request."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fresco.errors import WeightsError

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape."""

_HEADER_LIMIT = 100 << 20
"""Longest header of a safetensors file, by its format."""
_OLD_CLIP = re.compile(r"^(cond_stage_model\.transformer\.)(embeddings|encoder|final_layer_norm)\.")
"""Names of CLIP from before transformers put `text_model.` into them."""
_NEW_ATTENTION = re.compile(r"(\bmid\.attn_1\.)(to_q|to_k|to_v|to_out\.0|group_norm)\.")
"""Names that newer programs give the attention of a VAE."""
_OLD_ATTENTION = {
    "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm",
}
_FOREIGN = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.ModelCheckpoint",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype",
    "numpy.dtypes.Float64DType", "numpy.dtypes.Float32DType", "numpy.dtypes.Int64DType",
    "_codecs.encode", "torch.nn.modules.container.ParameterDict",
)
"""Objects in old checkpoints besides tensors: notes of the training."""


class _StandIn:
    """Replaces every foreign object of a checkpoint, so that no code of it runs."""

    def __init__(self, *arguments: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def _make_stand_in(full_name: str) -> type[_StandIn]:
    """Make a stand-in that torch accepts for the class or function of that name."""
    module, _, name = full_name.rpartition(".")
    return type(name, (_StandIn,), {"__module__": module})


_STAND_INS = tuple(map(_make_stand_in, _FOREIGN))


def canonical_name(name: str) -> str:
    """Convert a tensor's name to that of the original programs; other names stay unchanged."""
    name = _OLD_CLIP.sub(r"\1text_model.\2.", name)
    return _NEW_ATTENTION.sub(lambda match: f"{match[1]}{_OLD_ATTENTION[match[2]]}.", name)


class TensorFile:
    """A .safetensors, .ckpt, .pt, .pth or .bin file; names are canonical."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: Mapping[str, str] = {}
        """The metadata of a .safetensors file."""
        self._state: dict[str, Tensor] | None = None
        if path.suffix == ".safetensors":
            shapes, self.metadata = _read_header(path)
        else:
            self._state = _read_pickle(path)
            shapes = {name: tuple(tensor.shape) for name, tensor in self._state.items()}
        self._own = {canonical_name(name): name for name in shapes}
        self.shapes: Shapes = {name: shapes[own] for name, own in self._own.items()}

    def name_in_file(self, name: str) -> str:
        """Name of a tensor as the file has it."""
        return self._own.get(name, name)

    def read(
        self, names: Iterable[str], dtype: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """Read some of the tensors to the CPU."""
        if self._state is not None:
            return {name: self._state[self._own[name]].to(dtype) for name in names}
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                return {name: file.get_tensor(self._own[name]).to(dtype) for name in names}
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{self.path} cannot be read ({error}). Fetch it again.") from error


def read_metadata(path: Path) -> Mapping[str, str]:
    """Read the metadata of a .safetensors file; empty if it cannot be read."""
    try:
        return _read_header(path)[1]
    except WeightsError:
        return {}


def _read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], Mapping[str, str]]:
    """Read shapes and metadata of a safetensors file; its size is checked against the header."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length < _HEADER_LIMIT else None
        if not isinstance(header, dict):
            raise ValueError("no header")
        metadata = header.pop("__metadata__", None) or {}
        end = 8 + length + max((v["data_offsets"][1] for v in header.values()), default=0)
        if path.stat().st_size != end:
            raise ValueError(f"{path.stat().st_size} bytes instead of {end}")
        return {key: tuple(value["shape"]) for key, value in header.items()}, metadata
    except (struct.error, ValueError, KeyError, TypeError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable .safetensors file ({error}). Fetch it again."
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint; those of an inner mapping are named `outer.inner`."""
    try:
        with _allowing_notes():
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of any class for damaged files
        if isinstance(error, (MemoryError, KeyboardInterrupt)):
            raise
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} cannot be read as weights ({reason}). It is damaged, or holds program code, "
            "which is never run; use a .safetensors file."
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else {}
    return dict(_list_tensors(state))


def _list_tensors(state: Mapping[Any, Any]) -> Iterable[tuple[str, Tensor]]:
    for key, value in state.items():
        inner = value
        if isinstance(inner, _StandIn) and isinstance(inner.state, Mapping):
            inner = inner.state.get("_parameters", inner.state)
        if isinstance(inner, torch.Tensor):
            yield str(key), inner.detach()
        elif isinstance(inner, Mapping):
            yield from ((f"{key}.{name}", tensor.detach()) for name, tensor in inner.items()
                        if isinstance(tensor, torch.Tensor))


def _allowing_notes() -> contextlib.AbstractContextManager[object]:
    """Within the context, training notes in a checkpoint are skipped instead of refused."""
    allow = getattr(torch.serialization, "safe_globals", None)  # since torch 2.5
    if allow is None:
        return contextlib.nullcontext()
    return allow(list(_STAND_INS))
