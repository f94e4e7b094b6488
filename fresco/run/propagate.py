"""Stage 3: from translated keyframes to every frame, segment by segment."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fresco.errors import PropagationError
from fresco.flow.interface import FlowEstimator
from fresco.planning.keyframes import KeyframePlan
from fresco.progress import Progress
from fresco.propagation.ends import EndJob, propagate_end
from fresco.propagation.executor import count_cores, run_segments
from fresco.propagation.program import require_program
from fresco.propagation.segment import PatchWork, SegmentJob
from fresco.run.clip import Clip
from fresco.settings import FrescoSettings, image_settings
from fresco.workspace import digest, frame_name

log = logging.getLogger("fresco")


@dataclass(frozen=True, slots=True)
class Method:
    """How keyframes are really carried in this run."""

    patches: PatchWork | None = None
    """By patches; None: along the flow."""
    note: str = ""
    """Why it is not the method asked for."""

    @property
    def name(self) -> str:
        """As in the settings."""
        return "patch" if self.patches else "flow"

    @property
    def text(self) -> str:
        """For people: the name, with the program's version."""
        return f"patch ({self.patches.version})" if self.patches else "flow"

    def identity(self, settings: FrescoSettings) -> str:
        """Digest of the method used and of all options that change its pictures."""
        used = dataclasses.replace(settings.propagation, method=self.name)
        if not self.patches:
            used = dataclasses.replace(used, quality=type(used)().quality)
        changed = dataclasses.replace(settings, propagation=used)
        return digest(image_settings(changed, "propagation", "blend"),
                      self.patches.identity if self.patches else "")


FLOW = Method()
"""Along the flow."""


def choose_method(settings: FrescoSettings) -> Method:
    """The method asked for, or the flow with a note if the synthesis program cannot run."""
    if settings.propagation.method == "flow":
        return FLOW
    try:
        program = require_program()
    except PropagationError as error:
        note = f"Propagation is by flow instead of by patches: {error}"
        log.warning("%s", note)
        return Method(note=note)
    work = PatchWork(settings.propagation.quality, program.fingerprint, program.version)
    return Method(work)


def propagate_shots(
    clip: Clip, plans: Sequence[KeyframePlan], keys: Path, folder: Path,
    settings: FrescoSettings, progress: Progress, estimator: FlowEstimator, *,
    method: Method, stage_name: str = "propagate",
) -> None:
    """Write every frame between two keyframes of a shot; what exists is left as it is.

    Args:
        keys: folder of the keyframes' pictures.
        folder: where the frames between them go.
    """
    # The choice was made once; workers must not choose for themselves.
    flow = dataclasses.replace(settings.flow, estimator=estimator.name)
    # Absolute, for machines of a cluster.
    keys, folder = keys.absolute(), folder.absolute()
    frames = dataclasses.replace(clip.frames, path=str(Path(clip.frames.path).absolute()))
    jobs = [
        SegmentJob(
            segment.first, segment.last, keys / frame_name(segment.first),
            keys / frame_name(segment.last), frames, flow, settings.blend, folder,
            patches=method.patches,
        )
        for plan in plans for segment in plan.segments
    ]
    between = sum(len(job.interior) for job in jobs)
    with progress.stage(stage_name, between) as stage:
        run_segments(jobs, settings.propagation.workers, stage,
                     cluster=settings.propagation.cluster)


def propagate_ends(
    clip: Clip, ends: Sequence[tuple[int, int]], keys: Path, folder: Path, progress: Progress,
    estimator: FlowEstimator, *, method: Method,
) -> None:
    """Write the frames outside the outermost keyframes of shots.

    Args:
        ends: pairs of a keyframe and the end of its shot on that side.
    """
    # One after the other, so each may have all cores.
    patches = method.patches and dataclasses.replace(method.patches, threads=count_cores())
    with progress.stage("ends", sum(abs(end - key) for key, end in ends)) as stage:
        for key, end in ends:
            job = EndJob(key, end, keys / frame_name(key), clip.frames, folder, patches)
            propagate_end(job, estimator, advanced=stage.advance, check=stage.check)
