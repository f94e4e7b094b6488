"""`modules.sd_models`: what is done to the loaded model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.helpers.webui.shared import CHECKPOINT

checkpoints_list: dict[str, Any] = {CHECKPOINT: SimpleNamespace(title=CHECKPOINT)}


def get_closet_checkpoint_match(search_string: str) -> Any:
    """The checkpoint whose title holds a text; the name is the WebUI's own."""
    return next((i for i in checkpoints_list.values() if search_string in i.title), None)


def apply_token_merging(sd_model: Any, token_merging_ratio: float) -> None:
    """The double merges no tokens; it remembers what it was asked for."""
    sd_model.applied_token_merged_ratio = token_merging_ratio
