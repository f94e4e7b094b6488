"""Stage 3: from translated keyframes to every frame, segment by segment."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from fresco import __version__
from fresco.errors import PropagationError
from fresco.flow.interface import FlowEstimator
from fresco.planning.keyframes import KeyframePlan
from fresco.propagation.ends import EndJob, propagate_end
from fresco.propagation.engine import ENGINES, Engine, FlowEngine
from fresco.propagation.executor import count_cores, run_segments
from fresco.propagation.segment import SegmentJob
from fresco.run.context import RunContext, log_stage
from fresco.run.former import FORMER_VERSION
from fresco.run.result import ImageLookup, read_stored
from fresco.settings import FrescoSettings
from fresco.workspace import digest, frame_name

log = logging.getLogger("fresco")


def choose_engine(settings: FrescoSettings) -> tuple[Engine, str]:
    """The engine asked for; where it cannot work, the flow's and a note that says why."""
    propagation = settings.propagation
    try:
        return ENGINES[propagation.method](propagation), ""
    except PropagationError as error:
        note = f"Propagation is by flow instead of by patches: {error}"
        log.warning("%s", note)
        return FlowEngine(), note


def propagate_frames(
    run: RunContext, plans: Sequence[KeyframePlan], keys: Path, estimator: FlowEstimator,
    engine: Engine, *, ends: tuple[tuple[int, int], ...] = (), stage: str = "propagate",
) -> ImageLookup:
    """Carry keyframes to all frames; where the image of each frame is found.

    Args:
        keys: folder of the keyframes.
        ends: pairs of a keyframe and the end of its shot on a side without another keyframe.
        stage: name of the stage for `progress`.
    """
    segments = [[(part.first, part.last) for part in plan.segments] for plan in plans]
    made_from = keys.name, segments, ends, engine.digest_options(run.settings)
    folder = run.workspace.folder(
        "frames", digest(__version__, *made_from, estimator.fingerprint),
        lambda: digest(FORMER_VERSION, *made_from, estimator.former_fingerprint),
    )
    with log_stage("propagation"):
        _propagate_segments(run, plans, keys, folder, estimator, engine, stage)
        if ends:
            _propagate_ends(run, ends, keys, folder, estimator, engine)
    key_numbers = {number for plan in plans for number in plan.keyframes}
    keyframes, between = read_stored(keys), read_stored(folder)
    return lambda number: (keyframes if number in key_numbers else between)(number)


def _propagate_segments(
    run: RunContext, plans: Sequence[KeyframePlan], keys: Path, folder: Path,
    estimator: FlowEstimator, engine: Engine, stage_name: str,
) -> None:
    """Write every frame between two keyframes of a shot; what exists is left as it is."""
    # The choice was made once; workers must not choose for themselves.
    flow = dataclasses.replace(run.settings.flow, estimator=estimator.name)
    # Absolute, for machines of a cluster.
    keys, folder = keys.absolute(), folder.absolute()
    source = Path(run.clip.frames.path).absolute()
    frames = dataclasses.replace(run.clip.frames, path=str(source))
    jobs = [
        SegmentJob(
            segment.first, segment.last, keys / frame_name(segment.first),
            keys / frame_name(segment.last), frames, flow, run.settings.blend, folder, engine,
        )
        for plan in plans for segment in plan.segments
    ]
    between = sum(len(job.interior) for job in jobs)
    propagation = run.settings.propagation
    with run.progress.stage(stage_name, between) as stage:
        run_segments(jobs, propagation.workers, stage, cluster=propagation.cluster)


def _propagate_ends(
    run: RunContext, ends: Sequence[tuple[int, int]], keys: Path, folder: Path,
    estimator: FlowEstimator, engine: Engine,
) -> None:
    """Write the frames outside the outermost keyframes of shots."""
    # One after the other, so each may have all cores.
    engine = engine.with_threads(count_cores())
    with run.progress.stage("ends", sum(abs(end - key) for key, end in ends)) as stage:
        for key, end in ends:
            job = EndJob(key, end, keys / frame_name(key), run.clip.frames, folder, engine)
            propagate_end(job, estimator, advanced=stage.advance, check=stage.check)
