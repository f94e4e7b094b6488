"""Workspaces of version 0.1 are gone on with: finished keyframes are not made again.

Frames between keyframes are: flow and tracks changed since, and frames of two methods in one
segment would show a border.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fresco.config.run_file import load_config
from fresco.flow.dis import DisEstimator
from fresco.flow.estimator import create_estimator
from fresco.hosts.diffusers.load import load_host
from fresco.options import from_dict
from fresco.progress import Progress
from fresco.propagation.program import require_program
from fresco.run.translate import RunResult, propagate_keys, translate
from fresco.settings import FlowSettings, FrescoSettings
from fresco.video.reader import open_source
from fresco.workspace import read_image, read_tensors
from tests.helpers.old_samples import KnownHost, Samples

SAME = 2.0
"""Levels that images of one run may differ by on another machine, on average."""


def artefacts(workspace: Path) -> set[str]:
    """The folders that are named by hashes; flows are only a cache."""
    return {path.name for path in workspace.iterdir() if "-" in path.name}


@pytest.fixture
def settings(samples: Samples) -> FrescoSettings:
    return load_config(samples.root / "finished" / "result.fresco-run.json").settings


@pytest.fixture
def host(recorded: SimpleNamespace, settings: FrescoSettings, demo_model: Path) -> KnownHost:
    sampling = from_dict({"sampling": {"model": str(demo_model)}}, settings).sampling
    return KnownHost(load_host(sampling, offline=True), recorded.host)


def resume(samples: Samples, name: str, host: KnownHost) -> RunResult:
    """Start the command of a sample's run file again."""
    run = load_config(samples.root / name / "result.fresco-run.json")
    assert run.source
    assert run.output
    settings = from_dict({"output": {"measures": False}}, run.settings)
    return translate(run.source, run.output, settings, lambda: host, Progress())


def frames_of(video: Path) -> int:
    with open_source(video) as result:
        return result.info.frames


@pytest.fixture
def present_program(recorded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled program, in place of the recorded one, paints what is made anew."""
    monkeypatch.setattr("fresco.propagation.engine.require_program", require_program)


@pytest.mark.usefixtures("present_program")
@pytest.mark.parametrize("name", ["finished", "stopped_in_frames"])
def test_keyframes_stay_and_frames_are_made_anew(
    samples: Samples, host: KnownHost, name: str
) -> None:
    before = [
        path for path in samples.stored(name)
        if not any(part.startswith("frames-") for part in path.parts)
    ]
    names = artefacts(samples.root / name / "result.fresco")
    result = resume(samples, name, host)
    assert frames_of(result.output) == 8
    assert host.sampled == []
    (made,) = artefacts(result.workspace) - names
    assert made.startswith("frames-")
    samples.require_untouched([*before, *result.workspace.glob("scan*.json")])


def test_a_run_stopped_in_its_keyframes_goes_on_at_the_second_batch(
    samples: Samples, host: KnownHost
) -> None:
    before = samples.stored("stopped_in_keyframes")
    result = resume(samples, "stopped_in_keyframes", host)
    assert host.sampled == [3]  # two anchors of the first batch, and frame 7
    samples.require_untouched(before)
    assert frames_of(result.output) == 8
    (wanted,) = (samples.root / "finished").rglob("keys-*/000007.png")
    (found,) = result.workspace.rglob("keys-*/000007.png")
    assert found.parent.name == wanted.parent.name
    images = [read_image(path) for path in (found, wanted)]
    assert images[0] is not None
    assert images[1] is not None
    assert np.abs(images[0].astype(int) - images[1]).mean() < SAME


def test_a_finished_propagation_is_made_anew(
    samples: Samples, recorded: SimpleNamespace
) -> None:
    names = artefacts(samples.root / "propagated/result.fresco")
    run = load_config(samples.root / "propagated" / "result.fresco-run.json")
    assert run.source
    assert run.output
    result = propagate_keys(
        run.source, samples.root / "keys", run.output, run.settings, Progress()
    )
    made = artefacts(result.workspace) - names
    assert {name.partition("-")[0] for name in made} == {"frames", "own"}
    assert frames_of(result.output) == 8


def test_a_cached_flow_is_found(
    samples: Samples, recorded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: DisEstimator, first: np.ndarray, second: np.ndarray) -> None:
        raise AssertionError("the flow was estimated again")

    monkeypatch.setattr(DisEstimator, "estimate_frames", never)
    images = [read_image(samples.root / "flow" / f"{n}.png") for n in ("source", "target")]
    pair = [
        torch.from_numpy(image).permute(2, 0, 1)[None] / 128 - 1
        for image in images if image is not None
    ]
    cached = create_estimator(
        FlowSettings(estimator="dis"), "cpu", cache=samples.root / "flow" / "cache"
    )
    forward, backward = cached.estimate(pair[0], pair[1])
    (path,) = (samples.root / "flow" / "cache").iterdir()
    stored = read_tensors(path)
    assert stored is not None
    assert torch.equal(forward, stored["forward"].float())
    assert torch.equal(backward, stored["backward"].float())
