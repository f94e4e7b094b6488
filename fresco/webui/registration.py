"""Register FRESCO at each load of the WebUI: settings, axes of X/Y/Z plots, the tab and the API.

The package stays loaded after "Reload UI", so a second call must change nothing. Modules that need
the WebUI are imported late and one by one, so that a part that cannot work does not affect the
others.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fresco.errors import HostError
from fresco.server.ports import Limits
from fresco.webui.obstacles import (
    Part,
    get_obstacle,
    guard_entrance,
    look_for_obstacles,
    report_obstacle,
    require_part,
)

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
"""Arguments of options that name folders and addresses of the server."""


_PARTS: Mapping[Part, Sequence[str]] = {
    Part.IMG2IMG: ("fresco.webui.img2img.guard", "fresco.webui.img2img.controls"),
    Part.SERVER: ("fresco.webui.environment", "fresco.webui.tab.page", "fresco.server.api.routes"),
    Part.JOBS: ("fresco.hosts.webui.host",),
}
"""The modules that each part begins with."""


def register() -> None:
    """Register everything; called by the WebUI's script at every load."""
    if not log.isEnabledFor(logging.WARNING):  # Forge Neo shows errors only
        log.setLevel(logging.WARNING)
    look_for_obstacles(_PARTS)
    listens = _listen("on_app_started", add_api, "FRESCO's API")
    _listen("on_ui_settings", add_settings, "FRESCO's section of the settings")
    _listen("on_before_ui", _add_axes, "X/Y/Z plot of FRESCO's options")
    _listen("on_ui_tabs", add_tab, "The tab FRESCO")
    _listen("on_before_image_saved", _name_saved_image, "Frame numbers in the names of images")
    page = guard_entrance("The wait of jobs for the page", _find_page)()
    if listens and page:  # otherwise jobs would never learn that the page is built
        _listen("on_app_started", page.built, "The wait of jobs for the page")
        _listen("on_script_unloaded", page.rebuild, "The wait of jobs for the page")
        page.rebuild()


def load_script() -> Any:
    """Load the class of the script in img2img; None if this WebUI has no scripts of this form."""
    def load() -> Any:
        return importlib.import_module("fresco.webui.img2img.script").FrescoScript

    return guard_entrance("FRESCO in img2img", load)()


def _listen(event: str, work: Callable[..., Any], what: str) -> bool:
    """Register a callback of the WebUI; return whether the WebUI accepts it."""
    def listen() -> bool:
        from modules import script_callbacks

        getattr(script_callbacks, event)(guard_entrance(what, work))
        return True

    return guard_entrance(what, listen)() is not None


def _find_page() -> Any:
    return importlib.import_module("fresco.hosts.webui.script_arguments").PAGE


def _add_axes() -> None:
    importlib.import_module("fresco.webui.img2img.axes").add_axes()


def _name_saved_image(params: Any) -> None:
    if getattr(params.p, "fresco_guard", None) is not None:
        importlib.import_module("fresco.webui.img2img.script").name_saved_image(params)


