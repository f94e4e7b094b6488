"""Where the WebUI lacks something, FRESCO says so in one sentence and breaks nothing."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.helpers.webui.client import Refused
from tests.helpers.webui.double import DoubleHost
from tests.helpers.webui.requests import QUICK, frames


def fail_in_the_middle(*_: Any) -> Any:
    raise ImportError("no such control")


def test_a_page_that_cannot_be_built_keeps_the_number_of_its_arguments(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The API builds the controls again, and writes their values over a fixed range."""
    room = double.script.args_to - double.script.args_from
    script = importlib.import_module("fresco.webui.img2img.script")
    monkeypatch.setattr(script, "make_option_controls", fail_in_the_middle)
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
