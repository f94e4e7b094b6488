"""Two hundred jobs asked for, cancelled, resumed and deleted at random by several at once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from fresco.errors import SettingsError, VideoError
from fresco.progress import Progress
from fresco.server.jobs.engine import JobConflictError, JobEngine, UnknownJobError
from fresco.server.jobs.job import FOLLOWS, JobRequest, JobStatus, State, load_status
from fresco.server.jobs.runner import Outcome
from fresco.server.jobs.store import JobStore
from fresco.server.jobs.table import JobTable
from fresco.workspace import read_json
from tests.helpers.job_bench import NOTHING, PATIENCE

JOBS, CALLERS, DEEDS = 200, 5, 150


class Unsteady:
    """Work that ends well, fails, or goes on until it is cancelled; never twice at once."""

    def __init__(self) -> None:
        self.ran: Counter[Path] = Counter()
        self._alone = threading.Lock()
        self._random = random.Random(1)

    def __call__(self, request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        assert self._alone.acquire(blocking=False)
        try:
            self.ran[folder] += 1
            luck = self._random.random()
            with progress.stage("work", 3) as stage:
                for _ in range(3):
                    time.sleep(self._random.choice((0, 0, 0.002)))
                    stage.advance()
            if luck < 0.2:
                raise VideoError("It is broken; mend it.")
            return NOTHING
        finally:
            self._alone.release()


class Caller(threading.Thread):
    """Somebody who asks for things without looking first."""

    def __init__(self, engine: JobEngine, seed: int, known: list[str]) -> None:
        super().__init__()
        self.engine, self.random, self.known = engine, random.Random(seed), known
        self.refused: Counter[str] = Counter()
        self.deleted: set[str] = set()
        self.faults: list[BaseException] = []

    def run(self) -> None:
        deeds = ["submit"] * (JOBS // CALLERS)
        deeds += self.random.choices(("cancel", "resume", "delete", "look", "wait"),
                                     (4, 3, 1, 2, 2), k=DEEDS)
        self.random.shuffle(deeds)
        for deed in deeds:
            try:
                self._do(deed)
            except (JobConflictError, UnknownJobError) as error:
                self.refused[type(error).__name__] += 1
            except BaseException as error:
                self.faults.append(error)

    def _do(self, deed: str) -> None:
        if deed == "submit" or not self.known:
            self.known.append(self.engine.submit(JobRequest("same name.mp4")).id)
            return
        job = self.random.choice(self.known)
        if deed == "look":
            created = [status.created for status in self.engine.jobs()]
            assert created == sorted(set(created), reverse=True)
        elif deed == "wait":
            before = self.engine.status(job)
            assert self.engine.wait(job, before.version, 0.003).version >= before.version
        elif deed == "delete":
            self.engine.delete(job)
            self.deleted.add(job)
        else:
            getattr(self.engine, deed)(job)


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[JobStatus]]:
    """Every status that was ever written, by job, in order."""
    seen: dict[str, list[JobStatus]] = defaultdict(list)
    write = JobStore.write_status

    def watched(store: JobStore, status: JobStatus) -> None:
        seen[status.id].append(status)
        write(store, status)

    monkeypatch.setattr(JobStore, "write_status", watched)
    return seen


def test_states_are_legal_whatever_is_asked_for(
    tmp_path: Path, changes: dict[str, list[JobStatus]]
) -> None:
    threads = threading.active_count()
    work = Unsteady()
    engine = JobEngine(tmp_path, work)
    engine.start()
    known: list[str] = []
    callers = [Caller(engine, seed, known) for seed in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE * 2)
    assert [caller.faults for caller in callers] == [[]] * CALLERS
    deleted = set().union(*(caller.deleted for caller in callers))
    left = set(known) - deleted
    _await_rest(engine, left)
    engine.close()

    assert len(known) >= JOBS
    assert len(deleted) > 10
    assert sum(caller.refused["JobConflictError"] for caller in callers) > 10
    assert sum(caller.refused["UnknownJobError"] for caller in callers) > 10
    _require_legal(changes)
    reached = Counter(status.state for each in changes.values() for status in each)
    assert set(reached) == set(State)
    assert {status.id for status in engine.jobs()} == left
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} <= left | {".incoming"}
    for status in engine.jobs():
        assert status.state.ended
        known_status = read_json(tmp_path / status.id / "status.json")
        assert known_status is not None
        assert load_status(known_status) == status
    assert threading.active_count() == threads


def _await_rest(engine: JobEngine, jobs: set[str]) -> None:
    end = time.monotonic() + PATIENCE
    for job in jobs:
        status = engine.status(job)
        while not status.state.ended:
            assert time.monotonic() < end
            status = engine.wait(job, status.version, 1)


def _require_legal(changes: dict[str, list[JobStatus]]) -> None:
    for seen in changes.values():
        state, version = State.QUEUED, 1
        for status in seen:
            assert status.state is state or status.state in FOLLOWS[state]
            assert status.version > version
            state, version = status.state, status.version


def test_an_illegal_change_is_refused_by_the_table_itself(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    assert store.hold()
    table = JobTable(store)
    for state in State:
        for wanted in State:
            job = table.add(JobRequest("a.mp4")).id
            for step in _path_to(state):
                table.change(job, step)
            if wanted in FOLLOWS[state]:
                assert table.change(job, wanted).state is wanted
            else:
                with pytest.raises(SettingsError, match=f"cannot become {wanted.value}"):
                    table.change(job, wanted)
                assert table.status(job).state is state
    store.release()


def _path_to(state: State) -> tuple[State, ...]:
    """The shortest way there from QUEUED."""
    running = (State.RUNNING,)
    return {
        State.QUEUED: (), State.RUNNING: running, State.CANCELLED: (State.CANCELLED,),
        State.CANCELLING: (*running, State.CANCELLING), State.DONE: (*running, State.DONE),
        State.FAILED: (*running, State.FAILED),
    }[state]