def add_settings() -> None:
    """Add a section to the WebUI's settings."""
    import gradio as gr

    usual = Limits()
    texts = {
        "fresco_weights_dir": (
            "", "Folder of FRESCO's own weights (optical flow, saliency); empty: models/FRESCO"
        ),
        "fresco_jobs_dir": (
            "", f"Folder of FRESCO's jobs and uploaded videos; empty: {_name_output_folder()}"
            "/fresco (needs a restart)"
        ),
        "fresco_cluster": (
            "", "Scheduler of a dask.distributed cluster that propagates, such as "
            "tcp://host:8786; empty: this machine"
        ),
        "fresco_origins": (
            "", "Further addresses of this WebUI, such as https://sd.example.org behind a proxy, "
            "with commas; pages of other addresses cannot use FRESCO's API"
        ),
        "fresco_webhooks": (
            "", "Addresses that jobs may tell of their end, such as "
            "https://hooks.example.org/fresco, with commas; empty: none"
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
        "fresco_most_waiting": (
            usual.waiting_jobs, "Most jobs that wait for their turn; 0: any number"
        ),
        "fresco_free_megabytes": (
            usual.free_megabytes, "Disk space that jobs and uploads leave free, megabytes"
        ),
    }
    for name, (default, label) in texts.items():
        _add_option(name, default, label, {} if isinstance(default, bool) else _NOT_BY_API)
    whole = {"component": gr.Number, "component_args": {"precision": 0, "minimum": 0,
                                                        "maximum": _MOST}}
    for name, (default, label) in numbers.items():
        _add_option(name, default, label, whole)


def _name_output_folder() -> str:
    from fresco.hosts.webui.paths import find_output_folder

    return find_output_folder().name


def _add_option(name: str, default: Any, label: str, further: Mapping[str, Any]) -> None:
    from modules import shared

    shared.opts.add_option(
        name, shared.OptionInfo(default, label, section=_SECTION, **further)
    )


@functools.lru_cache(maxsize=1)
def service() -> Service:
    """Get the jobs of this WebUI: one engine for each process, also after "Reload UI"."""
    require_part(Part.SERVER)
    from fresco.server.service import open_service
    from fresco.webui.environment import WebuiEnvironment, find_jobs_root

    return open_service(find_jobs_root(), WebuiEnvironment())


def add_tab() -> list[tuple[Any, str, str]]:
    """Make the tab, or show in its place why it cannot work."""
    import gradio as gr

    title, identity = _TAB
    try:
        opened = service()
        from fresco.webui.tab.page import build_tab

        return [(build_tab(opened), title, identity)]
    except Exception as error:  # the WebUI would leave out the tab without a message
        reason = get_obstacle(Part.SERVER) or report_obstacle("The tab FRESCO", error)
        with gr.Blocks(analytics_enabled=False) as blocks:
            gr.Markdown(reason)
        return [(blocks, title, identity)]


def add_api(demo: Any, app: Any) -> None:
    """Add the routes under /fresco, and close other ways to the files of jobs."""
    guard_entrance("FRESCO's frames without init_images", _allow_absent_images)(app)
    try:
        opened = service()
        if demo is not None:
            guard_entrance("The wall around the files of FRESCO's jobs", _close_folders)(
                demo, opened.folders
            )
        from fresco.server.api.routes import add_routes

        add_routes(app, opened, _access(app))
    except Exception as error:
        reason = get_obstacle(Part.SERVER) or report_obstacle("FRESCO's API", error)
        _add_reason(app, reason)


def _close_folders(demo: Any, folders: Sequence[Path]) -> None:
    importlib.import_module("fresco.webui.widgets.serving").close_folders(demo, folders)


def _allow_absent_images(app: Any) -> None:
    importlib.import_module("fresco.webui.img2img.absent_images").allow_absent_images(app)


def _add_reason(app: Any, reason: str) -> None:
    importlib.import_module("fresco.server.api.absent").add_reason(app, reason)


def _read_flags() -> Any:
    from modules import shared

    return shared.cmd_opts


def _access(app: Any) -> Access:
    """Make the access by --api-auth, like the WebUI's own API; without it, by the page's login."""
    from fresco.server.api.access import Access

    flags = _read_flags()
    listed = getattr(flags, "api_auth", None)
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
    """Whether a request has the cookie of a user of the page; None if the login is of another form.
    """
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
    """List pages that may use the API: those of the setting, and of the WebUI's own flags."""
    from modules import shared

    from fresco.server.api.origins import Origins, split_origins

    flags = _read_flags()

    def further() -> tuple[str, ...]:
        listed = (shared.opts.data.get("fresco_origins"), getattr(flags, "cors_allow_origins", ""))
        return split_origins(",".join(text for text in listed if text))

    hosts = [end for flag, ends in _TUNNELS.items() if getattr(flags, flag, None) for end in ends]
    named = getattr(flags, "server_name", None)
    pattern = getattr(flags, "cors_allow_origins_regex", None)
    return Origins(further, pattern or "", (*hosts, *([named.lower()] if named else ())))
