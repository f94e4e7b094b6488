"""What cannot be done is said before anything is sampled, as status 422 and one sentence."""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from tests.helpers.webui import errors, shared
from tests.helpers.webui.api import arguments
from tests.helpers.webui.client import REQUEST, Host, Refused, script_arguments
from tests.helpers.webui.double import DoubleHost
from tests.helpers.webui.gradio_double import Checkbox
from tests.helpers.webui.img2img import call_by_page, process_batch
from tests.helpers.webui.process_images import process_images
from tests.helpers.webui.processing import StableDiffusionProcessingImg2Img
from tests.helpers.webui.requests import QUICK, frames
from tests.helpers.webui.scripts import AlwaysVisible, Script

UNPROCESSABLE = 422


def refusal(host: Host, given: Any, options: Any, **payload: Any) -> str:
    """What a request is answered, of which nothing was sampled: the double shows it."""
    double = host if isinstance(host, DoubleHost) else None
    if double:
        double.model.rows.clear()
    with pytest.raises(Refused) as caught:
        host.img2img(given, options, **payload)
    if double:
        assert double.model.rows == []
        ours = {"init", "sample", "setup_prompts", "fresco_guard"}
        assert not ours & set(vars(double.made[-1]))
    assert caught.value.status == UNPROCESSABLE
    assert caught.value.detail.endswith((".", "?"))
    return caught.value.detail


@pytest.mark.parametrize(("options", "said"), [
    ({"batch_sze": 4}, "'batch_sze' is not an option of FRESCO; did you mean batch_size?"),
    ({"batch_size": 2}, "keyframes.batch_size is 2; give 3 to 64."),
    ({"batch_size": "many"}, "keyframes.batch_size is 'many', a str"),
    ({"spatial_weight": float("nan")}, "guidance.spatial_weight is nan"),
    ({"estimator": "magic"}, "flow.estimator is 'magic'; choose one of"),
    ({"temporal_attention": 1}, "guidance.temporal_attention is 1, a int"),
    ({"key_prompts": ["night"]}, "sampling.key_prompts is ['night'], a list; give a mapping"),
    ({"key_prompts": {"0": 1}}, "sampling.key_prompts holds 1"),
    ({"key_prompts": {"x": "night"}}, "key_prompts"),
    ({"key_prompts": {"2": "a cat AND a dog"}}, "composed with AND"),
    ({"keys": "0,1"}, "keyframes.keys cannot choose among the images of img2img (init_images)"),
    ({"path": "/no/where.mp4"}, "/no/where.mp4 does not exist"),
    ({"video": "***"}, "video is not base64"),
    ({"video": "AAECAw=="}, "video cannot be"),
    ({"min_interval": 40}, "keyframes.min_interval is 40, above keyframes.max_interval"),
    (["yes"], "The first argument of FRESCO is 'yes'"),
    ([5], "The first argument of FRESCO is 5"),
    ([True, None, "", "ten"], "keyframes.min_interval is 'ten'"),
])
def test_wrong_arguments(host: Host, options: Any, said: str) -> None:
    detail = refusal(host, frames(3), options)
    assert said in detail
    assert tempfile.gettempdir() not in detail


@pytest.mark.parametrize(("payload", "said"), [
    ({"n_iter": 2}, "Batch count is 2"),
    ({"batch_size": 2}, "Batch size is 2"),
    ({"resize_mode": 3}, "Resize mode is latent upscale"),
    ({"sampler_name": "DPM adaptive"}, "The sampler is DPM adaptive"),
    ({"refiner_checkpoint": "tiny"}, "The refiner tiny"),
    ({"mask": Image.new("L", (64, 64), 255)}, "Only masked"),
])
def test_requests_that_cannot_be_guided(
    host: Host, payload: dict[str, Any], said: str
) -> None:
    assert said in refusal(host, frames(3), QUICK, **payload)


class SoftInpainting(Script):
    """The WebUI's own script of that name, switched on."""

    def title(self) -> str:
        return "Soft Inpainting"

    def show(self, is_img2img: bool) -> Any:
        return AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        return [Checkbox(True, label="Soft inpainting")]


@pytest.mark.parametrize("options", [QUICK, QUICK | {"masks": "masks"}])
def test_soft_inpainting(double: DoubleHost, tmp_path: Path, options: dict[str, Any]) -> None:
    """Only where there is a mask: the script does nothing without."""
    double.add(SoftInpainting())
    mask = None if "masks" in options else Image.new("L", (64, 64), 255)
    said = refusal(double, frames(3), options, mask=mask, inpaint_full_res=False)
    assert "Soft inpainting takes masks by their place" in said
    assert len(double.img2img(frames(3), QUICK).images) == 3


def test_the_batch_tab(double: DoubleHost) -> None:
    """It makes a call for every file, with one processing object."""
    p = StableDiffusionProcessingImg2Img(**REQUEST)
    p.scripts = double.runner
    p.script_args = tuple(arguments(double.runner, script_arguments(QUICK)))
    with pytest.raises(Exception, match=r"one file at a time.*as FRESCO path"):
        process_batch(p, frames(3))
    assert double.model.rows == []
    p.script_args = tuple(arguments(double.runner, script_arguments(None)))
    assert [len(done.images) for done in process_batch(p, frames(3))] == [1, 1, 1]


