"""How soon a retouch is seen in a browser: one keyframe of a finished job is replaced.

Starts the tab in plain gradio with a job of three external keyframes, 31 frames. Prints JSON:
milliseconds from the choice of the image until the frame that is looked at shows its draft, for
several retouches, and where they go; milliseconds a frame while the slider is moved and the job
runs; seconds until all frames beside the keyframe are there as drafts, and until the new video is.
Needs chromium and chromedriver. `--images FOLDER` keeps screenshots. `--priority -10` lets server
and browser go before other work of the machine while an image is waited for (Linux, as root).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import requests

from benchmarks.clips import packaged_clip
from benchmarks.draft import Clip, Image, paint
from benchmarks.whole import list_family
from fresco.server.images import encode_png
from tests.helpers.clips import write_clip
from tests.helpers.tab_browser import TabPage, browser, missing_browser, screenshot
from tests.helpers.tab_program import running_tab

KEYS = (0, 15, 30)
LOOKED = 12
"""Frame that is looked at while keyframe 15 is replaced."""

CHOOSE = """
const done = arguments[1];
const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
const file = new File([bytes], 'new.png', {type: 'image/png'});
const after = document.querySelector('#fresco_compare .fresco_after');
const start = performance.now();
after.addEventListener('load', function loaded() {
    const shown = performance.now();
    const asked = performance.getEntriesByType('resource').filter(
        (entry) => entry.name.includes('/keyframes/15?look=')).pop();
    if (!asked) return;  // an image of before
    after.removeEventListener('load', loaded);
    const times = [start, asked.fetchStart, asked.requestStart, asked.responseStart,
        asked.responseEnd, shown];
    performance.clearResourceTimings();
    requestAnimationFrame(() => done([
        times.slice(1).map((time, number) => time - times[number]), shown - start,
        fresco.state().work.pair.kind]));
});
const press = HTMLInputElement.prototype.click;
HTMLInputElement.prototype.click = function () {
    HTMLInputElement.prototype.click = press;
    const files = new DataTransfer();
    files.items.add(file);
    this.files = files.files;
    this.dispatchEvent(new Event('change'));
};
document.querySelector("#fresco_compare .fresco_retouch button[data-key='15']").click();
"""
PARTS = ("choose", "queue", "server", "receive", "show")
"""Of the time of a retouch: until the page asks, until the browser sends, until the server answers,
until the answer is whole, until the image is decoded and in its place."""
MOVE = """
const [frame, done] = arguments, start = performance.now();
const slider = document.querySelector('#fresco_compare .fresco_frame_slider');
slider.value = frame;
slider.dispatchEvent(new Event('input', {bubbles: true}));
const look = () => {
    const pair = fresco.state().work.pair;
    if (pair && pair.frame === frame) done(performance.now() - start);
    else setTimeout(look, 2);
};
look();
"""


def wait_done(address: str, job: str) -> None:
    """Until the job is done."""
    while (status := requests.get(f"{address}/fresco/jobs/{job}", timeout=60).json())[
            "state"] != "done":
        assert status["state"] in ("queued", "running", "cancelling"), status
        time.sleep(0.3)


def submit(address: str, clip: Path, frames: Sequence[Image], quality: str) -> str:
    """Queue the job of external keyframes."""
    with clip.open("rb") as file:
        video = requests.post(f"{address}/fresco/videos", files={"video": file}, timeout=60).json()
    images = {str(n): base64.b64encode(encode_png(paint(frames[n]))).decode() for n in KEYS}
    answer = requests.post(f"{address}/fresco/jobs", timeout=60, json={
        "video_id": video["id"], "goal": "propagation", "keyframes": images,
        "settings": {"propagation": {"quality": quality}, "keyframes": {"detect_shots": False},
                     "flow": {"estimator": "dis"},
                     "sampling": {"resolution": min(frames[0].shape[:2])}}})
    return answer.json()["id"]


@contextmanager
def going_before(priority: int) -> Iterator[None]:
    """Within: this program and all that it started go before others, or behind them.

    Args:
        priority: -20 (first) to 19 (last); 0: as all.
    """
    def put(level: int) -> None:
        for process in list_family(os.getpid()):
            Path(f"/proc/{process}/autogroup").write_text(str(level))

    if not priority:
        yield
        return
    put(priority)
    try:
        yield
    finally:
        put(0)


def retouch(page: TabPage, image: Image) -> dict[str, int]:
    """Replace keyframe 15 while frame 12 is looked at: milliseconds to its draft, and parts."""
    text = base64.b64encode(encode_png(image)).decode()
    parts, whole, kind = page.driver.execute_async_script(CHOOSE, text)
    assert kind == "draft", kind
    return {"all": round(whole)} | {
        name: round(part) for name, part in zip(PARTS, parts, strict=True)
    }


def are_drafts(page: TabPage) -> bool:
    """Whether the page says that all frames beside the keyframe are there, as drafts at least."""
    return page.script("""
        const parts = fresco.state().work.detail.retouched;
        return parts.length === 2 && parts.every(
            (part) => Math.max(part.drafts, part.full) === part.last - part.first - 1);
    """)


def turn_hue(image: Image, by: int) -> Image:
    """The image in other colours."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + by) % 180
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def measure(
    address: str, job: str, key: Image, given: argparse.Namespace
) -> dict[str, Any]:
    """Retouch in the page, each time after the job is done."""
    with browser() as driver:
        page = TabPage(driver, address)
        driver.set_script_timeout(60)
        page.until("fresco.state().work.detail && fresco.state().work.detail.output")
        page.press("#fresco_gallery [data-key='15']")
        page.until("fresco.state().work.pair?.frame === 15")
        time.sleep(8)  # a person looks for the file; the motion is found meanwhile
        driver.execute_async_script(MOVE, LOOKED)
        time.sleep(1)
        first = []
        for turn in range(given.times):
            with going_before(given.priority):
                first.append(retouch(page, turn_hue(key, 40 * (turn + 1))))
            if turn < given.times - 1:
                requests.post(f"{address}/fresco/jobs/{job}/cancel", timeout=60)
                page.job_until("cancelled", "done")
                time.sleep(1)
        start, moves, frame, drafts = time.time(), [], 0, 0.0
        while (page.job() or {})["state"] != "done":
            drafts = drafts or (time.time() - start if are_drafts(page) else 0)
            frame = 1 + (frame + 6) % 29
            moves.append(driver.execute_async_script(MOVE, frame))
            time.sleep(0.3)
            if given.images and len(moves) == 5:
                screenshot(driver, given.images / "while.png")
        page.until("fresco.state().work.detail.retouched.length === 0")
        seconds = time.time() - start
        if given.images:
            screenshot(driver, given.images / "done.png")
        assert page.complaints() == []
    return {
        "first_ms": first, "drafts_s": round(drafts, 1) or None, "last_s": round(seconds, 1),
        "move_ms": {"median": round(statistics.median(moves)), "worst": round(max(moves)),
                    "frames": len(moves)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", nargs="?", type=Path, default=packaged_clip("bikes.mp4"))
    parser.add_argument("--size", type=int, default=512, help="Side of the frames in pixels.")
    parser.add_argument("--quality", default="balanced", help="propagation.quality of the job.")
    parser.add_argument("--times", type=int, default=3, help="Retouches.")
    parser.add_argument("--priority", type=int, default=0,
                        help="Of server and browser while an image is waited for, -20 to 19.")
    parser.add_argument("--images", type=Path, help="Folder that keeps screenshots.")
    given = parser.parse_args()
    if missing := missing_browser():
        raise SystemExit(missing)
    frames = Clip.read(given.clip, given.size, 0, KEYS[-1]).images
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        clip = write_clip(folder / "clip.mp4", list(frames))
        with running_tab(folder) as program:
            address = program.address
            start = time.time()
            job = submit(address, clip, frames, given.quality)
            wait_done(address, job)
            whole = time.time() - start
            found = measure(address, job, paint(frames[15]), given)
    print(json.dumps({"quality": given.quality, "size": given.size, "load": os.getloadavg()[0],
                      "whole_job_s": round(whole, 1), **found}, indent=2))


if __name__ == "__main__":
    main()
