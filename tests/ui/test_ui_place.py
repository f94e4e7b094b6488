"""Where the page is served, and who is let in."""

from __future__ import annotations

import socket

import pytest

from fresco.errors import SettingsError
from fresco.ui.serve import Place, bind_port, check_place, find_address


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machine_alone_needs_no_password(host: str) -> None:
    check_place(Place(host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "my-machine", ""])
def test_whoever_others_can_reach_needs_one(host: str) -> None:
    with pytest.raises(SettingsError, match="others can reach; give a password too, by --login"):
        check_place(Place(host))
    check_place(Place(host, login="me:secret"))


def test_a_port_that_is_taken_is_named_or_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with bind_port(Place(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"--port is {port}, which another program uses"):
            bind_port(Place(port=port))
        monkeypatch.setattr("fresco.ui.serve._USUAL_PORTS", range(port, port + 40))
        with bind_port(Place()) as other:
            assert port < other.getsockname()[1] < port + 40
        monkeypatch.setattr("fresco.ui.serve._USUAL_PORTS", range(port, port + 1))
        with pytest.raises(SettingsError, match="another program uses"):
            bind_port(Place())


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="not an address of this machine"):
        bind_port(Place(host, 0))


def test_the_address_is_one_that_this_machine_opens() -> None:
    with bind_port(Place("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
        assert find_address(Place("0.0.0.0"), bound) == f"http://127.0.0.1:{port}"
        assert find_address(Place("::1"), bound) == f"http://[::1]:{port}"
        assert bound.type == socket.SOCK_STREAM
