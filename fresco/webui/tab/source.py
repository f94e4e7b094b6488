"""The tab's first steps: the video, its facts, and its keyframes on the timeline."""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from fresco.errors import SettingsError
from fresco.hosts.options import HostOptions
from fresco.server.service import Service
from fresco.video.index import VideoInfo
from fresco.video.reader import open_source
from fresco.webui.tab.detections import Detections
from fresco.webui.tab.jobs import LoadedClip, read_detection_settings
from fresco.webui.tab.run import RunParts
from fresco.webui.tab.settings import SettingControls
from fresco.webui.tab.text import describe_error, render_facts, render_note
from fresco.webui.tab.values import count_controls, list_entries, write_values
from fresco.webui.widgets.events import HIDDEN, keep_unsaved, on
from fresco.webui.widgets.file import FileControl, make_file_control, use_upload
from fresco.webui.widgets.handover import take_over

_TEXTS = (("keyframes", "keys"), ("sampling", "key_prompts"))
"""Texts that belong to one video; they are emptied when another is loaded."""
_EMPTIED = (*("",) * len(_TEXTS), None)
"""Those texts, and the box of the upload: what is open is shown beside it, and it takes another."""


@dataclass(frozen=True, slots=True)
class SourceParts:
    """Components of this section that others need."""

    source: Any
    """State of `LoadedClip` or None."""
    upload: FileControl
    """The file."""
    path: Any
    """The server's path."""
    load: Any
    """The button of the path."""
    facts: Any
    """Place for facts about the video."""
    message: Any
    """Place for messages."""


def make_source_section() -> SourceParts:
    """Make upload, path, and the place for facts about the video."""
    with gr.Row(elem_id="fresco_source"):
        with gr.Column(scale=5, min_width=280):
            upload = make_file_control(
                "fresco_upload", label="Video", file_types=["video"], height=110
            )
            with gr.Row(elem_id="fresco_path_row"):
                path = keep_unsaved(gr.Textbox(
                    label="Or a path on the server", elem_id="fresco_path", scale=5,
                    placeholder="a video, or a folder of frames",
                ))
                load = gr.Button("Load", elem_id="fresco_load", scale=1, min_width=80)
            message = gr.HTML(elem_id="fresco_source_message")
            shown = gr.HTML(elem_id="fresco_facts")
        with gr.Column(scale=6, min_width=280):
            gr.HTML('<div id="fresco_view"></div>')
    return SourceParts(gr.State(None), upload, path, load, shown, message)


def make_keyframe_section(controls: SettingControls) -> Any:
    """Make the timeline and its controls; return the button that finds keyframes."""
    gr.HTML('<div id="fresco_timeline"></div>')
    with gr.Row(elem_id="fresco_detect_row"):
        controls.make("keyframes", "min_interval", "max_interval")
        detect = gr.Button("Detect keyframes", elem_id="fresco_detect", min_width=140)
    with gr.Accordion("Shots and range", open=False, elem_id="fresco_section_keyframes"):
        with gr.Row():
            controls.make("keyframes", "detect_shots", "shot_threshold", "shot_min_length")
        with gr.Row():
            controls.make("output", "first_frame", "last_frame")
    with gr.Accordion("Keyframes as text", open=False, elem_id="fresco_section_keys"):
        controls.make("keyframes", "keys", lines=2)
        controls.make("sampling", "key_prompts", lines=3, placeholder="38: closed eyes")
    return detect


