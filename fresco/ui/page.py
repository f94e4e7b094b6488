"""The page of `fresco ui`: the tab and the API in one application."""

from __future__ import annotations

import hashlib
import html
import inspect
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Response
from starlette.types import ASGIApp

from fresco import __version__
from fresco.errors import HostError
from fresco.server.api.access import Access
from fresco.server.api.routes import PREFIX, add_routes
from fresco.server.service import Service
from fresco.ui.guard import Guard
from fresco.webui.tab.page import build_tab
from fresco.webui.widgets.serving import close_folders

_ROOT = Path(__file__).resolve().parents[2]
_FONT = ("system-ui", "sans-serif")
_FIXED_FONT = ("ui-monospace", "monospace")
_STYLE = """
footer { display: none !important; }
.gradio-container { max-width: 1500px !important; margin: 0 auto !important; }
#fresco_about { color: var(--body-text-color-subdued); font-size: 0.8rem; text-align: center; }
#fresco_about a { text-decoration: underline; }
"""


def build_app(service: Service, access: Access) -> ASGIApp:
    """Build the application with the page, its routes and the API, all checked by `Guard`."""
    app = FastAPI(title="FRESCO", version=__version__)
    add_routes(app, service, access)
    head = _add_assets(app)
    _mount(app, _build_page(service), service)
    return Guard(app, access, lambda: service.environment.limits.upload_megabytes, head)


def _build_page(service: Service) -> gr.Blocks:
    tab = build_tab(service)
    known = inspect.signature(gr.Blocks.__init__).parameters
    looks = {"theme": _make_theme()} if "theme" in known else {}
    with gr.Blocks(title="FRESCO", analytics_enabled=False, **looks) as page:
        tab.render()
        about = html.escape(f"FRESCO {__version__}, {service.environment.name}")
        gr.HTML(f'<p id="fresco_about">{about} &middot; <a href="{PREFIX}/version">API</a></p>')
    return page


def _make_theme() -> Any:
    """Gradio's own theme with local fonts, so that the page loads nothing from other servers."""
    return gr.themes.Default(font=list(_FONT), font_mono=list(_FIXED_FONT))


def _mount(app: FastAPI, page: gr.Blocks, service: Service) -> None:
    """Add the page to the application, with any version of gradio."""
    known = inspect.signature(gr.mount_gradio_app).parameters
    wanted: dict[str, Any] = {
        "ssr_mode": False, "mcp_server": False, "enable_monitoring": False, "footer_links": [],
        "theme": _make_theme(), "show_api": False,
    }
    # Gradio 3 learns these when it launches a page itself.
    page.allowed_paths, page.blocked_paths = [], []
    close_folders(page, (service.root,))
    if "blocked_paths" in known:
        wanted["blocked_paths"] = page.blocked_paths
    gr.mount_gradio_app(
        app, page, path="/", **{name: value for name, value in wanted.items() if name in known}
    )


def _add_assets(app: FastAPI) -> str:
    """Add routes for the tab's style and script, and return the HTML that loads them."""
    lines = [f"<style>{_STYLE}</style>"]
    for name, kind in _list_assets().items():
        data = _read_asset(name)
        path = f"/assets-of-fresco/{Path(name).name}"
        app.add_api_route(path, _Asset(data, kind).answer, include_in_schema=False)
        address = f"{path}?{hashlib.sha256(data).hexdigest()[:12]}"
        lines.append(f'<link rel="stylesheet" href="{address}">' if kind == "text/css"
                     else f'<script src="{address}"></script>')
    return "".join(lines)


def _list_assets() -> dict[str, str]:
    """List what a WebUI adds to its page for an extension: name -> kind, in order."""
    scripts = sorted(path.name for path in (_ROOT / "javascript").glob("*.js"))
    return {"style.css": "text/css"} | {
        f"javascript/{name}": "text/javascript" for name in scripts or ("fresco.js",)
    }


def _read_asset(name: str) -> bytes:
    try:
        return (_ROOT / name).read_bytes()
    except OSError as error:
        raise HostError(
            f"{_ROOT / name} is missing, which the page needs; install from a clone of the "
            'repository, by pip install -e ".[ui]".'
        ) from error


class _Asset:
    """A file that is sent as it was when the program started."""

    def __init__(self, data: bytes, kind: str) -> None:
        self._data, self._kind = data, kind

    async def answer(self) -> Response:
        """Send the file; its address changes with its content."""
        return Response(self._data, media_type=self._kind,
                        headers={"Cache-Control": "max-age=31536000, immutable"})
