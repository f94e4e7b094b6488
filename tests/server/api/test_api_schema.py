"""What the API says of itself: the schemas have every option, and any request gets an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator

from fresco.control import ControlUnit
from fresco.errors import SettingsError
from fresco.options import entries, from_dict, to_dict
from fresco.server.api.models import (
    JobBody,
    ResumeBody,
    SettingsBody,
    merge_settings,
    read_body,
)
from fresco.server.api.pydantic_shim import make_schema
from fresco.server.jobs.job import Goal, JobRequest
from fresco.server.ports import Limits
from fresco.settings import FrescoSettings
from tests.helpers.api_server import SETTINGS, ApiServer, make_environment, serving, small_clip

BODIES, IDS = 8, 2
"""Requests of a route with a body, and of one that only has an id."""


def parse_settings(values: Mapping[str, Any], base: FrescoSettings | None = None) -> FrescoSettings:
    """Settings as a body of the API gives them."""
    return merge_settings(read_body(SettingsBody, values), base)


def test_the_schema_has_every_option() -> None:
    groups = make_schema(SettingsBody)["properties"]
    for entry in entries():
        known = groups[entry.group]["properties"][entry.name]
        option = entry.option
        if option.instead:
            assert known["enum"] == [entry.default if entry.type is not tuple else []]
            continue
        assert known["description"] == option.help
        assert known.get("minimum") == option.low
        assert known.get("maximum") == option.high
        assert tuple(known.get("enum", ())) == option.choices
        assert known["default"] == ([] if entry.default == () else entry.default)
    assert {name for group in groups.values() for name in group["properties"]} == {
        entry.name for entry in entries()} | {"preset"}


def test_a_preset_stands_for_switches() -> None:
    steady = parse_settings({"guidance": {"preset": "steady", "temporal_attention": False}})
    assert steady.propagation.join_keyframes
    assert (steady.guidance.consensus, steady.guidance.temporal_attention) == (True, False)
    assert parse_settings({"guidance": {"preset": "paper"}}, steady) == FrescoSettings()
    with pytest.raises(SettingsError, match="paper, steady, attention, off"):
        parse_settings({"guidance": {"preset": "fast"}})


def test_the_schema_and_the_reader_agree() -> None:
    """Every default is valid, every bound is; one beyond it is not, for both."""
    validator = Draft202012Validator(make_schema(SettingsBody))
    defaults = json.loads(json.dumps(to_dict(FrescoSettings())))  # lists instead of tuples
    validator.validate(defaults)
    assert parse_settings(defaults) == FrescoSettings()
    for entry in entries():
        if entry.type not in (int, float) or entry.option.instead:
            continue
        for bound, beyond in ((entry.option.low, -1), (entry.option.high, 1)):
            if bound is None:
                continue
            values = {entry.group: {entry.name: entry.type(bound) + beyond}}
            assert not validator.is_valid(values), values
            with pytest.raises(SettingsError, match=entry.name):
                parse_settings(values)


def test_units_goals_and_fields_are_those_of_a_job() -> None:
    known = make_schema(JobBody)["properties"]
    assert set(known["controlnet"]["items"]["properties"]) == set(ControlUnit.__slots__)
    assert known["goal"]["enum"] == [goal.value for goal in Goal]
    assert set(known) - set(make_schema(ResumeBody)["properties"]) == {
        "video_id", "video", "path", "name", "styles"}
    for schema in (make_schema(JobBody), make_schema(ResumeBody)):
        Draft202012Validator.check_schema(schema)


def test_null_is_left_out_and_whole_numbers_may_have_a_point() -> None:
    body = read_body(JobBody, {
        "video_id": "a", "path": None, "title": None, "preview": 2.0, "frame": 0,
        "settings": {"sampling": {"steps": 8.0}}})
    assert (body.video_id, body.path) == ("a", "")
    assert (body.title, body.preview, body.frame) == (None, 2, 0)
    assert merge_settings(body.settings).sampling.steps == 8
    assert merge_settings(read_body(ResumeBody, {"settings": {}}).settings) == FrescoSettings()


def test_what_another_way_set_survives_a_resume() -> None:
    """A job of the tab or of the command line may have what the API does not take."""
    base = from_dict({"propagation": {"cluster": "tcp://a:1"}, "keyframes": {"keys": "0 5"}})
    assert parse_settings({"sampling": {"steps": 5}}, base).propagation.cluster == "tcp://a:1"
    with pytest.raises(SettingsError, match="cluster"):
        parse_settings({"propagation": {"cluster": "tcp://b:1"}}, base)


@pytest.mark.parametrize("keys", ["0,11", "0 11 23", "0_12_30", "keyframe:0,5", "[0, 11]", ""])
def test_keyframes_by_hand_are_numbers(keys: str) -> None:
    assert parse_settings({"keyframes": {"keys": keys}}).keyframes.keys == keys


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    environment = make_environment(tmp_path_factory, Limits(1, 100, 128), ("/",))
    with serving(tmp_path_factory.mktemp("root"), environment, idle=True) as running:
        yield running


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_clip(tmp_path_factory.mktemp("clip") / "a.mp4")


class Known:
    """Ids of what is there, made again when a request removed it."""

    def __init__(self, server: ApiServer, clip: Path) -> None:
        self._server, self._clip = server, clip
        self._job = self._video = ""

    def job(self) -> str:
        """A job that has ended."""
        engine = self._server.service.engine
        known = {status.id: status.state for status in engine.jobs()}
        if self._job not in known:
            self._job = engine.submit(JobRequest(str(self._clip))).id
        if not engine.status(self._job).state.ended:
            engine.cancel(self._job)
        return self._job

    def video(self) -> str:
        """An uploaded video."""
        if self._video not in [video.id for video in self._server.service.videos.list_videos()]:
            self._video = self._server.upload(self._clip)
        return self._video


@pytest.fixture(scope="module")
def known(server: ApiServer, clip: Path) -> Known:
    return Known(server, clip)


@pytest.mark.parametrize("allowed", [True, False])
def test_any_request_gets_an_answer(server: ApiServer, known: Known, allowed: bool) -> None:
    """Of what the document allows, and of what it does not; for ids that are and that are not."""
    import schemathesis  # takes a second, in every process that collects tests
    from schemathesis import GenerationMode

    mode = GenerationMode.POSITIVE if allowed else GenerationMode.NEGATIVE
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    asked: set[str] = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        body = bool(list(operation.body))
        if not allowed and (not body or "{" in operation.path):
            continue  # any text is an id, so nothing can be wrong with it

        @settings(max_examples=BODIES if body else IDS, deadline=None, derandomize=True,
                  database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            asked.add(f"{case.method} {case.path}")
            require_answer(case.call())
            with_known_ids(case, known)
            require_answer(case.call())

        ask()
    assert len(asked) >= (21 if allowed else 3), asked


def with_known_ids(case: Any, known: Known) -> None:
    """The same request, of a job or video that is there."""
    places = {"job": known.job, "video": known.video}
    for name in set(places) & set(case.path_parameters or {}):
        case.path_parameters[name] = places[name]()
    if isinstance(case.body, dict) and case.path in ("/fresco/jobs", "/fresco/keyframes"):
        for name in ("video", "path"):
            case.body.pop(name, None)
        case.body["video_id"] = known.video()


def require_answer(answer: Any) -> None:
    assert answer.status_code < 500, answer.text
    assert answer.status_code != 202
    if answer.status_code >= 400:
        assert isinstance(answer.json()["detail"], str)


def test_a_generated_body_can_be_a_job(server: ApiServer, known: Known) -> None:
    """That what is refused above is not refused for want of everything."""
    body = {"video_id": known.video(), "settings": SETTINGS}
    assert server.json("POST", "jobs", json=body)["state"] == "queued"
