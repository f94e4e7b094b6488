"""Requests that nearly follow the grammars: no fault of the server, and each in a bounded time.

FRESCO_FUZZ=5000 sends so many of each kind; without it, a few. FRESCO_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fresco.errors import FrescoError
from fresco.options import entries, from_dict
from fresco.planning.parsing import parse_keys, write_keys_inline
from fresco.planning.prompt_syntax import check_syntax
from fresco.server.jobs.job import JobRequest
from fresco.server.ports import Limits
from fresco.settings import SamplingSettings
from tests.helpers.api_server import ApiServer, make_environment, serving, small_clip
from tests.helpers.grammar import Grammar

COUNT = int(os.environ.get("FRESCO_FUZZ", "30"))
SEED = int(os.environ.get("FRESCO_FUZZ_SEED") or random.randrange(10**6))
LONGEST = 5.0
"""Seconds for a text; quadratic ones took minutes, others take milliseconds."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    environment = make_environment(tmp_path_factory, Limits(waiting_jobs=0, free_megabytes=0))
    with serving(tmp_path_factory.mktemp("root"), environment, idle=True) as running:
        yield running


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_clip(tmp_path_factory.mktemp("clip") / "a.mp4")


@pytest.fixture
def grammar(request: pytest.FixtureRequest) -> Grammar:
    return Grammar(SEED)


@contextlib.contextmanager
def bounded(text: object) -> Iterator[None]:
    """Within: one text is worked on."""
    start = time.process_time()  # other processes may keep this one waiting
    yield
    assert time.process_time() - start < LONGEST, (SEED, repr(text)[:500])


def test_parsers_answer_or_say_what_is_wrong(grammar: Grammar, tmp_path: Path) -> None:
    for _ in range(COUNT * 10):
        keys, prompt = grammar.keys(), grammar.prompt()
        for text, act in (
            (keys, lambda text: parse_keys(text, 100, read_files=False)),
            (keys, write_keys_inline),
            (prompt, lambda text: check_syntax(SamplingSettings(prompt=text))),
            (keys, lambda text: from_dict({"sampling": {"key_prompts": text}})),
        ):
            with bounded(text), contextlib.suppress(FrescoError):
                act(text)


def ask(server: ApiServer, method: str, path: str, **options: Any) -> None:
    """A request whose answer is no fault of the server."""
    with bounded((path, options)):
        answer = server.ask(method, path, **options)
    assert answer.status_code < 500, (SEED, path, repr(options)[:2000], answer.text)
    if answer.status_code >= 400:
        assert isinstance(answer.json()["detail"], str), (SEED, path, repr(options)[:2000])
    answer.close()


JSON = {"Content-Type": "application/json"}


def make_settings(grammar: Grammar) -> dict[str, Any]:
    """Settings of which a few have texts, or anything, in place of their values."""
    pick, found = grammar.chance.choice, {}
    for entry in grammar.chance.sample(list(entries()), 3):
        found.setdefault(entry.group, {})[entry.name] = grammar.value()
    found.setdefault("keyframes", {})
    found.setdefault("sampling", {})
    if pick((True, False)):
        found["keyframes"]["keys"] = grammar.keys()
        found["sampling"]["prompt"] = grammar.prompt()
    return found


def test_bodies(server: ApiServer, clip: Path, grammar: Grammar) -> None:
    engine = server.service.engine
    job = engine.submit(JobRequest(str(clip))).id
    engine.cancel(job)
    pick = grammar.chance.choice
    for number in range(COUNT):
        body: Any = {"path": str(clip), "settings": make_settings(grammar)}
        if number % 3 == 0:
            body[pick(("goal", "host", "controlnet", "keyframes", "title", "frame", "preview"))] = (
                grammar.value()
            )
        path = pick(("jobs", "keyframes", f"jobs/{job}/resume"))
        if "resume" in path:
            del body["path"]
        text = json.dumps(body)
        if number % 5 == 0:
            text = pick((text[: len(text) // 2], text.replace('"settings": ', '"settings": ' + "["
                         * pick((15, 17, 3000))), grammar.json_text()))
        ask(server, "POST", path, data=text.encode("utf-8", "surrogatepass"), headers=JSON)
        if engine.status(job).state.going:
            engine.cancel(job)


def test_addresses_and_headers(server: ApiServer, clip: Path, grammar: Grammar) -> None:
    job = server.service.engine.submit(JobRequest(str(clip), title="fuzzed")).id
    folder = server.service.engine.folder(job)
    (folder / "result.mp4").write_bytes(bytes(1000))
    (folder / "outcome.json").write_text('{"output": "result.mp4"}')
    for _ in range(COUNT):
        keys = grammar.keys()[:9000].encode("utf-8", "replace").decode()
        ask(server, "GET", f"jobs/{job}/keyframes", params={"numbers": keys})
        ranges = grammar.ranges().strip()[:7000].replace("\n", "").replace("\r", "")
        ask(server, "GET", f"jobs/{job}/video", headers={"Range": ranges.encode("latin-1")})
        ask(server, "GET", f"jobs/{job}/events", headers={
            "Last-Event-ID": ranges.encode("latin-1")}, stream=True)
