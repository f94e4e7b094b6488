"""When each part of the guidance acts, by noise level (docs/method.md, section 9).

A share f of the schedule ends at timestep T (1 - f) of the T training timesteps; what counts is
the noise level there, so every sampler, step count and strength follows the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from fresco.errors import HostError
from fresco.guidance.ports import Step
from fresco.settings import GuidanceSettings

SAME_SIGMA = 1e-3
"""Relative difference of one noise level in two number formats; neighbouring timesteps
differ by 3e-3 or more."""
SMOOTHING_BAND = (151, 101)
"""Timesteps of 1000 between which denoised estimates are smoothed (positions 16, 17 of 20)."""
CONSENSUS_CALLS = (300, 150)
"""Timesteps of 1000 whose nearest calls bring denoised estimates to agree."""
CONSENSUS_LATENTS = 700
"""Timestep of 1000 from which on, until those calls, latents of estimates are brought to agree."""
CONSENSUS_FINE = (350, 100)
"""Timesteps of 1000 from and to which the share of fine differences that is evened out falls."""
PUBLISHED_TIMESTEPS = 1000
"""Training timesteps that published timesteps count in."""


def place_bound(model_sigmas: Sequence[float], timestep: float) -> float:
    """Noise level at a timestep of the model's schedule, between two of them linearly.

    Past the noisiest timestep it is infinite, before the cleanest 0.

    Args:
        model_sigmas: noise level of every training timestep, rising.
        timestep: in timesteps of this schedule.
    """
    if timestep <= 0:
        return 0.0
    if timestep > len(model_sigmas) - 1:
        return math.inf
    low = math.floor(timestep)
    share = timestep - low
    if share == 0:
        return model_sigmas[low]
    return (1 - share) * model_sigmas[low] + share * model_sigmas[low + 1]


def _is_same(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=SAME_SIGMA)


def _reaches(sigma: float, bound: float) -> bool:
    return sigma >= bound or _is_same(sigma, bound)


class GuidanceSchedule:
    """Which parts act at which model call."""

    def __init__(self, settings: GuidanceSettings, model_sigmas: Sequence[float]) -> None:
        count = len(model_sigmas)
        if count < 2 or any(a > b for a, b in pairwise(model_sigmas)):
            raise HostError(
                f"the model's schedule has {count} noise levels that do not rise; "
                "give one a training timestep, from clean to noisy."
            )
        ends = (settings.optimization_end, settings.temporal_attention_end)
        self._optimization_end, self._temporal_end = (
            place_bound(model_sigmas, count * (1 - end)) for end in ends
        )
        scale = count / PUBLISHED_TIMESTEPS
        high, low = (place_bound(model_sigmas, step * scale) for step in SMOOTHING_BAND)
        self._band = (low, high)
        self._calls, self._fine = (
            tuple(place_bound(model_sigmas, step * scale) for step in steps)
            for steps in (CONSENSUS_CALLS, CONSENSUS_FINE)
        )
        self._coarse = place_bound(model_sigmas, CONSENSUS_LATENTS * scale)
        self._first: float | None = None
        self._smoothed: tuple[float, ...] = ()
        self._agreed: tuple[float, ...] = ()

    def begin(self, sigmas: Sequence[float]) -> None:
        """Take the noise level of every model call to come."""
        if not sigmas:
            raise HostError("the sampling has no model call; raise the strength or the steps.")
        self._first = sigmas[0]
        self._smoothed = self._pick_smoothed(sigmas)
        self._agreed = self._pick_agreed(sigmas)

    def _pick_agreed(self, sigmas: Sequence[float]) -> tuple[float, ...]:
        """The calls nearest to the wanted levels, noisiest first; never the last call.

        A changed estimate needs a later call that restores its details.
        """
        known = sorted({s for s in sigmas if 0 < s < math.inf}, reverse=True)[:-1]
        near = [min(known, key=lambda s: abs(math.log(s / level))) for level in self._calls
                if known and level <= max(sigmas)]
        return tuple(dict.fromkeys(near))

    def _pick_smoothed(self, sigmas: Sequence[float]) -> tuple[float, ...]:
        """The calls within the range; if there is none, the call nearest to it.

        The last call is then taken only if there is no other, because a smoothed estimate needs a
        later call that restores its details.
        """
        low, high = self._band
        inside = [s for s in sigmas if _reaches(s, low) and _reaches(high, s)]
        if inside:
            return tuple(inside)
        if max(sigmas) <= high:
            return ()
        middle = math.log(low * high) / 2
        last = min(sigmas)
        mended = [s for s in sigmas if last < low or not _is_same(s, last)] or sigmas
        near = [s for s in mended if 0 < s < math.inf]
        return (min(near, key=lambda s: abs(math.log(s) - middle)),) if near else ()

    def optimizes(self, step: Step) -> bool:
        """Whether features are optimised at this call."""
        return _reaches(step.sigma, self._optimization_end)

    def follows_chains(self, step: Step) -> bool:
        """Whether temporal-guided attention acts at this call."""
        return _reaches(step.sigma, self._temporal_end)

    def is_first(self, step: Step) -> bool:
        """Whether this call is of the first denoising step: spatial-guided attention acts."""
        if self._first is None:
            raise HostError("a step came before begin(); tell the guide all noise levels first.")
        return step.index == 0 or _is_same(step.sigma, self._first)

    def agrees(self, step: Step) -> bool:
        """Whether images of denoised estimates are made to agree at this call."""
        return any(_is_same(step.sigma, level) for level in self._agreed)

    def agrees_last(self, step: Step) -> bool:
        """Whether this is the last call at which they are."""
        return self.agrees(step) and _is_same(step.sigma, self._agreed[-1])

    def steers(self, step: Step) -> bool:
        """Whether coarse differences of latents are reduced at this call.

        That begins below a noise level and ends with the last call at which images agree; calls at
        which images agree are left out.
        """
        inside = bool(self._agreed) and self._agreed[-1] < step.sigma
        return inside and _reaches(self._coarse, step.sigma) and not self.agrees(step)

    def share_fine(self, step: Step) -> float:
        """Share of fine differences that is removed at this call, 0..1."""
        high, low = self._fine
        if step.sigma <= low:
            return 0.0
        return min(1.0, math.log(step.sigma / low) / math.log(high / low))

    def smooths(self, step: Step) -> bool:
        """Whether the denoised estimate's background is smoothed at this call."""
        return any(_is_same(step.sigma, level) for level in self._smoothed)
