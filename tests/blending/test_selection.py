"""Selection: the official rule on golden vectors, and what ours adds to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco.blending.cut import cut_sides
from fresco.blending.selection import (
    CELLS,
    PATCH_SEAM,
    PRIOR,
    choose_sides,
    compare_sides,
    gather_evidence,
    share_backward,
    weigh_evidence,
    weigh_sides,
)
from tests.helpers.official import select_backward, warp_image
from tests.helpers.shared import golden, golden_cases

CASES = golden_cases("07_blend", "car_6")
SMOOTH = 5
MEMORY = 0.5


def official_weights(position: int, length: int) -> tuple[float, float]:
    return position / (length - 1), 1 - position / (length - 1)


@pytest.mark.parametrize("case", CASES)
def test_error_mask_is_the_official_one(case: str) -> None:
    arrays, note = golden("07_blend", case)
    masks = arrays["mask_own"].astype(bool)
    for j in note.get("frames", range(len(masks))):
        mask = select_backward(
            arrays["dist1"][j], arrays["dist2"][j], weights=official_weights(j, len(masks) + 1)
        )
        np.testing.assert_array_equal(mask, masks[j])


@pytest.mark.parametrize("case", CASES)
def test_official_mask_propagation_is_reproduced(case: str) -> None:
    arrays, note = golden("07_blend", case)
    masks = arrays["mask"].astype(np.uint8)
    frames = list(note.get("frames", range(len(masks))))
    for j in frames:
        before = masks[j - 1] if j else np.zeros_like(masks[0])
        carried = warp_image(before, arrays["f_flows"][j], nearest=True)
        found = carried | arrays["mask_own"][j].astype(np.uint8)
        assert np.mean(found != masks[j]) <= 1e-3, j
    chosen = np.where(
        arrays["mask"][..., None].astype(bool),
        arrays["b_stylized"][::-1][:-1], arrays["f_stylized"][1:],
    )
    np.testing.assert_array_equal(chosen[frames], arrays["min_error"][frames])


def test_weights_force_no_interior_frame_to_one_side() -> None:
    for length in range(2, 8):
        pairs = [weigh_sides(j, length) for j in range(1, length)]
        assert all(0 < w1 < 1 and w1 + w2 == pytest.approx(1) for w1, w2 in pairs)
        np.testing.assert_allclose(pairs, [(w2, w1) for w1, w2 in reversed(pairs)])
    with pytest.raises(ValueError, match="interior frames are 1 to 4"):
        weigh_sides(5, 5)


@given(
    st.lists(st.floats(0.01, 1e4), min_size=4, max_size=4),
    st.lists(st.floats(0.01, 1e4), min_size=4, max_size=4),
    st.integers(1, 9),
)
def test_evidence_has_the_sign_of_the_rule_with_less_weight_of_time(
    first: list[float], second: list[float], position: int
) -> None:
    d1, d2 = np.array(first).reshape(2, 2), np.array(second).reshape(2, 2)
    weights = weigh_sides(position, 10)
    early, late = weights[0] ** PRIOR, weights[1] ** PRIOR
    gap = np.abs(early * d1 - late * d2) > 1e-3 * (d1 + d2)
    taken = weigh_evidence(d1, d2, weights=weights) >= 0
    np.testing.assert_array_equal(taken[gap], select_backward(d1, d2, weights=(early, late))[gap])


def test_gathering_steadies_and_can_change_back() -> None:
    """A single frame's outlier is outvoted; a lasting change is followed, both ways."""
    valid = np.ones((1, 1), bool)

    def run(values: list[float]) -> list[float]:
        total, result = np.array([[values[0]]]), []
        for value in values:
            total = gather_evidence(np.array([[value]]), total, valid, memory=MEMORY)
            result.append(float(total[0, 0]))
        return result

    assert run([-2, -2, -2, 1.0, -2, -2])[3] < 0
    lasting = run([-2, -2, 2, 2, 2, 2, -2, -2, -2, -2])
    assert lasting[5] > 0
    assert lasting[-1] < 0


def test_gathering_stands_alone_where_motion_is_unknown() -> None:
    own, carried = np.full((2, 2), 3.0), np.full((2, 2), -9.0)
    valid = np.array([[True, False], [False, True]])
    joined = gather_evidence(own, carried, valid, memory=MEMORY)
    np.testing.assert_array_equal(joined[~valid], 3.0)
    np.testing.assert_array_equal(joined[valid], -3.0)


def test_share_drops_lone_pixels_and_keeps_areas() -> None:
    total = np.full((32, 32), -4.0, np.float32)
    total[5, 5] = 4.0
    total[16:, 16:] = 4.0
    share = share_backward(total, softness=SMOOTH)
    assert share[5, 5] < 0.5
    assert share[24:, 24:].min() > 0.99
    assert share[:8, 16:].max() < 0.01
    assert share.min() >= 0
    assert share.max() <= 1


def price_of(label: np.ndarray, evidence: np.ndarray, price: np.ndarray) -> float:
    """What `cut_sides` minimises."""
    across = np.abs(np.diff(label)) * (price[:, 1:] + price[:, :-1]) / 2
    down = np.abs(np.diff(label, axis=0)) * (price[1:] + price[:-1]) / 2
    return float(-(evidence * label).sum() + across.sum() + down.sum())


@pytest.mark.parametrize("seed", range(3))
def test_the_cut_is_the_cheapest_of_all(seed: int) -> None:
    """Against every labelling of twelve pixels."""
    random = np.random.default_rng(seed)
    evidence = random.normal(0, 1, (3, 4)).astype(np.float32)
    price = random.uniform(0, 1, (3, 4)).astype(np.float32)
    every = ((np.arange(2**12)[:, None] >> np.arange(12)) & 1).reshape(-1, 3, 4)
    least = min(price_of(label, evidence, price) for label in every)
    found = cut_sides(evidence, price, rounds=600)
    assert price_of(found, evidence, price) == pytest.approx(least, abs=1e-3)
    assert price_of(found > 0.5, evidence, price) == pytest.approx(least, abs=1e-3)


def test_a_seam_runs_where_the_sides_are_alike() -> None:
    """What the sides show differently comes from one of them, though the evidence in it changes."""
    forward = np.full((CELLS, CELLS, 3), 90, np.uint8)
    backward = forward.copy()
    backward[30:40, 55:65] = 200
    evidence = np.tile(np.where(np.arange(CELLS) < 60, -0.3, 0.08), (CELLS, 1))
    share = choose_sides(evidence, compare_sides(forward, backward), seam=PATCH_SEAM)
    inside = share[30:40, 55:65]
    assert np.ptp(inside) < 0.1
    assert share[90:, :50].max() < 0.1
    assert share[90:, 70:].min() > 0.9


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (300, 40), (2 * CELLS + 1, 700)])
def test_any_size_is_chosen_for(size: tuple[int, int]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    share = choose_sides(np.full(size, 3.0, np.float32), compare_sides(*images), seam=PATCH_SEAM)
    assert share.shape == size
    assert share.min() > 0.99
