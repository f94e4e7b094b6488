"""A client of the API: uploads videos, runs jobs, and downloads their results.

    from fresco.server.client import Client
    client = Client("http://127.0.0.1:7860", auth=("user", "password"))
    job = client.submit(client.upload("dog.mp4"), settings={"sampling": {"prompt": "a watercolor"}})
    client.wait(job.id)
    client.download_video(job.id, "dog-watercolor.mp4")

It needs only the package requests, and so do the modules of the project that it imports.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import quote

from fresco.errors import FrescoError, HostError
from fresco.server.jobs.job import JobStatus, State, load_status
from fresco.server.multipart_body import MultipartBody
from fresco.writing import name_part

if TYPE_CHECKING:
    import requests

_Item = TypeVar("_Item")
Json = dict[str, object]
Settings = Mapping[str, Mapping[str, object]]
"""Options by group, such as {"sampling": {"steps": 20}}; GET /fresco/schema lists them."""

_BLOCK = 1 << 20


class ServerError(HostError):
    """The server refused a request; the message is the server's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class JobFailedError(HostError):
    """A job that was waited for failed or was cancelled."""


class StillRunningError(HostError):
    """A job has not ended within the given time."""


@dataclass(frozen=True, slots=True)
class Keyframes:
    """What was detected in a video."""

    numbers: tuple[int, ...]
    """Frame numbers of the keyframes, in ascending order."""
    shots: tuple[tuple[int, int], ...]
    """First and last frame of every shot."""
    changes: tuple[float, ...]
    """Change of every frame used, compared with the one before."""
    notes: tuple[str, ...]
    """Notes for the user."""


