"""Keyframes of a shot brought nearer to each other along the motion."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fresco.errors import Cancelled
from fresco.flow.dis import DisEstimator
from fresco.options import from_dict
from fresco.progress import Progress, StageStatus
from fresco.run.joining import join_shot
from fresco.run.translate import propagate_keys
from fresco.workspace import frame_name, write_image
from tests.helpers.clips import moving_texture, write_clip

Image = NDArray[np.uint8]

SIDE, COUNT = 96, 7


def join(
    keys: Sequence[Image], sources: Sequence[Image], *, borders: Collection[int] = (),
    prompts: Sequence[str] | None = None,
) -> list[Image]:
    return list(join_shot(
        lambda n: (keys[n], sources[n]), prompts or ["a"] * len(keys), borders, DisEstimator()
    ))


def lightness(images: Sequence[Image]) -> NDArray[np.float64]:
    return np.array([image.mean() for image in images], float)


def make_keys(change: NDArray[np.float64], *, seed: int | None = None) -> tuple[
    list[Image], list[Image]
]:
    """Sources, and keyframes of half their contrast, lighter by so much, with fine grain."""
    sources = moving_texture(len(change), SIDE, SIDE)
    random = np.random.default_rng(seed)
    keys = []
    for source, step in zip(sources, change, strict=True):
        grain = random.normal(0, 12, source.shape) if seed is not None else 0
        keys.append(np.asarray((60 + source * 0.5 + step + grain).clip(0, 255), np.uint8))
    return sources, keys


def test_a_jump_at_a_border_is_spread_over_the_keyframes_beside_it() -> None:
    change = np.where(np.arange(COUNT) < 4, 0.0, 24.0)
    sources, keys = make_keys(change)
    plain = make_keys(np.zeros(COUNT))[1]
    before = np.diff(lightness(keys) - lightness(plain))
    after = np.diff(lightness(join(keys, sources, borders=[4])) - lightness(plain))
    assert before[3] == pytest.approx(24, abs=0.5)
    assert 0 < after[3] < 7
    assert after.min() > -0.5  # all between the old level and the new one


def test_fine_detail_stays() -> None:
    def strength_of_detail(images: Sequence[Image]) -> float:
        return float(np.mean([np.var(cv2.Laplacian(im.astype(np.float32), -1)) for im in images]))

    sources, keys = make_keys(np.zeros(COUNT), seed=0)
    kept = strength_of_detail(join(keys, sources)) / strength_of_detail(keys)
    assert kept == pytest.approx(1, abs=0.03)


def test_what_the_source_changes_stays() -> None:
    """A source that dims at once, and keyframes with it."""
    sources, keys = make_keys(np.where(np.arange(COUNT) < 4, 0.0, -40.0))
    for image in sources[4:]:
        image[:] = np.asarray(image * 0.5, np.uint8)
    joined = lightness(join(keys, sources, borders=[4]))
    assert np.abs(joined - lightness(keys)).max() < 1


def test_a_large_change_by_hand_stays_for_the_most_part() -> None:
    sources, keys = make_keys(np.zeros(COUNT))
    keys[3][30:66, 30:66] = (250, 20, 20)
    joined = join(keys, sources)
    centre = (slice(42, 54), slice(42, 54))
    assert np.abs(joined[3][centre].mean(axis=(0, 1)) - (250, 20, 20)).max() < 20
    assert np.abs(joined[2][centre].astype(float) - keys[2][centre]).mean() < 10


@pytest.mark.parametrize("case", ["one keyframe", "other words", "nothing in common"])
def test_keyframes_that_do_not_count_for_each_other_stay_byte_by_byte(case: str) -> None:
    sources, keys = make_keys(np.arange(3) * 20.0, seed=1)
    prompts = ["a", "b", "c"] if case == "other words" else ["a"] * 3
    if case == "one keyframe":
        sources, keys, prompts = sources[:1], keys[:1], prompts[:1]
    if case == "nothing in common":
        random = np.random.default_rng(0)
        sources = [random.integers(0, 255, (SIDE, SIDE, 3), np.uint8) for _ in keys]
    joined = join(keys, sources, prompts=prompts)
    assert all(np.array_equal(a, b) for a, b in zip(joined, keys, strict=True))


def test_no_more_keyframes_are_in_memory_than_rounds_need() -> None:
    """However long the shot: the last one is not read before most are joined."""
    sources, keys = make_keys(np.zeros(30))
    small = [(key[:32, :32].copy(), source[:32, :32].copy())
             for key, source in zip(keys, sources, strict=True)]
    seen: list[int] = []

    def read(place: int) -> tuple[Image, Image]:
        seen.append(place)
        return small[place]

    images = join_shot(read, ["a"] * 30, (), DisEstimator())
    for _ in range(10):
        next(images)
    assert max(seen) < 20


def test_a_run_that_was_stopped_in_the_middle_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """External keyframes, which stay as they are themselves."""
    sources, keys = make_keys(np.array([0.0, 20, 0, 20, 0]))
    clip = write_clip(tmp_path / "clip.mp4", sources)
    folder = tmp_path / "keys"
    folder.mkdir()
    for number, key in enumerate(keys):
        write_image(folder / frame_name(number), key)

    def stop(status: StageStatus) -> None:
        if status.stage == "join" and status.done == 2:
            raise Cancelled("stopped")

    def run(name: str, progress: Progress) -> dict[str, bytes]:
        settings = from_dict({
            "flow": {"estimator": "dis"}, "keyframes": {"detect_shots": False},
            "propagation": {"method": "flow", "workers": 1, "join_keyframes": True},
        })
        propagate_keys(clip, folder, tmp_path / f"{name}.mp4", settings, progress)
        joined = (tmp_path / f"{name}.fresco").glob("joined-*/*.png")
        return {path.name: path.read_bytes() for path in joined}

    whole = run("whole", Progress())
    with pytest.raises(Cancelled):
        run("stopped", Progress(stop))
    assert run("stopped", Progress()) == whole
    assert len(whole) == len(keys)
    assert all(whole[frame_name(n)] != (folder / frame_name(n)).read_bytes() for n in range(1, 4))
