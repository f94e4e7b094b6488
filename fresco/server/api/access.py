"""Who may use the API: HTTP basic against the WebUI's own list, checks of others besides, and
which pages."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from fresco.errors import SettingsError
from fresco.server.api.origins import Origins


@dataclass(frozen=True, slots=True)
class Access:
    """The login that a client needs; none without credentials and dependencies."""

    credentials: tuple[tuple[str, str], ...] = ()
    """User and password of everybody who may come in."""
    dependencies: tuple[Callable[..., Any], ...] = ()
    """Dependencies of FastAPI that every route has besides, such as the login of gradio."""
    knows: Callable[[HTTPConnection], bool] | None = None
    """Whether somebody who gives no credentials is known otherwise, by the login of the page; they
    may read, as the page shows them the results."""
    origins: Origins = field(default_factory=Origins)
    """Pages whose requests are taken."""
    flag: str = "--api-auth"
    """Where users and passwords are given, for messages."""

    @classmethod
    def of(
        cls, listed: str | None, *dependencies: Callable[..., Any], origins: Origins | None = None,
        flag: str = "--api-auth",
    ) -> Access:
        """From the text of `--api-auth` or a like flag, such as `user:password,other:word`."""
        pairs: list[tuple[str, str]] = []
        for item in (listed or "").split(","):
            user, colon, password = item.strip().partition(":")
            if item.strip() and not (user and colon and password):
                # The text itself is a secret, so it is not shown.
                raise SettingsError(
                    f"An entry of {flag} is not user:password; write user:password, several with "
                    "commas between them."
                )
            if user:
                pairs.append((user, password))
        if listed and not pairs:
            raise SettingsError(f"{flag} names nobody; give user:password, or leave it away.")
        return cls(tuple(pairs), dependencies, origins=origins or Origins(), flag=flag)

    def require(self, connection: HTTPConnection, *, from_page: bool = False) -> None:
        """Raise 403 for the page of another site, and 401 unless the request carries the name and
        the password of somebody, or reads what the page shows to who asks.

        Args:
            from_page: the tab itself asks for what it does by its own buttons too.
        """
        self.origins.require(
            connection, guarded=bool(self.credentials or self.dependencies)
        )
        known = self._known(connection.headers.get("authorization", ""))
        if not self.credentials or known or from_page:
            return
        reads = connection.scope.get("method") in ("GET", "HEAD")
        if not (reads and self.knows and self.knows(connection)):
            raise HTTPException(
                401, f"This server wants a user and password (HTTP basic); see {self.flag}.",
                {"WWW-Authenticate": 'Basic realm="FRESCO", charset="UTF-8"'},
            )

    def _known(self, header: str) -> bool:
        """Compared in constant time with every entry, whichever fits."""
        scheme, _, value = header.partition(" ")
        try:
            given = base64.b64decode(value.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        user, colon, password = given.partition(b":")
        found = False
        for known_user, known_password in self.credentials:
            same_user = secrets.compare_digest(user, known_user.encode())
            same_password = secrets.compare_digest(password, known_password.encode())
            found |= same_user & same_password
        return found and bool(colon) and scheme.lower() == "basic"
