"""Answer questions of the tab's page, in JSON.

One question at a time goes through two hidden components and gradio's own events, so the login of
the page guards it too. With `--api-auth` alone the page has no credentials for the API; for frames
of jobs and for a retouch it uses that by a key, see `fresco.server.api.route`. Nothing of a host or
of gradio is imported.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from fresco.errors import SettingsError
from fresco.server.frames import list_hinted
from fresco.server.images import fit_side
from fresco.server.jobs.engine import NothingToDoError
from fresco.server.jobs.job import JobRequest
from fresco.server.jobs.segments import list_carried
from fresco.server.service import Service
from fresco.server.videos import encode_jpeg, make_thumbnails, read_frame
from fresco.video.reader import open_source
from fresco.webui.tab.chart import draw_report
from fresco.webui.tab.control import ControlAnswers
from fresco.webui.tab.detections import Detections
from fresco.webui.tab.drawings import describe_mask, read_drawings
from fresco.webui.tab.order import CHANGING, OrderAnswers, shorten_prompt
from fresco.webui.tab.text import NO_VIDEO, describe_error, dump_job, name_next_step
from fresco.webui.tab.timeline import export_keys, import_keys, import_words
from fresco.workspace import read_json

_MOST_THUMBNAILS = 48
"""Small images in one answer; the page asks again for more."""
_THUMBNAIL = 96
"""Height of small images."""
_SIDE = 1280
"""Longest side of an image that is shown large."""
_QUALITY = 90
"""Quality of JPEG."""
_LISTED = 100
"""Largest number of jobs that are listed, latest first."""
_MOST_LETTERS = 20_000
"""Most letters of a prompt whose tokens are counted."""
_LOG_END = 200_000
"""Characters of the end of a log that are shown."""

_CHANGING = CHANGING | {"cancel", "resume", "delete", "again", "delete_video"}
"""Questions that change something."""
_MEASURED = 15
"""Other results whose length is kept, for pages that look at other jobs."""
_REMEMBERED = 256
"""Number of latest answers to such questions that are stored."""

Question = Mapping[str, Any]


class Answers:
    """Answers questions about the jobs and videos of one service."""

    def __init__(self, service: Service, detections: Detections) -> None:
        self._service = service
        self._measured: dict[tuple[str, int], tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._given: dict[tuple[str, int], Future[str]] = {}
        """Answers to questions that changed something, by page and number."""
        self._known: dict[str, Callable[[Question, str], Any]] = {
            "detection": lambda ask, _: detections.look(_text(ask, "id")),
            "thumbnails": self._thumbnails,
            "frame": self._frame,
            "keys": _keys,
            "jobs": self._jobs,
            "key_thumbnails": self._key_thumbnails,
            "drawings": lambda ask, _: read_drawings(service, _text(ask, "job")),
            "log": lambda ask, _: self._engine.log(_text(ask, "job"))[-_LOG_END:],
            "report": self._report,
            "preview": self._preview,
            "tokens": lambda ask, _: [
                service.environment.count_tokens(str(text)[:_MOST_LETTERS])
                for text in list(ask["texts"])[:2]
            ],
            "cancel": lambda ask, _: dump_job(self._engine.cancel(_text(ask, "job"))),
            "resume": lambda ask, _: dump_job(service.resume_once(_text(ask, "job"))),
            "delete": lambda ask, _: service.delete_job(
                _text(ask, "job"), video=bool(ask.get("video"))),
            "again": self._again,
            "videos": self._videos,
            **OrderAnswers(service).known, **ControlAnswers(service).known,
            "delete_video": self._delete_video,
        }

    @property
    def _engine(self) -> Any:
        return self._service.engine

    def answer(self, text: str, source: str) -> str:
        """Answer a question of the page.

        Args:
            text: the question as JSON with its `number` and what is asked, `ask`.
            source: path of the video in the tab; empty: there is none.
        """
        try:
            question = json.loads(text)
            number, ask = int(question["number"]), self._known[question["ask"]]
        except (KeyError, TypeError, ValueError) as error:
            return json.dumps({"number": None, "error": f"The page asked {text[:80]!r}: {error}."})
        page = str(question.get("page") or "")
        if not page or question["ask"] not in _CHANGING:
            return self._answer(number, ask, question, source)
        # A page without an answer asks again; the action is still done only once.
        with self._lock:
            found = self._given.get((page, number))
            mine = found or self._given.setdefault((page, number), Future())
            for old in list(self._given)[:-_REMEMBERED]:
                del self._given[old]
        if found is None:
            mine.set_result(self._answer(number, ask, question, source))
        return mine.result()

    def _answer(
        self, number: int, ask: Callable[[Question, str], Any], question: Question, source: str
    ) -> str:
        try:
            return json.dumps({"number": number, "value": ask(question, source)})
        except NothingToDoError as error:
            return json.dumps({"number": number, "value": {"said": describe_error(error)}})
        except Exception as error:
            return json.dumps({"number": number, "error": describe_error(error)})

    # The source

    def _thumbnails(self, question: Question, source: str) -> dict[int, str]:
        numbers = _numbers(question)
        found = make_thumbnails(Path(_there(source)), numbers, _THUMBNAIL)
        return {number: _jpeg_address(data) for number, data in found.items()}

    def _frame(self, question: Question, source: str) -> dict[str, Any]:
        """Get a frame of the source in the tab; those of jobs come from the API."""
        return {"before": _address(fit_side(
            read_frame(Path(_there(source)), int(question["frame"])), _SIDE
        ))}

    # The jobs

    def _jobs(self, question: Question, source: str) -> dict[str, Any]:
        """List all jobs, and what the selected one has made so far."""
        statuses = self._engine.jobs(_LISTED)
        chosen = str(question.get("job") or "")
        uploads = self._service.count_jobs()
        last = {jobs[0].id for jobs in uploads.values() if len(jobs) == 1}
        requests, queue = self._engine.requests(), list(self._engine.queue)
        listed = [
            {**dump_job(status), "upload": status.id in last,
             "prompt": shorten_prompt(requests.get(status.id)),
             "place": queue.index(status.id) + 1 if status.id in queue else 0}
            for status in statuses
        ]
        known = next((status for status in statuses if status.id == chosen), None)
        if known is None:
            return {"jobs": listed, "chosen": None}
        request, outcome = self._engine.request(chosen), self._engine.outcome(chosen)
        first = request.settings.output.first_frame
        frames, rate = self._measure(outcome.output)
        masked = self._name_mask(request, ended=known.state.ended)
        return {"jobs": listed, "chosen": {
            "job": chosen,
            "source": Path(request.source).name, "open": request.source == source,
            "keys": {number: _changed(path) + masked for number, path in outcome.keys.items()},
            "output": _changed(outcome.output),
            "name": outcome.output.name if outcome.output else "",
            "clear": request.settings.output.background == "transparent",
            "saved": self._service.name_result(chosen),
            "report": _changed(outcome.report), "comparison": _changed(outcome.comparison),
            "retouched": [
                {"first": segment.first, "last": segment.last,
                 "drafts": self._service.drafts.count(chosen, segment),
                 "full": len(list_carried(self._engine.folder(chosen), segment))}
                for segment in self._service.frames.list_retouched(chosen)
                if outcome.output
            ],
            "first": first, "last": first + frames - 1,
            # Of the source that lies in one file: where its first frame that is used begins.
            "rate": rate, "begins": first / rate if rate else 0,
            "film": Path(request.source).is_file(),
            "seed": request.settings.sampling.seed,
            "hints": [unit.model for unit in list_hinted(request)],
            "mask": describe_mask(request.settings.mask),
            "next": name_next_step(known, request, has_video=outcome.output is not None),
        }}

    # The uploads

    def _videos(self, question: Question, source: str) -> dict[str, Any]:
        """List uploaded videos, their disk space, and the jobs that need them."""
        jobs, kept = self._service.count_jobs(), self._service.videos.list_videos()
        opened = self._service.videos.find_id(source) if source else ""
        return {
            "bytes": sum(video.size for video in kept),
            "videos": [
                {"id": video.id, "name": video.name, "bytes": video.size,
                 "frames": video.info.frames, "jobs": len(jobs.get(video.id, ())),
                 "open": video.id == opened}
                for video in kept
            ],
        }

    def _delete_video(self, question: Question, source: str) -> None:
        """Delete an upload that is not open in this tab and that no unfinished job needs."""
        video = _text(question, "video")
        if source and self._service.videos.find_id(source) == video:
            name = self._service.videos.get(video).name
            raise SettingsError(f"{name} is open in this tab; open another video first.")
        self._service.delete_video(video)

    def _name_mask(self, request: JobRequest, *, ended: bool) -> int:
        """A number that changes with the mask of a job's keyframes; 0: none."""
        mask, output = request.settings.mask, request.settings.output
        if mask.source == "none" and output.background == "source":
            return 0
        return crc32(repr((mask, output, ended)).encode())

    def _measure(self, video: Path | None) -> tuple[int, float]:
        """Number of frames of a result, and frames a second; computed once."""
        if not (changed := _changed(video)) or video is None:
            return 0, 0
        key = str(video), changed
        if key not in self._measured:
            with open_source(video) as opened:
                measured = opened.info.frames, float(opened.info.rate)
            kept = list(self._measured.items())[-_MEASURED:]
            self._measured = dict([*kept, (key, measured)])
            return measured
        return self._measured[key]

    def _key_thumbnails(self, question: Question, source: str) -> dict[int, str]:
        """Get small keyframes of a job."""
        found = self._service.frames.read_small_keys(
            _text(question, "job"), _numbers(question), _THUMBNAIL
        )
        return {number: _address(image) for number, image in found.items()}

    def _report(self, question: Question, source: str) -> str:
        """Draw the measures of a job."""
        path = self._engine.outcome(_text(question, "job")).report
        report = read_json(path) if path else None
        return draw_report(report) if isinstance(report, Mapping) else ""

    def _preview(self, question: Question, source: str) -> str | None:
        """Get a preview of a job as an address; None if there is none."""
        image = self._engine.look(_text(question, "job"))
        return None if image is None else _address(image)

    def _again(self, question: Question, source: str) -> dict[str, Any]:
        """Translate one keyframe of a job again, with another seed."""
        return dump_job(self._service.redo_keyframe(
            _text(question, "job"), int(question["frame"]), int(question["seed"])
        ))


def _keys(question: Question, source: str) -> dict[str, Any]:
    """Convert keyframes and their texts for the page's timeline."""
    keys, words = import_keys(
        str(question.get("text", "")), int(question["first"]), int(question["last"])
    )
    words |= import_words(str(question.get("words", "")))
    return {"keys": list(keys), "words": words, "export": export_keys(keys, words)}


def _there(source: str) -> str:
    if not source:
        raise SettingsError(NO_VIDEO)
    return source


def _text(question: Question, name: str) -> str:
    return str(question[name])


def _numbers(question: Question) -> list[int]:
    return [int(number) for number in question["numbers"]][:_MOST_THUMBNAILS]


def _changed(path: Path | None) -> int:
    """Time at which a file was written, by which the page recognises changes; 0: no file."""
    try:
        return path.stat().st_mtime_ns // 1_000_000 if path else 0
    except OSError:
        return 0


def _address(rgb: NDArray[np.uint8]) -> str:
    return _jpeg_address(encode_jpeg(rgb, _QUALITY))


def _jpeg_address(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
