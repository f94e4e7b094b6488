"""Measures on scenes whose motion, flicker, blur and drift are known."""

from __future__ import annotations

import json
import tracemalloc

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from fresco.flow.motion import estimate_motion
from fresco.metrics import (
    DEFINITIONS,
    Metrics,
    measure_edge_agreement,
    measure_sharpness,
    measure_warp_error,
)

SIZE = 48
STEP = 2
"""Pixels that the scene moves to the right in a frame."""


class ExactFlow:
    """The true motion of the scene: everything moves STEP pixels to the right."""

    name = "exact"
    fingerprint = former_fingerprint = "exact"
    device = "cpu"
    note = "exact"

    def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        forward = torch.zeros(len(source), 2, *source.shape[-2:])
        forward[:, 0] = STEP
        return forward, -forward


def scene(frames: int, seed: int = 0) -> list[np.ndarray]:
    """A texture that slides by whole pixels, so that moved frames are exact."""
    coarse = np.random.default_rng(seed).uniform(60, 190, (10, 24, 3)).astype(np.float32)
    wide = cv2.resize(coarse, (SIZE * 3, SIZE), interpolation=cv2.INTER_LINEAR)
    strip = np.rint(wide).astype(np.uint8)
    starts = [SIZE + STEP * (frames - 1 - t) for t in range(frames)]
    return [strip[:, start:start + SIZE].copy() for start in starts]


def measured(
    frames: list[np.ndarray], results: dict[str, list[np.ndarray]], **options: list[int]
) -> dict[str, dict[str, float]]:
    measures = Metrics(ExactFlow(), tuple(results), **options)
    for t, frame in enumerate(frames):
        measures.update(frame, {name: sequence[t] for name, sequence in results.items()})
    return measures.report()  # type: ignore[return-value]


def test_exact_motion_has_no_error() -> None:
    frames = scene(6)
    report = measured(frames, {"source": frames})["source"]
    assert report["warp_error"] == 0
    assert report["anchor_warp_error"] == 0
    assert report["flicker"] == 0
    assert report["flicker_ratio"] == 0
    assert report["sharpness_ratio"] == 1
    assert report["edge_agreement"] == pytest.approx(1)
    assert report["colour_drift"] == 0
    assert report["pairs"] == 5


def test_known_change_has_the_known_error() -> None:
    """Frames brighter by 4 levels each: squared error (4 / 255)^2 a pair, no flicker."""
    frames = scene(5)
    brighter = [frame + np.uint8(4 * t) for t, frame in enumerate(frames)]
    report = measured(frames, {"brighter": brighter})["brighter"]
    assert report["warp_error"] == pytest.approx((4 / 255) ** 2, rel=1e-6)
    squares = np.mean([(4 * t / 255) ** 2 for t in range(1, 5)])
    assert report["anchor_warp_error"] == pytest.approx(squares, rel=1e-6)
    assert report["flicker"] == pytest.approx(0, abs=1e-5)
    assert report["colour_drift_slope"] > 50
    assert report["colour_drift"] > 2


def test_flicker_is_seen_and_drift_is_not_taken_for_it() -> None:
    """Frames that alternate by +-3 levels: second differences of 12."""
    frames = scene(7)
    flickering = [frame + np.uint8(3 + 3 * (-1) ** t) for t, frame in enumerate(frames)]
    report = measured(frames, {"flickering": flickering})["flickering"]
    assert report["flicker"] == pytest.approx(12, abs=0.01)
    assert report["flicker_ratio"] == pytest.approx(12 / 0.25, abs=0.1)


def test_blur_and_other_edges_are_seen() -> None:
    frames = scene(3)
    blurred = [cv2.GaussianBlur(frame, (0, 0), 2) for frame in frames]
    turned = [frame[::-1].copy() for frame in frames]
    report = measured(frames, {"blurred": blurred, "turned": turned})
    assert report["blurred"]["sharpness_ratio"] < 0.6
    assert report["turned"]["sharpness_ratio"] == pytest.approx(1, rel=1e-6)
    assert report["turned"]["edge_agreement"] < report["blurred"]["edge_agreement"]
    assert report["turned"]["edge_agreement"] < 0.5


