"""`fresco ui` as a person starts it: who is let in, a job in the browser, its end, its return."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from selenium.webdriver import Chrome

from fresco.errors import WorkspaceError
from fresco.server.jobs.job import State
from fresco.ui.environment import Choices
from fresco.ui.serve import open_jobs
from tests.helpers.clips import write_clip
from tests.helpers.source import ROOT
from tests.helpers.tab_browser import TabPage, resize, screenshot
from tests.helpers.tiny_models import square_frames
from tests.helpers.ui_program import UiProgram, running_ui

pytestmark = pytest.mark.timeout(300)

LOGIN = ("me", "secret")
JOB = {
    "settings": {
        "sampling": {"steps": 400, "strength": 1, "resolution": 64, "prompt": "a painting"},
        "keyframes": {"min_interval": 2, "max_interval": 3, "batch_size": 3},
        "flow": {"estimator": "dis"}, "guidance": {"optimization_iterations": 1},
    },
    "goal": "keyframes",
}
"""One that runs until it is stopped."""
PICTURES = ROOT / "tests" / "screenshots"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="module")
def program(folder: Path, demo_model: Path) -> Iterator[UiProgram]:
    words = ("--model", demo_model, "--jobs-dir", folder / "jobs", "--upload-megabytes", 1)
    with running_ui(folder, *words, FRESCO_LOGIN=":".join(LOGIN)) as found:
        yield found


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames = square_frames(6)
    return write_clip(tmp_path / "two shots.mp4", np.concatenate([frames, 255 - frames]))


def ask(program: UiProgram, path: str, method: str = "GET", **more: object) -> requests.Response:
    options: dict[str, object] = {"auth": LOGIN, "timeout": 60, **more}
    return requests.request(method, program.address + path, **options)  # type: ignore[arg-type]


def test_nothing_is_had_without_the_password(program: UiProgram) -> None:
    prefix = find_prefix(program)
    for path in ("/", "/config", "/fresco/jobs", f"{prefix}/upload", "/assets-of-fresco/style.css"):
        for auth in (None, ("me", "wrong")):
            refused = ask(program, path, auth=auth)
            assert refused.status_code == 401, path
            assert "see --login" in refused.json()["detail"]
    assert ask(program, "/").status_code == 200
    assert ask(program, "/fresco/jobs").json()["jobs"] == []


def find_prefix(program: UiProgram) -> str:
    """Gradio 5 has its routes below one."""
    return ask(program, "/config").json().get("api_prefix", "")


def test_a_page_of_another_site_may_not_even_upload(program: UiProgram) -> None:
    for path in ("/fresco/jobs", "/", f"{find_prefix(program)}/upload"):
        refused = ask(program, path, "POST", headers={"Origin": "https://evil.example.org"})
        assert refused.status_code == 403
        assert "start fresco ui with --origin its origin" in refused.json()["detail"]


def test_bodies_end_at_their_limits(program: UiProgram) -> None:
    upload = f"{find_prefix(program)}/upload"
    small = ask(program, upload, "POST", files={"files": ("a.mp4", b"-" * 1000)})
    assert small.status_code == 200
    large = ask(program, upload, "POST", files={"files": ("a.mp4", b"-" * 18_000_000)})
    assert large.status_code in (400, 413)
    event = ask(program, "/run/predict", "POST", data=b" " * 17_000_000)
    assert event.status_code in (400, 404, 405, 413)


def test_gradio_serves_no_file(program: UiProgram, folder: Path) -> None:
    open_file = folder / "open.txt"
    open_file.write_text("-")
    for prefix in ("", "/gradio_api"):
        for path in (f"/file={open_file}", f"/file/{open_file}", f"/file%3D{open_file}",
                     f"/file={ROOT / 'README.md'}", "/proxy=http://127.0.0.1:1/"):
            assert ask(program, prefix + path).status_code == 403, path


def test_the_page_names_itself_and_asks_no_other_server(program: UiProgram) -> None:
    page = ask(program, "/")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    version = ask(program, "/fresco/version").json()
    assert version["host"].startswith("fresco ui ")
    assert version["limits"]["upload_megabytes"] == 1


def test_from_a_video_to_its_result(driver: Chrome, program: UiProgram, clip: Path) -> None:
    resize(driver, 1280, 1000)
    plain = program.address.removeprefix("http://")
    driver.get(f"http://{':'.join(LOGIN)}@{plain}/fresco/version")  # as if it was typed in
    page = TabPage(driver, program.address)
    assert driver.title == "FRESCO"
    page.open_clip(clip)
    assert page.keys == [0, 5, 6, 11]
    page.put(sampling_prompt="a painting", sampling_steps=3, sampling_resolution=64,
             keyframes_batch_size=3, guidance_optimization_iterations=1)
    page.press("#fresco_run_all")
    job = page.job_until("done", "failed")
    assert job["state"] == "done", job["message"]
    page.until("document.querySelector('#fresco_result video')?.readyState >= 2")
    footer = page.script("return document.querySelector('footer')")
    assert not (footer and footer.is_displayed())
    screenshot(driver, PICTURES / "ui-light.png")
    assert page.complaints() == []


def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path, demo_model: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WorkspaceError, match=r"file.* The folder is given by --jobs-dir\."):
        open_jobs(tmp_path / "file", Choices((str(demo_model),)))


def test_ctrl_c_keeps_the_job_and_a_second_program_keeps_out(
    program: UiProgram, folder: Path, demo_model: Path, clip: Path
) -> None:
    with clip.open("rb") as file:
        video = ask(program, "/fresco/videos", "POST", files={"video": ("c.mp4", file)}).json()
    job = ask(program, "/fresco/jobs", "POST", json={**JOB, "video_id": video["id"]}).json()["id"]
    while ask(program, f"/fresco/jobs/{job}").json()["stage"] != "keyframes":
        time.sleep(0.1)
    jobs, second = folder / "jobs", Choices((str(demo_model),))
    with pytest.raises(WorkspaceError, match=r"Another program runs the jobs of .* --jobs-dir\."):
        open_jobs(jobs, second)
    assert program.interrupt() == 0
    said = program.log.read_text()
    assert "can be resumed" in said
    assert "Traceback" not in said
    assert not (folder / "jobs" / "gradio").exists()
    again = open_jobs(jobs, second)
    try:
        status = again.engine.status(job)
        assert status.state is State.CANCELLED
        assert "Resume the job" in status.message
        assert again.resume(job).state.going
    finally:
        again.engine.close(60)
