"""The run: the order of the stages.

    source -> scan -> shots, keyframes, batches -> translated keyframes -> all frames -> result
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fresco import __version__
from fresco.errors import SettingsError
from fresco.flow.estimator import create_estimator
from fresco.flow.interface import FlowEstimator
from fresco.guidance.ports import Host
from fresco.planning.keyframes import KeyframePlan, make_plan
from fresco.planning.prompts import find_unused_key_prompts
from fresco.planning.shots import split_shots
from fresco.progress import Progress
from fresco.run.batches import KeyframeRun, translate_shot, translate_unguided
from fresco.run.clip import Clip, open_clip
from fresco.run.compare import compare_videos
from fresco.run.external_keyframes import import_external_keyframes, list_external_keyframes
from fresco.run.measure import measure_frames, measure_keyframes, write_report
from fresco.run.propagate import FLOW, Method, choose_method, propagate_ends, propagate_shots
from fresco.run.redo import redo_keyframe
from fresco.run.result import Picture, export_keyframes, read_stored, write_result
from fresco.run.scan import Scan, scan_clip
from fresco.settings import (
    FrescoSettings,
    SamplingSettings,
    from_dict,
    image_settings,
    to_dict,
    validated,
)
from fresco.video.writer import check_target
from fresco.workspace import Workspace, digest, write_json

log = logging.getLogger("fresco")

PLAN_NAME = "plan.json"
"""File of the workspace that says which keyframes are in force, and where they lie."""

HostFactory = Callable[[], Host]
"""Loads the model when it is needed."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run left."""

    output: Path
    """The video, or the folder of pictures."""
    workspace: Path
    """The folder that a later run resumes from."""
    report: Path | None = None
    """Measures as JSON."""
    comparison: Path | None = None
    """Source, frame by frame, and FRESCO side by side."""
    notes: tuple[str, ...] = ()
    """What a person should know of what was decided."""


@dataclass(slots=True)
class _Run:
    """The values that stages hand on."""

    clip: Clip
    settings: FrescoSettings
    space: Workspace
    progress: Progress
    output: Path
    notes: list[str] = field(default_factory=list)


def default_workspace(output: Path) -> Path:
    """Where a run keeps its artefacts unless told otherwise: beside the result."""
    return output.parent / f"{output.stem}.fresco"


@contextmanager
def _stage_log(name: str) -> Iterator[None]:
    start = time.monotonic()
    log.info("%s: begins", name)
    yield
    log.info("%s: done in %.1f s", name, time.monotonic() - start)


def detect_keyframes(
    source: Path, settings: FrescoSettings, progress: Progress, workspace: Path
) -> tuple[Clip, Scan, tuple[KeyframePlan, ...], tuple[str, ...]]:
    """Read a source and decide its shots, keyframes, batches and segments, with notes."""
    clip = open_clip(source, validated(settings))
    with Workspace(workspace) as space:
        known = scan_clip(clip, space, progress)
    return clip, known, *_plan(clip, known, settings)


def _plan(
    clip: Clip, known: Scan, settings: FrescoSettings
) -> tuple[tuple[KeyframePlan, ...], tuple[str, ...]]:
    keys = settings.keyframes
    threshold = keys.shot_threshold if keys.detect_shots else float("inf")
    shots = split_shots(known.cuts, threshold, keys.shot_min_length)
    plans, notes = make_plan(known.changes, shots, keys, first=clip.first)
    if len(shots) > 1:
        starts = ", ".join(str(plan.keyframes[0]) for plan in plans[1:])
        notes += (f"{len(shots)} shots; the cuts are before frames {starts}.",)
    chosen = [number for plan in plans for number in plan.keyframes]
    return plans, (*notes, *find_unused_key_prompts(chosen, settings.sampling))


def translate(
    source: Path, output: Path, settings: FrescoSettings, host_factory: HostFactory,
    progress: Progress, *, preview: int | None = None, workspace: Path | None = None,
) -> RunResult:
    """Translate a video.

    Args:
        preview: translate only the first keyframes, this many, and stop.
        workspace: the folder of the run; None: beside the result.
    """
    settings = validated(settings)
    only_keys = preview is not None or not settings.propagation.enabled
    # What may be refused comes before what takes long.
    if not only_keys:
        check_target(output)
    clip = open_clip(source, settings)
    with Workspace(workspace or default_workspace(output)) as space:
        run = _Run(clip, settings, space, progress, output)
        with _stage_log("model"):
            host = host_factory()
        estimator = create_estimator(
            settings.flow, host.device, cache=space.root / "flow", progress=progress
        )
        run.notes += [*clip.info.notes, estimator.note]
        plans, notes = _plan(clip, scan_clip(clip, space, progress), settings)
        run.notes += notes
        keys = _translate_keys(run, plans, host, estimator, preview)
        if only_keys:
            folder = export_keyframes(keys.folder, output, plans)
            run.notes.append(f"Only keyframes were asked for; they are in {folder}.")
            return RunResult(folder, space.root, notes=tuple(run.notes))
        method = _chosen_method(run)
        picture = _all_frames(run, plans, keys.folder, estimator, method)
        return _finish(run, plans, keys, picture, method)


