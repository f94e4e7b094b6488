"""`modules.sd_models`: what is done to the loaded model."""

from __future__ import annotations

from typing import Any


def apply_token_merging(sd_model: Any, token_merging_ratio: float) -> None:
    """The double merges no tokens; it remembers what it was asked for."""
    sd_model.applied_token_merged_ratio = token_merging_ratio
