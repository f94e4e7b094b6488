"""Decide which keyframes a run translates, and find their folder, which is named by a cache key."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from fresco import __version__
from fresco.digests import digest
from fresco.errors import SettingsError
from fresco.flow.interface import FlowEstimator
from fresco.guidance.ports import Host
from fresco.options import cache_settings
from fresco.planning.keyframes import Batch, KeyframePlan, cut_plans
from fresco.planning.prompts import compose_prompts
from fresco.planning.ranges import choose_options, parse_ranges
from fresco.run.batches import KeyframeRun, batches_path, read_batches, translate_group
from fresco.run.context import RunContext, log_stage
from fresco.run.former import digest_former_keyframes
from fresco.settings import SamplingSettings
from fresco.workspace import frame_name, read_image, read_json, write_json
from fresco.writing import copy_file

PLAN_NAME = "plan.json"
"""File of the workspace that says which keyframes are used, and in which folder they are."""

_GROUPS = "made.json"
"""File of a folder of keyframes with digests of what each group of batches was made from."""

Plans = tuple[KeyframePlan, ...]


def digest_keyframes(run: RunContext, plans: Plans, host: Host, estimator: FlowEstimator) -> str:
    """Digest of all that translated keyframes depend on."""
    from fresco.guidance.freeu import VERSION, FreeU

    batches = [[batch.all for batch in plan.batches] for plan in plans]
    options = cache_settings(run.settings, "guidance", "sampling")
    freeu = [VERSION] if FreeU.of(run.settings.guidance).is_on else []
    return digest(
        __version__, run.clip.cache_key, batches, options, host.fingerprint, estimator.fingerprint,
        *freeu, *_digest_ranges(run.settings.sampling, host), *_describe_hints(run),
    )


def _digest_ranges(sampling: SamplingSettings, host: Host) -> list[str]:
    """Hashes of what the prompts of ranges refer to; the host's fingerprint covers all others."""
    prompts = [
        text for each in parse_ranges(sampling.ranges)
        for text in (each.prompt, each.negative_prompt) if text
    ]
    return [host.digest_prompts(prompts)] if prompts else []


def _digest_groups(
    run: RunContext, plans: Plans, host: Host, estimator: FlowEstimator
) -> dict[str, str]:
    """Digest of all that the keyframes of each group depend on, by its first frame."""
    from fresco.guidance.freeu import VERSION

    found: dict[str, str] = {}
    for group in (group for plan in plans for group in plan.groups):
        frames = [number for batch in group for number in batch.frames]
        own = choose_options(run.settings.sampling, frames[0])
        words = compose_prompts(frames, run.settings.sampling), own.negative_prompt
        # The prompts themselves count, not the options that they are made from.
        plain = dataclasses.replace(
            own, prompt="", added_prompt="", negative_prompt="", key_prompts={}, ranges=()
        )
        options = cache_settings(
            dataclasses.replace(run.settings, sampling=plain), "guidance", "sampling"
        )
        found[str(frames[0])] = digest(
            __version__, VERSION, run.clip.cache_key, [batch.all for batch in group], options,
            words, host.digest_prompts([*words[0], words[1]]), host.fingerprint,
            estimator.fingerprint, *_describe_hints(run),
        )
    return found


def _describe_hints(run: RunContext) -> list[object]:
    """Digests of the hints that were made elsewhere; empty if there are none."""
    return [["hints", *(hints and hints.content for hints in run.hints)]] if run.hints else []


def open_keyframes(
    run: RunContext, plans: Plans, host: Host, estimator: FlowEstimator
) -> KeyframeRun:
    """Open the folder of the keyframes of these plans; a folder of version 0.1 is used again."""
    folder = run.workspace.folder(
        "keys", digest_keyframes(run, plans, host, estimator),
        lambda: None if run.hints else digest_former_keyframes(run, plans, host, estimator),
    )
    return KeyframeRun(
        folder, run.clip.frames, run.settings, host, estimator, run.progress, run.hints
    )


def write_plan(run: RunContext, plans: Plans, folder: Path) -> None:
    """Write which keyframes are used and where they are, for servers and for later runs."""
    path = run.workspace.root / PLAN_NAME
    known = read_json(path) or {}
    # Until new frames are made, those of the run before belong to the same keyframes.
    frames = {"frames": known["frames"]} if known.get("folder") == folder.name and (
        "frames" in known) else {}
    masks = {"masks": known["masks"]} if "masks" in known else {}
    write_json(path, {
        **frames, **masks,
        "folder": folder.name,
        "keyframes": [number for plan in plans for number in plan.keyframes],
        "shots": [[plan.keyframes[0], plan.keyframes[-1]] for plan in plans],
    })


