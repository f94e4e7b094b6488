"""Compute cache keys as version 0.1 did, so that its files are used again.

Those keys included more than the images depend on: the path of the model, the device, and options
without an effect. No new folder gets such a key, but an existing one is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fresco.digests import digest
from fresco.flow.interface import FlowEstimator
from fresco.guidance.ports import Host
from fresco.options import image_settings
from fresco.planning.keyframes import KeyframePlan
from fresco.run.context import RunContext
from fresco.settings import FrescoSettings

FORMER_VERSION = "0.1.0"
_GUIDANCE = (
    "spatial_attention", "cross_frame_attention", "temporal_attention", "spatial_optimization",
    "temporal_optimization", "background_smoothing", "saliency", "optimization_iterations",
    "optimization_rate", "spatial_weight", "optimization_end", "temporal_attention_end",
    "plain_statistics", "freeu_b1", "freeu_b2", "freeu_s1", "freeu_s2",
)
_SAMPLING = (
    "model", "vae", "lora", "prompt", "added_prompt", "negative_prompt", "key_prompts",
    "scheduler", "steps", "strength", "guidance_scale", "seed", "resolution", "control",
    "control_model", "control_weight", "canny_low", "canny_high", "device", "dtype",
)
_KNOWN = {"guidance": _GUIDANCE, "sampling": _SAMPLING}
"""Options that version 0.1 had."""


def digest_former_keyframes(
    run: RunContext, plans: Sequence[KeyframePlan], host: Host, estimator: FlowEstimator
) -> str | None:
    """Digest of all that keyframes depended on in version 0.1; None if it had no such run."""
    from fresco.guidance.freeu import FreeU  # needs torch, unlike runs that only propagate

    if _uses_new_options(run.settings) or FreeU.of(run.settings.guidance).is_on:
        return None  # FreeU worked differently in version 0.1
    batches = [[batch.all for batch in plan.batches] for plan in plans]
    found = image_settings(run.settings, *_KNOWN)
    options = {
        group: {name: found[group][name] for name in names} for group, names in _KNOWN.items()
    }
    return digest(
        FORMER_VERSION, run.clip.cache_key, batches, options, host.former_fingerprint,
        estimator.former_fingerprint,
    )


def _uses_new_options(settings: FrescoSettings) -> bool:
    usual = FrescoSettings()
    for group, names in _KNOWN.items():
        ours, theirs = (dataclasses.asdict(getattr(each, group)) for each in (settings, usual))
        if any(ours[name] != theirs[name] for name in ours if name not in names):
            return True
    return False
