"""The script FRESCO of img2img, in the form that the WebUI needs."""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from modules.scripts import AlwaysVisible, Script

from fresco.options import from_dict
from fresco.webui.img2img.axes import AXES
from fresco.webui.img2img.infotext import name_option, write_infotext
from fresco.webui.img2img.keyframe_texts import (
    FRAME,
    FRAMES,
    NOTES,
    SOURCE,
    name_file,
    read_texts,
)
from fresco.webui.img2img.refusal import RefusedCall
from fresco.webui.img2img.request import (
    Request,
    list_arguments,
    list_options,
    parse_arguments,
)
from fresco.webui.obstacles import Part, get_obstacle, guard_entrance, report_obstacle
from fresco.webui.widgets.events import keep_unsaved

if TYPE_CHECKING:
    from fresco.webui.img2img.call import GuidedCall
    from fresco.webui.img2img.guard import CallGuard

_WHAT = "FRESCO in img2img"
_GUARD = "fresco_guard"
"""Attribute of the processing object that holds this call's guard."""


class FrescoScript(Script):
    """Translates a video's keyframes in img2img; off unless switched on."""

    def title(self) -> str:
        """Name on the page and, in lower case, in the API."""
        return "FRESCO"

    def show(self, is_img2img: bool) -> Any:
        """Show the script in img2img only."""
        return AlwaysVisible if is_img2img else False

    def ui(self, is_img2img: bool) -> list[Any]:
        """Make the controls, in the order of the API's arguments by position.

        It never raises, and never changes their number: otherwise arguments of other scripts would
        be shifted, and some WebUIs would end their API.
        """
        self._obstacle = self._obstacle or get_obstacle(Part.IMG2IMG)
        if not self._obstacle:
            try:
                return self._of_the_same_number(self._make_controls())
            except Exception as error:
                self._obstacle = report_obstacle(_WHAT, error)
        explain = guard_entrance(_WHAT, lambda: self._of_the_same_number(self._explain()))
        return explain() or []

    _obstacle = ""
    """Why it cannot work here; empty: it can."""
    _made = 0
    """Controls that were made first; 0: none yet."""

    def _make_controls(self) -> list[Any]:
        from fresco.webui.img2img import controls as page

        with page.make_switch(self.elem_id) as enabled:
            controls = page.make_source_controls(self.elem_id)
            controls |= page.make_option_controls(self.elem_id)
        self.infotext_fields = page.make_paste_fields(enabled, controls)
        self.paste_field_names = [name_option(entry) for entry in list_options()]
        return [enabled, *(controls[name] for name in list_arguments())]

    def _explain(self) -> list[Any]:
        """Show the reason in place of the controls, with a hidden switch for programs."""
        self.infotext_fields, self.paste_field_names = [], []
        with gr.Accordion("FRESCO", open=False, elem_id="fresco_obstacle"):
            gr.Markdown(self._obstacle)
            return [_make_hidden(False)]

    def _of_the_same_number(self, controls: list[Any]) -> list[Any]:
        self._made = self._made or len(controls)
        missing = self._made - len(controls)
        return [*controls, *(_make_hidden(None) for _ in range(missing))][:self._made]

    def before_process(self, p: Any, *args: Any) -> None:
        """Begin a call in which FRESCO is on."""
        _release(p)
        if not args or args[0] in (False, None):
            _keep_frame(p)
            return
        if self._obstacle:
            if _asks_for_it(args):
                setattr(p, _GUARD, RefusedCall(p, self._obstacle))
            return
        try:
            from fresco.webui.img2img.guard import CallGuard

            guard = CallGuard(p, lambda: _release(p))
        except Exception as error:  # the WebUI would go on without FRESCO
            setattr(p, _GUARD, RefusedCall(p, report_obstacle(_WHAT, error)))
            return
        setattr(p, _GUARD, guard)

        def begin() -> None:
            request = parse_arguments([_plain(value) for value in args])
            if request is None:
                _release(p)
                _keep_frame(p)
                return
            request = _with_axes(request, getattr(p, AXES, {}))
            guard.start(request, p)
            p.extra_generation_params |= write_infotext(request)
            p.extra_generation_params |= _tell_frames(guard.call)

        guard.attempt(begin)

    def process(self, p: Any, *args: Any) -> None:
        """Set one seed for all frames."""
        if guard := _guard(p):
            guard.attempt(lambda: guard.call.share_seed(p))

    def before_process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Set the frames of an iteration."""
        if guard := _guard(p):
            guard.attempt(lambda: guard.call.begin_batch(p, kwargs["batch_number"]))

    def postprocess_batch_list(self, p: Any, pp: Any, *args: Any, **kwargs: Any) -> None:
        """Remove the anchors from the result."""
        if guard := _guard(p):
            guard.attempt(lambda: guard.call.keep_new(p, pp))

    def postprocess_image(self, p: Any, pp: Any, *args: Any) -> None:
        """Apply the image's own mask."""
        if guard := _guard(p):
            guard.attempt(lambda: guard.call.show_mask(p))

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        """Release a call that ended well; `before_process` releases any other."""
        if guard := _guard(p):
            guard.call.hand_over(p)
            # In the API's info, which has no place for the text of a single image.
            known = {**processed.extra_generation_params}
            known.pop(FRAME, None)
            processed.extra_generation_params = {
                **known, FRAMES: list(guard.call.numbers), NOTES: list(guard.notes),
            }
        _release(p)