def note_frames(run: RunContext, folder: Path) -> None:
    """Write in which folder the frames between these keyframes will be."""
    path = run.workspace.root / PLAN_NAME
    write_json(path, {**(read_json(path) or {}), "frames": folder.name})


def note_masks(run: RunContext, folder: Path | None) -> None:
    """Write in which folder the masks are; None if there are none, or if they are the user's files.
    """
    path = run.workspace.root / PLAN_NAME
    known = read_json(path) or {}
    known.pop("masks", None)
    write_json(path, {**known, **({"masks": folder.name} if folder else {})})


def translate_keyframes(
    run: RunContext, plans: Plans, host: Host, estimator: FlowEstimator, *, all_frames: bool
) -> KeyframeRun:
    """Translate the keyframes of all shots.

    Args:
        all_frames: whether the run continues to all frames; the source is then decoded only once.
    """
    keys = open_keyframes(run, plans, host, estimator)
    numbers = [number for plan in plans for number in plan.keyframes]
    if all_frames and not all((keys.folder / frame_name(n)).exists() for n in numbers):
        run.clip.frames.keep_all(run.clip.numbers, run.progress)
    _take_over_groups(run, plans, keys)
    _translate(run, plans, keys)
    return keys


def preview_keyframes(
    run: RunContext, plans: Plans, host: Host, estimator: FlowEstimator, wanted: int
) -> tuple[KeyframeRun, Plans]:
    """Translate only the first keyframes; return their folder and their plans.

    If they end with a batch, or if the whole run already has them, they are those of the whole run.
    A part of a batch gives other images than the whole batch, so it gets a folder of its own.
    """
    keys, part = open_keyframes(run, plans, host, estimator), cut_plans(plans, wanted)
    whole = all(cut.batches == plan.batches[:len(cut.batches)]
                for cut, plan in zip(part, plans, strict=False))
    if not whole and not keys.has_first([group for plan in plans for group in plan.groups], wanted):
        finished, keys = keys, open_keyframes(run, part, host, estimator)
        for group in (group for plan in part for group in plan.groups):
            _take_over(finished, keys, group)
        _translate(run, part, keys)
        return keys, part
    _take_over_groups(run, plans, keys)
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
        for group in (group for plan in plans for group in plan.groups):
            if left > 0:
                translate_group(keys, group, stage, wanted=left)
            left -= sum(len(batch.frames) for batch in group)


def _take_over_groups(run: RunContext, plans: Plans, keys: KeyframeRun) -> None:
    """Copy groups of keyframes from an earlier run of this workspace, if they would be the same.

    That is so after a change of another range, or of the prompt of a keyframe in another shot.
    """
    digests = _digest_groups(run, plans, keys.host, keys.estimator)
    known = read_json(run.workspace.root / PLAN_NAME) or {}
    before = sorted(
        (path for path in run.workspace.root.glob("keys-*") if path.name != keys.folder.name),
        key=lambda path: path.name != known.get("folder"),  # first those in use
    )
    has = {path: read_json(path / _GROUPS) or {} for path in before}
    for group in (group for plan in plans for group in plan.groups):
        first = str(group[0].frames[0])
        if keys.read_finished(read_batches(keys, group)[0]) is not None:
            continue
        for path in before:
            if has[path].get(first) == digests[first]:
                _take_over(dataclasses.replace(keys, folder=path), keys, group)
                break
    write_json(keys.folder / _GROUPS, digests)


def _take_over(finished: KeyframeRun, keys: KeyframeRun, group: Sequence[Batch]) -> None:
    """Copy the batches of a group from another folder; their frames are the same in both."""
    in_force = batches_path(finished, group)
    if in_force.exists():  # a lack of memory made some smaller
        copy_file(in_force, batches_path(keys, group))
    for batch in read_batches(finished, group):
        if finished.read_finished(batch) is None:
            break
        names = [frame_name(number) for number in batch.frames]
        for name in (*names, keys.carry_path(batch).name):  # the carry comes last
            copy_file(finished.folder / name, keys.folder / name)


def find_translated(
    run: RunContext, plans: Plans, host: Host, estimator: FlowEstimator, frame: int
) -> tuple[KeyframeRun, Plans]:
    """Find the keyframes that one belongs to: those of the whole run, or of the latest preview."""
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
