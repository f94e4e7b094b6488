"""Which keyframes a run translates, and in which folder they lie: it is named by a cache key."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fresco import __version__
from fresco.digests import digest
from fresco.errors import SettingsError
from fresco.flow.interface import FlowEstimator
from fresco.guidance.ports import Host
from fresco.options import cache_settings
from fresco.planning.keyframes import KeyframePlan, cut_plans
from fresco.run.batches import KeyframeRun, translate_shot
from fresco.run.context import RunContext, log_stage
from fresco.run.former import digest_former_keyframes
from fresco.workspace import frame_name, read_image, read_json, write_json

PLAN_NAME = "plan.json"
"""File of the workspace that says which keyframes are in force, and where they lie."""

Plans = tuple[KeyframePlan, ...]


def digest_keyframes(run: RunContext, plans: Plans, host: Host, estimator: FlowEstimator) -> str:
    """Digest of all that translated keyframes depend on."""
    from fresco.guidance.freeu import VERSION, FreeU  # runs that only propagate do without torch

    batches = [[batch.all for batch in plan.batches] for plan in plans]
    options = cache_settings(run.settings, "guidance", "sampling")
    freeu = [VERSION] if FreeU.of(run.settings.guidance).is_on else []
    return digest(
        __version__, run.clip.cache_key, batches, options, host.fingerprint, estimator.fingerprint,
        *freeu,
    )


def open_keyframes(
    run: RunContext, plans: Plans, host: Host, estimator: FlowEstimator
) -> KeyframeRun:
    """The keyframes of these plans, in a folder of their own; one of version 0.1 is used on."""
    folder = run.workspace.folder(
        "keys", digest_keyframes(run, plans, host, estimator),
        lambda: digest_former_keyframes(run, plans, host, estimator),
    )
    return KeyframeRun(folder, run.clip.frames, run.settings, host, estimator, run.progress)


def write_plan(run: RunContext, plans: Plans, folder: Path) -> None:
    """Say where the keyframes in force lie, for those who watch or come later."""
    path = run.workspace.root / PLAN_NAME
    known = read_json(path) or {}
    # The frames of the run before are those of the same keyframes until others are made.
    frames = {"frames": known["frames"]} if known.get("folder") == folder.name and (
        "frames" in known) else {}
    write_json(path, {
        **frames,
        "folder": folder.name,
        "keyframes": [number for plan in plans for number in plan.keyframes],
        "shots": [[plan.keyframes[0], plan.keyframes[-1]] for plan in plans],
    })


def note_frames(run: RunContext, folder: Path) -> None:
    """Say where the frames between the keyframes in force come to lie."""
    path = run.workspace.root / PLAN_NAME
    write_json(path, {**(read_json(path) or {}), "frames": folder.name})


def translate_keyframes(
    run: RunContext, plans: Plans, host: Host, estimator: FlowEstimator, *, all_frames: bool
) -> KeyframeRun:
    """Translate the keyframes of all shots.

    Args:
        all_frames: the run goes on to all frames, so that the source is decoded for both at once.
    """
    keys = open_keyframes(run, plans, host, estimator)
    numbers = [number for plan in plans for number in plan.keyframes]
    if all_frames and not all((keys.folder / frame_name(n)).exists() for n in numbers):
        run.clip.frames.keep_all(run.clip.numbers, run.progress)
    _translate(run, plans, keys)
    return keys


def preview_keyframes(
    run: RunContext, plans: Plans, host: Host, estimator: FlowEstimator, wanted: int
) -> tuple[KeyframeRun, Plans]:
    """Translate the first keyframes, so many and no more; where they lie, and their plans.

    They are those of the whole run where they end with a batch, or where that run has them. A part
    of a batch has other company, hence other images, so it gets a folder of its own.
    """
    keys, part = open_keyframes(run, plans, host, estimator), cut_plans(plans, wanted)
    whole = all(cut.batches == plan.batches[:len(cut.batches)]
                for cut, plan in zip(part, plans, strict=False))
    if not whole and not keys.has_first([plan.batches for plan in plans], wanted):
        finished, keys = keys, open_keyframes(run, part, host, estimator)
        _take_over(finished, keys, part)
        _translate(run, part, keys)
        return keys, part
    _translate(run, plans, keys, wanted=wanted)
    return keys, plans


def _translate(
    run: RunContext, plans: Plans, keys: KeyframeRun, *, wanted: int | None = None
) -> None:
    write_plan(run, plans, keys.folder)
    numbers = [number for plan in plans for number in plan.keyframes][:wanted]
    missing = [n for n in numbers if not (keys.folder / frame_name(n)).exists()]
    run.clip.frames.keep_all(missing, run.progress)
    total = sum(len(plan.keyframes) for plan in plans)
    left = total if wanted is None else min(wanted, total)
    with log_stage("keyframes"), run.progress.stage("keyframes", left) as stage:
        for plan in plans:
            if left > 0:
                translate_shot(keys, plan.batches, stage, wanted=left)
            left -= len(plan.keyframes)


def _take_over(finished: KeyframeRun, keys: KeyframeRun, part: Plans) -> None:
    """Copy the batches of a preview that the whole run has; their company is the same in both."""
    for plan in part:
        for batch in plan.batches:
            if finished.read_finished(batch) is None:
                break
            names = [frame_name(number) for number in batch.frames]
            for name in (*names, keys.carry_path(batch).name):  # the carry says it is finished
                shutil.copyfile(finished.folder / name, keys.folder / name)


def find_translated(
    run: RunContext, plans: Plans, host: Host, estimator: FlowEstimator, frame: int
) -> tuple[KeyframeRun, Plans]:
    """The keyframes among which one was translated, in the whole run or in the latest preview."""
    keys = open_keyframes(run, plans, host, estimator)
    if (keys.folder / frame_name(frame)).exists():
        return keys, plans
    known = read_json(run.workspace.root / PLAN_NAME) or {}
    part = cut_plans(plans, len(known.get("keyframes", ())))
    name = run.workspace.name("keys", digest_keyframes(run, part, host, estimator))
    if part and known.get("folder") == name:
        preview = open_keyframes(run, part, host, estimator)
        if read_image(preview.folder / frame_name(frame)) is not None:
            return preview, part
    numbers: Sequence[int] = [number for plan in plans for number in plan.keyframes]
    if frame in numbers:
        raise SettingsError(
            f"Keyframe {frame} was not translated yet; translate the keyframes first."
        )
    return keys, plans
