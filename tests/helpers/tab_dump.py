"""The tab's components as JSON: `python -m tests.helpers.tab_dump MODELS DIR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fresco.server.service import open_service
from fresco.webui.tab.page import build_tab
from tests.helpers.job_environment import TinyEnvironment


def described(component: Any) -> dict[str, Any]:
    """What a test wants to know of a component."""
    value = getattr(component, "value", None)
    return {
        "kind": type(component).__name__,
        "label": getattr(component, "label", None),
        "id": component.elem_id,
        "unsaved": getattr(component, "do_not_save_to_config", False),
        "visible": getattr(component, "visible", True),
        "value": value if isinstance(value, str | int | float | bool | None) else str(value),
        "info": getattr(component, "info", None),
        "choices": [str(choice) for choice in getattr(component, "choices", None) or ()],
    }


def main(models: Path, folder: Path) -> None:
    """Build the tab twice, as a reload of the page does, and print both."""
    service = open_service(folder, TinyEnvironment(models))
    built = [build_tab(service) for _ in range(2)]
    service.engine.close()
    sys.stdout.write(json.dumps(
        [[described(block) for block in tab.blocks.values()] for tab in built]
    ))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