def _keys_identity(
    run: _Run, plans: tuple[KeyframePlan, ...], host: Host, estimator: FlowEstimator
) -> str:
    batches = [[batch.all for batch in plan.batches] for plan in plans]
    pictures = image_settings(run.settings, "guidance", "sampling")
    return digest(
        __version__, run.clip.identity, batches, pictures, host.fingerprint, estimator.fingerprint
    )


def _write_plan(run: _Run, plans: tuple[KeyframePlan, ...], folder: Path) -> None:
    """Say where the keyframes in force lie, for those who watch or come later."""
    write_json(run.space.root / PLAN_NAME, {
        "folder": folder.name,
        "keyframes": [number for plan in plans for number in plan.keyframes],
        "shots": [[plan.keyframes[0], plan.keyframes[-1]] for plan in plans],
    })


def _translate_keys(
    run: _Run, plans: tuple[KeyframePlan, ...], host: Host, estimator: FlowEstimator,
    preview: int | None,
) -> KeyframeRun:
    identity = _keys_identity(run, plans, host, estimator)
    folder = run.space.folder("keys", identity)
    _write_plan(run, plans, folder)
    keys = KeyframeRun(folder, run.clip.frames, run.settings, host, estimator, run.progress)
    left = preview
    total = sum(len(plan.keyframes) for plan in plans)
    with _stage_log("keyframes"), run.progress.stage("keyframes", total) as stage:
        for plan in plans:
            if left is not None and left <= 0:
                break
            translate_shot(keys, plan.batches, stage, wanted=left)
            left = None if left is None else left - len(plan.keyframes)
    return keys


def retranslate_keyframe(
    source: Path, output: Path, settings: FrescoSettings, frame: int,
    open_host: Callable[[SamplingSettings], Host], progress: Progress, *,
    seed: int | None = None, workspace: Path | None = None,
) -> RunResult:
    """Translate one keyframe of an earlier run again, alone with its neighbours.

    Its picture is replaced, the frames that were carried from it are dropped, and a later
    `translate` makes these again. All other keyframes stay as they are.

    Args:
        settings: as in the earlier run.
        seed: another seed for this keyframe; None: that of the settings.
    """
    settings = validated(settings)
    clip = open_clip(source, settings)
    with Workspace(workspace or default_workspace(output)) as space:
        run = _Run(clip, settings, space, progress, output)
        with _stage_log("model"):
            host = open_host(settings.sampling)
        estimator = create_estimator(
            settings.flow, host.device, cache=space.root / "flow", progress=progress
        )
        plans, _ = _plan(clip, scan_clip(clip, space, progress), settings)
        folder = space.folder("keys", _keys_identity(run, plans, host, estimator))
        if seed is not None and seed != settings.sampling.seed:
            sampling = dataclasses.replace(settings.sampling, seed=seed)
            settings, host = dataclasses.replace(settings, sampling=sampling), open_host(sampling)
        keys = KeyframeRun(folder, clip.frames, settings, host, estimator, progress)
        with _stage_log("keyframe"):
            redo_keyframe(keys, plans, frame, space.root.glob("frames-*"))
        _write_plan(run, plans, folder)
        return RunResult(
            export_keyframes(folder, output, plans), space.root,
            notes=(f"Keyframe {frame} was translated again; the result is not written yet.",),
        )


def _chosen_method(run: _Run) -> Method:
    method = choose_method(run.settings)
    run.notes += [method.note] if method.note else []
    return method


def _all_frames(
    run: _Run, plans: tuple[KeyframePlan, ...], keys: Path, estimator: FlowEstimator,
    method: Method, *, ends: tuple[tuple[int, int], ...] = (), stage: str = "propagate",
) -> Picture:
    """Propagate, and answer where the picture of each frame is found."""
    segments = [[(part.first, part.last) for part in plan.segments] for plan in plans]
    identity = digest(
        __version__, keys.name, segments, ends, method.identity(run.settings),
        estimator.fingerprint,
    )
    folder = run.space.folder("frames", identity)
    with _stage_log("propagation"):
        propagate_shots(run.clip, plans, keys, folder, run.settings, run.progress,
                        estimator, method=method, stage_name=stage)
        if ends:
            propagate_ends(run.clip, ends, keys, folder, run.progress, estimator, method=method)
    key_numbers = {number for plan in plans for number in plan.keyframes}

    own, propagated = read_stored(keys), read_stored(folder)
    return lambda number: (own if number in key_numbers else propagated)(number)


def _finish(
    run: _Run, plans: tuple[KeyframePlan, ...], keys: KeyframeRun, picture: Picture,
    method: Method,
) -> RunResult:
    """Write the result, then what stands beside it."""
    settings = run.settings.output
    with _stage_log("write"):
        run.notes += write_result(run.clip, picture, run.output, settings, run.progress)
    alone = _frame_by_frame(run, keys) if settings.compare else None
    comparison = _comparison(run, alone) if alone else None
    report = None
    if settings.measures:
        results = {"fresco": picture} | ({"frame_by_frame": alone} if alone else {})
        others = _other_propagation(run, plans, keys, method) if settings.compare else {}
        report = _report(run, plans, keys, results, others, method)
    return RunResult(run.output, run.space.root, report, comparison, tuple(run.notes))


