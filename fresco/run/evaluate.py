"""Write a comparison video and a report with metrics beside a result."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from fresco import __version__
from fresco.digests import digest
from fresco.errors import PropagationError
from fresco.flow.estimator import create_estimator
from fresco.options import cache_settings, to_dict
from fresco.planning.keyframes import KeyframePlan
from fresco.propagation.engine import ENGINES, AnyEngine
from fresco.run.batches import KeyframeRun, translate_unguided
from fresco.run.clip import Clip
from fresco.run.compare import compare_videos
from fresco.run.context import RunContext, log_stage
from fresco.run.measure import measure_frames, measure_keyframes, write_report
from fresco.run.propagate import propagate_frames
from fresco.run.result import ImageLookup, find_end, prepare_writer, read_stored, write_result
from fresco.settings import OutputSettings

_UNGUIDED, _COMPARISON, _REPORT = "frame-by-frame.mp4", "comparison.mp4", "report.json"
"""Endings of the names of the files beside a result."""
_SEEN_FOR = 8
"""Shortest length in seconds of the comparison of a part of the clip; shorter ones are repeated."""
_OURS, _ALONE = _OWN = "fresco", "frame_by_frame"
"""Names in the report of the results that have keyframes of their own."""


def list_companions(output: Path, settings: OutputSettings) -> tuple[Path, ...]:
    """The files that a run may write beside its result."""
    ends = (_UNGUIDED, _COMPARISON) if settings.compare else ()
    ends += (_REPORT,) if settings.measures else ()
    return tuple(_name_beside(output, end) for end in ends)


def _name_beside(output: Path, end: str) -> Path:
    return output.with_name(f"{output.stem}-{end}")


def evaluate(
    run: RunContext, plans: tuple[KeyframePlan, ...], keys: KeyframeRun, images: ImageLookup,
    engine: AnyEngine, motion: Path | None,
) -> tuple[Path | None, Path | None]:
    """Write the report and the comparison that the settings ask for, and return their paths.

    Args:
        images: the frames of the result, which is already written.
        engine: the engine that propagated the keyframes.
        motion: folder of the motion between neighbouring frames; None if there is none.
    """
    wanted, whole = run.settings.output, run.clip
    if wanted.compare:
        run = dataclasses.replace(run, clip=_shorten(whole, wanted.compare_frames))
    if wanted.measures or wanted.compare:
        run.clip.frames.keep_all(run.clip.numbers, run.progress)
    unguided = _translate_unguided(run, keys) if wanted.compare else None
    comparison = None
    if unguided:
        repeat = _count_turns(run.clip) if run.clip != whole else 1
        comparison = _write_comparison(run, unguided, repeat)
    if not wanted.measures:
        return None, comparison
    results = {_OURS: images} | ({_ALONE: unguided} if unguided else {})
    if wanted.compare and run.clip == whole:
        results |= _propagate_by_others(run, plans, keys, engine, motion)
    facts = {"frames": whole.count, "measured_frames": run.clip.count, "propagation": engine.text}
    return _write_report(run, plans, keys, results, facts, motion), comparison


def _shorten(clip: Clip, most: int) -> Clip:
    """Shorten a clip to its first `most` frames; 0: all."""
    last = min(clip.last, clip.first + most - 1) if most else clip.last
    return dataclasses.replace(clip, last=last)


def _translate_unguided(run: RunContext, keys: KeyframeRun) -> ImageLookup:
    """Translate every frame alone, without guidance, for comparison."""
    sampling, size = cache_settings(run.settings, "sampling"), run.settings.keyframes.batch_size
    # The size of a group, too: the noise of a frame depends on its place in its group.
    key = digest(
        __version__, run.clip.cache_key, sampling, keys.host.fingerprint, size,
        *_list_shorter(run),
    )
    unguided = dataclasses.replace(keys, folder=run.workspace.folder("alone", key))
    with log_stage("frame by frame"), \
            run.progress.stage("frame by frame", run.clip.count) as stage:
        translate_unguided(unguided, run.clip.numbers, stage)
    return read_stored(unguided.folder)


def _list_shorter(run: RunContext) -> list[int]:
    """Part of the cache key for a part of the clip: its groups, and so its noise, are different."""
    return [run.clip.count] if run.settings.output.compare_frames else []


def _count_turns(clip: Clip) -> int:
    """How often a part of the clip is shown, so that there is time to look at it."""
    seconds = find_end(clip.info, clip.last) - clip.info.timestamps[clip.first]
    return max(1, math.ceil(_SEEN_FOR / seconds)) if seconds > 0 else 1


def _write_comparison(run: RunContext, unguided: ImageLookup, repeat: int) -> Path:
    """Write source, frame by frame, and FRESCO side by side, with the prompt above."""
    beside, comparison = (_name_beside(run.output, end) for end in (_UNGUIDED, _COMPARISON))
    wanted = dataclasses.replace(run.settings.output, background="source")
    prompt = run.settings.sampling.prompt
    writer = prepare_writer(
        run.clip, beside, wanted, run.workspace.root, run.watch.check
    )
    write_result(run.clip, unguided, writer, wanted, run.progress)
    compare_videos(
        [Path(run.clip.info.path), beside, run.output], ["source", "frame by frame", "FRESCO"],
        comparison, run.progress, first_frames=[run.clip.first, 0, 0],
        last_frame=run.clip.frames.end, shortest=True, confirm=run.watch.check,
        title=f"prompt: {prompt}" if prompt else "", repeat=repeat,
    )
    return comparison


def _propagate_by_others(
    run: RunContext, plans: tuple[KeyframePlan, ...], keys: KeyframeRun, used: AnyEngine,
    motion: Path | None,
) -> dict[str, ImageLookup]:
    """Propagate the same keyframes by every other engine, for the metrics; by its name."""
    results: dict[str, ImageLookup] = {}
    for name, create in ENGINES.items():
        if name == used.name:
            continue
        try:
            engine = create(run.settings.propagation)
        except PropagationError as error:
            run.notes.append(f"Propagation by {name} is not compared: {error}")
            continue
        results[f"{name}_propagation"] = propagate_frames(
            run, plans, keys.folder, keys.estimator, engine, stage=f"propagate by {name}",
            motion=motion,
        )
    return results


def _write_report(
    run: RunContext, plans: tuple[KeyframePlan, ...], keys: KeyframeRun,
    results: dict[str, ImageLookup], known: dict[str, Any], motion: Path | None,
) -> Path:
    """Write metrics of all frames, and of the keyframes, which are the same for all engines."""
    # For pairs that propagation did not store. Not cached, because the pairs of neighbouring frames
    # of a long video would fill the disk.
    named = dataclasses.replace(run.settings.flow, estimator=keys.estimator.name)
    estimator = create_estimator(named, keys.host.device)
    with log_stage("measures"):
        frames = measure_frames(
            run.clip, plans, results, keys.host.reconstruct, estimator, run.progress,
            motion=motion,
        )
        # Cached: the pairs of keyframes are those that were used to guide them.
        own = {name: results[name] for name in _OWN if name in results}
        keyframes = measure_keyframes(run.clip, plans, own, keys.estimator, run.progress)
    facts = known | {
        "source": run.clip.info.path,
        "keyframes": [number for plan in plans for number in plan.keyframes],
        "shots": [[plan.keyframes[0], plan.keyframes[-1]] for plan in plans],
        "working_size": list(run.clip.frames.size),
        "host": keys.host.name,
        "flow": keys.estimator.name,
        "settings": to_dict(run.settings),
        "notes": run.notes,
    }
    path = _name_beside(run.output, _REPORT)
    return write_report(path, facts, {"frames": frames, "keyframes": keyframes})
