"""Parts of the guidance act by noise level, whatever the sampler."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco.errors import HostError
from fresco.guidance.ports import Step
from fresco.guidance.schedule import GuidanceSchedule, place_bound
from fresco.settings import GuidanceSettings
from tests.helpers.guided import sd15_sigmas

SIGMAS = sd15_sigmas()
OFFICIAL = list(range(951, 0, -50))
"""Timesteps of 20 DDPM steps."""


def _schedule(timesteps: list[int], **settings: float) -> tuple[GuidanceSchedule, list[Step]]:
    schedule = GuidanceSchedule(GuidanceSettings(**settings), SIGMAS)
    sigmas = [SIGMAS[t] for t in timesteps]
    schedule.begin(sigmas)
    return schedule, [Step(i, len(sigmas), s) for i, s in enumerate(sigmas)]


def test_noise_levels_of_sd15() -> None:
    expected = {350: 0.987, 251: 0.698, 151: 0.458, 101: 0.346}
    assert {t: round(SIGMAS[t], 3) for t in expected} == expected


def test_official_counts_with_five_warm_up_steps() -> None:
    schedule, steps = _schedule(OFFICIAL[5:])
    assert sum(map(schedule.is_first, steps)) == 1
    assert sum(map(schedule.follows_chains, steps)) == 8
    assert sum(map(schedule.optimizes, steps)) == 10
    assert [OFFICIAL[5 + s.index] for s in steps if schedule.smooths(s)] == [151, 101]


def test_full_schedule_optimises_fifteen_of_twenty() -> None:
    schedule, steps = _schedule(OFFICIAL)
    assert [schedule.optimizes(s) for s in steps] == [True] * 15 + [False] * 5
    assert [schedule.follows_chains(s) for s in steps] == [t >= 350 for t in OFFICIAL]


def test_a_run_that_steps_over_the_band_smooths_at_the_nearest_call() -> None:
    timesteps = [801, 601, 401, 201, 1]
    schedule, steps = _schedule(timesteps)
    assert [t for t, s in zip(timesteps, steps, strict=True) if schedule.smooths(s)] == [201]


def test_a_run_below_the_band_smooths_nowhere() -> None:
    schedule, steps = _schedule([51, 1])
    assert not any(map(schedule.smooths, steps))


@pytest.mark.parametrize(("timesteps", "chains", "optimised", "smoothed"), [
    ([999, 749, 499, 249], 3, 3, [499]),  # Turbo and Lightning
    ([999, 759, 499, 259], 3, 4, [499]),  # LCM
    ([749, 499, 249], 2, 2, [499]),
    ([999, 874, 749, 624, 499, 374, 249, 124], 6, 6, [124]),
    ([999], 1, 1, [999]),
    ([801, 601, 401, 201, 1], 3, 3, [201]),
])
def test_few_calls_are_enough_for_every_part(
    timesteps: list[int], chains: int, optimised: int, smoothed: list[int]
) -> None:
    """A call after the smoothed one makes its estimate whole, where there is one."""
    schedule, steps = _schedule(timesteps)
    assert sum(map(schedule.is_first, steps)) == 1
    assert sum(map(schedule.follows_chains, steps)) == chains
    assert sum(map(schedule.optimizes, steps)) == optimised
    found = [t for t, step in zip(timesteps, steps, strict=True) if schedule.smooths(step)]
    assert found == smoothed


def test_second_order_samplers_are_guided_at_every_call_of_a_level() -> None:
    schedule, steps = _schedule([951, 951, 601, 601, 201, 151, 151])
    assert [schedule.is_first(s) for s in steps] == [True] * 2 + [False] * 5
    assert [schedule.smooths(s) for s in steps] == [False] * 5 + [True] * 2


def test_noise_levels_in_half_precision_are_recognised() -> None:
    schedule, _ = _schedule([351, 151])
    rounded = SIGMAS[151] * (1 + 4e-4)
    assert schedule.smooths(Step(1, 2, rounded))
    assert schedule.is_first(Step(1, 2, SIGMAS[351] * (1 - 4e-4)))


def test_infinite_first_noise_level() -> None:
    schedule = GuidanceSchedule(GuidanceSettings(), SIGMAS)
    schedule.begin([math.inf, 1.0])
    assert schedule.is_first(Step(0, 2, math.inf))
    assert schedule.optimizes(Step(0, 2, math.inf))
    assert not schedule.is_first(Step(1, 2, 1.0))


@pytest.mark.parametrize(("share", "acts"), [(0.0, False), (1.0, True)])
def test_limits_of_a_share(share: float, acts: bool) -> None:
    schedule, steps = _schedule(
        OFFICIAL, optimization_end=share, temporal_attention_end=share
    )
    assert all(schedule.optimizes(s) is acts for s in steps)
    assert all(schedule.follows_chains(s) is acts for s in steps)


@given(st.floats(0, 1100), st.floats(0, 1100))
def test_noise_level_rises_with_the_timestep(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert place_bound(SIGMAS, low) <= place_bound(SIGMAS, high)


def test_a_step_before_begin_is_an_error() -> None:
    schedule = GuidanceSchedule(GuidanceSettings(), SIGMAS)
    with pytest.raises(HostError, match="begin"):
        schedule.is_first(Step(0, 1, 1.0))


def test_no_call_at_all_is_an_error() -> None:
    with pytest.raises(HostError, match="no model call"):
        GuidanceSchedule(GuidanceSettings(), SIGMAS).begin([])


@pytest.mark.parametrize("sigmas", [(), (1.0,), (2.0, 1.0)])
def test_a_schedule_that_does_not_rise_is_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(HostError, match="rise"):
        GuidanceSchedule(GuidanceSettings(), sigmas)
