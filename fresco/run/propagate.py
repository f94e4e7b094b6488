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
from fresco.writing import explain

log = logging.getLogger("fresco")

ORIGIN = "keyframes.json"
"""File beside what was made of keyframes: which ones, by their digests."""
_OPTIONS = "options.json"
"""File beside what was made of keyframes: digest of all that it depends on but them, and the pairs
of keyframes that frames were made between."""
DRAFT_FLOW = FlowSettings(estimator="dis")
"""Of drafts, which find motion by themselves: no worker loads a network for them."""


def choose_engine(settings: FrescoSettings) -> tuple[AnyEngine, str]:
    """The engine asked for; where it cannot work, the flow's and a note that says why."""
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
    """Carry keyframes to all frames; where the image of each frame is found.

    Args:
        keys: folder of the keyframes.
        motion: folder where the motion between neighbouring frames is left for others.
        ends: pairs of a keyframe and the end of its shot on a side without another keyframe.
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
        # Both ends of a stretch included: the motion from the keyframes is estimated too.
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
    """The digest of each keyframe, by its number, that the images of a folder were made from; None:
    the folder does not say."""
    known = read_json(folder / ORIGIN)
    if not isinstance(known, dict):
        return None
    return {str(number): str(content) for number, content in known.items()}


def _drop_outdated(
    folder: Path, keys: Path, segments: Sequence[tuple[int, int]],
    ends: Sequence[tuple[int, int]],
) -> None:
    """Remove the frames beside keyframes that are others now; all the rest is used again."""
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
    """Copy the segments that an earlier run of this workspace made of the same two keyframes.

    Args:
        options: digest of what else frames between keyframes depend on.
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
        # Beside a cut, frames lie between the same two keyframes but show one of them only.
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
                    (folder / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(other / name, folder / name)


def _drop_scratch(folder: Path) -> None:
    """Remove what could not be removed when its segment was filled: nobody opens it again."""
    for path in folder.glob(".*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _sort(end: tuple[int, int]) -> tuple[int, int]:
    return min(end), max(end)


def _list_unfinished(stretches: Iterable[tuple[int, int]], folder: Path) -> Iterator[int]:
    """The frames of stretches of the clip of which a frame was not written yet."""
    for first, last in stretches:
        if not all((folder / frame_name(n)).exists() for n in range(first + 1, last)):
            yield from range(first, last + 1)


def _propagate_segments(
    run: RunContext, plans: Sequence[KeyframePlan], keys: Path, folder: Path,
    estimator: FlowEstimator, engine: AnyEngine, stage_name: str, motion: Path | None,
) -> None:
    """Write every frame between two keyframes of a shot; what exists is left as it is."""
    # The choice was made once; workers must not choose for themselves.
    flow = dataclasses.replace(run.settings.flow, estimator=estimator.name)
    if isinstance(engine, DraftEngine):
        flow = DRAFT_FLOW
    # Absolute, for machines of a cluster.
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
    """Where the flow of the segments is estimated: their jobs, workers, and what comes before.

    On the CPU every worker estimates its own, on one thread each. Beside an accelerator this
    process does it there for all: a worker with a context of its own on it would cost some 500 MB
    of its memory. The engine that warps by flow asks for more than neighbours, and little else
    takes it time: it works in this process.
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
    """Whether nobody needs the motion of a segment that is filled."""

    def begin(self, job: SegmentJob, check: Callable[[], None]) -> None:
        """See `Preparation.begin`."""
        if job.find_missing():
            estimate_pairs(job, self.estimator, self.folder, check)

    def end(self, job: SegmentJob) -> None:
        """See `Preparation.end`."""
        if self.forget:
            forget_pairs(job, self.folder)


def find_motion(run: RunContext, estimator: FlowEstimator) -> Path | None:
    """Folder that keeps the motion between neighbouring frames for the run; None: no room."""
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
    # One after the other, so each may have all cores.
    engine = engine.with_threads(count_cores())
    with run.progress.stage("ends", sum(abs(end - key) for key, end in ends)) as stage:
        for key, end in ends:
            job = EndJob(key, end, keys / frame_name(key), run.clip.frames, folder, engine)
            propagate_end(job, estimator, advanced=stage.advance, check=stage.check)
