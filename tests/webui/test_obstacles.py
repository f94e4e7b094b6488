"""Where the WebUI lacks something, FRESCO says so in one sentence and breaks nothing."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fresco.errors import HostError
from fresco.webui.needs import list_needed_names
from tests.helpers.api_server import FastAPI, TestClient, small_clip
from tests.helpers.webui import gradio_double as gr
from tests.helpers.webui import script_callbacks
from tests.helpers.webui.client import Refused
from tests.helpers.webui.double import ROOT, DoubleHost, running
from tests.helpers.webui.lacking import lack, list_all_names
from tests.helpers.webui.requests import QUICK, frames

OK, UNAVAILABLE = 200, 503
SCRIPT = ROOT / "scripts" / "fresco.py"
NAMES = list_all_names()
MODULES = tuple(dict.fromkeys(name.rpartition(".")[0] for name in NAMES))


def fail_in_the_middle(*_: Any) -> Any:
    raise ImportError("no such control")


def test_a_page_that_cannot_be_built_keeps_the_number_of_its_arguments(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The API builds the controls again, and writes their values over a fixed range."""
    room = double.script.args_to - double.script.args_from
    controls = importlib.import_module("fresco.webui.img2img.controls")
    monkeypatch.setattr(controls, "make_option_controls", fail_in_the_middle)
    assert len(double.script.ui(True)) == room
    monkeypatch.undo()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert [control.visible for control in double.script.ui(True)] == [False] * room


@pytest.mark.parametrize("options", [QUICK, [True], {"enabled": True}, {}])
def test_where_it_cannot_work_it_refuses(
    double: DoubleHost, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(double.script, "_obstacle", "FRESCO cannot work: nothing is there.")
    with pytest.raises(Refused, match=r"FRESCO cannot work: nothing is there\."):
        double.img2img(frames(3), options)


def test_where_it_cannot_work_plain_requests_are_as_ever(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = double.img2img(frames(1)).images
    monkeypatch.setattr(double.script, "_obstacle", "FRESCO cannot work: nothing is there.")
    assert double.img2img(frames(1)).images == before
    assert double.img2img(frames(1), [False]).images == before


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Image.Image, ...]:
    """A request without FRESCO, in a WebUI that lacks nothing."""
    with running(SCRIPT, tmp_path_factory.mktemp("plain")) as host:
        return host.img2img(frames(1)).images


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return small_clip(tmp_path / "clip.mp4", 3)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs stay in the queue."""
    engine = importlib.import_module("fresco.server.jobs.engine")
    monkeypatch.setattr(engine.JobEngine, "start", lambda self: None)


def ask_tab() -> str:
    """What can be read in the tab; empty where the WebUI does not ask for one."""
    made = script_callbacks.tell("ui_tabs")
    return "\n".join(blocks.text for tabs in made for blocks, _, _ in tabs)


def ask_api(clip: Path) -> tuple[int, str]:
    """Start the application, and queue a job."""
    app, page = FastAPI(), gr.Blocks()
    script_callbacks.tell("app_started", page, app)
    with TestClient(app) as client:
        answer = client.post("/fresco/jobs", json={"path": str(clip), "goal": "keyframes"})
    with contextlib.suppress(HostError):  # there are no jobs
        importlib.import_module("fresco.webui.registration").service().engine.close()
    return answer.status_code, answer.text


def ask_script(host: DoubleHost) -> str:
    """Why a request with FRESCO was refused; empty: it was guided, or there is no script."""
    if not host.runner.alwayson_scripts:
        return ""
    try:
        assert len(host.img2img(frames(3), QUICK).images) == 3
    except Refused as refused:
        return refused.detail
    return ""


def test_the_double_lacks_nothing(
    tmp_path: Path, clip: Path, waiting: None, caplog: pytest.LogCaptureFixture
) -> None:
    """What the next test sees comes from the one missing name alone."""
    with running(SCRIPT, tmp_path, change=lack()) as host:
        assert ask_script(host) == ""
        assert "Keyframes" in ask_tab()
        assert ask_api(clip)[0] == 200
        assert host.swallowed == []
    assert "cannot" not in caplog.text


def find_affected(missing: str) -> set[str]:
    """Parts of FRESCO that need a name, or anything of a module."""
    parts = importlib.import_module("fresco.webui.registration")._PARTS
    return {
        part.name for part, roots in parts.items() for name in list_needed_names(*roots)
        if name == missing or name.startswith(missing + ".")
    }


@pytest.mark.parametrize("missing", [*MODULES, *NAMES])
def test_without_a_name_it_says_so_and_breaks_nothing(
    missing: str, tmp_path: Path, clip: Path, waiting: None, plain: tuple[Image.Image, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running(SCRIPT, tmp_path, change=lack(missing)) as host:
        affected = find_affected(missing)
        assert host.img2img(frames(1)).images == plain
        if "IMG2IMG" in affected and host.runner.alwayson_scripts:
            assert missing in ask_script(host)
        tab, (status, answer) = ask_tab(), ask_api(clip)
        assert host.swallowed == []
    told = [record.getMessage() for record in caplog.records if missing in record.getMessage()]
    assert told
    assert len(set(told)) == len(told)
    assert "Keyframes" in tab or missing in tab or not tab
    if "SERVER" in affected:
        assert missing in tab
    if affected & {"SERVER", "JOBS"}:
        assert status == UNAVAILABLE
        assert missing in answer
    else:
        assert status == OK or "on_app_started" in missing or missing.endswith("callbacks")
