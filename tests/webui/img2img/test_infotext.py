"""Written into pictures, and pasted back."""

from __future__ import annotations

from typing import Any

import pytest

from fresco import __version__
from fresco.webui.img2img.infotext import name_option, read_pasted, write_infotext
from fresco.webui.img2img.request import list_arguments, list_options, parse_arguments
from tests.helpers.webui.double import DoubleHost

CHANGED: dict[str, Any] = {
    "batch_size": 5, "keys": "0,11,23", "detect_shots": False, "spatial_weight": 12.5,
    "estimator": "dis", "background_smoothing": True,
}


def written(**options: Any) -> dict[str, Any]:
    request = parse_arguments([{"path": "clip.mp4", **options}])
    assert request is not None
    return write_infotext(request)


def test_only_what_differs_is_written() -> None:
    assert written() == {"FRESCO": __version__}
    assert written(**CHANGED) == {
        "FRESCO": __version__, "FRESCO batch size": 5, "FRESCO keys": "0,11,23",
        "FRESCO detect shots": False, "FRESCO spatial weight": 12.5, "FRESCO estimator": "dis",
        "FRESCO background smoothing": True,
    }


@pytest.mark.parametrize("entry", list_options(), ids=lambda entry: entry.name)
def test_every_option_comes_back_from_text(entry: Any) -> None:
    """A picture's infotext holds texts only."""
    texts = {key: str(value) for key, value in written(**CHANGED).items()}
    wanted = CHANGED.get(entry.name, entry.default)
    assert read_pasted(entry, texts) == wanted
    assert type(read_pasted(entry, texts)) is entry.type


def test_keys_are_ones_that_the_webui_reads() -> None:
    """Letters, digits, blanks, hyphens and slashes."""
    names = [name_option(entry) for entry in list_options()]
    assert all(name.replace(" ", "").isalnum() for name in names)
    assert len(set(names)) == len(names)


def test_pasted_into_the_controls(double: DoubleHost) -> None:
    """None leaves a control as it is; the API of hosts with gradio 4 takes anything else for a
    value."""
    script = double.script
    texts = {key: str(value) for key, value in written(**CHANGED).items()}
    names = {id(control): name for name, control in zip(
        ("enabled", *list_arguments()), script.controls, strict=True
    )}
    pasted = {names[id(control)]: read for control, read in script.infotext_fields}
    assert {read({"Steps": "4", "Model": "x"}) for read in pasted.values()} == {None}
    assert pasted["enabled"](texts) is True
    assert pasted["keyframes.keys"](texts) == "0,11,23"
    assert pasted["keyframes.detect_shots"](texts) is False
    assert len(pasted) == 1 + len(list_options())
