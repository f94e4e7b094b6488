"""A moving scene whose stylised frames are known exactly, with its motion and what hides what.

Surfaces lie one over the other: a ground seen by a moving camera, a rolling wheel, a waving sheet,
a limb that swings, a post in front. Each has two pictures painted on it, the source's and the
style's, in its own coordinates. A frame looks up both in the same places, so the stylised frame is
what perfect propagation makes of any other one. Light moves over the scene; the style follows it
half as much.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Values = NDArray[np.float32]
Points = NDArray[np.float32]
Map = NDArray[np.bool_]

SIDE, FRAMES = 256, 25
KEYS = (0, 12, 24)
SAMPLES = 3
"""Samples a pixel and axis: edges of surfaces are smooth, as a camera sees them."""
TEXTURE = 640
"""Side of the ground's pictures."""
LIGHT = 0.16
"""Change of the light over the scene, as a share."""
STYLE_LIGHT = 0.5
"""Share of the light's change that the style follows."""
TURN = 2 * np.pi / (FRAMES - 1)


@dataclass(frozen=True)
class Surface:
    """A textured surface; positions are pixels, x then y, [..., 2]."""

    place: Callable[[Points, float], Points]
    """Frame to surface at a time in frames."""
    show: Callable[[Points, float], Points]
    """Surface to frame."""
    covers: Callable[[Points], Map]
    """Whether a place on the surface is solid."""
    source: Values
    """[h, w, 3] its picture in the source, 0..255."""
    style: Values
    """[h, w, 3] its picture in the style."""


def join(x: Values, y: Values) -> Points:
    """Positions from their axes."""
    return np.stack([x, y], axis=-1).astype(np.float32)


def turn(points: Points, angle: float, scale: float = 1.0) -> Points:
    """Positions turned about the origin."""
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    x, y = points[..., 0], points[..., 1]
    return join(cosine * x - sine * y, sine * x + cosine * y)


def noise(height: int, width: int, cell: float, random: np.random.Generator) -> Values:
    """Smooth noise of deviation 1 with features of `cell` pixels."""
    small = random.standard_normal((max(2, int(height / cell)), max(2, int(width / cell))))
    large = cv2.resize(small.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray((large - large.mean()) / large.std(), np.float32)


def paint(
    height: int, width: int, colour: tuple[float, float, float], seed: int
) -> tuple[Values, Values]:
    """Picture of a surface in the source, and in the style: flat tones, strokes, dark lines."""
    random = np.random.default_rng(seed)
    form = noise(height, width, 34, random) + 0.7 * noise(height, width, 15, random)
    detail = noise(height, width, 7, random) + 0.8 * noise(height, width, 3.2, random)
    tint = np.stack([noise(height, width, 40, random) for _ in range(3)], axis=-1)
    base = np.array(colour, np.float32)
    source = base + 22 * form[..., None] + 13 * detail[..., None] + 9 * tint
    tones = np.floor(form * 1.6).clip(-3, 3)
    angle = random.uniform(0, np.pi)
    kernel = np.zeros((15, 15), np.float32)
    end = (round(7 + 6 * np.cos(angle)), round(7 + 6 * np.sin(angle)))
    cv2.line(kernel, (14 - end[0], 14 - end[1]), end, (1.0,))
    strokes = cv2.filter2D(random.standard_normal((height, width)).astype(np.float32), -1, kernel)
    lines = cv2.GaussianBlur(
        np.asarray(cv2.morphologyEx(tones.astype(np.float32), cv2.MORPH_GRADIENT,
                                    np.ones((2, 2), np.uint8)) > 0, np.float32), (0, 0), 0.8)
    other = base[[1, 2, 0]] * 0.9 + 30
    style = other + 26 * tones[..., None] * np.array([1.0, 0.6, -0.5], np.float32)
    style = (style + 5 * strokes[..., None]) * (1 - 0.75 * lines[..., None])
    return source.clip(8, 235).astype(np.float32), style.clip(8, 235).astype(np.float32)


def box(width: float, height: float) -> Callable[[Points], Map]:
    """A solid rectangle from the origin."""
    return lambda p: ((p[..., 0] >= 0) & (p[..., 0] < width)
                      & (p[..., 1] >= 0) & (p[..., 1] < height))


def _ground() -> Surface:
    middle = np.float32(SIDE / 2)

    def pose(time: float) -> tuple[float, float, Points]:
        pan = np.array([150 + 4.2 * time, 190 + 14 * np.sin(TURN * time)], np.float32)
        return np.deg2rad(0.35 * time), 1 - 0.004 * time, pan

    def place(points: Points, time: float) -> Points:
        angle, scale, pan = pose(time)
        return turn(points - middle, angle, scale) + middle + pan

    def show(points: Points, time: float) -> Points:
        angle, scale, pan = pose(time)
        return turn(points - middle - pan, -angle, 1 / scale) + middle

    return Surface(place, show, box(TEXTURE, TEXTURE),
                   *paint(TEXTURE, TEXTURE, (96, 120, 100), 1))


def _wheel() -> Surface:
    radius, middle = 40, np.float32(48)

    def centre(time: float) -> Points:
        return np.array([20 + 8.6 * time, 172 + 6 * np.sin(2 * TURN * time)], np.float32)

    return Surface(
        lambda p, time: turn(p - centre(time), np.deg2rad(-7.0 * time)) + middle,
        lambda p, time: turn(p - middle, np.deg2rad(7.0 * time)) + centre(time),
        lambda p: np.square(p - middle).sum(axis=-1) < radius ** 2,
        *paint(96, 96, (176, 84, 70), 2),
    )


def _sheet() -> Surface:
    width, height = 92, 66

    def corner(time: float) -> Points:
        return np.array([138 - 2.4 * time, 24 + 1.6 * time], np.float32)

    def wave(along: Values, time: float) -> Values:
        return np.asarray(7 * np.sin(along / 13 - 3 * TURN * time), np.float32)

    def place(points: Points, time: float) -> Points:
        p = points - corner(time)
        return join(p[..., 0], p[..., 1] - wave(p[..., 0], time))

    def show(points: Points, time: float) -> Points:
        return join(points[..., 0], points[..., 1] + wave(points[..., 0], time)) + corner(time)

    return Surface(place, show, box(width, height), *paint(height, width, (80, 96, 178), 3))


def _limb() -> Surface:
    length, thick, shoulder = 132, 26, np.array([66.0, 12.0], np.float32)

    def pose(time: float) -> tuple[float, float]:
        return np.pi / 2 - 0.62 * np.cos(0.75 * TURN * time), 26 * np.sin(0.75 * TURN * time)

    def place(points: Points, time: float) -> Points:
        angle, bend = pose(time)
        p = turn(points - shoulder, -angle)
        return join(p[..., 0], p[..., 1] + thick / 2 - bend * np.square(p[..., 0] / length))

    def show(points: Points, time: float) -> Points:
        angle, bend = pose(time)
        x, y = points[..., 0], points[..., 1]
        return turn(join(x, y - thick / 2 + bend * np.square(x / length)), angle) + shoulder

    def covers(points: Points) -> Map:
        x, y = points[..., 0], points[..., 1] - thick / 2
        return (x >= 0) & (x < length) & (np.abs(y) < thick / 2 * (1 - 0.4 * x / length))

    return Surface(place, show, covers, *paint(thick, length, (186, 150, 104), 4))


def _post() -> Surface:
    def at(time: float) -> Points:
        return np.array([176 - 1.2 * time, 96], np.float32)

    return Surface(lambda p, time: p - at(time), lambda p, time: p + at(time), box(24, 200),
                   *paint(200, 24, (60, 62, 70), 5))


@functools.lru_cache(maxsize=1)
def surfaces() -> tuple[Surface, ...]:
    """All surfaces, the hindmost first."""
    return _ground(), _sheet(), _wheel(), _limb(), _post()


def grid(samples: int) -> Points:
    """Where a frame is looked at, so many samples an axis and pixel of `SIDE`, whose centres are
    whole."""
    axis = (np.arange(SIDE * samples, dtype=np.float32) + 0.5) / samples - 0.5
    return join(*np.meshgrid(axis, axis))


def _light(points: Points, time: float) -> Values:
    wave = np.sin(TURN * time + points[..., 0] / 90) * np.cos(points[..., 1] / 130)
    return np.asarray(LIGHT * wave, np.float32)[..., None]


def _shrink(values: Values, side: int) -> Image:
    small = cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA)
    return np.rint(np.clip(small, 0, 255)).astype(np.uint8)


