"""Arguments of other scripts in a job's img2img call, and the job's ControlNet units."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from fresco.control import ControlUnit
from fresco.errors import HostError, SettingsError
from tests.helpers.webui import controlnet, controlnet_builtin, scripts
from tests.helpers.webui.double import DoubleHost

Ask = Callable[..., list[Any]]
CANNY = ControlUnit("control_canny", "canny", 0.5, 0.1, 0.9)


class Plain(scripts.Script):
    """Its controls are what it is given; a page is one call of `ui`, a job another."""

    def __init__(self, *pages: Any) -> None:
        self.pages = list(pages)

    def title(self) -> str:
        """Shown."""
        return "Plain"

    def show(self, is_img2img: bool) -> Any:
        """Always."""
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any] | None:
        """Controls of the next page."""
        values = self.pages.pop(0)
        if isinstance(values, Exception):
            raise values
        return None if values is None else [SimpleNamespace(value=value) for value in values]


@pytest.fixture
def ask(double: DoubleHost, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Arguments of a job in a WebUI with further scripts."""
    hidden = Hidden()

    def arguments(added: Sequence[Any] = (), *units: ControlUnit) -> list[Any]:
        for script in added:
            double.add(script)
        runner = double.runner
        monkeypatch.setattr(runner, "scripts", [hidden, *runner.alwayson_scripts], raising=False)
        monkeypatch.setattr(scripts, "scripts_img2img", runner, raising=False)
        module = importlib.import_module("fresco.hosts.webui.script_arguments")
        found, made = module.script_arguments(units)
        assert found is runner
        return made

    return arguments


class Hidden(Plain):
    """A script of a section that the page does not have, so that it has no place."""

    args_from = args_to = None  # type: ignore[assignment]
    alwayson = True

    def __init__(self) -> None:
        super().__init__([1, 2, 3])


def test_every_script_has_its_own_defaults(double: DoubleHost, ask: Ask) -> None:
    first, empty, last = Plain([1], [1]), Plain(None, None), Plain([2, None], [2, None])
    made = ask([first, empty, last])
    fresco = double.script
    assert made[0] == 0
    assert made[fresco.args_from] is False
    assert made[first.args_from:] == [1, 2, None]
    assert len(made) == len(double.runner.inputs)
    assert ask() == made
    assert first.pages == [], "asked once"


def test_a_script_that_failed_on_the_page_has_no_arguments(double: DoubleHost, ask: Ask) -> None:
    broken, last = Plain(ZeroDivisionError("no page"), [5, 6]), Plain([2], [2])
    made = ask([broken, last])
    assert made[last.args_from:] == [2]
    assert [str(error) for error in double.swallowed] == ["no page"]
    double.swallowed.clear()


@pytest.mark.parametrize(("later", "said"), [
    ([1, 2], r"script Plain \(.*\) makes 2 controls, but 1 on the page"),
    (ZeroDivisionError("no way"), r"script Plain \(.*\) fails where its controls are made: .*way"),
])
def test_a_script_whose_arguments_are_unknown(ask: Ask, later: Any, said: str) -> None:
    with pytest.raises(HostError, match=said):
        ask([Plain([1], later)])


def test_units_lie_in_controlnet_s_places(ask: Ask) -> None:
    control = controlnet.ControlNet()
    made = ask([control, Plain([8], [8])], CANNY)
    assert made[control.args_from] == {
        "enabled": True, "module": "canny", "model": "control_canny", "weight": 0.5,
        "guidance_start": 0.1, "guidance_end": 0.9, "pixel_perfect": True,
        "save_detected_map": False,
    }
    assert [made[control.args_from + 1].enabled, made[-1]] == [False, 8]
    assert ask()[control.args_from].enabled is False, "the next job has no unit"


def test_units_without_room(ask: Ask) -> None:
    with pytest.raises(SettingsError, match="ControlNet is not installed"):
        ask([], CANNY)
    with pytest.raises(SettingsError, match=r"4 ControlNet units are asked for, but .* has 3"):
        ask([controlnet.ControlNet()], *[CANNY] * 4)
    with pytest.raises(HostError, match="has 2 ControlNets"):
        ask([controlnet_builtin.BuiltinControlNet()], CANNY)


@pytest.fixture
def builtin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """ControlNet's lists in a Forge kind."""
    controlnet_builtin.offered(monkeypatch)
    return importlib.import_module("fresco.hosts.webui.controlnet")


def test_lists_of_the_built_in_controlnet(builtin: Any) -> None:
    assert builtin.find_control().name == "the built-in ControlNet"
    assert builtin.control_models() == ("control_canny [0a1b2c3d]", "t2i_style")
    assert builtin.control_modules() == ("None", "canny", "inpaint_global_harmonious")


def test_a_unit_gets_the_names_of_the_host(builtin: Any) -> None:
    for module, found in (("none", "None"), ("auto", "canny")):
        unit = builtin.resolve_unit(ControlUnit("control_canny", module, 0.3))
        assert unit == ControlUnit("control_canny [0a1b2c3d]", found, 0.3)
    with pytest.raises(SettingsError, match="takes the look of one image"):
        builtin.resolve_unit(ControlUnit("control_canny", "IP-Adapter"))
    with pytest.raises(SettingsError, match="threshold_a is 3, but the preprocessor canny has no"):
        builtin.resolve_unit(ControlUnit("control_canny", "canny", threshold_a=3))
    with pytest.raises(SettingsError, match=r"model is 'gone'; choose one of control_canny \[0a"):
        builtin.resolve_unit(ControlUnit("gone"))
    with pytest.raises(SettingsError, match="preprocessor is 'depth'; choose one of None, canny"):
        builtin.resolve_unit(ControlUnit("control_canny", "depth"))


def test_no_controlnet() -> None:
    module = importlib.import_module("fresco.hosts.webui.controlnet")
    assert module.find_control() is None
    assert module.control_models() == module.control_modules() == ()
    with pytest.raises(SettingsError, match="this WebUI has no ControlNet model"):
        module.resolve_unit(CANNY)