class Client:
    """A server's API.

    Args:
        address: address of the server, such as http://127.0.0.1:7860.
        auth: user and password of its --api-auth.
        timeout: seconds without any data after which a request fails.
    """

    def __init__(
        self, address: str, *, auth: tuple[str, str] | None = None, timeout: float = 600
    ) -> None:
        self._root = f"{address.rstrip('/')}/fresco"
        self._timeout = timeout
        self._session: requests.Session = _requests().Session()
        if auth:
            # As bytes, because requests can otherwise send only Latin-1.
            self._session.auth = cast("tuple[str, str]", tuple(part.encode() for part in auth))

    def version(self) -> Json:
        """Versions and limits of the server."""
        return self._get("version")

    def models(self) -> Json:
        """Models, samplers and ControlNets to choose from."""
        return self._get("models")

    def upload(self, video: str | Path) -> str:
        """Upload a video, and return its id."""
        return str(self._send_file("videos", Path(video))["id"])

    def read_settings(self, result: str | Path) -> Json:
        """Read the settings from a result: a video, a PNG image or a run file.

        Returns:
            `settings`, `host` and `controlnet`, as `submit` takes them, and `notes`.
        """
        return self._send_file("settings", Path(result))

    def _send_file(self, route: str, path: Path) -> Json:
        try:
            with path.open("rb") as file:
                body = MultipartBody(file, path)
                return _object(self._send("POST", route, data=body, headers=body.headers))
        except OSError as error:
            raise HostError(f"{path} cannot be read ({error.strerror}); check the path.") from error

    def detect(self, video: str, settings: Settings | None = None) -> Keyframes:
        """Detect the keyframes and shots of an uploaded video."""
        found = self._post("keyframes", {"video_id": video, "settings": settings or {}})
        shots = cast("list[Json]", found["shots"])
        return Keyframes(
            tuple(cast("list[int]", found["keyframes"])),
            tuple((cast(int, shot["first"]), cast(int, shot["last"])) for shot in shots),
            tuple(cast("list[float]", found["changes"])),
            tuple(cast("list[str]", found["notes"])),
        )

    def download_hint(
        self, video: str, frame: int, unit: Mapping[str, object], target: str | Path, *,
        settings: Settings | None = None,
    ) -> Path:
        """Save the hint that a ControlNet unit gives its network for one frame, as PNG.

        Args:
            video: id of an uploaded video.
            unit: as in `controlnet` of `submit`.
        """
        return self._download("hint", Path(target), {
            "video_id": video, "frame": frame, "unit": unit, "settings": settings or {},
        })

    def submit(
        self, video: str, goal: str = "all", settings: Settings | None = None, *,
        host: Mapping[str, str] | None = None,
        controlnet: Sequence[Mapping[str, object]] | None = None,
        keyframes: Mapping[int, str | Path] | None = None,
        masks: Mapping[int, str | Path] | None = None, **rest: object,
    ) -> JobStatus:
        """Queue a job.

        Args:
            video: id of an uploaded video.
            goal: preview, keyframes, all, keyframe or propagation.
            host: model, sampler and scheduler, as `models` lists them.
            controlnet: units, such as {"model": "...", "module": "canny", "weight": 0.7}.
            keyframes: external keyframes, image files by frame number, for the goal propagation.
            masks: drawn masks, image files by frame number; white is translated.
            rest: other fields of POST /fresco/jobs, such as preview and title.
        """
        wishes = _pack(settings, host, controlnet, keyframes, masks)
        return _load_job(self._post("jobs", {"video_id": video, "goal": goal, **wishes, **rest}))

    def job(self, job: str) -> JobStatus:
        """The state of a job."""
        return _load_job(self._get(f"jobs/{_part(job)}"))

    def jobs(self, limit: int | None = None) -> tuple[JobStatus, ...]:
        """Jobs, newest first."""
        found = self._get("jobs" if limit is None else f"jobs?limit={limit}")
        return tuple(_load_job(item) for item in cast("list[Json]", found["jobs"]))

    def cancel(self, job: str) -> JobStatus:
        """Stop a job; what it has finished is kept."""
        return _load_job(self._post(f"jobs/{_part(job)}/cancel", {}))

    def resume(
        self, job: str, goal: str | None = None, settings: Settings | None = None
    ) -> JobStatus:
        """Queue an ended job again, optionally with another goal or changed options."""
        wishes = _pack(settings, None, None, None, None) | ({"goal": goal} if goal else {})
        return _load_job(self._post(f"jobs/{_part(job)}/resume", wishes))

    def retouch(self, job: str, number: int, image: str | Path) -> JobStatus:
        """Replace a keyframe of a job by a PNG or JPEG of any size.

        If the job has a video, it is made again, but only the frames beside the keyframe change.
        """
        data = base64.b64encode(_read(Path(image))).decode("ascii")
        return _load_job(self._post(f"jobs/{_part(job)}/keyframes/{number}", {"image": data}))

    def download_draft(self, job: str, number: int, target: str | Path) -> Path:
        """Save a draft, as PNG, of a frame between two keyframes, made from their current images.
        """
        return self._download(f"jobs/{_part(job)}/drafts/{number}", Path(target))

    def download_frame(
        self, job: str, number: int, target: str | Path, *, layer: str = "result"
    ) -> Path:
        """Save the current image of a frame as JPEG.

        Args:
            layer: result, source, keyframe; docs/api.md lists all.
        """
        return self._download(
            f"jobs/{_part(job)}/frames/{number}?layer={_part(layer)}", Path(target)
        )

    def delete(self, job: str, *, video: bool = False) -> None:
        """Delete a job that does not run, with its files.

        Args:
            video: also delete its uploaded video, if no other job needs it.
        """
        self._send("DELETE", f"jobs/{_part(job)}{'?video=true' if video else ''}").close()

    def rename(self, job: str, title: str) -> JobStatus:
        """Give a job another name."""
        return _load_job(self._post(f"jobs/{_part(job)}/title", {"title": title}))

    def move(self, job: str, before: str | None = None) -> tuple[str, ...]:
        """Move a waiting job before another, or to the end; return the waiting ids in order."""
        answer = self._post(f"jobs/{_part(job)}/place", {"before": before or ""})
        return tuple(cast("list[str]", answer["queue"]))

    def delete_several(self, jobs: Sequence[str], *, video: bool = False) -> Json:
        """Delete several jobs; return what was deleted, its `size` in bytes, and `refused`."""
        return self._post("jobs/delete", {"jobs": list(jobs), "video": video})

    def count_space(self) -> Json:
        """Bytes of `jobs` and `videos` by their ids, the sum (`bytes`), and the `free` bytes."""
        return self._get("space")

    def empty(
        self, days: float, *, jobs: bool = True, videos: bool = True, dry_run: bool = False
    ) -> Json:
        """Delete ended jobs and unused uploads older than `days`, or only list them."""
        return self._post("space/empty", {
            "days": days, "jobs": jobs, "videos": videos, "dry_run": dry_run,
        })

    def delete_video(self, video: str) -> None:
        """Delete an uploaded video."""
        self._send("DELETE", f"videos/{_part(video)}").close()

    def events(self, job: str) -> Iterator[JobStatus]:
        """Yield every change of a job as it happens, until it ends."""
        version = -1
        while True:
            headers = {"Last-Event-ID": str(version)}
            with self._send("GET", f"jobs/{_part(job)}/events", headers=headers,
                            stream=True) as answer:
                if answer.status_code == 204:
                    return
                for name, data in _unbroken(_events(answer)):
                    if name == "deleted":
                        return
                    status = _load_job(data)
                    version = status.version
                    yield status
                    if status.state.ended:
                        return

    def wait(
        self, job: str, *, report: Callable[[JobStatus], None] | None = None,
        timeout: float | None = None, every: float = 1.0,
    ) -> JobStatus:
        """Wait until a job is done; JobFailedError if it failed or was cancelled.

        Args:
            report: called for every change that is seen.
            timeout: seconds after which StillRunningError is raised; the job continues.
            every: seconds between two requests.
        """
        end = None if timeout is None else time.monotonic() + timeout
        seen = -1
        while True:
            status = self.job(job)
            if report and status.version != seen:
                report(status)
            seen = status.version
            if status.state is State.DONE:
                return status
            if status.state.ended:
                raise JobFailedError(f"Job {job} is {status.state}: {status.message}")
            if end is not None and time.monotonic() > end:
                raise StillRunningError(
                    f"Job {job} is {status.state} after {timeout:g} s. It goes on; wait longer.")
            time.sleep(every)

    def download_video(self, job: str, target: str | Path) -> Path:
        """Save the result."""
        return self._download(f"jobs/{_part(job)}/video", Path(target))

    def download_keyframes(self, job: str, folder: str | Path) -> tuple[Path, ...]:
        """Save the translated keyframes, named by their frame numbers."""
        answer = self._get(f"jobs/{_part(job)}/keyframes")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = cast("list[int]", answer["numbers"])
        images = cast("list[str]", answer["images"])
        saved = tuple(folder / f"{number:06d}.png" for number in numbers)
        for path, image in zip(saved, images, strict=True):
            path.write_bytes(base64.b64decode(image))
        return saved

    def download_preview(self, job: str, target: str | Path) -> Path:
        """Save a preview of the batch in progress as JPEG; ServerError 404 if there is none yet."""
        return self._download(f"jobs/{_part(job)}/preview", Path(target))

    def report(self, job: str) -> Json:
        """Measures of the result."""
        return self._get(f"jobs/{_part(job)}/report")

    def log(self, job: str) -> str:
        """What was logged while the job ran."""
        return str(self._get(f"jobs/{_part(job)}/log")["log"])

    def _download(
        self, path: str, target: Path, body: Mapping[str, object] | None = None
    ) -> Path:
        part = name_part(target, "part")
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        method = "GET" if data is None else "POST"
        with self._send(method, path, data=data, headers=headers, stream=True) as answer:
            try:
                with part.open("wb") as file:
                    for block in _unbroken(answer.iter_content(_BLOCK)):
                        file.write(block)
                    size = file.tell()
                whole = answer.headers.get("Content-Length", size)
                if "Content-Encoding" not in answer.headers and size != int(whole):
                    raise ServerError(f"{answer.url} ended after {size} bytes; try again.", 0)
                part.replace(target)
            except OSError as error:
                raise HostError(f"{target} cannot be written ({error.strerror}).") from error
            finally:
                part.unlink(missing_ok=True)
        return target

    def _get(self, path: str) -> Json:
        return _object(self._send("GET", path))

    def _post(self, path: str, body: Mapping[str, object]) -> Json:
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return _object(self._send("POST", path, data=data, headers=headers))

    def _send(
        self, method: str, path: str, *, data: bytes | MultipartBody | None = None,
        headers: Mapping[str, str] | None = None, stream: bool = False,
    ) -> requests.Response:
        try:
            answer = self._session.request(
                method, f"{self._root}/{path}", data=cast("bytes | None", data),
                headers=headers, stream=stream, timeout=self._timeout,
            )
        except _requests().RequestException as error:
            raise ServerError(f"{self._root} does not answer ({error}); check the address, and "
                              "that the server runs.", 0) from error
        if answer.status_code >= 400:
            raise ServerError(_detail(answer), answer.status_code)
        return answer