def _other_propagation(
    run: _Run, plans: tuple[KeyframePlan, ...], keys: KeyframeRun, method: Method
) -> dict[str, Picture]:
    """The same keyframes carried by the other method, under its name, for the measures."""
    patch = from_dict({"propagation": {"method": "patch"}}, run.settings)
    other = FLOW if method.patches else choose_method(patch)
    if other.name == method.name:
        run.notes.append("There is no second propagation to compare with, see above."
                         if method.note else other.note)
        return {}
    stage = f"propagate by {other.name}"
    picture = _all_frames(run, plans, keys.folder, keys.estimator, other, stage=stage)
    return {f"{other.name}_propagation": picture}


def _report(
    run: _Run, plans: tuple[KeyframePlan, ...], keys: KeyframeRun, results: dict[str, Picture],
    others: dict[str, Picture], method: Method,
) -> Path:
    """Measures of all frames, and of keyframes, which no propagation changes."""
    # Not cached: the pairs of neighbouring frames of a long video would fill the disk.
    named = dataclasses.replace(run.settings.flow, estimator=keys.estimator.name)
    estimator = create_estimator(named, keys.host.device)
    with _stage_log("measures"):
        frames = measure_frames(
            run.clip, plans, results | others, keys.host.reconstruct, estimator, run.progress
        )
        keyframes = measure_keyframes(run.clip, plans, results, estimator, run.progress)
    facts = {
        "source": run.clip.info.path,
        "frames": run.clip.count,
        "keyframes": [number for plan in plans for number in plan.keyframes],
        "shots": [[plan.keyframes[0], plan.keyframes[-1]] for plan in plans],
        "working_size": list(run.clip.frames.size),
        "host": keys.host.name,
        "flow": keys.estimator.name,
        "propagation": method.text,
        "settings": to_dict(run.settings),
        "notes": run.notes,
    }
    path = run.output.with_name(f"{run.output.stem}-report.json")
    return write_report(path, facts, {"frames": frames, "keyframes": keyframes})


def _frame_by_frame(run: _Run, keys: KeyframeRun) -> Picture:
    """Every frame translated by the host alone: what FRESCO is compared with."""
    pictures = image_settings(run.settings, "sampling")
    identity = digest(__version__, run.clip.identity, pictures, keys.host.fingerprint)
    alone = dataclasses.replace(keys, folder=run.space.folder("alone", identity))
    with _stage_log("frame by frame"), \
            run.progress.stage("frame by frame", run.clip.count) as stage:
        translate_unguided(alone, run.clip.numbers, stage)
    return read_stored(alone.folder)


def _comparison(run: _Run, alone: Picture) -> Path:
    """Source, frame by frame and FRESCO side by side, beside the result."""
    beside = run.output.with_name(f"{run.output.stem}-frame-by-frame.mp4")
    write_result(run.clip, alone, beside, run.settings.output, run.progress)
    comparison = run.output.with_name(f"{run.output.stem}-comparison.mp4")
    compare_videos(
        [Path(run.clip.info.path), beside, run.output], ["source", "frame by frame", "FRESCO"],
        comparison, run.progress, first_frames=[run.clip.first, 0, 0],
        last_frame=run.clip.frames.end,
    )
    return comparison


def propagate_keys(
    source: Path, keys_folder: Path, output: Path, settings: FrescoSettings, progress: Progress,
    *, workspace: Path | None = None,
) -> RunResult:
    """Carry stylised keyframes made elsewhere to every frame.

    Args:
        keys_folder: pictures whose names hold their frame numbers, such as 000012.png.
    """
    settings = validated(settings)
    check_target(output)
    if output.resolve() == keys_folder.resolve():
        raise SettingsError(f"{output} is the folder of the keyframes; name another result.")
    clip = open_clip(source, settings)
    pictures = list_external_keyframes(keys_folder, clip)
    by_hand = dataclasses.replace(settings.keyframes, keys=",".join(map(str, pictures)))
    settings = dataclasses.replace(settings, keyframes=by_hand)
    with Workspace(workspace or default_workspace(output)) as space:
        run = _Run(clip, settings, space, progress, output)
        plans, _ = _plan(clip, scan_clip(clip, space, progress), settings)
        estimator = create_estimator(
            settings.flow, "cpu", cache=space.root / "flow", progress=progress
        )
        run.notes += [*clip.info.notes, estimator.note]
        keys = import_external_keyframes(clip, pictures, plans, space)
        run.notes += keys.notes
        _write_plan(run, keys.plans, keys.folder)
        method = _chosen_method(run)
        picture = _all_frames(run, keys.plans, keys.folder, estimator, method, ends=keys.ends)
        run.notes += write_result(clip, picture, output, settings.output, progress)
    return RunResult(output, space.root, notes=tuple(run.notes))
