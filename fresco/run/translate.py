"""A run: each stage reads the files of earlier stages and writes new ones.

    source -> scan -> shots, keyframes, batches -> translated keyframes -> all frames -> result
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco.control import ControlUnit, list_units
from fresco.errors import OutOfMemoryError, SettingsError
from fresco.flow.estimator import create_estimator
from fresco.flow.interface import FlowEstimator
from fresco.guidance.ports import Host
from fresco.masks.edge import FrameMasks
from fresco.options import require_transparent, validated
from fresco.planning.keyframes import KeyframePlan, make_plan
from fresco.planning.prompts import find_unused_words
from fresco.planning.ranges import check_ranges, cut_at_ranges
from fresco.planning.shots import split_shots
from fresco.progress import Progress
from fresco.propagation.engine import AnyEngine, DraftEngine, PatchEngine
from fresco.propagation.guide_folders import GuideFolder
from fresco.run.batches import KeyframeRun
from fresco.run.clip import Clip, open_clip
from fresco.run.context import RunContext, log_stage, open_run
from fresco.run.embedded import describe_settings
from fresco.run.enlarge import choose_carried_size, enlarge_keyframes, scale_images
from fresco.run.evaluate import evaluate, list_companions
from fresco.run.external_keyframes import (
    choose_size,
    import_external_keyframes,
    list_external_keyframes,
)
from fresco.run.finishing import finish_keyframes
from fresco.run.flow_files import check_flow_files, use_flow_files
from fresco.run.guide_folders import check_guides
from fresco.run.hints import HintSource, check_hints
from fresco.run.inputs import SourceWatch
from fresco.run.keyframes import (
    find_translated,
    preview_keyframes,
    translate_keyframes,
    write_plan,
)
from fresco.run.masks import check_mask, list_shots, make_masks
from fresco.run.propagate import DRAFT_FLOW, choose_engine, find_motion, propagate_frames
from fresco.run.redo import redo_keyframe
from fresco.run.result import (
    ImageLookup,
    Writer,
    export_keyframes,
    find_export,
    prepare_writer,
    write_result,
)
from fresco.run.scan import Scan, scan_clip
from fresco.settings import RANDOM_SEED, FrescoSettings
from fresco.video.writer import check_target
from fresco.workspace import Workspace
from fresco.writing import clear_parts, require_files, require_folder

log = logging.getLogger("fresco")

HostFactory = Callable[[], Host]
"""Loads the model when it is needed."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run has made."""

    output: Path
    """The video, or the folder of images."""
    workspace: Path
    """The folder that a later run resumes from."""
    report: Path | None = None
    """Measures as JSON."""
    comparison: Path | None = None
    """Source, frame by frame, and FRESCO side by side."""
    notes: tuple[str, ...] = ()
    """Notes for the user about decisions of the run."""


def translate(
    source: Path, output: Path, settings: FrescoSettings, host_factory: HostFactory,
    progress: Progress, *, preview: int | None = None, workspace: Path | None = None,
    scans: Path | None = None, about: Mapping[str, Any] | None = None,
    control: Sequence[ControlUnit] = (),
) -> RunResult:
    """Translate a video.

    Args:
        output: a video file, or a folder of images if the name has no suffix.
        preview: translate only this number of keyframes, from the first one, and stop.
        workspace: the folder of the run; None: beside the result.
        scans: folder that may have the scores of the source, see `detect_keyframes`.
        about: further options of the host, for JSON; they are stored in the result.
        control: the host's ControlNet units, if they are not in the settings.
    """
    settings = _require_drawn(validated(settings))
    only_keys = preview is not None or not settings.propagation.enabled
    # Everything that may be refused is checked before the work.
    if only_keys:
        require_folder(find_export(output))
    else:
        check_target(output, settings.output.codec)
        require_files(*list_companions(output, settings.output))
    clip = open_clip(source, settings)
    require_transparent(settings, source=clip.info.transparent)
    check_ranges(settings.sampling, clip.info.frames)
    mask = check_mask(clip, settings.mask)
    motion_files = check_flow_files(clip, settings.flow)
    guides = ((), ()) if only_keys else check_guides(clip, settings.propagation)
    hints = check_hints(clip, control or list_units(settings.sampling))
    with open_run(clip, settings, output, progress, workspace) as run, \
            _clearing(output, *list_companions(output, settings.output)):
        written = clip.resized(choose_carried_size(clip, settings))
        writer = None if only_keys else prepare_writer(
            written, output, settings.output, run.workspace.root, run.watch.check,
            describe_settings(settings, about),
        )
        _take_hints(run, *hints)
        with log_stage("model"):
            host = host_factory()
        use_flow_files(run, motion_files, choose_carried_size(clip, settings))
        estimator = _open_estimator(run, host.device)
        plans, notes = _plan_keyframes(clip, _scan(run, scans, keep=not only_keys), settings)
        run.notes += notes
        motion = None if only_keys else find_motion(run, estimator)
        chosen = [number for plan in plans for number in plan.keyframes][:preview]
        masks = make_masks(
            run, mask, list_shots(plans), estimator, motion, wanted=chosen if only_keys else None
        )
        if preview is None:
            keys = translate_keyframes(run, plans, host, estimator, all_frames=not only_keys)
        else:
            keys, plans = preview_keyframes(run, plans, host, estimator, preview)
        if writer is None:
            folder = export_keyframes(keys.folder, output, plans)
            run.notes.append(f"Only keyframes were asked for; they are in {folder}.")
            return RunResult(folder, run.workspace.root, notes=tuple(run.notes))
        engine = _choose_engine(run, *guides)
        return _make_video(run, plans, keys, engine, writer, motion, masks)


