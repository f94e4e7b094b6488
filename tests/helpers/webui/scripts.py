"""`modules.scripts`: the base of scripts, and the runner that calls them."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.helpers.webui import errors, script_callbacks

AlwaysVisible = object()
scripts_img2img: Any = None
"""The runner of img2img; none before the page is built."""


@dataclass
class PostSampleArgs:
    """Latents after sampling."""

    samples: Any


@dataclass
class PostprocessBatchListArgs:
    """Pictures of an iteration; the list may change its length."""

    images: list[Any]


@dataclass
class PostprocessImageArgs:
    """One picture."""

    image: Any


class Script:
    """What an extension derives from; every method is optional."""

    name: str | None = None
    filename = ""
    args_from = args_to = 0
    alwayson = is_img2img = is_txt2img = False
    infotext_fields: Any = None
    paste_field_names: Any = None
    section: str | None = None
    controls: Any = None

    def title(self) -> str:
        """Shown, and in small letters the name in the API."""
        raise NotImplementedError

    def show(self, is_img2img: bool) -> Any:
        """Whether it is listed."""
        return True

    def ui(self, is_img2img: bool) -> list[Any] | None:
        """Controls; their values are the arguments of every callback."""
        return None

    def elem_id(self, item_id: str) -> str:
        """Id of a control."""
        both = self.show(True) == self.show(False)
        tab = ("img2img_" if self.is_img2img else "txt2img_") if both else ""
        return f"script_{tab}{re.sub(r'[^a-z0-9]', '_', self.title().lower())}_{item_id}"

    def _nothing(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Scripts overwrite what they need."""

    setup = before_process = process = before_process_batch = process_batch = _nothing
    after_extra_networks_activate = process_before_every_sampling = post_sample = _nothing
    postprocess_batch = postprocess_batch_list = postprocess_image = _nothing
    postprocess_maskoverlay = postprocess_image_after_composite = postprocess = _nothing


@dataclass
class ScriptClassData:
    """A class found in a file."""

    script_class: type[Script]
    path: str
    module: ModuleType


scripts_data: list[ScriptClassData] = []


class ScriptRunner:
    """The scripts of one tab."""

    def __init__(self) -> None:
        self.alwayson_scripts: list[Script] = []
        self.inputs: list[Any] = [None]

    def add(self, script: Script, path: str = "") -> None:
        """List a script if it wants to be, with its controls."""
        script.is_img2img, script.filename = True, path
        if script.show(True) is not AlwaysVisible:
            return
        script.alwayson = True
        script.args_from = script.args_to = len(self.inputs)
        self.alwayson_scripts.append(script)
        with errors.swallowed("ui"):
            script.controls = script.ui(True)
            script.name = script.title().lower()
            self.inputs += script.controls or []
            script.args_to = len(self.inputs)

    def run(self, event: str, p: Any, *args: Any, **kwargs: Any) -> None:
        """Call one callback of every script; its errors are swallowed."""
        for script in self.alwayson_scripts:
            with errors.swallowed(f"{event} of {script.name}"):
                given = p.script_args[script.args_from:script.args_to]
                getattr(script, event)(p, *args, *given, **kwargs)

    def find(self, name: str) -> Script | None:
        """By its name in the API."""
        return next((s for s in self.alwayson_scripts if s.title().lower() == name.lower()), None)


def load(path: Path) -> ScriptRunner:
    """Execute an extension's file and list every class in it that is a script."""
    scripts_data.clear()
    script_callbacks.clear()
    spec = importlib.util.spec_from_file_location(path.name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[f"scripts.{path.stem}"] = module
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Script):
            scripts_data.append(ScriptClassData(value, str(path), module))
    script_callbacks.tell("ui_settings")
    script_callbacks.tell("before_ui")
    runner = ScriptRunner()
    for data in scripts_data:
        runner.add(data.script_class(), data.path)
    return runner
