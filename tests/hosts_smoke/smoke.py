"""The smoke test of one host: started, asked, compared."""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from tests.helpers.clips import write_clip
from tests.helpers.job_environment import TINY
from tests.helpers.tiny_models import square_frames
from tests.helpers.webui.client import Refused
from tests.helpers.webui.host_kinds import A1111, STARTED, find_kind, read_version
from tests.helpers.webui.http_host import HttpHost, running_webui, text_of
from tests.helpers.webui.networks import NETWORK
from tests.hosts_smoke.cases import (
    CASES,
    PAYLOAD,
    SETTINGS,
    Case,
    draw_frames,
    join_frames,
    list_options,
)
from tests.hosts_smoke.reference import compare_strip, digest, write_strip
from tests.hosts_smoke.surroundings import describe_surroundings, name_differences

ABSENT = "-"
"""In the table: this host has no such thing, or nobody asked."""
JOB_FRAMES, PATIENCE = 8, 600
ENDED = ("cancelled", "failed", "done")
RELOAD_SECONDS = 300


@dataclass
class Outcome:
    """What was seen in one host, by column of the table."""

    host: str
    version: str
    model: str
    cells: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note(self, column: str, ask: Callable[[], str]) -> None:
        """Fill a cell; a failure is kept whole, and does not end the test."""
        try:
            self.cells[column] = ask()
        except (AssertionError, Refused, OSError) as error:
            self.cells[column] = "**failed**"
            self.failures.append(f"{self.host}, {column}: {error}")


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a host shall be tested."""

    model: str | None = None
    """Of `checkpoints.py`; None: the kind's usual one."""
    write_reference: bool = False
    """Store the images instead of comparing them."""
    compare_without: bool = True
    """Start it without FRESCO first, to compare all that is not ours."""


def try_host(webui: Path, folder: Path, wishes: Wishes) -> Outcome:
    """Everything that the table tells of one host.

    Args:
        webui: the host's folder
        folder: its data, an empty folder
    """
    kind = find_kind(webui)
    model = wishes.model or kind.models[0]
    outcome = Outcome(kind.name, read_version(webui), model)
    try:
        _start_and_ask(webui, folder, wishes, outcome)
    except (AssertionError, Refused) as error:
        outcome.failures.append(f"{kind.name}: {error}")
    return outcome


def _start_and_ask(webui: Path, folder: Path, wishes: Wishes, outcome: Outcome) -> None:
    model, frames = outcome.model, draw_frames(outcome.model)
    without: dict[str, Any] | None = None
    if wishes.compare_without:
        with running_webui(webui, folder / "without", model=model, fresco=False) as host:
            host.change_settings(SETTINGS)
            without = describe_surroundings(host, frames[0])
    with running_webui(webui, folder / "with", model=model) as host:
        host.change_settings(SETTINGS)
        try:
            _ask_everything(host, frames, without, wishes, outcome)
        finally:
            outcome.failures += find_errors(host.log.read_text("utf-8", "replace"))


def _ask_everything(
    host: HttpHost, frames: list[Image.Image], without: dict[str, Any] | None, wishes: Wishes,
    outcome: Outcome,
) -> None:
    note = outcome.note
    note("start", lambda: f"{host.started_in:.0f} s, {host.read_memory()['VmRSS']} MB")
    if without is not None:
        note("unharmed", lambda: _compare_surroundings(host, frames[0], without))
    before: list[str] = []

    def ask_plain() -> str:
        """How far the host itself is from A1111: nothing of FRESCO acts, so no limit is set."""
        image = host.img2img(frames[:1], **PAYLOAD).images[0]
        before.append(digest(image))
        if wishes.write_reference:
            write_strip(outcome.model, "plain", image)
        return str(compare_strip(outcome.model, "plain", image) or "200, no stored image")

    note("plain", ask_plain)
    for case in CASES:
        note(case.name, lambda case=case: _ask_case(host, frames, case, wishes, outcome.model))
    note("job", lambda: _run_job(host))
    note("memory", lambda: f"{host.read_memory()['VmHWM']} MB")

    def ask_plain_again() -> str:
        assert before, "the first plain request failed"
        after = digest(host.img2img(frames[:1], **PAYLOAD).images[0])
        assert after == before[0], "another image than before"
        return "bit-equal"

    note("plain after", ask_plain_again)
    note("Reload UI", lambda: _reload(host, frames, outcome.model))


def _compare_surroundings(host: HttpHost, frame: Image.Image, without: dict[str, Any]) -> str:
    different = name_differences(without, describe_surroundings(host, frame))
    assert not different, f"with and without FRESCO differ: {', '.join(different)}"
    return "equal"