def _make_video(
    run: RunContext, plans: tuple[KeyframePlan, ...], keys: KeyframeRun, engine: AnyEngine,
    writer: Writer, motion: Path | None, masks: FrameMasks | None,
) -> RunResult:
    """Propagate the translated keyframes, write the result, and measure it.

    Args:
        motion: folder of the motion between neighbouring frames, at the model's size.
    """
    wanted = run.settings.output
    carried, folder = enlarge_keyframes(run, plans, keys)
    folder = finish_keyframes(carried, plans, folder, keys.estimator)
    # Masks and measures need the motion at the model's size.
    known = carried is run and (wanted.measures or masks is not None)
    motion = motion if known else None
    images = propagate_frames(carried, plans, folder, keys.estimator, engine, motion=motion)
    with log_stage("write"):
        run.notes += write_result(
            carried.clip, images, writer, wanted, run.progress, masks=masks
        )
    if carried is not run:
        images = scale_images(images, run.clip.frames.size)
    report, comparison = _evaluate(run, plans, keys, images, engine, motion)
    return RunResult(run.output, run.workspace.root, report, comparison, tuple(run.notes))


@contextmanager
def _clearing(*results: Path) -> Iterator[None]:
    """Delete, before and after a run that makes these files, what killed runs left beside them."""
    clear_parts(*results)
    yield
    clear_parts(*results)  # those that were too young before


def _evaluate(
    run: RunContext, plans: tuple[KeyframePlan, ...], keys: KeyframeRun, images: ImageLookup,
    engine: AnyEngine, motion: Path | None,
) -> tuple[Path | None, Path | None]:
    """Write report and comparison. If memory runs out, only these are lost, not the result."""
    try:
        return evaluate(run, plans, keys, images, engine, motion)
    except OutOfMemoryError as error:
        note = f"The result is whole, but report and comparison could not be made: {error}"
        log.warning("%s", note)
        run.notes.append(note)
        return None, None


def retranslate_keyframe(
    source: Path, output: Path, settings: FrescoSettings, frame: int,
    host_factory: HostFactory, progress: Progress, *,
    seed: int | None = None, workspace: Path | None = None, scans: Path | None = None,
    control: Sequence[ControlUnit] = (),
) -> RunResult:
    """Translate one keyframe of an earlier run again, together with its neighbours.

    Its image is replaced. A later `translate` makes the frames that depend on it again. All other
    keyframes stay as they are.

    Args:
        settings: as in the earlier run.
        seed: another seed for this keyframe; None: the seed in the settings.
        control: as for `translate`.
    """
    settings = _require_drawn(validated(settings))
    clip = open_clip(source, settings)
    motion_files = check_flow_files(clip, settings.flow)
    hints = check_hints(clip, control or list_units(settings.sampling))
    with open_run(clip, settings, output, progress, workspace) as run:
        _take_hints(run, *hints)
        with log_stage("model"):
            host = host_factory()
        use_flow_files(run, motion_files)
        estimator = _open_estimator(run, host.device)
        plans, _ = _plan_keyframes(clip, _scan(run, scans), settings)
        keys, plans = find_translated(run, plans, host, estimator, frame)
        with log_stage("keyframe"):
            redo_keyframe(keys, plans, frame, seed=seed)
        write_plan(run, plans, keys.folder)
        return RunResult(
            export_keyframes(keys.folder, output, plans), run.workspace.root,
            notes=(f"Keyframe {frame} was translated again; the result is not written yet.",),
        )


