"""Written into pictures, and pasted back."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from fresco import __version__
from fresco.server.images import add_text
from fresco.settings import PRESETS
from fresco.webui.img2img.infotext import (
    find_pasted_preset,
    name_option,
    read_pasted,
    write_infotext,
)
from fresco.webui.img2img.request import list_arguments, list_options, parse_arguments
from fresco.webui.widgets.handover import take_over
from tests.helpers.clips import moving_texture, write_clip
from tests.helpers.webui import script_callbacks
from tests.helpers.webui.double import DoubleHost
from tests.helpers.webui.requests import NONE, frames
from tests.helpers.webui.scripts import AlwaysVisible, Script

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
    assert len(pasted) == 2 + len(list_options())


@pytest.mark.parametrize(("options", "wanted"), [
    *(({"preset": name}, name) for name in PRESETS), ({"temporal_attention": False}, None),
])
def test_the_parts_that_are_pasted_name_their_preset(
    options: dict[str, Any], wanted: str | None
) -> None:
    texts = {key: str(value) for key, value in written(**options).items()}
    assert find_pasted_preset(texts) == wanted
    assert find_pasted_preset({"Steps": "4"}) is None


def test_every_image_says_which_frame_it_is(double: DoubleHost, tmp_path: Path) -> None:
    """Also in the names of files, and the tab may take the call over."""
    clip = write_clip(tmp_path / "a, b.mp4", moving_texture(9))
    names: list[str] = []

    class Saving(Script):
        """Saves each image, as the WebUI does with the call at hand."""

        def title(self) -> str:
            return "Saving"

        def show(self, is_img2img: bool) -> Any:
            return AlwaysVisible

        def postprocess_image(self, p: Any, pp: Any, *args: Any) -> None:
            saved = SimpleNamespace(p=p, filename=str(tmp_path / "00001-7.png"))
            script_callbacks.tell("before_image_saved", saved)
            names.append(Path(saved.filename).name)

    double.add(Saving())
    keys = (0, 2, 5, 8)
    answer = double.img2img([], NONE | {
        "path": str(clip), "keys": "0,2,5,8", "batch_size": 3, "detect_shots": False})
    told = [re.findall(r'FRESCO frame: (\d+), FRESCO source: "(.*?)"', text)
            for text in answer.infotexts]
    assert told == [[(str(key), "a, b.mp4")] for key in keys]
    assert names == [f"00001-7-frame{key:06d}.png" for key in keys]
    call = take_over("a, b.mp4", keys[1:])
    assert call
    assert (call.path, call.settings.keyframes.keys) == (clip, "0,2,5,8")
    assert take_over("a, b.mp4", (3,)) is None


def test_a_keyframe_of_the_tab_stays_known_in_img2img(double: DoubleHost) -> None:
    image = frames(1)[0]
    assert "FRESCO frame" not in double.img2img([image], {"enabled": False}).infotext
    file = io.BytesIO()
    image.save(file, "PNG")
    told = add_text(file.getvalue(), "FRESCO", 'FRESCO frame: 16, FRESCO source: "dog.mp4"')
    with Image.open(io.BytesIO(told)) as known:
        known.load()
        answer = double.img2img([known], {"enabled": False})
    assert "FRESCO frame: 16, FRESCO source: dog.mp4" in answer.infotext