def test_a_jump_at_a_batch_border_is_seen() -> None:
    frames = scene(8)
    jumping = [frame + np.uint8(t + 12 * (t >= 4)) for t, frame in enumerate(frames)]
    report = measured(frames, {"jumping": jumping}, borders=[4])["jumping"]
    assert report["batch_border_jump"] == pytest.approx(13**2, rel=1e-6)
    assert measured(frames, {"jumping": jumping})["jumping"]["batch_border_jump"] is None


def test_nothing_is_compared_across_a_cut() -> None:
    first, second = scene(3, seed=1), scene(3, seed=2)
    measures = Metrics(ExactFlow())
    for t, frame in enumerate(first + second):
        measures.update(frame, {"result": frame}, starts_shot=t == 3)
    report = measures.report()["result"]
    assert report["warp_error"] == 0
    assert report["anchor_warp_error"] == 0
    assert report["pairs"] == 4


def test_occluded_pixels_do_not_count() -> None:
    frame, earlier = np.zeros((2, 4, 4, 3), np.uint8)
    earlier[:2] = 255
    valid = np.zeros((4, 4), bool)
    valid[3] = True
    flow = np.zeros((4, 4, 2), np.float32)
    assert measure_warp_error(frame, earlier, flow, valid) == 0
    assert measure_warp_error(frame, earlier, flow, ~valid) == pytest.approx(2 / 3)
    assert measure_warp_error(frame, earlier, flow, np.zeros((4, 4), bool)) is None


def test_one_frame_and_flat_frames_give_no_nan() -> None:
    flat = [np.full((SIZE, SIZE, 3), 90, np.uint8)] * 3
    report = measured(flat, {"flat": flat})["flat"]
    assert report["warp_error"] == 0
    assert report["sharpness_ratio"] is None
    assert report["edge_agreement"] is None
    single = measured(flat[:1], {"flat": flat[:1]})["flat"]
    assert single["warp_error"] is None
    assert single["pairs"] == 0
    assert measure_edge_agreement(flat[0], flat[0]) is None
    assert measure_sharpness(flat[0]) == 0


def test_report_is_json_and_every_number_is_defined() -> None:
    frames = scene(3)
    report = measured(frames, {"a": frames, "b": frames})
    assert json.loads(json.dumps(report)) == report
    assert all(set(numbers) == set(DEFINITIONS) for numbers in report.values())


def test_memory_does_not_grow_with_length() -> None:
    """After many frames no more arrays are held than after three."""

    def held(count: int) -> int:
        measures, frame = Metrics(ExactFlow()), scene(1)[0]
        measures.update(frame, {"result": frame})
        tracemalloc.start()
        for _ in range(count):
            measures.update(frame.copy(), {"result": frame.copy()})
        now, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return now

    assert held(40) < held(4) + 8 * SIZE * SIZE * 3


def test_other_sizes_and_names_are_refused() -> None:
    frame = scene(1)[0]
    measures = Metrics(ExactFlow())
    with pytest.raises(ValueError, match="result is"):
        measures.update(frame, {"result": frame[1:]})
    with pytest.raises(ValueError, match="wanted"):
        measures.update(frame, {"other": frame})


def test_motion_that_was_kept_on_disk_gives_the_same_numbers() -> None:
    """A run that is started again after its end estimates what it had kept in half precision."""
    class Uneven(ExactFlow):
        def estimate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            forward, _ = super().estimate(source, target)
            return forward + 1 / 3, -forward - 1 / 3

    frames, estimator = scene(5), Uneven()
    anew, kept = Metrics(estimator, ("result",)), Metrics(estimator, ("result",))
    for t, frame in enumerate(frames):
        anew.update(frame, {"result": frame})
        motion = estimate_motion(frames[t - 1], frame, estimator).round_to_half() if t else None
        kept.update(frame, {"result": frame}, motion=motion)
    assert anew.report() == kept.report()
    assert anew.report()["result"]["warp_error"] != 0