def bind_source(
    service: Service, detections: Detections, parts: SourceParts, controls: SettingControls,
    run: RunParts, detect: Any,
) -> None:
    """Bind opening a video or a job, and finding keyframes."""
    identity = keep_unsaved(gr.Textbox(visible=HIDDEN, elem_id="fresco_detection"))

    def begin(source: LoadedClip | None, *values: Any) -> str:
        """Return the id of the detection, or why none began."""
        if source is None:
            return json.dumps({"error": ""})
        try:
            settings = read_detection_settings(values, source.last)
            path = Path(source.path)
            started = detections.start(path, settings, service.videos.scan_folder(path))
            return json.dumps({"id": started, "last": source.last, "loading": source.loading})
        except Exception as error:
            return json.dumps({"error": describe_error(error)})

    def then_detect(event: Any) -> None:
        found = on(event, begin, [parts.source, *controls.all], [identity])
        on(found.then, None, [identity], script="fresco.detecting")

    shown = [parts.source, parts.facts, parts.message]
    texts = controls.named(*_TEXTS)
    file = parts.upload.file
    for event, load, given in (
        (parts.upload.taken, _upload_loader(service), file),
        (file.upload, _upload_loader(service), file),
        (parts.load.click, _path_loader(service), parts.path),
        (parts.path.submit, _path_loader(service), parts.path),
    ):
        loaded = on(event, load, [given], [*shown, *texts, file], script="fresco.loading")
        then_detect(loaded.then)
    then_detect(detect.click)
    opened = on(run.open.click, _job_opener(service), [run.chosen],
                [*shown, *controls.all], script="fresco.opening")
    then_detect(opened.then)
    carried = keep_unsaved(gr.Textbox(visible=HIDDEN, elem_id="fresco_carried"))
    carry = gr.Button("Carry", visible=HIDDEN, elem_id="fresco_carry")
    taken = on(carry.click, _call_opener(service), [carried], [*shown, *controls.all],
               script="fresco.carried")
    then_detect(taken.then)


def _upload_loader(service: Service) -> Any:
    def load(file: Any) -> tuple[Any, ...]:
        try:
            with use_upload(file) as path, path.open("rb") as data:
                clip = service.videos.add(data, path.name)
            return *_shown(str(clip.path), clip.name, clip.info), *_EMPTIED
        except Exception as error:
            return *_kept(error, len(_TEXTS)), None

    return load


def _path_loader(service: Service) -> Any:
    def load(path: str) -> tuple[Any, ...]:
        try:
            path = path.strip().strip('"')
            if not path:
                raise SettingsError("The path is empty; name a video or a folder of frames.")
            service.environment.require_allowed(path)
            with open_source(Path(path)) as opened:
                info = opened.info
            return *_shown(path, Path(path).name, info), *_EMPTIED
        except Exception as error:
            return *_kept(error, len(_TEXTS)), None

    return load


def _job_opener(service: Service) -> Any:
    def load(job: str) -> tuple[Any, ...]:
        """Return a job's clip, facts and message, then the values of the controls."""
        try:
            request = service.engine.request(job)
            with open_source(Path(request.source)) as opened:
                info = opened.info
            values = write_values(request.settings, request.host)
            updates = [gr.update() if value is None else gr.update(value=value) for value in values]
            name = request.title or Path(request.source).name
            return *_shown(request.source, name, info), *updates
        except Exception as error:
            return _kept(error, count_controls())

    return load


def _call_opener(service: Service) -> Any:
    def load(text: str) -> tuple[Any, ...]:
        """Return clip, facts and message of a guided img2img call, then the values of the controls.

        Args:
            text: name of the source and numbers of the keyframes, as JSON.
        """
        try:
            wanted = json.loads(text)
            name = str(wanted["source"])
            call = take_over(name, [int(number) for number in wanted["numbers"]])
            if call is None:
                raise SettingsError(
                    f"The video {name} of these keyframes is no longer known; load it here. The "
                    "keyframes lie under External keyframes."
                )
            path = call.path
            if call.uploaded:
                with path.open("rb") as data:
                    path = service.videos.add(data, name).path
            else:
                service.environment.require_allowed(str(path))
            with open_source(path) as opened:
                info = opened.info
            values = write_values(call.settings, HostOptions())[:len(list_entries())]
            host = [gr.update()] * (count_controls() - len(values))
            return *_shown(str(path), name, info), *[gr.update(value=v) for v in values], *host
        except Exception as error:
            return _kept(error, count_controls())

    return load


def _shown(path: str, name: str, info: VideoInfo) -> tuple[LoadedClip, str, str]:
    source = LoadedClip(path, name, info.frames - 1, secrets.token_hex(8))
    return source, render_facts(name, info), ""


def _kept(error: Exception, controls: int) -> tuple[Any, ...]:
    """Describe an error; the video that was loaded before stays."""
    message = render_note(describe_error(error), "bad")
    return gr.update(), gr.update(), message, *[gr.update()] * controls
