"""Which web pages may use the API: those of this server itself, and those a setting names.

A browser sends requests for any page that is open in it, with the cookies and the password of the
server they go to. It says which page asks (`Origin`, `Sec-Fetch-Site`). And a page may have its own
name lead to this machine (DNS rebinding); then the name in `Host` is the only sign of it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.requests import HTTPConnection

_SETTING = "put {} into Further addresses of this WebUI, in its settings, section FRESCO"
_PRIVATE = (".localhost", ".local", ".localdomain", ".lan", ".home", ".home.arpa", ".internal",
            ".intranet", ".private", ".corp")
"""Ends of names that nobody can register, so that no foreign page has one."""
_PORTS = {"http": ":80", "https": ":443"}
_ANY = "*"
_LONGEST = 300
"""Letters of an origin; a host name has at most 253."""


@dataclass(frozen=True, slots=True)
class Origins:
    """The web pages whose requests are accepted. Programs other than browsers send no origin."""

    further: Callable[[], Iterable[str]] = tuple
    """Origins besides this server's own, such as `https://sd.example.org`; `*` is any. Asked at
    each request, so that a changed setting counts at once."""
    pattern: str = ""
    """Regular expression of further origins, as the WebUI's flag takes it."""
    hosts: tuple[str, ...] = ()
    """Names of this server besides those it knows; `.example.org` is any name that ends so."""
    remedy: str = _SETTING
    """How a person allows an origin, with {} for it."""

    def require(self, connection: HTTPConnection, *, guarded: bool) -> None:
        """Raise 403 for what a foreign page sends.

        Args:
            guarded: whoever asks must log in. Then a foreign name of this server is of no use to a
                page, which has neither cookie nor password for that name.
        """
        further = {_normalize(origin) for origin in self.further()}
        if _ANY in further:
            return
        headers = connection.headers
        host = headers.get("host", "").lower()
        site = headers.get("sec-fetch-site", "").lower()
        # A browser says so of an address that it trusts: encrypted, or of its own machine. Nobody
        # but the name's owner can have the certificate, so its name does not lead here by a trick.
        trusted = site in ("same-origin", "none")
        if not (guarded or trusted or not host or self._knows(_strip_port(host), further)):
            raise HTTPException(
                403, f"This server does not know itself as {host[:200]!r}. If it is one of its "
                f"names, {self._remedy(f'http://{host[:200]}')}; or start it with a login."
            )
        origin = headers.get("origin", "").lower()
        if origin and (_normalize(origin) in further or self._matches(origin)):
            return
        if trusted or _is_opened(connection, site):
            return
        own = {host, headers.get("x-forwarded-host", "").partition(",")[0].strip().lower()} - {""}
        foreign = bool(site) if not origin else not _is_own(origin, own)
        if foreign:
            raise HTTPException(
                403, f"A page of {origin[:200] or 'another site'} asks, which is not a page of "
                f"this server. If it may, {self._remedy('its origin')}."
            )

    def _remedy(self, origin: str) -> str:
        return self.remedy.replace("{}", origin)

    def _matches(self, origin: str) -> bool:
        # Bounded, as nobody knows how long the user's own expression takes.
        short = len(origin) <= _LONGEST
        return bool(self.pattern) and short and re.fullmatch(self.pattern, origin) is not None

    def _knows(self, name: str, further: set[str]) -> bool:
        if _is_address(name) or "." not in name.rstrip("."):
            return True
        name = name.rstrip(".")
        known = {*_OWN_NAMES, *(urlsplit(each).hostname for each in further)}
        ends = (*_PRIVATE, *(host for host in self.hosts if host.startswith(".")))
        return name in known or name in self.hosts or name.endswith(ends)


_OWN_NAMES: set[str] = set()
"""Names by which this machine knows itself."""


def learn_own_names() -> None:
    """Find out this machine's names, without waiting for its name server."""
    def ask() -> None:
        _OWN_NAMES.add(socket.getfqdn().lower())

    _OWN_NAMES.add(socket.gethostname().lower())
    threading.Thread(target=ask, name="fresco-names", daemon=True).start()


def split_origins(text: str) -> tuple[str, ...]:
    """Origins as a setting lists them, with commas or spaces between them."""
    return tuple(re.split(r"[\s,]+", text.strip())) if text.strip() else ()


def _is_opened(connection: HTTPConnection, site: str) -> bool:
    """Whether a person followed a link to this server: that reads, and changes nothing."""
    headers = connection.headers
    return (
        bool(site) and connection.scope.get("method") in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _is_own(origin: str, hosts: set[str]) -> bool:
    """Whether an origin has one of these hosts; behind a proxy its scheme may be another."""
    scheme, _, place = origin.partition("://")
    usual = _PORTS.get(scheme, "")
    return bool(usual) and place.removesuffix(usual) in {host.removesuffix(usual) for host in hosts}


def _normalize(origin: str) -> str:
    origin = origin.strip().lower().rstrip("/")
    return origin.removesuffix(_PORTS.get(origin.partition("://")[0], "\0"))


def _strip_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    """Whether it is an IP address; no name server answers for one."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
