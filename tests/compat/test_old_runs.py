"""Workspaces of version 0.1 are gone on with, and nothing that is finished is done again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fresco.config.run_file import load_config
from fresco.flow.estimator import DisEstimator, create_estimator
from fresco.hosts.diffusers.load import load_host
from fresco.progress import Progress
from fresco.run.translate import RunResult, propagate_keys, translate
from fresco.settings import FlowSettings, FrescoSettings, from_dict
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


def test_a_finished_run_is_only_written(samples: Samples, host: KnownHost) -> None:
    before, names = samples.stored("finished"), artefacts(samples.root / "finished/result.fresco")
    result = resume(samples, "finished", host)
    assert frames_of(result.output) == 8
    assert host.sampled == []
    assert artefacts(result.workspace) == names
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


def test_a_run_stopped_between_keyframes_goes_on_within_the_segment(
    samples: Samples, host: KnownHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flow and evidence of the segment at work had been put aside; only the next one needs flow."""
    kept = [path for path in samples.stored("stopped_in_frames") if path.suffix != ".npz"]
    names = artefacts(samples.root / "stopped_in_frames/result.fresco")
    pairs: list[int] = []
    estimate = DisEstimator.estimate

    def counted(
        self: DisEstimator, source: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pairs.append(len(source))
        return estimate(self, source, target)

    monkeypatch.setattr(DisEstimator, "estimate", counted)
    result = resume(samples, "stopped_in_frames", host)
    assert host.sampled == []
    assert sum(pairs) == 4  # all of the segment 2 to 4; without what was put aside they were 8
    samples.require_untouched(kept)
    assert artefacts(result.workspace) == names
    assert frames_of(result.output) == 8


def test_a_finished_propagation_is_only_written(
    samples: Samples, recorded: SimpleNamespace
) -> None:
    before = samples.stored_frames("propagated")
    names = artefacts(samples.root / "propagated/result.fresco")
    run = load_config(samples.root / "propagated" / "result.fresco-run.json")
    assert run.source
    assert run.output
    result = propagate_keys(
        run.source, samples.root / "keys", run.output, run.settings, Progress()
    )
    assert artefacts(result.workspace) == names
    samples.require_untouched(before)
    assert frames_of(result.output) == 8


def test_a_cached_flow_is_found(
    samples: Samples, recorded: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: DisEstimator, source: torch.Tensor, target: torch.Tensor) -> None:
        raise AssertionError("the flow was estimated again")

    monkeypatch.setattr(DisEstimator, "estimate", never)
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