def render(time: float, scale: int = 1) -> tuple[Image, Image]:
    """Frame [side, side, 3] of the source, and the same frame in the style; side is scale * SIDE.
    """
    points = grid(SAMPLES * scale)
    source = np.zeros((*points.shape[:2], 3), np.float32)
    style = np.zeros_like(source)
    for surface in surfaces():
        at = surface.place(points, time)
        solid = surface.covers(at)
        for image, picture in ((source, surface.source), (style, surface.style)):
            seen = cv2.remap(picture, at[..., 0], at[..., 1], cv2.INTER_LINEAR,
                             borderMode=cv2.BORDER_REPLICATE)
            image[solid] = seen[solid]
    light = _light(points, time)
    side = SIDE * scale
    return _shrink(source * (1 + light), side), _shrink(style * (1 + STYLE_LIGHT * light), side)


def owners(points: Points, time: float) -> NDArray[np.int8]:
    """Number of the foremost surface at every position."""
    found = np.zeros(points.shape[:-1], np.int8)
    for number, surface in enumerate(surfaces()):
        found[surface.covers(surface.place(points, time))] = number
    return found


def motion(time: float, other: float, scale: int = 1) -> tuple[Points, Map]:
    """Exact flow [side, side, 2] from a frame to another, and where the other one hides the pixel.

    A pixel is hidden where another surface lies over it there, or where it has left the frame.
    """
    points = grid(scale)
    owner = owners(points, time)
    target = np.zeros_like(points)
    for number, surface in enumerate(surfaces()):
        mine = owner == number
        target[mine] = surface.show(surface.place(points[mine], time), other)
    inside = ((target >= -0.5) & (target <= SIDE - 0.5)).all(axis=-1)
    return (target - points) * np.float32(scale), ~inside | (owners(target, other) != owner)


def edges(time: int, scale: int = 1) -> Map:
    """Pixels near where one surface ends over another: at most 5 away on the scale 1."""
    owner = owners(grid(scale), time).astype(np.uint8)
    border = cv2.morphologyEx(owner, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    near = np.ones((2 * 5 * scale - 1,) * 2, np.uint8)
    return np.asarray(cv2.dilate(border.astype(np.uint8), near), bool)
