"""Sentences of the tab, and HTML around them in which nothing of a file or user is markup."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterable

from fresco.errors import FrescoError
from fresco.server.ports import Check
from fresco.video.index import VideoInfo

NO_VIDEO = "There is no video yet; upload one, or load one by its path."

log = logging.getLogger("fresco")


def sentence(error: BaseException) -> str:
    """What went wrong, for people; what was not foreseen is logged with where it happened."""
    if isinstance(error, FrescoError):
        return str(error)
    log.error("The tab met a fault that was not foreseen.", exc_info=error)
    return f"A fault of the program, see its console: {error!r}"


def note(text: str, kind: str = "note") -> str:
    """A sentence as HTML; kinds are note, good and bad."""
    if not text:
        return ""
    role = "alert" if kind == "bad" else "status"
    lines = "<br>".join(html.escape(line) for line in text.splitlines())
    return f'<div class="fresco_note fresco_{kind}" role="{role}">{lines}</div>'


def clock(seconds: float) -> str:
    """A length of time for people, such as `1:23 min` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def facts(name: str, info: VideoInfo) -> str:
    """What was read of a video, as HTML."""
    rate = f"{float(info.rate):.3f}".rstrip("0").rstrip(".")
    known = [
        ("Video", name), ("Size", f"{info.width} x {info.height}"),
        ("Rate", f"{rate} fps" + (", varying" if info.variable_rate else "")),
        ("Frames", f"{info.frames}"), ("Length", clock(float(info.seconds))),
        ("Sound", "yes" if info.has_sound else "none"),
    ]
    cells = "".join(
        f'<div class="fresco_fact"><dt>{html.escape(what)}</dt><dd>{html.escape(value)}</dd></div>'
        for what, value in known
    )
    shots = '<div class="fresco_fact"><dt>Shots</dt><dd id="fresco_shots">...</dd></div>'
    notes = "".join(note(text) for text in info.notes)
    return f'<dl class="fresco_facts">{cells}{shots}</dl>{notes}'


def checks_table(checks: Iterable[Check]) -> str:
    """The check of the installation, as HTML."""
    rows = "".join(
        f'<tr class="fresco_{"good" if check.fine else "bad"}">'
        f'<td>{"&#10003;" if check.fine else "&#10007;"}'
        f'<span class="fresco_unseen">{"works" if check.fine else "does not work"}</span></td>'
        f"<th>{html.escape(check.name)}</th><td>{html.escape(check.text)}</td></tr>"
        for check in checks
    )
    return f'<table class="fresco_checks"><tbody>{rows}</tbody></table>'