def _requests() -> ModuleType:
    try:
        import requests
    except ImportError as error:
        raise FrescoError(
            "The client needs the package requests; install it by pip install requests."
        ) from error
    return requests


def _events(answer: requests.Response) -> Iterator[tuple[str, Json]]:
    """Yield the name and data of every server-sent event."""
    name = ""
    for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
        key, _, value = str(line).partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, cast(Json, json.loads(value))


def _parsed(answer: requests.Response) -> Json | None:
    """Parse the JSON object of an answer; None if it is not an object."""
    try:
        found: object = answer.json()
    except ValueError:
        return None
    return cast(Json, found) if isinstance(found, dict) else None


def _detail(answer: requests.Response) -> str:
    """The server's message about an error."""
    detail = (_parsed(answer) or {}).get("detail")
    return str(detail) if detail else f"{answer.url} answered {answer.status_code}."


def _object(answer: requests.Response) -> Json:
    found = _parsed(answer)
    if found is None:
        text = f"{answer.url} answered something that is not an object; is it a server of FRESCO?"
        raise ServerError(text, answer.status_code)
    return found


def _unbroken(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield what a server sends; ServerError if the connection breaks."""
    try:
        yield from items
    except _requests().RequestException as error:
        raise ServerError(f"The connection broke ({error}); ask again.", 0) from error


def _part(text: str) -> str:
    return quote(text, safe="")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise HostError(f"{path} cannot be read ({error.strerror}); check the path.") from error


def _pack(
    settings: Settings | None, host: Mapping[str, str] | None,
    controlnet: Sequence[Mapping[str, object]] | None,
    keyframes: Mapping[int, str | Path] | None, masks: Mapping[int, str | Path] | None,
) -> Json:
    given: dict[str, object] = {"settings": settings, "host": host, "controlnet": controlnet}
    for name, files in (("keyframes", keyframes), ("masks", masks)):
        given[name] = None if files is None else {
            str(number): base64.b64encode(_read(Path(path))).decode("ascii")
            for number, path in files.items()
        }
    return {name: value for name, value in given.items() if value is not None}


def _load_job(values: Json) -> JobStatus:
    """Read the status from an answer.

    Other fields are ignored, such as the id of the video, or fields of a newer server.
    """
    names = {field.name for field in dataclasses.fields(JobStatus)}
    return load_status({name: value for name, value in values.items() if name in names})
