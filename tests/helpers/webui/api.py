"""`/sdapi/v1/img2img`: a request becomes a call; an exception becomes a status."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from PIL import Image

from tests.helpers.webui import sd_samplers, shared
from tests.helpers.webui.client import Refused
from tests.helpers.webui.process_images import Processed, process_images
from tests.helpers.webui.processing import StableDiffusionProcessingImg2Img
from tests.helpers.webui.scripts import ScriptRunner

_FAULT, _NOT_FOUND, _UNPROCESSABLE = 500, 404, 422


def arguments(runner: ScriptRunner, given: dict[str, Any]) -> list[Any]:
    """Values of all controls: their own, and what a request says for some scripts."""
    values = [getattr(control, "value", None) for control in runner.inputs]
    for name, wanted in given.items():
        script = runner.find(name)
        if script is None:
            raise Refused(_UNPROCESSABLE, f"always on script {name} not found")
        room = script.args_to - script.args_from
        for place, value in enumerate(wanted.get("args", [])[:room]):
            values[script.args_from + place] = value
    return values


def img2img(
    runner: ScriptRunner, made: list[Any], *, init_images: list[Image.Image],
    alwayson_scripts: dict[str, Any], **fields: Any
) -> Processed:
    """One request.

    Args:
        made: is given the call's processing object, for tests to look at
    """
    name = fields.get("sampler_name", "Euler a")
    if name not in sd_samplers.SAMPLERS:
        raise Refused(_NOT_FOUND, "Sampler not found")
    values = arguments(runner, alwayson_scripts)
    with closing(StableDiffusionProcessingImg2Img(**fields)) as p:
        made.append(p)
        p.init_images, p.is_api = init_images, True
        p.scripts, p.script_args = runner, tuple(values)
        runner.run("setup", p)
        shared.state.begin("scripts_img2img")
        try:
            return process_images(p)
        except Exception as error:
            told = vars(error)
            status = told.get("status_code", _FAULT)
            raise Refused(status, str(told.get("detail", "") or error)) from error
        finally:
            shared.state.end()
