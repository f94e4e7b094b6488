"""Decide which web pages may use the API: those of this server, and those that a setting names.

A browser sends requests for every page that is open in it, with the cookies and the password for
the server that receives them. It says which page sends them (`Origin`, `Sec-Fetch-Site`). A page
can also let its own name point to this machine (DNS rebinding). Then only the name in `Host` shows
it.
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
"""Longest origin in letters; a host name has at most 253."""


@dataclass(frozen=True, slots=True)
class Origins:
    """The web pages whose requests are accepted. Programs other than browsers send no origin."""

    further: Callable[[], Iterable[str]] = tuple
    """Returns origins besides this server's own, such as `https://sd.example.org`; `*` means any.
    It is called at each request, so that a changed setting takes effect at once."""
    pattern: str = ""
    """Regular expression for further origins, from the WebUI's flag."""
    hosts: tuple[str, ...] = ()
    """Further names of this server; `.example.org` means every name with this ending."""
    remedy: str = _SETTING
    """Text that says how to allow an origin, with {} for the origin."""

    def require(self, connection: HTTPConnection, *, guarded: bool) -> None:
        """Raise 403 for a request of a page of another site.

        Args:
            guarded: whether a login is needed. Then another name for this server does not help a
                page, because the browser has neither cookie nor password for that name.
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
                403, f"{host[:200]!r} is not a known name of this server. If it is one of its "
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
                403, f"This request is from a page of {origin[:200] or 'another site'}, which is "
                f"not a page of this server. To allow it, {self._remedy('its origin')}."
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
"""Names of this machine."""


def learn_own_names() -> None:
    """Find the names of this machine, without waiting for a name server."""
    def ask() -> None:
        _OWN_NAMES.add(socket.getfqdn().lower())

    _OWN_NAMES.add(socket.gethostname().lower())
    threading.Thread(target=ask, name="fresco-names", daemon=True).start()


def split_origins(text: str) -> tuple[str, ...]:
    """Split a list of origins with commas or spaces between them."""
    return tuple(re.split(r"[\s,]+", text.strip())) if text.strip() else ()


def _is_opened(connection: HTTPConnection, site: str) -> bool:
    """Whether a person followed a link to this server, which only reads and changes nothing."""
    headers = connection.headers
    return (
        bool(site) and connection.scope.get("method") in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _is_own(origin: str, hosts: set[str]) -> bool:
    """Whether an origin has one of these hosts; behind a proxy its scheme may differ."""
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
    """Whether a name is an IP address, for which no name server is asked."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
