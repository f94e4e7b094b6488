"""The script's controls and its place in the WebUI; and that the double leaves no trace."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fresco.webui.img2img.request import list_arguments, list_options
from tests.helpers.webui import gradio_double as gr
from tests.helpers.webui import script_callbacks, shared
from tests.helpers.webui.double import ROOT, DoubleHost, running
from tests.helpers.webui.requests import QUICK, frames
from tests.helpers.webui.scripts import AlwaysVisible, Script, ScriptClassData, scripts_data

PLACES = [
    "FRESCO", "video", "path", "min interval", "max interval", "batch size", "keys", "detect shots",
    "shot threshold", "shot min length", "estimator", "spatial attention", "cross frame attention",
    "temporal attention", "spatial optimization", "temporal optimization", "background smoothing",
    "saliency", "optimization iterations", "optimization rate", "spatial weight",
    "optimization end", "temporal attention end", "plain statistics", "freeu b1", "freeu b2",
    "freeu s1", "freeu s2", "first frame", "last frame", "masks", "consensus", "preset",
    "mask source",
]
"""Labels of the controls, in the order in which programs send their values."""


def test_one_control_an_argument(double: DoubleHost) -> None:
    controls = double.script.ui(True)
    defaults = {".".join(entry.place): entry.default for entry in list_options()}
    sources = {"video": None, "path": "", "masks": "", "guidance.preset": "paper"}
    assert len(double.runner.inputs) == 1 + len(controls)
    assert [control.value for control in controls] == [
        False, *((defaults | sources)[name] for name in list_arguments()),
    ]


def test_order_of_the_controls(double: DoubleHost) -> None:
    """Programs send values by position: new controls come behind these."""
    named = [control.label.removeprefix("FRESCO ") for control in double.script.ui(True)]
    assert named[:len(PLACES)] == PLACES


def test_where_files_are_is_no_default(double: DoubleHost) -> None:
    controls = double.script.ui(True)
    kept_out = [c.label for c in controls if getattr(c, "do_not_save_to_config", False)]
    assert kept_out == ["FRESCO video", "FRESCO path", "FRESCO masks", "FRESCO preset"]


def test_controls_fit_their_options(double: DoubleHost) -> None:
    controls = dict(zip(list_arguments(), double.script.ui(True)[1:], strict=False))
    for entry in list_options():
        control = controls[".".join(entry.place)]
        if entry.type is bool:
            assert isinstance(control, gr.Checkbox)
        elif entry.option.choices:
            assert isinstance(control, gr.Dropdown)
        elif entry.type in (int, float):
            assert isinstance(control, gr.Slider | gr.Number)
        else:
            assert isinstance(control, gr.Textbox)


def test_labels_and_ids_are_unique(double: DoubleHost) -> None:
    controls = double.script.ui(True)
    for names in ([c.label for c in controls], [c.elem_id for c in controls]):
        assert len(set(names)) == len(names)
        assert all("fresco" in name.lower() for name in names)


def test_in_img2img_only(double: DoubleHost) -> None:
    assert double.script.show(True) is AlwaysVisible
    assert double.script.show(False) is False
    assert double.script.title() == "FRESCO"


def test_building_the_controls_twice_adds_nothing_up(double: DoubleHost) -> None:
    first, second = double.script.ui(True), double.script.ui(True)
    assert [c.elem_id for c in first] == [c.elem_id for c in second]
    assert {id(c) for c in first}.isdisjoint({id(c) for c in second})


def test_settings_section(double: DoubleHost) -> None:
    known = shared.opts.data_labels
    assert {name for name in known if known[name].section == ("fresco", "FRESCO")} == {
        "fresco_cluster", "fresco_free_megabytes", "fresco_jobs_dir", "fresco_most_frames",
        "fresco_most_resolution", "fresco_most_waiting",
        "fresco_offline", "fresco_origins", "fresco_upload_megabytes", "fresco_weights_dir",
        "fresco_webhooks", "fresco_workers",
    }


@dataclass
class Axis:
    """An axis of the plot script."""

    label: str
    type: Any
    apply: Callable[[Any, Any, Any], None]
    choices: Any = None
    is_img2img: bool = True


def plot_axes(*, has_class: bool) -> dict[str, Axis]:
    """What the plot script offers after the UI was built twice.

    Args:
        has_class: whether the plot's module names the class of axes, or its axes alone tell it.
    """
    plot = ModuleType("xyz_grid")
    axes = [] if has_class else [Axis("Sampler", str, lambda *_: None)]
    vars(plot).update({"AxisOptionImg2Img": Axis} if has_class else {}, axis_options=axes)
    kind = type("Plot", (Script,), {"__module__": "xyz_grid.py"})
    scripts_data.append(ScriptClassData(kind, "xyz_grid.py", plot))
    for _ in range(2):
        script_callbacks.tell("before_ui")
    assert len({axis.label for axis in axes}) == len(axes)
    return {axis.label: axis for axis in axes}


@pytest.mark.parametrize("has_class", [True, False])
def test_axes_of_plots(double: DoubleHost, has_class: bool) -> None:
    axis = plot_axes(has_class=has_class)["[FRESCO] temporal attention"]
    assert axis.choices() == ["True", "False"]

    class Plot(Script):
        def title(self) -> str:
            return "Plot"

        def show(self, is_img2img: bool) -> Any:
            return AlwaysVisible

        def setup(self, p: Any, *args: Any, **kwargs: Any) -> None:
            axis.apply(p, "False", [])

    double.add(Plot())
    assert "FRESCO temporal attention: False" in double.img2img(frames(3), QUICK).infotext


def test_the_double_leaves_no_trace(tmp_path: Path) -> None:
    before = dict(sys.modules)
    with running(ROOT / "scripts" / "fresco.py", tmp_path):
        assert "fresco.webui.img2img.script" in sys.modules
        assert importlib.import_module("modules.shared").opts is not None
    assert not {name for name in sys.modules if name.partition(".")[0] in ("modules", "gradio")}
    assert {name for name in sys.modules if name.startswith("fresco.webui")} == {
        name for name in before if name.startswith("fresco.webui")
    }
    assert not hasattr(sys.modules["fresco.webui"], "script")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("modules.shared")
