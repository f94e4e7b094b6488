"""Scenes drawn by a program, with the words that describe them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_SKIES = {
    "blue": ((70, 130, 215), (190, 220, 245)),
    "red": ((120, 60, 110), (250, 160, 90)),
    "grey": ((120, 130, 140), (200, 205, 210)),
}
"""Colour of the sky: at the top, at the horizon."""
_PAINTS = {
    "red": (200, 45, 40), "blue": (45, 80, 190), "yellow": (230, 195, 50),
    "white": (235, 235, 230), "green": (60, 150, 70), "black": (40, 40, 45),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn image."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    words: str
    """What it shows."""


def _gradient(height: int, width: int, top: tuple[int, ...], low: tuple[int, ...]) -> NDArray:
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return np.broadcast_to((1 - ramp) * top + ramp * low, (height, width, 3)).copy()


def _smooth(random: np.random.Generator, height: int, width: int, cells: int) -> NDArray:
    noise = random.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))


def _hills(image: NDArray, random: np.random.Generator, horizon: int) -> None:
    height, width = image.shape[:2]
    x = np.arange(width)
    for layer in range(3):
        base = horizon + layer * (height - horizon) // 4
        waves = [
            random.uniform(3, 14) * np.sin(x * random.uniform(0.005, 0.04) + random.uniform(0, 6))
            for _ in range(3)
        ]
        colour = np.array([random.integers(40, 110), random.integers(95, 165), 55])
        colour = colour * (1 - 0.15 * layer)
        below = np.arange(height)[:, None] >= base + np.sum(waves, axis=0)[None, :]
        texture = 9 * _smooth(random, height, width, 40)[..., None]
        image[below] = np.clip(colour + texture, 0, 255)[below]


def _tree(
    image: NDArray, random: np.random.Generator, foot: tuple[int, int], size: int
) -> None:
    x, y = foot
    cv2.rectangle(image, (x - size // 12, y - size // 2), (x + size // 12, y), (95, 65, 40), -1)
    for _ in range(14):
        place = (x + int(random.normal(0, size / 5)), y - int(size * random.uniform(0.5, 1.05)))
        green = (int(random.integers(25, 90)), int(random.integers(90, 170)), 45)
        radius = max(2, int(size * random.uniform(0.1, 0.2)))
        cv2.circle(image, place, radius, green, -1, cv2.LINE_AA)


def _house(image: NDArray, x: int, y: int, size: int, paint: tuple[int, ...]) -> None:
    wall = size * 2 // 3
    cv2.rectangle(image, (x, y - wall), (x + size, y), paint, -1)
    roof = np.array([[x - size // 8, y - wall], [x + size // 2, y - size * 5 // 4],
                     [x + size + size // 8, y - wall]])
    cv2.fillPoly(image, [roof], (125, 60, 50), cv2.LINE_AA)
    cv2.rectangle(image, (x + size // 8, y - wall // 2), (x + size // 3, y), (80, 55, 40), -1)
    window = (x + size // 2, y - wall * 3 // 4)
    cv2.rectangle(image, window, (window[0] + size // 3, y - wall // 3), (250, 225, 150), -1)


def _car(image: NDArray, x: int, y: int, size: int, paint: tuple[int, ...]) -> None:
    high = size // 4
    roof = np.array([[x + size // 5, y - high], [x + size // 3, y - 2 * high],
                     [x + size * 3 // 4, y - 2 * high], [x + size * 9 // 10, y - high]])
    cv2.fillPoly(image, [roof], (180, 210, 225), cv2.LINE_AA)
    cv2.rectangle(image, (x, y - high), (x + size, y), paint, -1)
    for place in (x + size // 5, x + size * 4 // 5):
        cv2.circle(image, (place, y), size // 9, (25, 25, 25), -1, cv2.LINE_AA)
        cv2.circle(image, (place, y), size // 20, (170, 170, 170), -1, cv2.LINE_AA)


def _oval(
    image: NDArray, middle: tuple[int, int], axes: tuple[int, int], colour: tuple[int, ...]
) -> None:
    cv2.ellipse(image, middle, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)


def _face(image: NDArray, random: np.random.Generator, x: int, y: int, size: int) -> None:
    skin = tuple(int(v) for v in np.array([235, 190, 160]) * random.uniform(0.45, 1.0))
    hair = tuple(int(v) for v in random.integers(20, 130, 3))
    _oval(image, (x, y + size), (size, size * 2 // 3), hair[::-1])
    cv2.circle(image, (x, y - size // 10), size * 3 // 5, hair, -1, cv2.LINE_AA)
    _oval(image, (x, y), (size // 2, size * 3 // 5), skin)
    for side in (-1, 1):
        eye = (x + side * size // 5, y - size // 10)
        _oval(image, eye, (size // 10, size // 16), (250, 250, 250))
        cv2.circle(image, eye, max(1, size // 20), (40, 30, 30), -1, cv2.LINE_AA)
    _oval(image, (x, y + size // 4), (size // 6, size // 14), (160, 60, 60))


def draw_scene(seed: int, size: int = 384) -> Scene:
    """A landscape with a house, a car, trees or a person; equal seeds give equal scenes."""
    random = np.random.default_rng(seed)
    sky = str(random.choice(list(_SKIES)))
    image = _gradient(size, size, *_SKIES[sky])
    clouds = np.clip(_smooth(random, size, size, 7), 0, 1)[..., None]
    image += clouds * (250 - image) * 0.6
    horizon = int(size * random.uniform(0.35, 0.6))
    _hills(image, random, horizon)
    things: list[str] = []
    name = str(random.choice(list(_PAINTS)))
    paint = tuple(int(v * random.uniform(0.8, 1.05)) for v in _PAINTS[name])
    kind = str(random.choice(["house", "car", "person", "trees"]))
    for _ in range(int(random.integers(1, 5))):
        place = int(random.uniform(0, size)), int(random.uniform(horizon + size // 8, size))
        _tree(image, random, place, int(size * random.uniform(0.15, 0.4)))
    if kind == "house":
        _house(image, int(random.uniform(0.1, 0.5) * size), int(0.8 * size), size // 3, paint)
        things.append(f"a {name} house")
    elif kind == "car":
        _car(image, int(random.uniform(0, 0.4) * size), int(0.85 * size), size // 2, paint)
        things.append(f"a {name} car")
    elif kind == "person":
        _face(image, random, int(random.uniform(0.3, 0.7) * size), size // 2, size // 3)
        things.append("a person")
    things.append("trees and hills")
    image += 4 * random.standard_normal((size, size, 1))
    words = f"{' with '.join(things)} under a {sky} sky"
    return Scene(np.clip(image, 0, 255).astype(np.uint8), words)
