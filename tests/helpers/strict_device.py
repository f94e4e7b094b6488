"""A device that is not there, and forgives less than any that is.

Its tensors lie in the CPU's memory, but say that they are elsewhere. They refuse what CUDA refuses
(to be mixed with tensors of the CPU) and what MPS cannot do (float64; sorting and the least of
int64), and they note whatever makes a program wait for a device: reading a value back, copying to
or from it, sizes that depend on values.

Numbers are computed by the CPU's own kernels, so a result may be compared with the CPU's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _python_dispatch, backend_registration

NAME = "strict"
ROOT = f"{Path(__file__).resolve().parents[2]}{os.sep}"

_READS = frozenset({
    "_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "unique",
    "_unique", "_unique2", "unique_consecutive", "unique_dim", "repeat_interleave",
})
"""Operations whose result, or its size, is read back."""
_INDEXING = frozenset({"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"})
"""Operations that take their indices to the device themselves, which is a wait."""
_TOGETHER = frozenset({
    "addmm", "bmm", "cat", "convolution", "embedding", "gather", "index_add", "index_add_",
    "index_copy", "index_copy_", "index_select", "mm", "scatter", "scatter_", "scatter_add_",
    "scatter_reduce", "scatter_reduce_", "stack",
})
"""Operations that take no tensor of the CPU, not even one without dimensions."""
_NOT_OF_INT64 = frozenset({
    "argsort", "msort", "scatter_reduce", "scatter_reduce_", "sort", "topk",
})
"""Operations that MPS gets wrong for int64, or ends the process at."""


class DeviceError(RuntimeError):
    """What a real device would refuse, or get wrong."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A moment at which the program waits until the device has done all it was told."""

    kind: str
    """`read`, `to device` or `to host`."""
    operation: str
    """Of torch, with the shape."""
    place: str
    """File and line of this repository's code that asked for it; empty: none of ours."""


@dataclass(slots=True)
class Log:
    """What the device saw."""

    waits: list[Wait] = field(default_factory=list)

    def clear(self) -> None:
        """Begin anew."""
        self.waits.clear()

    def __str__(self) -> str:
        return "\n".join(f"{w.kind:10s}{w.operation:45s}{w.place}" for w in self.waits)


_log = Log()


