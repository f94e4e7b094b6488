"""Job folders of version 0.1: listed, resumed, deleted."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from fresco.guidance.ports import Host
from fresco.hosts.options import HostOptions
from fresco.server.jobs.engine import JobConflictError, JobEngine
from fresco.server.jobs.job import State, dump_request, dump_status, load_request
from fresco.server.jobs.runner import make_work
from fresco.settings import SamplingSettings
from tests.helpers.job_bench import ended
from tests.helpers.job_environment import TinyEnvironment
from tests.helpers.old_samples import SAMPLES, KnownHost, Samples, holds

JOBS: dict[str, str] = json.loads((SAMPLES / "facts.json").read_text("utf-8"))["jobs"]
"""What became of a job -> its id."""
STATES = {
    "done": State.DONE, "propagated": State.DONE, "failed": State.FAILED,
    "cancelled": State.CANCELLED, "killed": State.FAILED, "queued": State.QUEUED,
}
"""What the next program makes of them."""


@dataclass
class Server:
    """The jobs, and every host that was opened for them."""

    engine: JobEngine
    samples: Samples
    hosts: list[KnownHost] = field(default_factory=list)

    def read(self, job: str, name: str) -> Any:
        return json.loads((self.samples.root / "jobs" / JOBS[job] / name).read_text("utf-8"))

    def resume(self, job: str) -> State:
        self.engine.resume(JOBS[job])
        return ended(self.engine, JOBS[job], patience=60).state

    @property
    def sampled(self) -> list[int]:
        """Frames of every batch that was translated."""
        return [count for host in self.hosts for count in host.sampled]


@pytest.fixture
def server(
    samples: Samples, recorded: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    hosts: list[KnownHost] = []

    class Environment(TinyEnvironment):
        def open(self, options: HostOptions, sampling: SamplingSettings) -> Host:
            hosts.append(KnownHost(super().open(options, sampling), recorded.job_host))
            return hosts[-1]

    environment = Environment(tmp_path_factory.getbasetemp() / "job-models")
    engine = JobEngine(samples.root / "jobs", make_work(environment))
    yield Server(engine, samples, hosts)
    engine.close()


def test_every_job_is_listed_as_it_was_left(
    samples: Samples, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fresco"):
        listed = {status.id: status for status in server.engine.jobs()}
    assert not caplog.records  # no folder was skipped
    assert {name: listed[JOBS[name]].state for name in STATES} == STATES
    assert "Resume it" in listed[JOBS["killed"]].message
    created = [status.created for status in server.engine.jobs()]
    assert created == sorted(created, reverse=True)
    for name in STATES:
        request = json.loads(json.dumps(dump_request(server.engine.request(JOBS[name]))))
        assert holds(request, server.read(name, "request.json"))
        status = json.loads(json.dumps(dump_status(listed[JOBS[name]])))
        assert holds(status, server.read(name, "status.json"))


def test_what_finished_jobs_made_is_found(server: Server) -> None:
    whole, carried = (server.engine.outcome(JOBS[name]) for name in ("done", "propagated"))
    folder = server.engine.folder(JOBS["done"])
    assert whole.output == folder / "result.mp4"
    assert list(whole.keys) == [0, 2, 4, 7]
    assert whole.notes
    assert carried.output
    assert list(carried.keys) == [2, 5]
    assert list(server.engine.outcome(JOBS["cancelled"]).keys) == [0, 2, 4]
    assert "all: begins" in server.engine.log(JOBS["done"])


def test_a_finished_job_has_nothing_to_resume(samples: Samples, server: Server) -> None:
    for name in ("done", "propagated"):
        assert server.engine.status(JOBS[name]).result == "new"
        with pytest.raises(JobConflictError, match="nothing to resume"):
            server.engine.resume(JOBS[name])


def test_a_finished_job_whose_result_is_gone_keeps_its_keyframes(
    samples: Samples, server: Server
) -> None:
    before = samples.stored(f"jobs/{JOBS['done']}")
    before += samples.stored_frames(f"jobs/{JOBS['propagated']}")
    for name in ("done", "propagated"):
        (server.engine.folder(JOBS[name]) / "result.mp4").unlink()
    _hold_queue(server)
    assert server.resume("done") is State.DONE
    assert server.resume("propagated") is State.DONE
    assert server.sampled == []
    samples.require_untouched(before)


def test_a_cancelled_job_goes_on_at_the_second_batch(samples: Samples, server: Server) -> None:
    before = samples.stored(f"jobs/{JOBS['cancelled']}")
    _hold_queue(server)
    assert server.resume("cancelled") is State.DONE
    assert server.sampled == [3]
    samples.require_untouched(before)
    outcome = server.engine.outcome(JOBS["cancelled"])
    assert outcome.output
    assert list(outcome.keys) == [0, 2, 4, 7]


def test_queued_failed_and_killed_jobs_run(samples: Samples, server: Server) -> None:
    server.engine.start()
    assert ended(server.engine, JOBS["queued"], patience=60).state is State.DONE
    assert server.resume("killed") is State.DONE
    assert server.sampled == [3, 3] * 2
    assert server.resume("failed") is State.FAILED  # its source is still not there
    assert "gone.mp4 does not exist" in server.engine.status(JOBS["failed"]).message


@pytest.mark.parametrize("name", STATES)
def test_a_job_is_deleted_and_no_other(samples: Samples, server: Server, name: str) -> None:
    server.engine.delete(JOBS[name])
    left = {path.name for path in (samples.root / "jobs").iterdir() if path.is_dir()}
    assert left == set(JOBS.values()) - {JOBS[name]}
    assert len(server.engine.jobs()) == len(JOBS) - 1
    assert (samples.root / "clip.mp4").exists()


def _hold_queue(server: Server) -> None:
    """Start with the queued job put off, so that the order of the others is told."""
    server.engine.cancel(JOBS["queued"])
    server.engine.start()


REQUESTS: list[dict[str, Any]] = json.loads((SAMPLES / "requests.json").read_text("utf-8"))


@pytest.mark.parametrize("stored", REQUESTS, ids=lambda stored: stored["title"] or "defaults")
def test_a_request_of_every_goal_says_the_same(stored: dict[str, Any]) -> None:
    request = load_request(stored)
    assert holds(json.loads(json.dumps(dump_request(request))), stored)
    named = {field.name for field in dataclasses.fields(request)}
    assert set(stored) <= named