def _ask_case(
    host: HttpHost, frames: list[Image.Image], case: Case, wishes: Wishes, model: str
) -> str:
    """Guided images of one case, against the stored ones."""
    unit = _find_unit(host) if case.control else None
    if case.control and unit is None:
        return ABSENT
    strip = _ask_guided(host, frames, case, model, unit)
    if unit is not None:
        off = _ask_guided(host, frames, case, model, unit | {"weight": 0.0})
        shared = _ask_guided(host, frames, case, model, unit | {"image": text_of(frames[0])})
        assert digest(strip) != digest(off), "ControlNet changes nothing"
        assert digest(strip) != digest(shared), "frames have no hint of their own"
    if wishes.write_reference:
        return f"stored in {write_strip(model, case.name, strip).name}"
    difference = compare_strip(model, case.name, strip)
    if difference is None:
        return "200, no stored images"
    assert difference.passed, f"differs from the stored images: {difference} levels"
    return str(difference)


def _ask_guided(
    host: HttpHost, frames: list[Image.Image], case: Case, model: str,
    unit: dict[str, Any] | None = None,
) -> Image.Image:
    others = {} if unit is None else {"alwayson_scripts": {"ControlNet": {"args": [unit]}}}
    answer = host.img2img(frames, list_options(model), **PAYLOAD | case.payload | others)
    assert len(answer.images) == len(frames), f"{len(answer.images)} images of {len(frames)}"
    assert "FRESCO" in answer.infotext, "the infotext says nothing of FRESCO"
    return join_frames(answer.images)


def _find_unit(host: HttpHost) -> dict[str, Any] | None:
    """A ControlNet unit without an image, for the network of tests.

    None in an A1111 that was not given sd-webui-controlnet.
    """
    if "controlnet" not in host.ask("/sdapi/v1/scripts")["img2img"]:
        wanted = host.kind is not A1111 or "CONTROLNET_DIR" in os.environ
        assert not wanted, "this WebUI has no script ControlNet"
        return None
    models = host.ask("/controlnet/model_list")["model_list"]
    modules = host.ask("/controlnet/module_list")["module_list"]
    known = [name for name in models if NETWORK in name]
    assert known, f"{NETWORK} is not among the models {models}"
    none = next(name for name in modules if name.lower() == "none")
    return {
        "enabled": True, "module": none, "model": known[0], "weight": 1.0,
        "save_detected_map": False,
    }


def _run_job(host: HttpHost) -> str:
    """A whole job, from a video to a video."""
    clip = host.log.parent / "square.mp4"
    write_clip(clip, list(square_frames(JOB_FRAMES)))
    job = host.ask("/fresco/jobs", {
        "video": base64.b64encode(clip.read_bytes()).decode(), "settings": dict(TINY),
        "host": {"sampler": "Euler a"},
    })["id"]
    end = time.monotonic() + PATIENCE
    while (status := host.ask(f"/fresco/jobs/{job}"))["state"] not in ENDED:
        assert time.monotonic() < end, f"still {status['state']} after {PATIENCE} s"
        time.sleep(0.2)
    assert status["state"] == "done", f"{status['state']}: {status['message']}"
    keys = host.ask(f"/fresco/jobs/{job}/keyframes")["images"]
    sizes = {Image.open(io.BytesIO(base64.b64decode(key))).size for key in keys}
    assert sizes == {(64, 64)}, f"keyframes of {sizes}"
    return f"done, {len(keys)} keyframes"


def _reload(host: HttpHost, frames: list[Image.Image], model: str) -> str:
    """The page is built anew; scripts are there once, and guide as before."""
    scripts = host.ask("/sdapi/v1/scripts")
    before = host.log.read_text("utf-8", "replace").count(STARTED)
    host.ask("/tests/reload-ui", {})
    end = time.monotonic() + RELOAD_SECONDS
    while host.log.read_text("utf-8", "replace").count(STARTED) == before:
        assert time.monotonic() < end, f"no page after {RELOAD_SECONDS} s"
        time.sleep(0.5)
    again = host.ask("/sdapi/v1/scripts")
    assert again == scripts, f"scripts before {scripts}, after {again}"
    difference = compare_strip(model, "Euler a", _ask_guided(host, frames, CASES[0], model))
    assert difference is None or difference.passed, f"differs afterwards: {difference} levels"
    return "same scripts, same images"


def find_errors(console: str) -> list[str]:
    """Lines of the console that tell of an error of FRESCO's."""
    return [
        line.strip()[:300] for line in console.splitlines()
        if line.lstrip().startswith(("***", "ERROR")) and "fresco" in line.lower()
        and "reading extension data" not in line  # the clone has no remote
    ]
