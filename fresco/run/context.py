"""The state that all steps of a run share: clip, settings, workspace, notes."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fresco.memory import memory_errors
from fresco.progress import Progress, format_seconds
from fresco.run.clip import Clip
from fresco.run.hints import HintSource
from fresco.run.inputs import SourceWatch
from fresco.settings import FrescoSettings
from fresco.workspace import Workspace, drop_damaged

log = logging.getLogger("fresco")


_FRAMES, MOTION = "source", "motion"
"""Folders that exist only during the run: frames of the source at working size, and the motion
between neighbouring frames."""


@dataclass(slots=True)
class RunContext:
    """A run in progress. Its steps only read it, except that they add to `notes`."""

    clip: Clip
    """The frames of the source that are used."""
    settings: FrescoSettings
    """All options, checked."""
    workspace: Workspace
    """The folder of artefacts, locked by this run."""
    progress: Progress
    """Receives the progress of every stage, and says when to stop."""
    watch: SourceWatch
    """Checks whether the source has changed."""
    output: Path
    """Path of the result."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the user, in the order in which they came up."""
    hints: tuple[HintSource | None, ...] = ()
    """Hints of each ControlNet unit, if they were made elsewhere; empty if there are none."""


def default_workspace(output: Path) -> Path:
    """The default folder of a run's artefacts, beside the result."""
    return output.parent / f"{output.stem}.fresco"


@contextmanager
def open_run(
    clip: Clip, settings: FrescoSettings, output: Path, progress: Progress, folder: Path | None
) -> Iterator[RunContext]:
    """Open a run; within the context no other process can use its workspace.

    Args:
        folder: folder of the workspace; None: beside the result.
    """
    with Workspace(folder or default_workspace(output)) as workspace:
        root = workspace.root.absolute()
        clip = _keep_frames(clip, workspace)
        workspace.tidy()
        for kind in (_FRAMES, MOTION):  # left by an interrupted run
            for place in root.glob(f"{kind}-*"):
                drop_damaged(place)
        watch = SourceWatch(clip.source, workspace)
        with watch.dropping():
            yield RunContext(clip, settings, workspace, progress.watched(watch), watch, output)
        # Stored for this run only; an interrupted run uses it again.
        for kind in (_FRAMES, MOTION):
            for place in root.glob(f"{kind}-*"):
                shutil.rmtree(place, ignore_errors=True)


def _keep_frames(clip: Clip, workspace: Workspace) -> Clip:
    """Let a clip store its frames in a workspace."""
    # An absolute path, for workers and for machines of a cluster.
    folder = workspace.root.absolute() / workspace.name(_FRAMES, clip.cache_key)
    return dataclasses.replace(clip, frames=dataclasses.replace(clip.frames, kept=folder))


def resize_run(run: RunContext, size: tuple[int, int]) -> RunContext:
    """Return the same run with frames of another size (width, height); the notes are shared."""
    clip = run.clip.resized(size)
    return run if clip is run.clip else dataclasses.replace(
        run, clip=_keep_frames(clip, run.workspace)
    )


@contextmanager
def log_stage(name: str) -> Iterator[None]:
    """Log the start of a stage, and at its end the seconds that it took.

    If memory runs out anywhere in the stage, the error becomes an `OutOfMemoryError`.
    """
    start = time.monotonic()
    log.info("%s: begins", name)
    with memory_errors(f"in the stage {name}"):
        yield
    log.info("%s: done in %s", name, format_seconds(time.monotonic() - start))
