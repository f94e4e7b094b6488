"""`modules.paths`: folders of the installation."""

from __future__ import annotations

data_path = script_path = models_path = ""


def reset(root: str) -> None:
    """An installation in this folder."""
    global data_path, script_path, models_path
    data_path = script_path = root
    models_path = f"{root}/models"
