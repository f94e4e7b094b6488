"""Stage 3: from translated keyframes to every frame, segment by segment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fresco.flow.interface import FlowEstimator
from fresco.keyframes import KeyframePlan
from fresco.progress import Progress
from fresco.propagation.ends import propagate_end
from fresco.propagation.executor import run_segments
from fresco.propagation.propagate import SegmentJob
from fresco.settings import FrescoSettings
from fresco.stages.clip import Clip
from fresco.workspace import frame_name


def propagate_shots(
    clip: Clip, plans: Sequence[KeyframePlan], keys: Path, folder: Path,
    settings: FrescoSettings, progress: Progress, estimator: FlowEstimator,
) -> None:
    """Write every frame between two keyframes of a shot; what exists is left as it is.

    Args:
        keys: folder of the keyframes' pictures.
        folder: where the frames between them go.
    """
    # The choice was made once; workers must not choose for themselves.
    flow = dataclasses.replace(settings.flow, estimator=estimator.name)
    jobs = [
        SegmentJob(
            segment.first, segment.last, keys / frame_name(segment.first),
            keys / frame_name(segment.last), clip.frames, flow, settings.blend, folder,
        )
        for plan in plans for segment in plan.segments
    ]
    between = sum(len(job.interior) for job in jobs)
    with progress.stage("propagate", between) as stage:
        run_segments(jobs, settings.propagation.workers, stage)


def propagate_ends(
    clip: Clip, ends: Sequence[tuple[int, int]], keys: Path, folder: Path, progress: Progress,
    estimator: FlowEstimator,
) -> None:
    """Write the frames outside the outermost keyframes of shots.

    Args:
        ends: pairs of a keyframe and the end of its shot on that side.
    """
    with progress.stage("ends", sum(abs(end - key) for key, end in ends)) as stage:
        for key, end in ends:
            propagate_end(
                key, end, picture=keys / frame_name(key), frames=clip.frames, folder=folder,
                estimator=estimator, advanced=stage.advance,
            )
