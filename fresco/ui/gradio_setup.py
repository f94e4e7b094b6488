"""Import gradio after its folder of uploads is set."""

from __future__ import annotations

import os
from pathlib import Path

from fresco.errors import HostError

_NEEDED = ("gradio", "fastapi", "uvicorn")


def prepare_gradio(folder: Path) -> None:
    """Import gradio with its uploads in a folder, and without its reports of use.

    Raises:
        HostError: it is not installed.
    """
    # It reads these when it is imported.
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    for name in _NEEDED:
        try:
            __import__(name)
        except ImportError as error:
            raise HostError(
                f"{error.name or name} is not installed, and the page needs it; install it by pip "
                'install -e ".[ui]".'
            ) from error
