"""Make sentences of the tab and HTML around them. Texts of files and users are escaped."""

from __future__ import annotations

import html
import logging
import re
import time
from collections.abc import Iterable
from typing import Any

from fresco.errors import FrescoError
from fresco.options import Entry, rename_options
from fresco.progress import format_seconds
from fresco.server.jobs.job import (
    EARLIER_RESULT,
    Goal,
    JobRequest,
    JobStatus,
    State,
    dump_status,
)
from fresco.server.ports import Check
from fresco.video.index import VideoInfo

NO_VIDEO = "There is no video yet; upload one, or load one by its path."
HOST_LABELS = {
    "host.model": "Checkpoint", "host.sampler": "Sampler", "host.scheduler": "Noise schedule",
    "host.upscaler": "Upscaler",
    **{f"control.{name}": f"ControlNet {name.replace('_', ' ')}" for name in (
        "weight", "start", "end", "threshold_a", "threshold_b", "resolution", "control_mode",
        "resize_mode", "hints", "module",
    )},
}
"""Labels of the controls of what the host itself offers, by the names in messages."""
_HOST_NAMES = re.compile(rf"\b({'|'.join(map(re.escape, HOST_LABELS))})\b")

log = logging.getLogger("fresco")


def with_labels(text: str) -> str:
    """Replace the names of options in a message by the labels of their controls.

    An option without a control in the tab keeps its name.
    """
    renamed = rename_options(text, _label_of)
    return _HOST_NAMES.sub(lambda match: HOST_LABELS[match[0]], renamed)


def _label_of(entry: Entry) -> str:
    return ".".join(entry.place) if entry.option.instead else entry.label


def describe_error(error: BaseException) -> str:
    """Describe an error; an unexpected one is logged with its traceback."""
    if isinstance(error, FrescoError):
        return with_labels(str(error))
    log.error("The tab met an error that was not foreseen.", exc_info=error)
    return f"An error in the program, see its console: {error!r}"


def dump_job(status: JobStatus) -> dict[str, Any]:
    """Convert the status of a job for JSON, with labels in its sentences and durations in words."""
    left, began, ended = status.seconds_left, status.started, status.ended
    whole = status.job_seconds_left
    return {
        **dump_status(status), "message": with_labels(status.message),
        "notes": [with_labels(text) for text in status.notes],
        "left": "" if left is None else format_seconds(left),
        "whole_left": "" if whole is None else format_seconds(whole),
        "share": _count_share(status),
        "took": format_seconds(ended - began) if began and ended else "",
    }


def _count_share(status: JobStatus) -> float | None:
    """Share of a running job's time that has passed, 0 to 1; None if not known."""
    left = status.job_seconds_left
    if left is None or status.started is None or status.state.ended:
        return None
    passed = max(0.0, time.time() - status.started)
    return round(passed / (passed + left), 4) if passed + left else None


def name_next_step(status: JobStatus, request: JobRequest, *, has_video: bool) -> str:
    """Say what is missing in the shown video, and which button makes it; empty if nothing."""
    if not status.state.ended:
        return "The video of the previous run stays until there is a new one." if has_video else ""
    old = "The video is still that of the previous run. " if status.result == EARLIER_RESULT else ""
    if status.state is not State.DONE:
        return old and f"{old}Press Resume to continue."
    if status.goal is Goal.KEYFRAME:
        return (f"Keyframe {request.frame} is new. {old}Press Run propagation to make the video "
                "with it.")
    if status.goal is Goal.PREVIEW:
        return f"{old}Press Run keyframes for the other keyframes, or Run all for the video."
    if status.goal is Goal.KEYFRAMES:
        return f"{old}Press Run propagation to make the video from the keyframes."
    return ""


def render_note(text: str, kind: str = "note") -> str:
    """Make HTML of a sentence; kinds are note, good and bad."""
    if not text:
        return ""
    role = "alert" if kind == "bad" else "status"
    lines = "<br>".join(html.escape(line) for line in text.splitlines())
    return f'<div class="fresco_note fresco_{kind}" role="{role}">{lines}</div>'


def format_timecode(seconds: float) -> str:
    """Format the length of a video as players do: `4.2 s`, `1:23 min`, `1:02:03 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def render_facts(name: str, info: VideoInfo) -> str:
    """Make HTML of the facts about a video."""
    rate = f"{float(info.rate):.3f}".rstrip("0").rstrip(".")
    known = [
        ("Video", name), ("Size", f"{info.width} x {info.height}"),
        ("Rate", f"{rate} fps" + (", varying" if info.variable_rate else "")),
        ("Frames", f"{info.frames}"), ("Length", format_timecode(float(info.seconds))),
        ("Sound", "yes" if info.has_sound else "none"),
    ]
    cells = "".join(
        f'<div class="fresco_fact"><dt>{html.escape(what)}</dt><dd>{html.escape(value)}</dd></div>'
        for what, value in known
    )
    shots = '<div class="fresco_fact"><dt>Shots</dt><dd id="fresco_shots">...</dd></div>'
    notes = "".join(render_note(with_labels(text)) for text in info.notes)
    return f'<dl class="fresco_facts">{cells}{shots}</dl>{notes}'


def _describe_state(check: Check) -> tuple[str, str, str]:
    """Class, sign and word for a line of the check."""
    if check.fine:
        return "good", "&#10003;", "works"
    return ("bad", "&#10007;", "does not work") if check.needed else (
        "spare", "&#8211;", "optional, not there")


def render_checks(checks: Iterable[Check]) -> str:
    """Make HTML of the check of the installation."""
    rows = "".join(
        f'<tr class="fresco_{kind}"><td>{sign}<span class="fresco_unseen">{said}</span></td>'
        f"<th>{html.escape(check.name)}</th><td>{html.escape(with_labels(check.text))}</td></tr>"
        for check in checks for kind, sign, said in [_describe_state(check)]
    )
    return f'<table class="fresco_checks"><tbody>{rows}</tbody></table>'
