"""docs/api.md says what is there, and its examples work."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from fresco.server.jobs.job import JobStatus
from fresco.server.ports import Limits, Offer
from fresco.webui.img2img.request import SOURCES, parse_arguments
from tests.helpers.api_server import ApiServer, make_environment, serving, small_clip
from tests.helpers.job_environment import tiny_settings
from tools.write_api import PAGE, write_tables

TEXT = PAGE.read_text("utf-8")
ADDRESS = "http://127.0.0.1:7860"
FRAMES = 6


@pytest.fixture
def server(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ApiServer]:
    """A server whose defaults are those of a job that ends soon."""
    environment = make_environment(tmp_path_factory)
    monkeypatch.setattr("fresco.server.api.models.FrescoSettings", tiny_settings)
    with serving(tmp_path_factory.mktemp("root"), environment) as running:
        yield running


def section(title: str) -> str:
    """The text below a heading, up to the next."""
    return re.split(r"^##", TEXT.partition(f"# {title}\n")[2], flags=re.MULTILINE)[0]


def words_of(column: str) -> set[str]:
    """Everything in backticks."""
    return set(re.findall(r"`([^`]+)`", column))


def first_column(title: str) -> set[str]:
    """Names in the first column of a section's table."""
    rows = [line.split(" | ")[0] for line in section(title).splitlines() if line.startswith("| `")]
    return words_of(" ".join(rows))


def test_tables_of_fields_are_those_of_the_models() -> None:
    assert write_tables(TEXT) == TEXT, "run: python -m tools.write_api"


def test_every_route_is_described(server: ApiServer) -> None:
    there = [f"{method} {path}" for method, path in server.list_routes()]
    assert first_column("Routes") == set(there)


def test_answers_are_described() -> None:
    assert first_column("A job") == {field.name for field in dataclasses.fields(JobStatus)}
    limits = {field.name for field in dataclasses.fields(Limits)}
    assert first_column("Limits") == limits | {"inline_megabytes"}
    assert {field.name for field in dataclasses.fields(Offer)} <= words_of(section("Routes"))


def test_answers_of_videos_are_described(server: ApiServer, tmp_path: Path) -> None:
    video = server.upload(small_clip(tmp_path / "a.mp4", FRAMES))
    known = server.json("GET", f"videos/{video}")
    assert set(known) | set(known["info"]) <= words_of(section("A video"))
    found = server.json("POST", "keyframes", json={"video_id": video})
    assert set(found) - {"video_id"} == first_column("A detection")
    assert set(found["shots"][0]) <= words_of(section("A detection"))


@pytest.mark.parametrize("language", ["bash", "python"])
def test_examples_work(
    server: ApiServer, language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As written, but for the address, and in a size that ends soon."""
    small_clip(tmp_path / "dog.mp4", FRAMES)
    (code,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert ADDRESS in code
    code = code.replace(ADDRESS, server.url)
    monkeypatch.chdir(tmp_path)
    if language == "python":
        exec(compile(code, str(PAGE), "exec"), {})
    else:
        if not shutil.which("curl"):
            pytest.skip("curl, with which the example asks, is not installed")
        subprocess.run(["bash", "-euc", code], check=True, timeout=120)
    (result,) = [path for path in tmp_path.iterdir() if path.name != "dog.mp4"]
    with av.open(str(result)) as container:
        assert sum(1 for _ in container.decode(video=0)) == FRAMES


def test_the_example_of_img2img_is_a_request() -> None:
    (code,) = re.findall(r"```json\n(.*?)```", section("img2img"), re.DOTALL)
    request = parse_arguments(json.loads(code)["alwayson_scripts"]["FRESCO"]["args"])
    assert request is not None
    assert request.settings.keyframes.batch_size == 8
    fields = first_column("img2img")
    fields_known = {"key_prompts", "ranges", "enabled", "preset", "mask_source"}
    assert set(SOURCES) | fields_known == fields
    assert parse_arguments([{"enabled": False}]) is None
    assert parse_arguments([{"key_prompts": {"12": "smiling"}, "preset": "off"}]) is not None
