"""Decide who may use the API, and from which web pages.

Users and passwords are those of the WebUI (HTTP basic). Other checks can be added, such as gradio's
login.
"""

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
    """User and password of everybody who may use the API."""
    dependencies: tuple[Callable[..., Any], ...] = ()
    """Further dependencies of FastAPI for every route, such as the login of gradio."""
    knows: Callable[[HTTPConnection], bool] | None = None
    """Whether a user without credentials has logged in on the page. Such a user may read, because
    the page shows the results anyway."""
    origins: Origins = field(default_factory=Origins)
    """Web pages whose requests are accepted."""
    flag: str = "--api-auth"
    """The flag that sets users and passwords, for messages."""

    @classmethod
    def of(
        cls, listed: str | None, *dependencies: Callable[..., Any], origins: Origins | None = None,
        flag: str = "--api-auth",
    ) -> Access:
        """Read the text of `--api-auth` or a similar flag, such as `user:password,other:word`."""
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
            raise SettingsError(f"{flag} has no user; give user:password, or leave it out.")
        return cls(tuple(pairs), dependencies, origins=origins or Origins(), flag=flag)

    def require(self, connection: HTTPConnection, *, from_page: bool = False) -> None:
        """Raise 403 for a page of another site, and 401 without a valid login.

        No credentials are needed to read what the page shows to its user anyway.

        Args:
            from_page: whether the tab asks for something that its own buttons can do, too.
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
        """Whether a header has valid credentials; compared in constant time with every entry."""
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
