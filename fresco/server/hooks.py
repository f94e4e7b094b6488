"""Run a command and call a web hook when a job ends.

Only the server names the command; no client can set or change it. A job may name an address, which
is called only if the server lists it.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import logging
import os
import shlex
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from fresco import __version__
from fresco.errors import SettingsError
from fresco.server.jobs.job import JobRequest, JobStatus, dump_status
from fresco.server.jobs.log import Say, open_log

log = logging.getLogger("fresco")

COMMAND = "FRESCO_JOB_COMMAND"
"""Environment variable of the server with the command."""
ADDRESSES = "FRESCO_WEBHOOKS"
"""Environment variable of the server with the addresses that may be called."""

_COMMAND_SECONDS, _CALL_SECONDS = 60.0, 5.0
_PORTS = {"http": 80, "https": 443}


def split_addresses(text: str) -> tuple[SplitResult, ...]:
    """Parse a list of addresses with commas; SettingsError if one is not an address."""
    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        parts = _split(item)
        if parts is None:
            raise SettingsError(
                f"{item!r} of the listed web hooks is not an address; write it out, such as "
                "https://hooks.example.org/fresco."
            )
        found.append(parts)
    return tuple(found)


def check_webhook(url: str, listed: str) -> None:
    """Raise SettingsError unless the server lists the address, or a folder that contains it."""
    parts = _split(url)
    if parts is None:
        raise SettingsError(
            f"webhook is {url!r}; give an address such as https://hooks.example.org/fresco."
        )
    if not any(_covers(entry, parts) for entry in split_addresses(listed)):
        raise SettingsError(
            f"webhook is {url!r}, which this server does not list; who runs it adds the address "
            f"in its settings, or in the variable {ADDRESSES}."
        )


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        return None
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    return parts if known and plain and "@" not in parts.netloc and not parts.fragment else None


def _covers(entry: SplitResult, parts: SplitResult) -> bool:
    """Whether a listed address is this one, or a folder that contains it."""
    same = (entry.scheme, entry.hostname, _port(entry)) == (
        parts.scheme, parts.hostname, _port(parts)
    )
    begin = entry.path.rstrip("/")
    inside = parts.path in (begin, entry.path) or parts.path.startswith(f"{begin}/")
    return same and inside and ".." not in parts.path.split("/") and "%" not in parts.path


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS[parts.scheme]


def find_target(parts: SplitResult, listed: str) -> str:
    """Look up the IP address of an address.

    Raises SettingsError if that is in a private network and not listed itself.
    """
    own = {entry.hostname for entry in split_addresses(listed)}
    try:
        found = socket.getaddrinfo(parts.hostname, _port(parts), type=socket.SOCK_STREAM)
    except OSError as error:
        raise SettingsError(f"{parts.hostname} is not known ({error.strerror}).") from error
    numbers = [str(each[4][0]) for each in found]
    for number in numbers:
        if not ipaddress.ip_address(number.partition("%")[0]).is_global and number not in own:
            raise SettingsError(
                f"{parts.hostname} leads to {number}, which is not a public address; list that "
                "number itself where it is meant."
            )
    return numbers[0]


class _Pinned(http.client.HTTPConnection):
    """A connection to an IP address that was checked, even if the name now means another one."""

    def __init__(self, parts: SplitResult, number: str) -> None:
        super().__init__(str(parts.hostname), _port(parts), timeout=_CALL_SECONDS)
        self._number, self._secure = number, parts.scheme == "https"

    def connect(self) -> None:
        """Connect to the checked IP address."""
        self.sock = socket.create_connection((self._number, self.port), self.timeout)
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(
                self.sock, server_hostname=self.host
            )


def call_webhook(url: str, listed: str, status: JobStatus) -> str:
    """Send the state of a job as JSON, without following redirects; return a text for the log."""
    check_webhook(url, listed)
    parts = urlsplit(url)
    connection = _Pinned(parts, find_target(parts, listed))
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, json.dumps(dump_status(status)), {
            "Content-Type": "application/json", "User-Agent": f"FRESCO/{__version__}",
            "Host": parts.netloc,
        })
        answer = connection.getresponse()
    finally:
        connection.close()
    if answer.status >= 300:
        raise SettingsError(f"{parts.hostname} answered {answer.status} {answer.reason}.")
    return f"{parts.hostname} answered {answer.status}"


def run_command(command: str, status: JobStatus, folder: Path) -> str:
    """Run the server's command, with facts about the job in its environment."""
    known = {
        "FRESCO_JOB_ID": status.id, "FRESCO_JOB_STATE": status.state.value,
        "FRESCO_JOB_TITLE": status.title, "FRESCO_JOB_GOAL": status.goal.value,
        "FRESCO_JOB_FOLDER": str(folder), "FRESCO_JOB_MESSAGE": status.message,
    }
    parts = shlex.split(command, posix=os.name != "nt")
    done = subprocess.run(
        parts, env={**os.environ, **known}, timeout=_COMMAND_SECONDS, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )
    if done.returncode:
        told = done.stderr.decode("utf-8", "replace").strip()[-200:]
        raise SettingsError(f"it ended with {done.returncode}: {told or 'no message'}")
    return "done"


@dataclass(frozen=True, slots=True)
class Hooks:
    """Called by the engine whenever a job has ended."""

    list_addresses: Callable[[], str]
    """Returns the addresses that may be called, as the server lists them now."""

    def __call__(self, status: JobStatus, request: JobRequest, folder: Path) -> None:
        """Start the actions; the next job does not wait for them."""
        if os.environ.get(COMMAND) or request.webhook:
            threading.Thread(
                target=self._run, args=(status, request, folder), name="fresco-hooks", daemon=True
            ).start()

    def _run(self, status: JobStatus, request: JobRequest, folder: Path) -> None:
        with open_log(folder / "log.txt") as say:
            if command := os.environ.get(COMMAND):
                _try("The command at a job's end", say, lambda: run_command(
                    command, status, folder))
            if request.webhook:
                _try("The web hook", say, lambda: call_webhook(
                    request.webhook, self.list_addresses(), status))


def _try(what: str, say: Say, work: Callable[[], str]) -> None:
    """Run an action; if it fails, that is logged, and the job does not fail."""
    try:
        say(f"{what}: {work()}")
    except Exception as error:
        say(f"{what} failed: {error}")
        log.warning("%s failed: %s", what, error)
