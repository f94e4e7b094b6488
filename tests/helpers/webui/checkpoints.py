"""Checkpoints for a real WebUI, written into its folder of models.

`demo`: the trained model of this project, SD 1.5 at small widths.
`sd15`: SD 1.5 at a tenth of the width, random; for A1111 alone.
`sdxl`: SDXL at small widths, random.
`slim`: SD 1.5's text model and VAE at full size, its UNet without wider levels, random. For hosts
that have these sizes as constants.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.helpers.webui.environment import OFFLINE, ROOT, find_python
from tests.helpers.webui.shaped_models import WRITERS

DEMO_MODEL = ROOT / "demo" / "model"
MAKER = ROOT / "tests" / "tools" / "make_tiny_checkpoint.py"
SECOND = "second"
"""Name of a second checkpoint, beside the one that is selected."""


def write_checkpoint(webui: Path, models: Path, name: str) -> Path:
    """The file of a checkpoint, with all that belongs to it, and the same as `SECOND`.

    Args:
        webui: the WebUI, whose classes make `sd15`
        models: the folder where it looks for checkpoints
    """
    models.mkdir(parents=True)
    if name == "demo":
        made = _copy_demo_model(models)
    else:
        made = WRITERS[name](models) if name in WRITERS else _make_sd15(webui, models)
    for file in list(models.glob(f"{made.stem}.*")):
        os.link(file, models / f"{SECOND}{file.suffix}")  # the big ones share their bytes
    return made


def _copy_demo_model(models: Path) -> Path:
    """The checkpoint, its tokenizer, and its configuration, which names the tokenizer's place."""
    name = "fresco-demo"
    shutil.copytree(DEMO_MODEL / name, models / name)
    shutil.copyfile(DEMO_MODEL / f"{name}.safetensors", models / f"{name}.safetensors")
    told = (DEMO_MODEL / f"{name}.yaml").read_text("utf-8")
    usual = f"models/Stable-diffusion/{name}"
    assert usual in told
    (models / f"{name}.yaml").write_text(told.replace(usual, str(models / name)), "utf-8")
    return models / f"{name}.safetensors"


def _make_sd15(webui: Path, models: Path) -> Path:
    """By the WebUI's own classes, within its Python."""
    command = [find_python(webui), str(MAKER), str(webui), str(models)]
    made = subprocess.run(command, capture_output=True, text=True, env=os.environ | OFFLINE)
    assert made.returncode == 0, made.stderr
    return models / "tiny-sd15.safetensors"
