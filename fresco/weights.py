"""Find, download and load files of weights safely."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import pickle
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fresco.errors import WeightsError
from fresco.progress import Progress, Stage

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("fresco")

BLOCK = 1 << 18
"""Bytes read at a time, so that a run can be stopped soon."""
ATTEMPTS = 3
"""Most connections of a download; each continues where the last one broke."""
TIMEOUT = 30.0
"""Seconds without data after which a connection counts as broken."""
_NETWORK_ERRORS = (
    urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError
)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A published file of weights."""

    name: str
    """File name in the folder of weights."""
    size: int
    """Bytes."""
    sha256: str
    """Hex digest of its bytes."""
    address: str
    """Address at which it is published."""
    licence: str
    """Licence its authors give."""


GMFLOW_SINTEL = WeightFile(
    name="gmflow_sintel-0c07dcb3.pth",
    size=18_768_907,
    sha256="0c07dcb35770464f38a5ff4de18c04177b242dc5de8cd2068adf46f3d4fe193a",
    address="https://huggingface.co/PKUWilliamYang/Rerender/resolve/main/models/"
            "gmflow_sintel-0c07dcb3.pth",
    licence="Apache-2.0",
)
U2NETP = WeightFile(
    name="u2netp.onnx",
    size=4_574_861,
    sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
    address="https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2netp.onnx",
    licence="Apache-2.0",
)


def weights_folder(option: str = "") -> Path:
    """The folder of weights: the option, else $FRESCO_WEIGHTS, else ~/.cache/fresco."""
    chosen = option or os.environ.get("FRESCO_WEIGHTS", "")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "fresco"


def is_offline(option: bool = False) -> bool:
    """Whether downloads are forbidden, by the option or by HF_HUB_OFFLINE."""
    return option or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def file_sha256(path: Path) -> str:
    """Compute the hex sha256 of a file's bytes."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha.update(block)
    return sha.hexdigest()


def _find_damage(weight: WeightFile, path: Path) -> str | None:
    """Describe what is wrong with a file; None if nothing is."""
    size = path.stat().st_size
    if size != weight.size:
        return f"it has {size} bytes, expected are {weight.size}"
    actual = file_sha256(path)
    if actual != weight.sha256:
        return f"its sha256 is {actual}, expected is {weight.sha256}"
    return None


def find_weights(weight: WeightFile, folder: Path) -> Path | None:
    """Find and check the file in the folder; None if it is not there, an error if it is damaged."""
    path = folder / weight.name
    try:
        damage = _find_damage(weight, path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    if damage:
        raise WeightsError(
            f"{path} is damaged: {damage}. Delete it, so that it is fetched again, or fetch it "
            f"by hand from {weight.address}."
        )
    return path


def ensure_weights(
    weight: WeightFile, folder: Path, *, offline: bool = False, progress: Progress | None = None
) -> Path:
    """Find and check the file in the folder, and download it if it is not there.

    A download that breaks keeps what it has beside the file, and the next one goes on from there.
    """
    path = find_weights(weight, folder)
    if path is not None:
        return path
    if is_offline(offline):
        raise WeightsError(
            f"{weight.name} ({weight.size} bytes) is not in {folder}, and downloads are off. "
            f"Fetch it from {weight.address} and put it into that folder, or allow downloads."
        )
    part = folder / f"{weight.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (progress or Progress()).stage(f"download {weight.name}", weight.size) as stage:
            _download(weight, part, stage)
        damage = _find_damage(weight, part)
        if damage:
            part.unlink()
            raise WeightsError(
                f"{weight.name} from {weight.address} is not the published file: {damage}. It was "
                f"thrown away. Try again, or put the right file into {folder}."
            )
        part.replace(folder / weight.name)
    except OSError as error:
        raise WeightsError(
            f"{weight.name} ({weight.size} bytes) cannot be written to {folder}: "
            f"{error.strerror or error}. Free some space or choose another folder."
        ) from error
    log.info("%s fetched into %s", weight.name, folder)
    return folder / weight.name


def _download(weight: WeightFile, part: Path, stage: Stage) -> None:
    """Complete the partial file, over several connections if necessary."""
    counted = 0
    reason = ""
    for _ in range(ATTEMPTS):
        have = part.stat().st_size if part.exists() else 0
        if have > weight.size:
            part.unlink()
            have = 0
        stage.advance(have - counted)
        counted = have
        if have == weight.size:
            return
        try:
            for count in _fetch(weight, part, have):
                stage.advance(count - counted)
                counted = count
            reason = f"the server closed the connection after {counted} of {weight.size} bytes"
        except _NETWORK_ERRORS as error:
            reason = str(error) or type(error).__name__
            if getattr(error, "code", 0) == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()
                reason = f"the file there ends before byte {have}"
        if counted >= weight.size:
            return
    raise WeightsError(
        f"{weight.name} ({weight.size} bytes) could not be fetched from {weight.address}: "
        f"{reason}. Try again, which goes on where it stopped, or put the file into {part.parent}."
    )


def _fetch(weight: WeightFile, part: Path, have: int) -> Iterator[int]:
    """Download over one connection; yield the file's size so far."""
    headers = {"User-Agent": "fresco"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(weight.address, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        # A server that knows no ranges sends everything from the start.
        ranged = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        goes_on = have > 0 and answer.status == http.HTTPStatus.PARTIAL_CONTENT and ranged
        with part.open("ab" if goes_on else "wb") as file:
            yield from _copy(answer, file, have if goes_on else 0, weight.size)


def _copy(answer: IO[bytes], file: IO[bytes], count: int, most: int) -> Iterator[int]:
    yield count
    # One byte too many is enough to tell a wrong file; an endless one must not fill the disk.
    while count <= most and (block := answer.read(min(BLOCK, most + 1 - count))):
        file.write(block)
        count += len(block)
        yield count


def load_state(path: Path) -> dict[str, Tensor]:
    """Load tensors of a .safetensors file or a checkpoint; code in a checkpoint is never run.

    Tensors nested under `model` or `state_dict` are taken from there.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for name in ("model", "state_dict"):
        inner = content.get(name)
        if isinstance(inner, Mapping):
            content = inner
    import torch

    state = {str(name): value for name, value in content.items() if torch.is_tensor(value)}
    if not state:
        raise WeightsError(f"{path} holds no tensors; give a file of weights.")
    return state


def _read_safetensors(path: Path) -> Mapping[str, object]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}. Fetch it again."
                           ) from error


def _read_pickle(path: Path) -> Mapping[str, object]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is refused: it is damaged or holds more than tensors, which could run code "
            "when loaded. Fetch it from its publisher, or convert it to .safetensors."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path} is not a readable checkpoint: {error}. Fetch it again."
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}; a mapping of tensors is needed."
        )
    return content