class _Backend:
    """What torch asks of a device's module; there is a device only within `strict_device`."""

    present = False

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return self.present

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return int(self.present)

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """The CPU's generator serves."""

    def get_rng_state(self, device: Any = NAME) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = NAME) -> None:
        """The CPU's is set by whoever sets all."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


_backend = _Backend()


def _register() -> torch.device:
    """Tell torch of the device, once for the process."""
    if getattr(torch, NAME, None) is None:
        backend_registration._setup_privateuseone_for_python_backend(NAME, _backend)
    return torch.device(NAME, 0)


class StrictTensor(Tensor):
    """A tensor on the device."""

    inner: Tensor
    # No subclass's rules for functions, only for the operations below them.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> StrictTensor:
        made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=torch.device(NAME, 0),
        )
        made.inner = inner
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"StrictTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_without_lists(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_without_lists(index), value)

    def tolist(self) -> Any:
        """As torch does it: one copy to the CPU."""
        return self.cpu().tolist()


def _without_lists(index: Any) -> Any:
    """torch makes tensors of lists before an operation can be seen; they come from the CPU."""
    if isinstance(index, list):
        return torch.tensor(index)
    if isinstance(index, tuple):
        return tuple(_without_lists(part) if isinstance(part, list) else part for part in index)
    return index


class _Factories(_python_dispatch.TorchDispatchMode):
    """Sees also those operations that are given no tensor of the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _from_numbers(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch makes tensors of Python numbers on the CPU and copies them, which it hides."""

    def make_and_copy(*args: Any, **kwargs: Any) -> Tensor:
        device = kwargs.get("device")
        if not _is_strict(device):
            return make(*args, **kwargs)
        return make(*args, **kwargs | {"device": "cpu"}).to(device)

    return make_and_copy


@contextmanager
def strict_device() -> Iterator[tuple[torch.device, Log]]:
    """Within: torch has this device; its name, and what it sees."""
    device = _register()
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    _backend.present = True
    _log.clear()
    try:
        with _Factories(), mock.patch.multiple(
            torch, tensor=_from_numbers(torch.tensor), as_tensor=_from_numbers(torch.as_tensor)
        ):
            yield device, _log
    finally:
        _backend.present = False
        torch.__future__.set_overwrite_module_params_on_conversion(before)
        _log.clear()


def _find_place() -> str:
    """The innermost line of the package that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(f"{ROOT}fresco"):
            place = file.removeprefix(ROOT).replace(os.sep, "/")
            return f"{place}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return ""


def _note(kind: str, name: str, shape: Any) -> None:
    _log.waits.append(Wait(kind, f"{name} {tuple(shape)}", _find_place()))


def _is_strict(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation of torch: refused, or done on the CPU's memory and noted."""
    given = _Given()
    own_args = tuple(given.take(x) for x in args)
    if not given.ours and not _is_strict(kwargs.get("device")):
        return func(*args, **kwargs)
    own_kwargs = {key: given.take(x) for key, x in kwargs.items()}
    name = func.__name__.partition(".")[0]
    if name == "_fused_sdp_choice":
        return 0  # the plain formula: other kernels look at the memory
    on_device = _choose_device(name, args, kwargs, given)
    _note_reads(func, name, args, given.ours)
    _refuse_unknown(name, given.ours)
    if own_kwargs.get("device") is not None:
        own_kwargs["device"] = "cpu"
    result = func(*own_args, **own_kwargs)
    if not on_device:
        return result
    known = {id(x.inner): x for x in given.ours}  # what is written to comes back as itself
    return _place(name, result, known)


@dataclass(slots=True)
class _Given:
    """The tensors an operation was given."""

    ours: list[StrictTensor] = field(default_factory=list)
    """Of the device."""
    theirs: list[Tensor] = field(default_factory=list)
    """Of the CPU."""

    def take(self, x: Any) -> Any:
        """The same with tensors of the device replaced by their memory."""
        if isinstance(x, StrictTensor):
            self.ours.append(x)
            return x.inner
        if isinstance(x, Tensor):
            self.theirs.append(x)
        elif isinstance(x, (list, tuple)):
            return [self.take(part) for part in x]
        return x


def _place(name: str, result: Any, known: dict[int, StrictTensor]) -> Any:
    """What an operation gave, on the device."""
    if isinstance(result, Tensor):
        return known[id(result)] if id(result) in known else _wrap(name, result)
    if isinstance(result, (list, tuple)):
        return type(result)(_place(name, part, known) for part in result)
    return result


def _wrap(name: str, x: Tensor) -> StrictTensor:
    if x.dtype in (torch.float64, torch.complex128):
        raise DeviceError(f"{name}: {x.dtype} does not exist on MPS, {tuple(x.shape)}")
    return StrictTensor(x)


def _choose_device(name: str, args: Any, kwargs: dict[str, Any], all_given: _Given) -> bool:
    """Whether the result lies on the device; copies are noted, mixtures refused."""
    wanted, ours, theirs = kwargs.get("device"), all_given.ours, all_given.theirs
    if name in ("_to_copy", "to"):
        given = (ours or theirs)[0]
        there = _is_strict(wanted) if wanted is not None else bool(ours)
        if there != bool(ours):
            _note("to device" if there else "to host", name, given.shape)
        return there
    if name == "copy_":
        there = isinstance(args[0], StrictTensor)
        if theirs:
            _note("to device" if there else "to host", name, args[1].shape)
        return there
    if wanted is not None:
        generator = kwargs.get("generator")
        if _is_strict(wanted) and generator is not None:
            raise DeviceError(f"{name}: a generator of the CPU for a tensor of the device")
        return _is_strict(wanted)
    for other in theirs:
        _refuse_mixture(name, args, other)
    return True


def _refuse_mixture(name: str, args: Any, other: Tensor) -> None:
    """A tensor of the CPU in an operation of the device."""
    if name in _INDEXING and isinstance(args[0], StrictTensor):
        if any(other is index for index in args[1]):
            _note("to device", f"{name} by the CPU's index", other.shape)
            return
    elif other.dim() == 0 and name not in _TOGETHER and other is not args[0]:
        return  # read as a number
    elif other.dim() == 0 and name not in _TOGETHER and not name.endswith("_"):
        return
    raise DeviceError(
        f"{name}: all tensors must be on one device, found {NAME}:0 and cpu {tuple(other.shape)}"
    )


def _note_reads(func: Any, name: str, args: Any, ours: list[StrictTensor]) -> None:
    if not ours:
        return
    if name in _READS and not (name == "repeat_interleave" and "Tensor" not in str(func)):
        _note("read", name, ours[0].shape)
    elif name in _INDEXING:
        masks = [i for i in args[1] if isinstance(i, Tensor) and i.dtype == torch.bool]
        if masks:
            _note("read", f"{name} by mask", masks[0].shape)


def _refuse_unknown(name: str, ours: list[StrictTensor]) -> None:
    if ours and name in _NOT_OF_INT64 and ours[0].dtype == torch.int64:
        raise DeviceError(f"{name} of int64 is wrong on MPS, {tuple(ours[0].shape)}")
