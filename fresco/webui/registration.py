"""Registers FRESCO at each load of the WebUI: settings, axes of X/Y/Z plots, the tab and the API.

The package stays loaded over "Reload UI", so calling this twice must change nothing. Tab and API
are imported late: where one of them cannot be loaded, the script in img2img still works.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from modules import script_callbacks, shared

from fresco.errors import FrescoError, HostError
from fresco.hosts.webui.script_arguments import PAGE
from fresco.server.ports import Limits
from fresco.webui.img2img.absent_images import allow_absent_images
from fresco.webui.img2img.axes import add_axes
from fresco.webui.widgets.serving import close_folders

if TYPE_CHECKING:
    from fresco.server.api.access import Access
    from fresco.server.api.origins import Origins
    from fresco.server.service import Service

log = logging.getLogger("fresco")

_SECTION = ("fresco", "FRESCO")
_TAB = ("FRESCO", "fresco_tab")
_LOGIN = "login_check"
_MOST = 1 << 20
_NOT_BY_API = {"restrict_api": True}
"""Of options that name folders and addresses of the server."""


def register() -> None:
    """Called by the WebUI's script at every load."""
    script_callbacks.on_ui_settings(add_settings)
    script_callbacks.on_before_ui(add_axes)
    script_callbacks.on_ui_tabs(add_tab)
    script_callbacks.on_app_started(add_api)
    script_callbacks.on_app_started(PAGE.built)
    script_callbacks.on_script_unloaded(PAGE.rebuild)
    PAGE.rebuild()


def add_settings() -> None:
    """The section of the WebUI's settings."""
    usual = Limits()
    texts = {
        "fresco_weights_dir": (
            "", "Folder of FRESCO's own weights (optical flow, saliency); empty: models/FRESCO"
        ),
        "fresco_jobs_dir": (
            "", "Folder of FRESCO's jobs and uploaded videos; empty: outputs/fresco (needs a "
            "restart)"
        ),
        "fresco_cluster": (
            "", "Scheduler of a dask.distributed cluster that propagates, such as "
            "tcp://host:8786; empty: this machine"
        ),
        "fresco_origins": (
            "", "Further addresses of this WebUI, such as https://sd.example.org behind a proxy, "
            "with commas; pages of other addresses cannot use FRESCO's API"
        ),
        "fresco_offline": (False, "Never download weights; use what there is"),
    }
    numbers = {
        "fresco_workers": (0, "Processes that propagate at once; 0: as many as cores"),
        "fresco_upload_megabytes": (usual.upload_megabytes, "Largest video to upload, megabytes"),
        "fresco_most_frames": (usual.frames, "Most frames of a job; 0: any number"),
        "fresco_most_resolution": (
            usual.resolution, "Largest short side of the frames that the model sees"
        ),
    }
    for name, (default, label) in texts.items():
        _add_option(name, default, label, {} if isinstance(default, bool) else _NOT_BY_API)
    whole = {"component": gr.Number, "component_args": {"precision": 0, "minimum": 0,
                                                        "maximum": _MOST}}
    for name, (default, label) in numbers.items():
        _add_option(name, default, label, whole)


def _add_option(name: str, default: Any, label: str, further: Mapping[str, Any]) -> None:
    shared.opts.add_option(
        name, shared.OptionInfo(default, label, section=_SECTION, **further)
    )


@functools.lru_cache(maxsize=1)
def service() -> Service:
    """The jobs of this WebUI: one engine a process, over every "Reload UI"."""
    from fresco.server.service import open_service
    from fresco.webui.environment import WebuiEnvironment, find_jobs_root

    return open_service(find_jobs_root(), WebuiEnvironment())


def add_tab() -> list[tuple[Any, str, str]]:
    """The video tab, or in its place the reason why there is none."""
    title, identity = _TAB
    try:
        from fresco.webui.tab.page import build_tab

        return [(build_tab(service()), title, identity)]
    except Exception as error:  # the WebUI would drop the tab without a word
        log.exception("The tab FRESCO cannot open.")
        with gr.Blocks(analytics_enabled=False) as blocks:
            gr.Markdown(f"FRESCO's tab cannot open: {_reason(error)}")
        return [(blocks, title, identity)]


def add_api(demo: Any, app: Any) -> None:
    """The routes under /fresco, by which alone the files of jobs are had from then on."""
    allow_absent_images(app)
    try:
        if demo is not None:
            close_folders(demo, service().folders)
    except Exception:
        log.exception("The route /file= of the page may serve the files of FRESCO's jobs.")
    try:
        from fresco.server.api.routes import add_routes

        add_routes(app, service(), _access(app))
    except Exception:
        log.exception("The API of FRESCO cannot start.")


def _reason(error: Exception) -> str:
    known = isinstance(error, (FrescoError, ImportError))
    return str(error) if known else f"{type(error).__name__}: {error}. See the console."


def _access(app: Any) -> Access:
    """Access by --api-auth, like the WebUI's own API; without it, by the login of the page."""
    from fresco.server.api.access import Access

    listed = getattr(shared.cmd_opts, "api_auth", None)
    origins = _origins()
    if not getattr(app, "auth", None):
        return Access.of(listed, origins=origins)
    found = [
        item.dependency for route in app.routes if getattr(route, "path", "") == "/config"
        for item in route.dependencies if getattr(item.dependency, "__name__", "") == _LOGIN
    ]
    if listed:
        return dataclasses.replace(Access.of(listed, origins=origins), knows=_find_user(found))
    if not found:
        raise HostError(
            "The login of this WebUI cannot be used for the API of FRESCO; start the WebUI with "
            "--api-auth user:password."
        )
    return Access.of(None, *found, origins=origins)


def _find_user(checks: Sequence[Callable[..., Any]]) -> Callable[[Any], bool] | None:
    """Whether a request carries the cookie of somebody who logged in on the page; None where the
    page's login is not as it is known."""
    for check in checks:
        user = inspect.signature(check).parameters.get("user")
        if find := getattr(getattr(user, "default", None), "dependency", None):
            return lambda connection: find(connection) is not None
    return None


_TUNNELS = {
    "share": (".gradio.live", ".gradio.app"),
    "ngrok": (".ngrok.io", ".ngrok.app", ".ngrok.dev", ".ngrok-free.app", ".ngrok-free.dev"),
}
"""Ends of the names under which a flag of the WebUI publishes it."""


def _origins() -> Origins:
    """Pages that may use the API: those of the setting, and those of the WebUI's own flags."""
    from fresco.server.api.origins import Origins, split_origins

    flags = shared.cmd_opts

    def further() -> tuple[str, ...]:
        listed = (shared.opts.data.get("fresco_origins"), getattr(flags, "cors_allow_origins", ""))
        return split_origins(",".join(text for text in listed if text))

    hosts = [end for flag, ends in _TUNNELS.items() if getattr(flags, flag, None) for end in ends]
    named = getattr(flags, "server_name", None)
    pattern = getattr(flags, "cors_allow_origins_regex", None)
    return Origins(further, pattern or "", (*hosts, *([named.lower()] if named else ())))
