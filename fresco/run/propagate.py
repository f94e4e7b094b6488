"""Stage 3: from translated keyframes to every frame, segment by segment."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fresco import __version__
from fresco.digests import digest, digest_content
from fresco.errors import PropagationError
from fresco.flow.estimator import create_estimator
from fresco.flow.interface import FlowEstimator
from fresco.planning.keyframes import KeyframePlan
from fresco.propagation.ends import EndJob, propagate_end
from fresco.propagation.engine import AnyEngine, DraftEngine, FlowEngine, create_engine
from fresco.propagation.executor import count_cores, count_workers, run_segments
from fresco.propagation.judgement import SIDES, name_judgements
from fresco.propagation.motion import BYTES_PER_PIXEL, estimate_pairs, forget_pairs
from fresco.propagation.segment import SegmentJob
from fresco.run.context import MOTION, RunContext, log_stage
from fresco.run.former import FORMER_VERSION
from fresco.run.keyframes import note_frames
from fresco.run.result import ImageLookup, read_stored
from fresco.settings import FlowSettings, FrescoSettings
from fresco.workspace import drop_damaged, frame_name, has_room, read_json, write_json
from fresco.writing import copy_file, explain

log = logging.getLogger("fresco")

ORIGIN = "keyframes.json"
"""File beside propagated frames with the digests of the keyframes that they were made from."""
_OPTIONS = "options.json"
"""File beside propagated frames with a digest of all else that they depend on, and with the pairs
of keyframes that frames were made between."""
DRAFT_FLOW = FlowSettings(estimator="dis")
"""Options of the flow for drafts, which find motion by themselves, so that no worker loads a
network."""


def choose_engine(settings: FrescoSettings) -> tuple[AnyEngine, str]:
    """Choose the engine that the options name; if it cannot work, `flow` and a note that says why.
    """
    try:
        return create_engine(settings.propagation), ""
    except PropagationError as error:
        note = f"Propagation is by flow instead of by patches: {error}"
        log.warning("%s", note)
        return FlowEngine(), note


def propagate_frames(
    run: RunContext, plans: Sequence[KeyframePlan], keys: Path, estimator: FlowEstimator,
    engine: AnyEngine, *, ends: tuple[tuple[int, int], ...] = (), stage: str = "propagate",
    motion: Path | None = None,
) -> ImageLookup:
    """Propagate keyframes to all frames, and return a lookup of the image of each frame.

    Args:
        keys: folder of the keyframes.
        motion: folder in which the motion between neighbouring frames is stored for others.
        ends: pairs of an outermost keyframe and the end of its shot on that side.
        stage: name of the stage for `progress`.
    """
    segments = [[(part.first, part.last) for part in plan.segments] for plan in plans]
    made_from = keys.name, segments, ends, engine.digest_options(run.settings)
    folder = run.workspace.folder(
        "frames", digest(__version__, *made_from, estimator.fingerprint),
        lambda: digest(FORMER_VERSION, *made_from, estimator.former_fingerprint),
    )
    if stage == "propagate":
        note_frames(run, folder)
    with log_stage("propagation"):
        between = [stretch for shot in segments for stretch in shot]
        drop_damaged(folder, run.clip.frames.size)
        _drop_outdated(folder, keys, between, ends)
        _take_over_segments(run, folder, between, digest(
            __version__, run.clip.cache_key, engine.digest_options(run.settings),
            estimator.fingerprint,
        ))
        # The keyframes at both ends are included, because the motion from them is estimated, too.
        stretches = [*between, *map(_sort, ends)]
        run.clip.frames.keep_all(_list_unfinished(stretches, folder), run.progress)
        _propagate_segments(run, plans, keys, folder, estimator, engine, stage, motion)
        if ends:
            _propagate_ends(run, ends, keys, folder, estimator, engine)
        _drop_scratch(folder)
    key_numbers = {number for plan in plans for number in plan.keyframes}
    keyframes, between = read_stored(keys), read_stored(folder)
    return lambda number: (keyframes if number in key_numbers else between)(number)


def read_origin(folder: Path) -> dict[str, str] | None:
    """Read the digests, by number, of the keyframes that the images of a folder were made from.

    None if the folder does not have them.
    """
    known = read_json(folder / ORIGIN)
    if not isinstance(known, dict):
        return None
    return {str(number): str(content) for number, content in known.items()}


def _drop_outdated(
    folder: Path, keys: Path, segments: Sequence[tuple[int, int]],
    ends: Sequence[tuple[int, int]],
) -> None:
    """Delete the frames beside keyframes that have changed; all other frames are used again."""
    numbers = sorted({*(number for pair in segments for number in pair), *(key for key, _ in ends)})
    paths = {n: keys / frame_name(n) for n in numbers}
    now = {str(n): digest_content(path) for n, path in paths.items() if path.exists()}
    known = read_origin(folder)
    if known == now:
        return
    if known is not None:
        changed = {n for n in numbers if known.get(str(n)) != now.get(str(n))}
        outdated = [range(first + 1, last) for first, last in segments if {first, last} & changed]
        outdated += [range(min(end), max(end) + 1) for end in ends if end[0] in changed]
        for frame in itertools.chain(*outdated):
            path = folder / frame_name(frame)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise explain(error, path) from error
    write_json(folder / ORIGIN, now)


def _take_over_segments(
    run: RunContext, folder: Path, segments: Sequence[tuple[int, int]], options: str
) -> None:
    """Copy the segments that an earlier run of this workspace made from the same two keyframes.

    Args:
        options: digest of all else that frames between keyframes depend on.
    """
    write_json(folder / _OPTIONS, {"options": options, "segments": segments})
    now = read_origin(folder) or {}
    for other in sorted(run.workspace.root.glob("frames-*")):
        known = read_json(other / _OPTIONS)
        if other.name == folder.name or not isinstance(known, dict):
            continue
        if known.get("options") != options:
            continue
        made = read_origin(other) or {}
        # Beside a cut, frames are between the same two keyframes but were made from only one.
        for first, last in (pair for pair in segments if [*pair] in known.get("segments", ())):
            ends = str(first), str(last)
            if any(now.get(end) is None or now[end] != made.get(end) for end in ends):
                continue
            names = [frame_name(number) for number in range(first + 1, last)]
            if any((folder / name).exists() or not (other / name).exists() for name in names):
                continue
            judged = name_judgements(other, first, last).name
            for name in (*(f"{SIDES}/{name}" for name in names), judged, *names):
                if (other / name).exists():
                    copy_file(other / name, folder / name)


def _drop_scratch(folder: Path) -> None:
    """Delete scratch folders that could not be deleted when their segments were filled."""
    for path in folder.glob(".*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _sort(end: tuple[int, int]) -> tuple[int, int]:
    return min(end), max(end)


def _list_unfinished(stretches: Iterable[tuple[int, int]], folder: Path) -> Iterator[int]:
    """Yield the frames of those stretches of the clip in which a frame is not written yet."""
    for first, last in stretches:
        if not all((folder / frame_name(n)).exists() for n in range(first + 1, last)):
            yield from range(first, last + 1)


def _propagate_segments(
    run: RunContext, plans: Sequence[KeyframePlan], keys: Path, folder: Path,
    estimator: FlowEstimator, engine: AnyEngine, stage_name: str, motion: Path | None,
) -> None:
    """Write every frame between two keyframes of a shot; existing frames are not changed."""
    # The estimator is chosen once; workers must not choose one themselves.
    flow = dataclasses.replace(run.settings.flow, estimator=estimator.name)
    if isinstance(engine, DraftEngine):
        flow = DRAFT_FLOW
    # Absolute paths, for machines of a cluster.
    keys, folder = keys.absolute(), folder.absolute()
    source = Path(run.clip.frames.path).absolute()
    frames = dataclasses.replace(run.clip.frames, path=str(source))
    jobs = [
        SegmentJob(
            segment.first, segment.last, keys / frame_name(segment.first),
            keys / frame_name(segment.last), frames, flow, run.settings.blend, folder, engine,
            motion=motion,
        )
        for plan in plans for segment in plan.segments
    ]
    between = sum(len(job.interior) for job in jobs)
    jobs, workers, preparation = _place_flow(run, jobs, flow, estimator.device)
    with run.progress.stage(stage_name, between) as stage:
        run.notes += run_segments(
            jobs, workers, stage, cluster=run.settings.propagation.cluster,
            preparation=preparation,
        )


def _place_flow(
    run: RunContext, jobs: list[SegmentJob], flow: FlowSettings, device: str
) -> tuple[list[SegmentJob], int, _MotionAhead | None]:
    """Decide where the flow of the segments is estimated.

    On the CPU every worker estimates the flow of its own segments, with one thread. If there is an
    accelerator, this process does it there for all workers, because each worker would need some
    500 MB of the accelerator's memory. The engine `flow` needs flow between more frames than
    neighbours, and does little else. It then runs in this process.

    Returns:
        The jobs, the number of workers, and the preparation of each segment.
    """
    propagation = run.settings.propagation
    if device == "cpu" or not jobs or isinstance(jobs[0].engine, DraftEngine):
        return jobs, propagation.workers, None
    alone = not propagation.cluster and (
        isinstance(jobs[0].engine, FlowEngine)
        or count_workers(propagation.workers, sum(1 for job in jobs if job.interior)) == 1
    )
    if alone:
        return [dataclasses.replace(job, device=device) for job in jobs], 1, None
    kept = jobs[0].motion
    folder = kept or _name_motion(run, f"{flow.estimator} {device}")
    ahead = _MotionAhead(create_estimator(flow, device), folder, forget=kept is None)
    return [dataclasses.replace(job, motion=folder) for job in jobs], propagation.workers, ahead


@dataclass(frozen=True, slots=True)
class _MotionAhead:
    """Estimates the motion of segments before they are handed out."""

    estimator: FlowEstimator
    folder: Path
    forget: bool
    """Whether the motion of a filled segment is no longer needed."""

    def begin(self, job: SegmentJob, check: Callable[[], None]) -> None:
        """See `Preparation.begin`."""
        if job.find_missing():
            estimate_pairs(job, self.estimator, self.folder, check)

    def end(self, job: SegmentJob) -> None:
        """See `Preparation.end`."""
        if self.forget:
            forget_pairs(job, self.folder)


def find_motion(run: RunContext, estimator: FlowEstimator) -> Path | None:
    """Folder for the motion between neighbouring frames during the run; None if there is no space.
    """
    width, height = run.clip.frames.size
    folder = _name_motion(run, estimator.fingerprint)
    return folder if has_room(folder, run.clip.count * width * height * BYTES_PER_PIXEL) else None


def _name_motion(run: RunContext, estimator: str) -> Path:
    name = run.workspace.name(MOTION, digest(run.clip.cache_key, estimator))
    return run.workspace.root.absolute() / name


def _propagate_ends(
    run: RunContext, ends: Sequence[tuple[int, int]], keys: Path, folder: Path,
    estimator: FlowEstimator, engine: AnyEngine,
) -> None:
    """Write the frames outside the outermost keyframes of shots."""
    # One after another, so each may use all cores.
    engine = engine.with_threads(count_cores())
    with run.progress.stage("ends", sum(abs(end - key) for key, end in ends)) as stage:
        for key, end in ends:
            job = EndJob(key, end, keys / frame_name(key), run.clip.frames, folder, engine)
            propagate_end(job, estimator, advanced=stage.advance, check=stage.check)
