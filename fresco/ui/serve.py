"""Serve the page of `fresco ui` until it is stopped."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import shutil
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from fresco.errors import HostError, SettingsError, WorkspaceError
from fresco.ui.gradio_setup import prepare_gradio

if TYPE_CHECKING:
    from fresco.server.service import Service
    from fresco.ui.environment import Choices

log = logging.getLogger("fresco")

_USUAL_PORTS = range(7860, 7880)
"""Ports that are tried one after another if none was given."""
_TAKEN = frozenset({errno.EADDRINUSE, errno.EACCES} if sys.platform == "win32"
                   else {errno.EADDRINUSE})
_CLOSING = 60.0
"""Seconds that a job has to reach its next step."""
_STREAMS = 2
"""Seconds that running answers have to end."""
_POLL = 0.2
_REMEDY = "start fresco ui with --origin {}"
_UPLOADS = "gradio"
"""Folder of the page's uploads, until they are stored as a video or as keyframes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Address and login of the page."""

    host: str = "127.0.0.1"
    """Address at which the page is served."""
    port: int | None = None
    """Its port; 0: any; None: the first of the usual ones that is free."""
    login: str = ""
    """Users and passwords, such as `user:password,other:word`; empty: no login."""
    origins: tuple[str, ...] = ()
    """Further addresses of the page, such as that of a proxy."""

    @property
    def is_own(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def check_place(place: Place) -> None:
    """Raise SettingsError if other machines could use the page without a password."""
    if not place.is_own and not place.login:
        raise SettingsError(
            f"--host is {place.host!r}, which others can reach; give a password too, by --login "
            "USER:PASSWORD or the variable FRESCO_LOGIN."
        )


def bind_port(place: Place) -> socket.socket:
    """Open the socket of the page; to be called before slow work."""
    ports = _USUAL_PORTS if place.port is None else (place.port,)
    for port in ports:
        if bound := _bind(place.host, port):
            return bound
    asked = f"{ports[0]} to {ports[-1]}" if len(ports) > 1 else f"{ports[0]}"
    raise SettingsError(
        f"--port is {asked}, which another program uses at {place.host}; close that, or choose "
        "another port."
    )


def _bind(host: str, port: int) -> socket.socket | None:
    """Open a socket at a port; None if another program uses it."""
    bound = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # there it would let two programs have one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except (OSError, UnicodeError) as error:
        if bound:
            bound.close()
        if isinstance(error, OSError) and error.errno in _TAKEN:
            return None
        if isinstance(error, PermissionError):
            raise SettingsError(
                f"--port is {port}, which this user may not open; choose one from 1024."
            ) from error
        raise SettingsError(
            f"--host is {host!r}, which is not an address of this machine; choose 127.0.0.1."
        ) from error
    return bound


def serve(
    place: Place, jobs: Path, choices: Choices, *, started: Callable[[str], None],
    browser: bool = False,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; the running job stays resumable.

    Args:
        jobs: folder of jobs and uploaded videos.
        started: told the address once the page answers.
        browser: whether to show it.
    """
    with _signals() as stop, open_page(place, jobs, choices) as page:
        started(page.address)
        if browser and not webbrowser.open(page.address):
            log.warning("No browser could be opened; open %s in one.", page.address)
        while not stop.wait(_POLL):
            if not page.thread.is_alive():
                raise HostError("The server ended by itself; what it logged above says why.")
        log.info("Closing. A running job ends at its next step and can be resumed.")


@dataclass(frozen=True, slots=True)
class Page:
    """The page while it is served."""

    address: str
    """Address at which this machine opens the page."""
    service: Service
    """Its jobs and videos."""
    thread: threading.Thread
    """Answers requests."""


@contextlib.contextmanager
def open_page(place: Place, jobs: Path, choices: Choices) -> Iterator[Page]:
    """Serve the page and run jobs within the context."""
    check_place(place)
    uploads = jobs.absolute() / _UPLOADS
    with bind_port(place) as bound:
        prepare_gradio(uploads)
        service = open_jobs(jobs, choices)
        try:
            shutil.rmtree(uploads, ignore_errors=True)
            with _running(_build(service, place), bound) as thread:
                yield Page(find_address(place, bound), service, thread)
                service.engine.close(_CLOSING)  # the page shows this while it still answers
        except BaseException:
            service.engine.close(0)
            raise
        finally:
            shutil.rmtree(uploads, ignore_errors=True)


def find_address(place: Place, bound: socket.socket) -> str:
    """Find the address at which this machine opens the page."""
    port = bound.getsockname()[1]
    host = "127.0.0.1" if place.host in ("0.0.0.0", "::", "") else place.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def open_jobs(folder: Path, choices: Choices) -> Service:
    """Open the jobs of a folder; WorkspaceError if this program cannot run them."""
    from fresco.server.service import open_service
    from fresco.ui.environment import DiffusersEnvironment

    environment = DiffusersEnvironment(choices)
    environment.require_models()
    try:
        return open_service(folder, environment, alone=True)
    except WorkspaceError as error:
        raise WorkspaceError(f"{error} The folder is given by --jobs-dir.") from error


def _build(service: Service, place: Place) -> Any:
    from fresco.server.api.access import Access
    from fresco.server.api.origins import Origins
    from fresco.ui.page import build_app

    origins = Origins(lambda: place.origins, hosts=(place.host.lower(),), remedy=_REMEDY)
    return build_app(service, Access.of(place.login or None, origins=origins, flag="--login"))


@contextlib.contextmanager
def _running(app: Any, bound: socket.socket) -> Iterator[threading.Thread]:
    """Run a server at the socket within the context, in a thread."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=_STREAMS, server_header=False,
    ))
    # In its own thread, because this program handles the signals itself.
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [bound]}, name="fresco-server", daemon=True
    )
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(_POLL / 10)
        yield thread
    finally:
        # An open page has a stream that only ends with the server, which counts as an error there.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server.should_exit = True
        thread.join(2 * _STREAMS)


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """Within the context, the first Ctrl-C or SIGTERM sets the event, the second ends the program.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may handle signals
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
