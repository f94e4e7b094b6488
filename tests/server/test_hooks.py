"""What happens when a job ends."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fresco.errors import SettingsError
from fresco.server import hooks
from fresco.server.hooks import COMMAND, Hooks, call_webhook, check_webhook
from fresco.server.jobs.job import Goal, JobRequest, JobStatus, State

STATUS = JobStatus("0123456789abcdef", State.DONE, "a dog", Goal.ALL, 1.0)
LISTED = "https://hooks.example.org/fresco, http://127.0.0.1"


@pytest.mark.parametrize("url", [
    "https://hooks.example.org/fresco", "https://hooks.example.org:443/fresco/a?b=c",
])
def test_listed_addresses_and_those_below(url: str) -> None:
    check_webhook(url, LISTED)


@pytest.mark.parametrize("url", [
    "http://hooks.example.org/fresco", "https://hooks.example.org/frescoes",
    "https://hooks.example.org/fresco/../x", "https://hooks.example.org/fresco/%2e%2e/x",
    "https://hooks.example.org:444/fresco", "https://hooks.example.org.evil.net/fresco",
    "https://me@hooks.example.org/fresco", "https://evil.net/fresco#hooks.example.org",
    "file:///etc/passwd", "https://hooks.example.org\\@evil.net/fresco", "http://127.0.0.1:1/",
    "", "https://", "https://hooks.example.org:x/fresco",
])
def test_others_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="webhook is"):
        check_webhook(url, LISTED)
    with pytest.raises(SettingsError, match="webhook is"):
        check_webhook(url, "")


class _Heard(BaseHTTPRequestHandler):
    """Keeps what it is told; below /away it sends elsewhere."""

    told: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        _Heard.told.append(json.loads(data))
        self.send_response(302 if self.path.startswith("/away") else 204)
        self.send_header("Location", "/fresco")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def origin() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Heard)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    _Heard.told.clear()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_call_goes_to_a_listed_number_only_and_is_not_led_away(origin: str) -> None:
    said = call_webhook(f"http://{origin}/fresco", f"http://{origin}", STATUS)
    assert said == "127.0.0.1 answered 204"
    assert _Heard.told == [{**_Heard.told[0], "id": STATUS.id, "state": "done"}]
    with pytest.raises(SettingsError, match="answered 302"):
        call_webhook(f"http://{origin}/away", f"http://{origin}", STATUS)
    assert len(_Heard.told) == 2
    named = f"http://localhost:{origin.rpartition(':')[2]}"
    with pytest.raises(SettingsError, match="not a public address"):
        call_webhook(f"{named}/x", named, STATUS)
    assert len(_Heard.told) == 2


def test_what_follows_a_job_is_in_its_log_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "said"
    script = tmp_path / "tell.py"
    script.write_text(
        "import os, pathlib, sys\n"
        f"pathlib.Path({str(place)!r}).write_text(os.environ['FRESCO_JOB_TITLE'])\n"
        "sys.exit('no printer' if os.environ['FRESCO_JOB_STATE'] == 'failed' else 0)\n"
    )
    monkeypatch.setenv(COMMAND, f"{sys.executable} {script}")
    run = Hooks(lambda: "")
    run._run(STATUS, JobRequest("x.mp4"), tmp_path)
    assert place.read_text() == "a dog"
    failed = replace(STATUS, state=State.FAILED)
    run._run(failed, JobRequest("x.mp4", webhook="http://127.0.0.1:9/"), tmp_path)
    told = (tmp_path / "log.txt").read_text()
    assert "The command at a job's end: done" in told
    assert "ended with 1: no printer" in told
    assert "The web hook failed: webhook is 'http://127.0.0.1:9/'" in told


def test_nothing_is_begun_without_a_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(COMMAND, raising=False)
    monkeypatch.setattr(hooks.threading, "Thread", None)
    Hooks(lambda: "")(STATUS, JobRequest("x.mp4"), tmp_path)
