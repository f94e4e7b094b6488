"""The WebUI's flags and the setting say which pages may use the API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.api_server import HTTPException
from tests.helpers.webui import shared
from tests.helpers.webui.double import DoubleHost


class Asked:
    """A request, as far as its origin goes."""

    def __init__(self, **headers: str) -> None:
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.scope = {"method": "POST"}


def is_taken(**headers: str) -> bool:
    from fresco.webui.registration import _origins

    asked: Any = Asked(**headers)
    try:
        _origins().require(asked, guarded=False)
    except HTTPException:
        return False
    return True


@pytest.fixture(autouse=True)
def host(double: DoubleHost) -> DoubleHost:
    """Its modules are there to be imported."""
    return double


PAGE = {"host": "127.0.0.1:7860", "origin": "https://sd.example.org"}


def test_without_any_only_own_pages_are_taken() -> None:
    assert is_taken(host="127.0.0.1:7860", origin="http://127.0.0.1:7860")
    assert not is_taken(**PAGE)
    assert not is_taken(host="abc.gradio.live")


@pytest.mark.parametrize(("flag", "value", "headers"), [
    ("cors_allow_origins", "https://a.example,https://sd.example.org", PAGE),
    ("cors_allow_origins", "*", PAGE),
    ("cors_allow_origins_regex", r"https://sd\..*", PAGE),
    ("share", True, {"host": "abc.gradio.live", "origin": "https://abc.gradio.live"}),
    ("ngrok", "token", {"host": "abc.ngrok-free.app"}),
    ("server_name", "SD.example.com", {"host": "sd.example.com:7860"}),
])
def test_flags_of_the_webui_count(
    monkeypatch: pytest.MonkeyPatch, flag: str, value: object, headers: dict[str, str]
) -> None:
    assert not is_taken(**headers)
    monkeypatch.setattr(shared.cmd_opts, flag, value, raising=False)
    assert is_taken(**headers)
    assert is_taken(host="127.0.0.1:7860")


def test_the_setting_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shared.opts.data, "fresco_origins", "https://sd.example.org")
    assert is_taken(**PAGE)
    assert is_taken(host="sd.example.org")
    assert not is_taken(host="127.0.0.1:7860", origin="https://evil.example")