def test_the_page_is_told_by_its_own_labels(double: DoubleHost) -> None:
    """It shows the class of an error and its text, and prints its causes to the console."""
    p = StableDiffusionProcessingImg2Img(**REQUEST)
    p.scripts, p.init_images = double.runner, frames(3)
    p.script_args = tuple(
        arguments(double.runner, script_arguments({"min_interval": 40}))
    )
    with pytest.raises(Exception, match="min interval is 40") as caught:
        process_images(p)
    shown = f"{type(caught.value).__name__}: {caught.value}"
    assert shown.startswith("FRESCO: min interval is 40, above max interval, which is 30;")
    assert caught.value.__cause__ is None
    kinds = [kind.__name__ for kind in type(caught.value).__mro__]
    assert "HTTPException" in kinds, "the WebUI's API prints a traceback of all others"


def page_call(double: DoubleHost, options: dict[str, Any]) -> StableDiffusionProcessingImg2Img:
    p = StableDiffusionProcessingImg2Img(**REQUEST)
    p.scripts, p.init_images = double.runner, frames(3)
    p.script_args = tuple(arguments(double.runner, script_arguments(options)))
    return p


def test_a_refusal_of_the_page_is_one_line_of_the_console(
    double: DoubleHost, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Both before anything is sampled and within the sampling; other errors are as ever."""
    before = vars(errors)["report"], vars(errors)["display"]
    said = call_by_page(page_call(double, {"min_interval": 40}))
    assert said == caplog.records[-1].getMessage()
    assert "min interval is 40" in said
    late = page_call(double, QUICK)
    late.sampler_name, late.denoising_strength = "DDIM", 0.3
    assert "raise the denoising strength" in call_by_page(late)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert capsys.readouterr() == ("", "")
    assert (errors.report, errors.display) == before, "nothing is left behind"
    other = page_call(double, QUICK)
    other.refiner_checkpoint, other.width = None, "wide"
    call_by_page(other)
    assert "Traceback" in capsys.readouterr().err


def test_forge_kinds_print_the_sentence_too(
    double: DoubleHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They make calls of the page in a thread that prints what goes wrong itself."""
    monkeypatch.setitem(sys.modules, "modules_forge.main_thread", ModuleType("main_thread"))
    printer = traceback.print_exc
    try:
        process_images(page_call(double, {"min_interval": 40}))
    except Exception:
        traceback.print_exc()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert capsys.readouterr() == ("", "")
    assert traceback.print_exc is printer


class Recorder(Script):
    """Another script, such as ControlNet, which wants an image."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def title(self) -> str:
        return "Recorder"

    def show(self, is_img2img: bool) -> Any:
        return AlwaysVisible

    def process(self, p: Any, *args: Any) -> None:
        self.seen.append("process")


def test_other_scripts_never_meet_a_refused_call(double: DoubleHost) -> None:
    """They would complain about images that are not there."""
    script = Recorder()
    double.add(script)
    refusal(double, [], {"path": "/no/where.mp4"})
    assert script.seen == []
    double.img2img(frames(3), QUICK)
    assert script.seen == ["process"]


def test_composed_prompts(host: Host) -> None:
    said = refusal(host, frames(3), QUICK, prompt="a cat AND a dog")
    assert "AND" in said


def test_frames_of_different_sizes(host: Host) -> None:
    said = refusal(host, [*frames(2), *frames(1, 80)], QUICK)
    assert "different sizes (64x64, 80x64)" in said


def test_no_frame(host: Host) -> None:
    assert "There is no frame" in refusal(host, [], QUICK)


def test_empty_folder(host: Host, tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(host, [], QUICK | {"path": str(tmp_path)})


def test_path_outside_while_others_can_ask(double: DoubleHost, tmp_path: Path) -> None:
    shared.cmd_opts.listen = True
    outside = str(tmp_path.parent)
    assert "outside of the folders" in refusal(double, [], QUICK | {"path": outside})


def test_a_refused_request_leaves_the_next_alone(host: Host) -> None:
    before = host.img2img(frames(1))
    refusal(host, frames(3), {"batch_sze": 4})
    after = host.img2img(frames(1))
    assert after.infotexts == before.infotexts
    assert after.images[0].tobytes() == before.images[0].tobytes()


def test_and_is_found_where_no_reference_pass_would_meet_it(host: Host) -> None:
    options = QUICK | {"spatial_attention": False, "spatial_optimization": False}
    said = refusal(
        host, frames(3), options, prompt="a cat AND a dog",
        override_settings={"skip_early_cond": 1.0},
    )
    assert "composed with AND" in said


def test_sampler_without_a_step(host: Host) -> None:
    """DDIM makes one model call fewer than it plans: none at a low strength."""
    said = refusal(
        host, frames(3), QUICK, sampler_name="DDIM", steps=4, denoising_strength=0.3
    )
    assert "raise the denoising strength" in said
