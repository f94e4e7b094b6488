"""What the WebUI around is called, and where it keeps what it makes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.helpers.webui import shared
from tests.helpers.webui.double import DoubleHost


def pretend(monkeypatch: pytest.MonkeyPatch, name: str, **values: Any) -> None:
    """Let the WebUI have a module."""
    module = ModuleType(name)
    vars(module).update(values)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(("version", "settings", "name"), [
    ({}, (), "Stable Diffusion WebUI v1.10.1"),
    ({"version": "neo", "release": "2.26"}, (), "Forge Neo 2.26"),
    ({"version": "classic"}, (), "Forge Classic"),
    ({"version": "2.0.1v1.10.1"}, (), "Forge 2.0.1v1.10.1"),
    ({"version": "1.0.0v2-v1.10.1RC"}, ("reforge_schedulers_group",), "reForge 1.0.0v2-v1.10.1RC"),
])
def test_name(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch, version: dict[str, str],
    settings: tuple[str, ...], name: str,
) -> None:
    if version:
        pretend(monkeypatch, "modules_forge")
        pretend(monkeypatch, "modules_forge.forge_version", **version)
    for setting in settings:
        shared.opts.add_option(setting, shared.OptionInfo())
    environment = importlib.import_module("fresco.webui.environment").WebuiEnvironment()
    assert environment.name == name


@pytest.mark.parametrize("folder", ["outputs", "output"])
def test_jobs_lie_where_the_webui_keeps_what_it_makes(
    double: DoubleHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    environment = importlib.import_module("fresco.webui.environment")
    if folder == "output":
        pretend(
            monkeypatch, "modules.paths_internal", default_output_dir=str(tmp_path / "output")
        )
    assert environment.find_jobs_root() == tmp_path / folder / "fresco"


@pytest.mark.parametrize(("flags", "settings", "advice"), [
    (("no_half",), ("upcast_attn",),
     'Start the WebUI with --no-half, switch on "Upcast" in its settings'),
    (("no_half", "all_in_fp32"), (), "Start the WebUI with --all-in-fp32"),
    (("force_fp32",), (), "Start the WebUI with --force-fp32"),
])
def test_advice_names_the_flags_that_there_are(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...],
    settings: tuple[str, ...], advice: str,
) -> None:
    for flag in flags:
        monkeypatch.setattr(shared.cmd_opts, flag, False, raising=False)
    for setting in settings:
        shared.opts.add_option(setting, shared.OptionInfo(False, "Upcast"))
    assert importlib.import_module("fresco.hosts.webui.paths").advise_precision() == advice
