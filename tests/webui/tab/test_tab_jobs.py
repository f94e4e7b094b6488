"""From the tab's values to jobs, and the answers to the page's questions."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fresco.control import ControlUnit
from fresco.errors import SettingsError
from fresco.hosts.options import HostOptions
from fresco.options import from_dict
from fresco.server.drafts import Drafts
from fresco.server.frames import Layer
from fresco.server.jobs.engine import JobConflictError, JobEngine, NothingToDoError
from fresco.server.jobs.job import Goal, JobRequest, JobStatus, State
from fresco.server.jobs.runner import Outcome
from fresco.server.ports import Limits
from fresco.server.service import Service
from fresco.server.videos import VideoStore
from fresco.settings import FrescoSettings
from fresco.webui.tab.answers import Answers
from fresco.webui.tab.control import read_control
from fresco.webui.tab.detections import Detections
from fresco.webui.tab.jobs import LoadedClip, propagate_job, read_detection_settings, translate_job
from fresco.webui.tab.text import describe_error, dump_job, name_next_step, with_labels
from fresco.webui.tab.values import (
    count_controls,
    list_entries,
    read_values,
    write_values,
)
from fresco.workspace import write_image
from tests.helpers.clips import write_clip
from tests.helpers.job_environment import CANNY, CONTROL, TinyEnvironment
from tests.helpers.tiny_models import square_frames

FRAMES = 8


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    TinyEnvironment(folder)
    return folder


@pytest.fixture
def service(tmp_path: Path, models: Path) -> Iterator[Service]:
    """A service whose jobs stay queued: nothing here needs them run."""
    def work(*_: Any) -> Outcome:
        raise AssertionError("no job is run")

    engine = JobEngine(tmp_path / "jobs", work)
    environment = TinyEnvironment(models, Limits(), forbidden=("/etc",))
    videos = VideoStore(tmp_path / "videos", Limits)
    yield Service(environment, engine, videos, tmp_path, Drafts(engine))
    engine.close()


@pytest.fixture
def source(tmp_path: Path) -> LoadedClip:
    path = tmp_path / "square.mp4"
    write_clip(path, square_frames(FRAMES))
    return LoadedClip(str(path), "square.mp4", FRAMES - 1)


def values_of(settings: FrescoSettings | None = None, host: HostOptions | None = None) -> list[Any]:
    """What the controls give that show these settings."""
    return write_values(settings or FrescoSettings(), host or HostOptions())


def changed(**groups: Any) -> list[Any]:
    return values_of(from_dict(groups))


def test_labels_of_options_differ() -> None:
    labels = [entry.label for entry in list_entries()]
    assert len(set(labels)) == len(labels)


def test_what_is_there_already_is_no_error(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any) -> None:
        raise NothingToDoError("Job a is finished; sampling.seed is as it was.")

    monkeypatch.setattr(Service, "resume_once", nothing)
    assert page.ask("resume", job="a") == {"said": "Job a is finished; Seed is as it was."}


def test_what_a_page_asks_again_is_done_once(
    page: Page, service: Service, source: LoadedClip
) -> None:
    """It asks again when it hears nothing, also while the first is still being done."""
    jobs = [
        translate_job(service, "", goal, source, values_of())[0].id
        for goal in (Goal.PREVIEW, Goal.ALL)
    ]
    question = {"number": 1, "ask": "delete", "job": jobs[0], "page": "a"}
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(
            lambda _: page.answers.answer(json.dumps(question), page.source), range(4)
        ))
    assert set(said) == {json.dumps({"number": 1, "value": ""})}
    assert [status.id for status in service.engine.jobs()] == [jobs[1]]
    for other in ({"number": 2}, {"page": "b"}):
        again = json.loads(page.answers.answer(json.dumps(question | other), page.source))
        assert "no job" in again["error"]


def encode_mask(white: int) -> str:
    """A mask as the page sends it, with so many white columns."""
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :white] = 255
    data = base64.b64encode(cv2.imencode(".png", mask)[1].tobytes()).decode()
    return f"data:image/png;base64,{data}"


def test_drawn_masks_become_the_jobs_and_another_one_continues_it(
    service: Service, source: LoadedClip
) -> None:
    values = changed(mask={"source": "drawing"})
    drawn = json.dumps({"3": encode_mask(20), "0": encode_mask(9)})
    status, _ = translate_job(service, "", Goal.ALL, source, values, drawings=drawn)
    folder = Path(service.engine.request(status.id).settings.mask.path)
    assert folder.is_relative_to(service.engine.folder(status.id))
    assert sorted(path.name for path in folder.iterdir()) == ["000000.png", "000003.png"]
    service.engine.cancel(status.id)
    drawn = json.dumps({"0": encode_mask(30)})
    again, said = translate_job(service, status.id, Goal.ALL, source, values, drawings=drawn)
    assert again.id == status.id, said
    assert Path(service.engine.request(status.id).settings.mask.path) != folder
    other = changed(mask={"source": "motion"})
    unused, _ = translate_job(service, "", Goal.ALL, source, other, drawings=drawn)
    assert service.engine.request(unused.id).settings.mask.path == ""


def test_drawings_that_are_sent_again_change_nothing_and_leave_nothing(
    service: Service, source: LoadedClip, tmp_path: Path
) -> None:
    def incoming() -> list[Path]:
        return list((tmp_path / "jobs" / ".incoming").glob("*"))

    values, drawn = changed(mask={"source": "drawing"}), json.dumps({"0": encode_mask(9)})
    job = translate_job(service, "", Goal.ALL, source, values, drawings=drawn)[0].id
    request = service.engine.request(job)
    status, _ = propagate_job(service, job, source, [], "", values, drawings=drawn)
    assert (status.id, service.engine.request(job)) == (job, request)
    other = json.dumps({"0": encode_mask(30)})
    with pytest.raises(JobConflictError, match="is queued"):
        propagate_job(service, job, source, [], "", values, drawings=other)
    service.engine.cancel(job)
    translate_job(service, job, Goal.ALL, source, values, drawings=drawn)
    assert service.engine.request(job) == request
    text = tmp_path / "a.txt"
    text.write_text("no image")
    with pytest.raises(SettingsError, match="not an image"):
        propagate_job(service, "", source, [text], "", values, drawings=drawn)
    assert not incoming()


def test_masks_lie_only_where_a_client_may_look(
    service: Service, source: LoadedClip, tmp_path: Path
) -> None:
    """Also where a path begins in the folder of the jobs."""
    for path in ("/etc", f"{tmp_path}/jobs/mask-1/../../../../../../../../etc"):
        values = changed(mask={"source": "files", "path": path})
        with pytest.raises(SettingsError, match="/etc"):
            translate_job(service, "", Goal.ALL, source, values)


@pytest.mark.parametrize(("drawn", "said"), [
    ("no json", "cannot be read"), ('["a"]', "cannot be read"), ('{"x": "y"}', "cannot be read"),
    ('{"0": "no base64!"}', "mask of frame 0 is not base64"), ("", "Mask's file or folder is"),
    (f'{{"{"9" * 5000}": "y"}}', "cannot be read"),
])
def test_drawings_that_are_none_are_refused(
    service: Service, source: LoadedClip, drawn: str, said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        translate_job(service, "", Goal.ALL, source, changed(mask={"source": "drawing"}),
                      drawings=drawn)
    assert said in with_labels(str(caught.value))


def test_settings_come_back_from_their_controls() -> None:
    settings = from_dict({
        "keyframes": {"keys": "0,4,9", "batch_size": 5, "shot_threshold": 30.5},
        "guidance": {"temporal_attention": False, "saliency": "u2netp"},
        "sampling": {"prompt": "a, b", "key_prompts": {"4": "c: d", "0": "e"}, "seed": 2**40},
        "output": {"first_frame": 0, "last_frame": 12, "crf": 20},
        "propagation": {"guides": ["/ids:2", "/normals"]},
    })
    host = HostOptions("m", "s", "karras", (
        ControlUnit("c", "canny", 0.5, 0.1, 0.9, 20, 90, 256, "prompt", "fill"),
        ControlUnit("d", "none", hints="some folder"),
    ), "u")
    assert len(write_values(settings, host)) == count_controls()
    assert read_values(values_of(settings, host), 20) == (settings, host)


def test_units_of_the_page_that_are_off_or_wrong() -> None:
    assert read_control("") == read_control("[]") == ()
    off = {"enabled": False, "model": ""}
    assert read_control(json.dumps([off, {"model": "c"}])) == (ControlUnit("c"),)
    for unit, said in (
        ({"model": ""}, "ControlNet unit 2 has no model"),
        ({"model": "c", "weight": 3}, "ControlNet unit 1: weight is 3; give"),
        ({"model": "c", "wieght": 1}, "ControlNet unit 1:  has no field 'wieght'"),
        (5, "cannot be read"),
    ):
        with pytest.raises(SettingsError, match=said):
            read_control(json.dumps([off, unit]))


def test_the_page_is_offered_units_and_shown_a_hint(
    page: Page, service: Service, source: LoadedClip
) -> None:
    offer = page.ask("control")
    assert (offer["units"], offer["chosen"][CANNY]) == (3, "canny")
    assert "itself as its hint" in offer["told"][CANNY]
    assert offer["sliders"]["canny"]["threshold_b"]["usual"] == 100

    def hint(**unit: Any) -> str:
        begun = page.ask("hint", unit={"model": CANNY, **unit}, frame=2, first=0, last=FRAMES - 1,
                         resolution=64)
        end = time.monotonic() + 20
        while not (seen := page.ask("hint_made", id=begun)) and time.monotonic() < end:
            time.sleep(0.02)
        return seen

    assert hint().startswith("data:image/jpeg;base64,")
    assert hint() != hint(threshold_a=250, threshold_b=255)


def test_numbers_of_a_page_are_whole_where_the_option_is() -> None:
    values = changed(keyframes={"batch_size": 5})
    place = [entry.name for entry in list_entries()].index("batch_size")
    values[place] = 6.0
    assert read_values(values, 9)[0].keyframes.batch_size == 6
    values[place] = None
    with pytest.raises(SettingsError, match="Batch size is empty"):
        read_values(values, 9)


def test_messages_name_controls_by_their_labels() -> None:
    values = changed(keyframes={"min_interval": 5})
    values[[entry.name for entry in list_entries()].index("min_interval")] = 40
    with pytest.raises(SettingsError) as caught:
        read_values(values, 9)
    said = describe_error(caught.value)
    assert said.startswith("Min interval is 40, above Max interval, which is 30;")
    told = {
        "keyframes.keys is 'x'": "Keyframes by hand is 'x'",
        "host.model is 'x', host.scheduler is 'y'": "Checkpoint is 'x', Noise schedule is 'y'",
        "propagation.cluster is 'x'": "propagation.cluster is 'x'",
        "clip.mp4 is in host.modelled": "clip.mp4 is in host.modelled",
    }
    assert {text: with_labels(text) for text in told} == told


def test_a_job_says_its_labels() -> None:
    status = JobStatus(
        "a", State.FAILED, "clip", Goal.ALL, 0.0, message="Lower sampling.resolution.",
        notes=("keyframes.max_interval is 1.",),
    )
    shown = dump_job(status)
    assert (shown["message"], shown["notes"]) == ("Lower Resolution.", ["Max interval is 1."])
    assert shown["state"] == "failed"


def test_finding_keyframes_does_not_mind_what_is_written_by_hand() -> None:
    values = values_of()
    names = [entry.name for entry in list_entries()]
    values[names.index("keys")] = "nonsense"
    values[names.index("max_interval")] = 12
    settings = read_detection_settings(values, 9)
    assert (settings.keyframes.keys, settings.keyframes.max_interval) == ("", 12)


def test_a_job_takes_the_host_as_it_is_now(service: Service, source: LoadedClip) -> None:
    host = HostOptions("tiny two", "euler", "", (ControlUnit(CONTROL, "canny"),))
    status, _ = translate_job(service, "", Goal.ALL, source, values_of(host=host))
    request = service.engine.request(status.id)
    assert request.host == host
    assert (request.source, request.title, request.goal) == (source.path, "square.mp4", Goal.ALL)
    status, _ = translate_job(service, "", Goal.PREVIEW, source, values_of())
    assert service.engine.request(status.id).host.model == "tiny"


def test_the_same_settings_continue_the_selected_job(service: Service, source: LoadedClip) -> None:
    first, text = translate_job(service, "", Goal.PREVIEW, source, values_of())
    assert text == ""
    other, _ = translate_job(service, first.id, Goal.ALL, source, values_of())
    assert other.id != first.id, "a job that has not ended is left alone"
    service.engine.cancel(first.id)
    further, text = translate_job(service, first.id, Goal.KEYFRAMES, source, values_of())
    assert (further.id, further.goal) == (first.id, Goal.KEYFRAMES)
    assert "used again" in text
    service.engine.cancel(first.id)
    new, _ = translate_job(
        service, first.id, Goal.ALL, source, changed(sampling={"prompt": "another"})
    )
    assert new.id != first.id, "other settings are another job"
    back, _ = translate_job(service, first.id, Goal.PREVIEW, source, values_of())
    assert back.id != first.id, "a shorter goal would lose what is there"


def test_the_same_press_twice_is_one_job(service: Service, source: LoadedClip) -> None:
    """Also of a button that draws a seed, and of one that continues a job."""
    for seed in (3, -1):
        values = changed(sampling={"seed": seed})
        first, text = translate_job(service, "", Goal.ALL, source, values)
        again, told = translate_job(service, first.id, Goal.ALL, source, values)
        assert (text, told) == ("", "Job square.mp4 is queued already.")
        assert again.id == first.id
        service.engine.cancel(first.id)
    begun, _ = translate_job(service, "", Goal.KEYFRAMES, source, values_of())
    service.engine.cancel(begun.id)
    found = [propagate_job(service, begun.id, source, [], "", values_of()) for _ in range(2)]
    assert [status.id for status, _ in found] == [begun.id] * 2
    assert len(service.engine.jobs()) == 3


def test_a_random_seed_continues_what_it_began_and_is_new_for_the_same_goal(
    service: Service, source: LoadedClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = changed(sampling={"seed": -1})
    first, _ = translate_job(service, "", Goal.PREVIEW, source, values)
    seed = service.engine.request(first.id).settings.sampling.seed
    assert 0 <= seed < 2**32
    assert first.notes == (f"sampling.seed is {seed}, drawn at random.",)
    service.engine.cancel(first.id)
    monkeypatch.setattr("fresco.webui.tab.jobs._PRESS", 0)
    other, _ = translate_job(service, first.id, Goal.PREVIEW, source, values)
    assert other.id != first.id, "other images are wanted"
    further, text = translate_job(service, first.id, Goal.ALL, source, values)
    assert further.id == first.id
    assert "used again" in text
    assert service.engine.request(first.id).settings.sampling.seed == seed


def test_a_controlnet_without_its_preprocessor_is_told_before_the_run(
    service: Service, source: LoadedClip
) -> None:
    for module, told in (("none", 1), ("canny", 0)):
        host = HostOptions("tiny", "euler", "", (ControlUnit(CANNY, module),))
        status, _ = translate_job(service, "", Goal.ALL, source, values_of(host=host))
        assert status.state is State.QUEUED
        assert len([note for note in status.notes if "itself as its hint" in note]) == told


@pytest.mark.parametrize(("goal", "state", "result", "said"), [
    (Goal.ALL, State.DONE, "new", ""),
    (Goal.ALL, State.RUNNING, "earlier", "The video of the previous run stays"),
    (Goal.ALL, State.RUNNING, "", ""),
    (Goal.ALL, State.FAILED, "earlier", "still that of the previous run. Press Resume"),
    (Goal.KEYFRAME, State.DONE, "earlier", "Keyframe 3 is new. The video is still that of the "
     "previous run. Press Run propagation"),
    (Goal.KEYFRAMES, State.DONE, "", "Press Run propagation"),
    (Goal.PREVIEW, State.DONE, "", "Press Run keyframes"),
])
def test_the_next_step_is_named(goal: Goal, state: State, result: str, said: str) -> None:
    status = JobStatus("a", state, "clip", goal, 0.0, result=result)
    request = JobRequest("clip", goal, frame=3)
    found = name_next_step(status, request, has_video=bool(result))
    assert (said in found) if said else found == ""


def test_propagation_takes_the_keyframes_of_the_selected_job(
    service: Service, source: LoadedClip
) -> None:
    job, _ = translate_job(
        service, "", Goal.KEYFRAMES, source, changed(sampling={"prompt": "as it was"})
    )
    service.engine.cancel(job.id)
    now = changed(sampling={"prompt": "new"}, propagation={"method": "flow"}, output={"crf": 30})
    status, text = propagate_job(service, job.id, source, [], "", now)
    settings = service.engine.request(job.id).settings
    assert (status.id, status.goal, status.state) == (job.id, Goal.ALL, State.QUEUED)
    assert settings.sampling.prompt == "as it was"
    assert (settings.propagation.method, settings.output.crf) == ("flow", 30)
    assert "square.mp4" in text


def test_propagation_of_own_keyframes(service: Service, source: LoadedClip, tmp_path: Path) -> None:
    picture = tmp_path / "upload" / "000003.png"
    write_image(picture, np.zeros((20, 30, 3), np.uint8))
    status, _ = propagate_job(service, "", source, [picture], "", values_of())
    request = service.engine.request(status.id)
    assert request.goal is Goal.PROPAGATION
    assert [path.name for path in Path(request.own_keys).iterdir()] == ["000003.png"]
    assert picture.exists(), "the upload is gradio's own"


@pytest.mark.parametrize("job", ["", "0123456789abcdef"])
def test_what_is_missing_is_named(service: Service, source: LoadedClip, job: str) -> None:
    with pytest.raises(SettingsError, match="no keyframes to propagate"):
        propagate_job(service, job, source, [], "", values_of())
    with pytest.raises(SettingsError, match="no video yet"):
        translate_job(service, job, Goal.ALL, None, values_of())
    with pytest.raises(SettingsError, match="no client may name"):
        propagate_job(service, job, source, [], "/etc", values_of())
    with pytest.raises(SettingsError, match="is not an image"):
        propagate_job(service, job, source, [Path("a.exe")], "", values_of())
    with pytest.raises(SettingsError, match=r"left\.png holds no frame number"):
        propagate_job(service, job, source, [Path("left.png")], "", values_of())


class Page:
    """Asks as the page does."""

    def __init__(self, service: Service, source: LoadedClip) -> None:
        self.detections = Detections()
        self.answers = Answers(service, self.detections)
        self.source = source.path

    def ask(self, what: str, **values: Any) -> Any:
        answer = json.loads(self.answers.answer(
            json.dumps({"number": 7, "ask": what, **values}), self.source
        ))
        assert answer["number"] == 7
        if "error" in answer:
            raise SettingsError(answer["error"])
        return answer["value"]


@pytest.fixture
def page(service: Service, source: LoadedClip) -> Page:
    return Page(service, source)


def picture_of(address: str) -> Any:
    data = base64.b64decode(address.partition(",")[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def test_detection_is_asked_for_until_it_is_there(
    page: Page, source: LoadedClip, tmp_path: Path
) -> None:
    identity = page.detections.start(Path(source.path), FrescoSettings(), tmp_path / "scan")
    while (found := page.ask("detection", id=identity))["state"] == "running":
        pass
    assert found["timeline"]["keys"] == [0, FRAMES - 1]
    assert found["whole"] == [64, 64]
    assert len(found["timeline"]["changes"]) == FRAMES
    broken = page.detections.start(tmp_path / "missing.mp4", FrescoSettings(), tmp_path / "scan")
    while (found := page.ask("detection", id=broken))["state"] == "running":
        pass
    assert found["state"] == "failed"
    assert "missing.mp4" in found["message"]


def test_pictures_of_the_source(page: Page) -> None:
    small = page.ask("thumbnails", numbers=[0, 5])
    assert sorted(small) == ["0", "5"]
    seen = picture_of(page.ask("frame", frame=5)["before"])
    # The square is where it was put: 8 + 4 * 5 to the right.
    assert np.abs(seen[28, 38].astype(int) - (220, 60, 40)).max() < 25
    assert np.abs(seen[28, 4].astype(int) - (220, 60, 40)).max() > 25


def test_before_and_after_are_the_same_frame(
    page: Page, service: Service, source: LoadedClip, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    settings = changed(output={"first_frame": 2})
    job = translate_job(service, "", Goal.ALL, source, settings)[0].id
    keys = {3: tmp_path / "3.png"}
    write_image(keys[3], np.full((32, 32, 3), 9, np.uint8))
    result = tmp_path / "result.mp4"
    write_clip(result, np.stack([np.full((64, 64, 3), 30 * i, np.uint8) for i in range(6)]))
    monkeypatch.setattr(
        type(service.engine), "outcome", lambda *_: Outcome(result, keys, None, None, ())
    )
    video = service.frames.look(job, 5, Layer.RESULT)
    assert video
    assert abs(int(video.image[32, 32].mean()) - 90) < 6, (
        "frame 5 of the source is frame 3 of the result")
    key = service.frames.look(job, 3, Layer.KEYFRAME)
    assert key
    assert key.image.mean() == 9
    assert service.frames.look(job, 4, Layer.KEYFRAME) is None
    known = page.ask("jobs", job=job)["chosen"]
    assert (known["first"], known["last"]) == (2, 7)
    assert list(known["keys"]) == ["3"]
    assert list(page.ask("key_thumbnails", job=job, numbers=[3, 4])) == ["3"]


def test_jobs_are_listed_cancelled_resumed_and_deleted(
    page: Page, service: Service, source: LoadedClip
) -> None:
    job = translate_job(service, "", Goal.ALL, source, values_of())[0].id
    listed = page.ask("jobs", job="")
    assert [entry["id"] for entry in listed["jobs"]] == [job]
    assert listed["chosen"] is None
    assert page.ask("cancel", job=job)["state"] == "cancelled"
    for _ in range(2):  # pressed twice
        assert page.ask("resume", job=job)["state"] == "queued"
    page.ask("cancel", job=job)
    again = page.ask("again", job=job, frame=0, seed=5)
    assert again["goal"] == "keyframe"
    assert service.engine.request(job).frame_seed == 5
    page.ask("cancel", job=job)
    page.ask("delete", job=job)
    assert page.ask("jobs", job=job)["jobs"] == []
    for what in ("log", "report", "cancel", "resume", "delete"):
        with pytest.raises(SettingsError, match="no job"):
            page.ask(what, job="../../etc")


def test_uploads_are_listed_and_deleted_unless_they_are_needed(
    page: Page, service: Service, source: LoadedClip
) -> None:
    data = Path(source.path).read_bytes()
    video = service.videos.add(io.BytesIO(data), "my clip.mp4")
    clip = LoadedClip(str(video.path), video.name, FRAMES - 1)
    jobs = [
        translate_job(service, "", goal, clip, values_of())[0].id
        for goal in (Goal.PREVIEW, Goal.ALL)
    ]
    listed = page.ask("videos")
    assert listed == {"bytes": len(data), "videos": [{
        "id": video.id, "name": "my clip.mp4", "bytes": len(data), "frames": FRAMES, "jobs": 2,
        "open": False,
    }]}
    with pytest.raises(SettingsError, match=r"my clip\.mp4 is needed by job .* queued"):
        page.ask("delete_video", video=video.id)
    assert not any(job["upload"] for job in page.ask("jobs", job="")["jobs"])
    page.source = clip.path
    for job in jobs:
        page.ask("cancel", job=job)
    assert page.ask("videos")["videos"][0]["open"]
    with pytest.raises(SettingsError, match="is open in this tab"):
        page.ask("delete_video", video=video.id)
    page.source = source.path
    assert page.ask("delete", job=jobs[0], video=True) == "", "the other job needs it"
    assert video.path.exists()
    assert [job["upload"] for job in page.ask("jobs", job="")["jobs"]] == [True]
    assert page.ask("delete", job=jobs[1], video=True) == video.id
    assert page.ask("videos") == {"bytes": 0, "videos": []}
    assert Path(source.path).exists()


def test_a_job_of_an_upload_that_is_gone_is_refused(
    service: Service, source: LoadedClip
) -> None:
    """It was deleted elsewhere while it was open here."""
    video = service.videos.add(io.BytesIO(Path(source.path).read_bytes()), "a.mp4")
    service.delete_video(video.id)
    clip = LoadedClip(str(video.path), video.name, FRAMES - 1)
    with pytest.raises(SettingsError, match="no video"):
        translate_job(service, "", Goal.ALL, clip, values_of())
    assert service.engine.jobs() == ()


def test_keyframes_are_read_as_everywhere(page: Page) -> None:
    taken = page.ask("keys", text="0_3_7", words="3: a hat", first=0, last=7)
    assert (taken["keys"], taken["words"]) == ([0, 3, 7], {"3": "a hat"})
    with pytest.raises(SettingsError, match="outside the frames"):
        page.ask("keys", text="0,8", first=0, last=7)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"number": 1}', '{"number": 1, "ask": "x"}'])
def test_a_question_that_is_none_is_answered(page: Page, text: str) -> None:
    assert "error" in json.loads(page.answers.answer(text, page.source))


def test_questions_without_a_video_say_so(page: Page) -> None:
    page.source = ""
    with pytest.raises(SettingsError, match="no video yet"):
        page.ask("thumbnails", numbers=[0])


def test_an_error_that_was_not_foreseen_is_logged_and_told(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SettingsError, match="An error in the program"):
        page.ask("frame", frame="x")
    assert "not foreseen" in caplog.text
    caplog.clear()


def test_a_source_is_not_editable(source: LoadedClip) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.path = "/etc/passwd"  # type: ignore[misc]