def propagate_keys(
    source: Path, keys_folder: Path, output: Path, settings: FrescoSettings, progress: Progress,
    *, workspace: Path | None = None, scans: Path | None = None, device: str = "cpu", most: int = 0,
) -> RunResult:
    """Propagate external keyframes, painted by hand or made by another tool, to every frame.

    Args:
        device: device of the flow estimator.
        most: largest short side of frames that is allowed; 0: any.
        keys_folder: images whose names hold their frame numbers, such as 000012.png.
    """
    settings = validated(settings)
    check_target(output, settings.output.codec)
    if output.resolve() == keys_folder.resolve():
        raise SettingsError(f"{output} is the folder of the keyframes; name another result.")
    clip = open_clip(source, settings)
    require_transparent(settings, source=clip.info.transparent)
    images, notes = list_external_keyframes(keys_folder, clip)
    mask = check_mask(clip, settings.mask)
    motion_files = check_flow_files(clip, settings.flow)
    guides = check_guides(clip, settings.propagation)
    size, limited = choose_size(images, clip, settings, most)
    clip = clip.resized(size)
    by_hand = dataclasses.replace(settings.keyframes, keys=",".join(map(str, images)))
    settings = dataclasses.replace(settings, keyframes=by_hand)
    with open_run(clip, settings, output, progress, workspace) as run, _clearing(output):
        writer = prepare_writer(
            clip, output, settings.output, run.workspace.root, run.watch.check,
            describe_settings(settings),
        )
        plans, _ = _plan_keyframes(clip, _scan(run, scans, keep=True), settings)
        engine = _choose_engine(run, *guides)
        if isinstance(engine, DraftEngine):
            # Masks may still need the folder of weights.
            flow = dataclasses.replace(run.settings.flow, estimator=DRAFT_FLOW.estimator)
            run.settings = dataclasses.replace(run.settings, flow=flow)
        else:
            use_flow_files(run, motion_files)
        estimator = _open_estimator(run, device)
        keys = import_external_keyframes(clip, images, plans, run.workspace)
        run.notes += [*notes, *limited, *keys.notes]
        write_plan(run, keys.plans, keys.folder)
        motion = find_motion(run, estimator) if mask else None
        masks = make_masks(run, mask, list_shots(plans), estimator, motion)
        folder = finish_keyframes(run, keys.plans, keys.folder, estimator, batches=False)
        frames = propagate_frames(
            run, keys.plans, folder, estimator, engine, ends=keys.ends, motion=motion
        )
        run.notes += write_result(
            clip, frames, writer, settings.output, run.progress, masks=masks
        )
        return RunResult(output, run.workspace.root, notes=tuple(run.notes))


def detect_keyframes(
    source: Path, settings: FrescoSettings, progress: Progress, workspace: Path
) -> tuple[Clip, Scan, tuple[KeyframePlan, ...], tuple[str, ...]]:
    """Read a source and choose its shots, keyframes, batches and segments, with notes."""
    clip = open_clip(source, validated(settings))
    check_ranges(settings.sampling, clip.info.frames)
    with Workspace(workspace) as space:
        space.tidy()
        watch = SourceWatch(clip.source, space)
        with watch.dropping():
            scores = scan_clip(clip, space, progress.watched(watch))
    return clip, scores, *_plan_keyframes(clip, scores, settings)


def _scan(run: RunContext, elsewhere: Path | None, *, keep: bool = False) -> Scan:
    wanted = run.settings.keyframes
    if wanted.keys and not wanted.detect_shots:
        # Keyframes are given and cuts do not count, so no score is needed.
        nothing = (0.0,) * run.clip.count
        return Scan(nothing, nothing)
    return scan_clip(run.clip, run.workspace, run.progress, elsewhere=elsewhere, keep=keep)


def _require_drawn(settings: FrescoSettings) -> FrescoSettings:
    """Return the settings; SettingsError if their seed stands for a random one.

    A run is resumed with its seed, so whoever starts a run must choose one and keep it.
    """
    if settings.sampling.seed == RANDOM_SEED:
        raise SettingsError(
            f"sampling.seed is {RANDOM_SEED}, which stands for a random one; draw one before the "
            "run (fresco.options.draw_seed), and keep it."
        )
    return settings


def _plan_keyframes(
    clip: Clip, scores: Scan, settings: FrescoSettings
) -> tuple[tuple[KeyframePlan, ...], tuple[str, ...]]:
    """Plan the shots, and the keyframes, batches and segments of each, with notes."""
    keys = settings.keyframes
    threshold = keys.shot_threshold if keys.detect_shots else float("inf")
    shots = split_shots(scores.cuts, threshold, keys.shot_min_length)
    plans, notes = make_plan(
        scores.changes, shots, keys, first=clip.first,
        split=lambda keyframes: cut_at_ranges(keyframes, settings.sampling),
    )
    if len(shots) > 1:
        starts = ", ".join(str(plan.keyframes[0]) for plan in plans[1:])
        cuts = "the cut is before frame" if len(shots) == 2 else "the cuts are before frames"
        notes += (f"{len(shots)} shots; {cuts} {starts}.",)
    chosen = [number for plan in plans for number in plan.keyframes]
    return plans, (*notes, *find_unused_words(chosen, settings.sampling))


def _take_hints(
    run: RunContext, hints: tuple[HintSource | None, ...], notes: tuple[str, ...]
) -> None:
    run.hints = hints
    run.notes += notes


def _open_estimator(run: RunContext, device: str) -> FlowEstimator:
    """Open the estimator of optical flow, which stores its results in the workspace."""
    estimator = create_estimator(
        run.settings.flow, device, cache=run.workspace.root / "flow", progress=run.progress
    )
    run.notes += [*run.clip.info.notes, estimator.note]
    return estimator


def _choose_engine(
    run: RunContext, guides: tuple[GuideFolder, ...], notes: tuple[str, ...]
) -> AnyEngine:
    engine, note = choose_engine(run.settings)
    run.notes += [*notes, *([note] if note else [])]
    return dataclasses.replace(engine, guides=guides) if isinstance(engine, PatchEngine) else engine
