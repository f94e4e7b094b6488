"""The tab and its API in plain gradio, as a program of its own:
`python -m tests.helpers.tab_app DIR [USER:PASSWORD]`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import gradio as gr
import gradio.routes

from fresco.server.api.access import Access
from fresco.server.api.routes import add_routes
from fresco.server.ports import Limits
from fresco.server.service import open_service
from fresco.webui.tab.page import build_tab
from fresco.webui.widgets.serving import close_folders
from tests.helpers.job_environment import TinyEnvironment
from tests.helpers.source import ROOT


def add_to_head(html: str) -> None:
    """Put HTML into the head of gradio's page, as the WebUI does for its extensions."""
    original: Any = gradio.routes.templates.TemplateResponse

    def response(*args: Any, **kwargs: Any) -> Any:
        page = original(*args, **kwargs)
        page.body = page.body.replace(b"</head>", html.encode() + b"</head>", 1)
        page.init_headers()
        return page

    gradio.routes.templates.TemplateResponse = response


def describe(component: Any) -> dict[str, Any]:
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


def main(folder: Path, accounts: str = "") -> None:
    """Serve the tab on a free port, say which, and stay until the input ends.

    `DIR/components.json` describes its components, built twice, as by a reload of the page.

    Args:
        accounts: users and passwords of the API, as of --api-auth.
    """
    scripts = [path.read_text("utf-8") for path in sorted((ROOT / "javascript").glob("*.js"))]
    style = (ROOT / "style.css").read_text("utf-8")
    inside = "".join(f"<script>{script}</script>" for script in scripts)
    add_to_head(f"<style>{style}</style>{inside}")
    # Worker processes of jobs are in the tests of `fresco ui`; each pool takes seconds.
    environment = TinyEnvironment(folder / "models", Limits(workers=1))
    service = open_service(folder / "service", environment)
    tab = build_tab(service)
    (folder / "components.json").write_text(json.dumps([
        [describe(block) for block in built.blocks.values()] for built in (build_tab(service), tab)
    ]))
    with gr.Blocks(title="FRESCO", analytics_enabled=False) as page:
        tab.render()
    page.queue()
    app, address, _ = page.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True,
        allowed_paths=[str(folder)],
    )
    close_folders(page, service.folders)
    add_routes(app, service, Access.of(accounts))
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    service.engine.close()
    os._exit(0)  # to free every object that is left would take seconds


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
