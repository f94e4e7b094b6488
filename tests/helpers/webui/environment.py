"""What a real WebUI finds around it: its Python and its environment's variables."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OFFLINE = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False",
    "SD_WEBUI_RESTARTING": "1", "PYTHONUNBUFFERED": "1", "no_proxy": "127.0.0.1",
    # Errors are looked for in the console.
    "NO_COLOR": "1",
}


def find_python(webui: Path) -> str:
    """`WEBUI_PYTHON`, or the Python of the folder's `venv`."""
    return os.environ.get("WEBUI_PYTHON") or str(webui / "venv" / "bin" / "python")
