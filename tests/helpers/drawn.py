"""Arrays that follow from a seed: what torch drew for the golden vectors, drawn again by numpy.

Torch's generator on a CPU is MT19937, and numpy's `RandomState` is the same one. So random weights
need not be stored: a table of seed, place and scale gives back every bit of them.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Law = Literal["constant", "uniform", "normal"]
BLOCK = 16
"""Normal values are drawn in blocks: eight radii, then eight angles."""
PREFIX = "drawn "
"""Of the arrays in a file that are a table of draws."""


@dataclass(frozen=True)
class Draw:
    """One array: where its values lie in the stream of a seed, and what was made of them."""

    name: str
    law: Law
    shape: tuple[int, ...]
    seed: int = 0
    start: int = 0
    """Draws taken from the seed before."""
    scale: float = 1.0
    """Bound of uniform values, standard deviation of normal ones, or the constant itself."""
    gain: float = 1.0
    """Factor on the values after they were rounded to half precision."""
    fixes: tuple[tuple[int, float], ...] = ()
    """Positions and values of the few that a kernel of torch rounded to the other neighbour."""
    checksum: int = 0
    """CRC-32 of the array's bytes."""

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))


def uniform_stream(seed: int, count: int) -> NDArray[np.float64]:
    """The first draws of a seed in [0, 1), 24 bits each."""
    raw = np.random.RandomState(seed).randint(0, 2**32, size=count, dtype=np.uint32)
    return (raw & 0xFFFFFF) * 2.0**-24


def normal_stream(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Box-Muller as torch does it, block by block; a rest shorter than a block is left out."""
    blocks = uniform[: len(uniform) // BLOCK * BLOCK].reshape(-1, 2, BLOCK // 2)
    radius, angle = np.sqrt(-2 * np.log(1 - blocks[:, 0])), 2 * np.pi * blocks[:, 1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()


def bounded(uniform: NDArray[np.float64], bound: float) -> NDArray[np.float32]:
    """Uniform values in [-bound, bound), rounded once as a fused multiply-add is."""
    low, high = np.float32(-bound), np.float32(bound)
    return (uniform * np.float64(high - low) + np.float64(low)).astype(np.float32)


def checksum(array: NDArray[np.float16]) -> int:
    """CRC-32 of an array's bytes, low byte first."""
    return zlib.crc32(array.astype("<f2").tobytes())


def make(draw: Draw, uniform: NDArray[np.float64]) -> NDArray[np.float16]:
    """The array of a draw.

    Args:
        uniform: the stream of its seed, from the first draw on.
    """
    part = uniform[draw.start : draw.start + draw.size]
    if draw.law == "constant":
        values = np.full(draw.size, draw.scale, np.float32)
    elif draw.law == "uniform":
        values = bounded(part, draw.scale)
    else:
        values = (normal_stream(part) * draw.scale).astype(np.float32)
    halves = (values.astype(np.float16) * np.float32(draw.gain)).astype(np.float16)
    for position, value in draw.fixes:
        halves[position] = value
    return halves.reshape(draw.shape)


def to_table(draws: list[Draw]) -> dict[str, NDArray]:
    """Arrays that hold the draws."""
    rank = max(len(draw.shape) for draw in draws)
    fixes = [(k, position, value) for k, draw in enumerate(draws) for position, value in draw.fixes]
    columns = {
        "names": np.array([draw.name for draw in draws]),
        "laws": np.array([draw.law for draw in draws]),
        "shapes": np.array([draw.shape + (0,) * (rank - len(draw.shape)) for draw in draws], "i4"),
        "seeds": np.array([draw.seed for draw in draws], np.int64),
        "starts": np.array([draw.start for draw in draws], np.int64),
        "scales": np.array([draw.scale for draw in draws], np.float64),
        "gains": np.array([draw.gain for draw in draws], np.float64),
        "checksums": np.array([draw.checksum for draw in draws], np.int64),
        "fixed_draws": np.array([fix[0] for fix in fixes], np.int32),
        "fixed_positions": np.array([fix[1] for fix in fixes], np.int32),
        "fixed_values": np.array([fix[2] for fix in fixes], np.float64),
    }
    return {PREFIX + name: column for name, column in columns.items()}


def from_table(arrays: dict[str, NDArray]) -> list[Draw]:
    """The draws that a file's arrays hold; none where it has no table."""
    if PREFIX + "names" not in arrays:
        return []
    table = {key.removeprefix(PREFIX): v for key, v in arrays.items() if key.startswith(PREFIX)}
    fixes: dict[int, list[tuple[int, float]]] = {}
    for owner, *fix in zip(*(table[f"fixed_{k}"].tolist() for k in
                             ("draws", "positions", "values")), strict=True):
        fixes.setdefault(owner, []).append((int(fix[0]), float(fix[1])))
    columns = (table[name].tolist() for name in
               ("names", "laws", "shapes", "seeds", "starts", "scales", "gains", "checksums"))
    return [
        Draw(name, law, tuple(side for side in shape if side), seed, start, scale, gain,
             tuple(fixes.get(number, ())), crc)
        for number, (name, law, shape, seed, start, scale, gain, crc)
        in enumerate(zip(*columns, strict=True))
    ]


def draw_all(draws: list[Draw]) -> dict[str, NDArray[np.float16]]:
    """Every array by its name; raises where one is not the array that was drawn first."""
    result = {}
    by_seed = attrgetter("seed")
    for seed, group in groupby(sorted(draws, key=by_seed), by_seed):
        members = list(group)
        uniform = uniform_stream(seed, max(draw.start + draw.size for draw in members))
        for draw in members:
            result[draw.name] = make(draw, uniform)
            if checksum(result[draw.name]) != draw.checksum:
                raise ValueError(f"{draw.name} drawn from seed {seed} is not the array it was")
    return result
