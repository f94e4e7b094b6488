"""Find folders of the WebUI, and check which paths a request may name."""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from modules import paths, shared

from fresco.errors import SettingsError
from fresco.settings import FlowSettings

_OUTPUTS = (
    "outdir_samples", "outdir_img2img_samples", "outdir_txt2img_samples", "outdir_save",
    "outdir_grids", "outdir_extras_samples", "outdir_init_images",
)
_FULL_PRECISION = ("force_fp32", "all_in_fp32", "no_half")
"""Flags that make the model float32: Forge Neo's, that of Forge and reForge, A1111's. Forge has the
last one too, without an effect on the model."""
_UPCAST = "upcast_attn"
"""A setting that Forge Neo does not have."""


def advise_precision() -> str:
    """Say how to make this WebUI compute without overflow, as the beginning of a sentence."""
    flags = [name for name in _FULL_PRECISION if hasattr(shared.cmd_opts, name)]
    flag = (flags or _FULL_PRECISION[-1:])[0].replace("_", "-")
    setting = shared.opts.data_labels.get(_UPCAST)
    switch = f', switch on "{setting.label}" in its settings' if setting else ""
    return f"Start the WebUI with --{flag}{switch}"


def find_output_folder() -> Path:
    """Find the WebUI's output folder: `outputs`, in Forge Neo `output`."""
    try:
        from modules.paths_internal import default_output_dir
    except ImportError:  # before A1111 1.9
        return Path(paths.data_path) / "outputs"
    return Path(default_output_dir)


def complete_flow_settings(settings: FlowSettings) -> FlowSettings:
    """Fill in the WebUI's folder of weights, and whether it allows downloads."""
    options = shared.opts.data
    folder = options.get("fresco_weights_dir") or str(Path(paths.models_path) / "FRESCO")
    offline = bool(options.get("fresco_offline", False))
    return dataclasses.replace(settings, weights_dir=folder, offline=offline)


def require_allowed(path: str) -> None:
    """Raise SettingsError unless a path is in a folder that the WebUI serves."""
    if not _reachable(shared.cmd_opts):
        return
    folders = [Path(paths.data_path), find_output_folder()]
    folders += map(Path, getattr(shared.cmd_opts, "gradio_allowed_path", None) or ())
    folders += [Path(value) for name in _OUTPUTS if (value := getattr(shared.opts, name, ""))]
    place = Path(path).resolve()
    if not any(place.is_relative_to(folder.resolve()) for folder in folders):
        raise SettingsError(
            f"path is {path!r}, outside of the folders that this WebUI serves; put the file into "
            "an output folder, or start the WebUI with --gradio-allowed-path."
        )


def _reachable(options: Any) -> bool:
    """Whether others than the user of this machine can send requests."""
    names = ("listen", "share", "ngrok", "server_name", "hide_ui_dir_config")
    return any(getattr(options, name, None) for name in names)