def name_saved_image(params: Any) -> None:
    """Put the frame's number into the name of an image that the WebUI is about to save."""
    guard = _guard(params.p) if params.p is not None else None
    if guard is None or Path(params.filename).name.startswith("grid"):
        return
    frame = guard.call.find_frame(int(getattr(params.p, "batch_index", 0)))
    if frame is not None:
        params.filename = name_file(params.filename, frame)


def _tell_frames(call: GuidedCall) -> dict[str, Any]:
    """Make the infotext of each image; the WebUI asks for it image by image."""
    def find_frame(*, use_main_prompt: bool = False, index: int = 0, **_: Any) -> int | None:
        return None if use_main_prompt else call.find_frame(index)

    return {FRAME: find_frame, **({SOURCE: call.source} if call.source else {})}


def _keep_frame(p: Any) -> None:
    """Keep the number of a keyframe that the tab has sent to img2img."""
    first = next(iter(getattr(p, "init_images", None) or ()), None)
    texts = getattr(first, "info", None)
    if isinstance(texts, Mapping):
        p.extra_generation_params |= read_texts(texts)


def _make_hidden(value: Any) -> Any:
    """Make a control that only programs can set."""
    return keep_unsaved(gr.Checkbox(value=value, label="FRESCO", visible=False))


def _asks_for_it(args: Sequence[Any]) -> bool:
    """Whether FRESCO is on, in any form of the arguments."""
    first = args[0]
    return first.get("enabled", True) is not False if isinstance(first, Mapping) else bool(first)


def _guard(p: Any) -> CallGuard | None:
    guard = getattr(p, _GUARD, None)
    return None if isinstance(guard, RefusedCall) else guard


def _release(p: Any) -> None:
    """Give the processing object its own sampling back, because it may be used again."""
    if guard := getattr(p, _GUARD, None):
        guard.release()
        delattr(p, _GUARD)


def _plain(value: Any) -> Any:
    """Convert a file of gradio to its path; a text stays a text.

    Gradio 3 gives a file, gradio 4 a text that has a `name` besides.
    """
    name = getattr(value, "name", None)
    return Path(name) if isinstance(name, str) else value


def _with_axes(request: Request, axes: dict[str, tuple[str, Any]]) -> Request:
    """Change the request by the options that an X/Y/Z plot varies."""
    groups: dict[str, dict[str, Any]] = {}
    for name, (group, value) in axes.items():
        groups.setdefault(group, {})[name] = value
    return dataclasses.replace(request, settings=from_dict(groups, request.settings))
