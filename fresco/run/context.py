"""The state that the steps of one run share: clip, settings, workspace, notes."""

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
"""Kinds of folders that last as long as the run: frames of the source at working size, and motion
between neighbouring ones."""


@dataclass(slots=True)
class RunContext:
    """One run under way. Steps read it; only `notes` grows."""

    clip: Clip
    """The frames worked on."""
    settings: FrescoSettings
    """All options, checked."""
    workspace: Workspace
    """The folder of artefacts, held by this run."""
    progress: Progress
    """Hears of every stage, and says when to stop."""
    watch: SourceWatch
    """Knows whether the source is still what it was."""
    output: Path
    """Where the result goes."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the user, in the order in which they were found out."""
    hints: tuple[HintSource | None, ...] = ()
    """Of each ControlNet unit, where they were made elsewhere; empty: of none."""


def default_workspace(output: Path) -> Path:
    """The default folder of a run's artefacts: beside the result."""
    return output.parent / f"{output.stem}.fresco"


@contextmanager
def open_run(
    clip: Clip, settings: FrescoSettings, output: Path, progress: Progress, folder: Path | None
) -> Iterator[RunContext]:
    """Within: a run, whose workspace no other process can use.

    Args:
        folder: of the workspace; None: beside the result.
    """
    with Workspace(folder or default_workspace(output)) as workspace:
        root = workspace.root.absolute()
        clip = _keep_frames(clip, workspace)
        workspace.tidy()
        for kind in (_FRAMES, MOTION):  # an interrupted run has left them
            for place in root.glob(f"{kind}-*"):
                drop_damaged(place)
        watch = SourceWatch(clip.source, workspace)
        with watch.dropping():
            yield RunContext(clip, settings, workspace, progress.watched(watch), watch, output)
        # What was kept for the length of the run; an interrupted one goes on with it.
        for kind in (_FRAMES, MOTION):
            for place in root.glob(f"{kind}-*"):
                shutil.rmtree(place, ignore_errors=True)


def _keep_frames(clip: Clip, workspace: Workspace) -> Clip:
    """The clip whose frames may be kept in a workspace."""
    # Absolute, for workers and machines of a cluster.
    folder = workspace.root.absolute() / workspace.name(_FRAMES, clip.cache_key)
    return dataclasses.replace(clip, frames=dataclasses.replace(clip.frames, kept=folder))


def resize_run(run: RunContext, size: tuple[int, int]) -> RunContext:
    """The same run with frames of another size (width, height); both have the same notes."""
    clip = run.clip.resized(size)
    return run if clip is run.clip else dataclasses.replace(
        run, clip=_keep_frames(clip, run.workspace)
    )


@contextmanager
def log_stage(name: str) -> Iterator[None]:
    """Within: a stage of the run; its start and its seconds are logged.

    Memory that runs out anywhere in a stage is an `OutOfMemoryError`.
    """
    start = time.monotonic()
    log.info("%s: begins", name)
    with memory_errors(f"in the stage {name}"):
        yield
    log.info("%s: done in %s", name, format_seconds(time.monotonic() - start))
