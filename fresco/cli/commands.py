"""The commands of the command line: read files and flags, start a run, print its result.

Modules that load a model or read frames are imported when a command needs them, so --help is fast.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fresco.cli.console import Bars, stopping_on_ctrl_c
from fresco.cli.flags import combined, given_flags, options_table
from fresco.cli.seed import drawn_seed
from fresco.config.run_file import ImportedRun, load_config, run_file_of, write_run_file
from fresco.control import list_units
from fresco.errors import HostError, SettingsError, VideoError
from fresco.planning.names import has_number, name_result
from fresco.planning.parsing import write_keys_inline
from fresco.progress import CancelToken, Progress
from fresco.settings import FlowSettings, FrescoSettings
from fresco.temporary import open_temporary_folder
from fresco.writing import clear_parts, follow_link, require_files, write_bytes

if TYPE_CHECKING:
    from fresco.guidance.ports import Host
    from fresco.planning.keyframes import KeyframePlan

log = logging.getLogger("fresco")


@dataclass(frozen=True, slots=True)
class RunInputs:
    """The inputs of a command, from files and flags together."""

    source: Path
    """The clip."""
    output: Path
    """Path of the result."""
    settings: FrescoSettings
    """All options."""


def _parse_positive(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"--{name} is {text!r}; give a whole number from 1.")
    return int(text)


def _gather_inputs(arguments: argparse.Namespace) -> RunInputs:
    """Combine configuration file, preset and flags; later ones override earlier ones."""
    imported = load_config(Path(arguments.config)) if arguments.config else None
    base = imported.settings if imported else FrescoSettings()
    preset = getattr(arguments, "preset", None)
    settings = combined(base, preset, given_flags(arguments))
    # A file of keyframes is read now: its faults show before any work, and a run file holds them.
    keys = write_keys_inline(settings.keyframes.keys)
    by_hand = dataclasses.replace(settings.keyframes, keys=keys)
    settings = dataclasses.replace(settings, keyframes=by_hand)
    if imported:
        log.info("%s", imported.report.text())
    source = _find_source(arguments, imported)
    return RunInputs(source, _find_output(arguments, imported, source, settings), settings)


def _find_source(arguments: argparse.Namespace, imported: ImportedRun | None) -> Path:
    if arguments.clip:
        source = Path(arguments.clip)
    elif imported and imported.source:
        source = imported.source
    elif imported:
        raise VideoError(
            f"The clip that {arguments.config} names is not there; name one on the command line, "
            "before --config."
        )
    else:
        raise SettingsError("No clip is named; give a video or a folder of images.")
    if not source.exists():
        raise VideoError(f"{source} does not exist; give a video or a folder of images.")
    return source


def _find_output(
    arguments: argparse.Namespace, imported: ImportedRun | None, source: Path,
    settings: FrescoSettings,
) -> Path:
    """The result's path: from the flag, else from the file, else beside the clip."""
    default = _name_result(source.absolute(), settings)
    if arguments.output:
        output = Path(arguments.output)
    elif imported and imported.output:
        # The file names its own clip's result; another clip's goes into the same folder.
        output = imported.output.with_name(default.name) if arguments.clip else imported.output
    else:
        output = default
    if output.resolve() == source.resolve():
        raise SettingsError(f"{output} is the source itself; give --output another path.")
    return output


def _name_result(source: Path, settings: FrescoSettings) -> Path:
    """The result's path if none was given.

    A number in it is the first free one; an interrupted run keeps the number that it had.
    """
    from fresco.video.codecs import choose_suffix

    pattern, sampling = settings.output.name, settings.sampling
    suffix = choose_suffix(settings.output.codec)
    if not pattern:
        return source.with_name(f"{source.stem}_fresco{suffix}")

    def name(number: int) -> Path:
        made = name_result(pattern, source.name, sampling.prompt, sampling.seed, number)
        return source.with_name(f"{made}{suffix}")

    if not has_number(pattern):
        return name(1)
    return next(path for path in map(name, itertools.count(1)) if not path.exists())


def _check_translation(inputs: RunInputs) -> None:
    """Refuse what a translation cannot do, before the model is loaded."""
    sampling = inputs.settings.sampling
    if not sampling.model:
        raise SettingsError(
            "sampling.model is empty; name a checkpoint: a .safetensors or .ckpt file, a diffusers "
            "folder, or a hub name."
        )
    from fresco.planning.prompt_syntax import check_syntax
    from fresco.planning.prompts import list_prompts, refuse_composed

    refuse_composed(list_prompts(sampling))
    require_files(run_file_of(inputs.output))
    if sampling.control_model and sampling.control == "none":
        log.warning(
            "sampling.control_model is %r, but sampling.control is 'none': no ControlNet is used.",
            sampling.control_model,
        )
    check_syntax(sampling)
    try:
        from fresco.hosts.diffusers.load import check_request
        from fresco.hosts.diffusers.preprocessors import complete_units
        from fresco.hosts.options import find_control_notes
    except ImportError as error:
        raise HostError(
            f"{error.name or error} is not installed, and a translation needs it; install it "
            'by pip install -e ".[cli]".'
        ) from error
    check_request(sampling)
    _log_notes(find_control_notes(complete_units(list_units(sampling))))


def translate(arguments: argparse.Namespace) -> None:
    """Translate a clip, and write the run file that reproduces it beside the result."""
    preview = _parse_positive(arguments.preview, "preview")
    inputs = _gather_inputs(arguments)
    _check_translation(inputs)
    from fresco.hosts.diffusers.load import load_host
    from fresco.run.context import default_workspace
    from fresco.run.translate import translate as run

    names: list[str] = []

    def load(settings: FrescoSettings) -> Host:
        host = load_host(settings.sampling, offline=settings.flow.offline)
        names.append(host.name)
        return host

    workspace = _workspace(arguments)
    place = workspace or default_workspace(inputs.output)
    with drawn_seed(inputs.settings, place) as settings, _progress(arguments) as progress:
        result = run(
            inputs.source, inputs.output, settings, partial(load, settings), progress,
            preview=preview, workspace=workspace,
        )
    run_file = run_file_of(result.output)
    clear_parts(run_file)
    write_run_file(
        run_file, settings, source=inputs.source, output=inputs.output, host=" ".join(names)
    )
    _log_notes(result.notes)
    for what, path in (("measures", result.report), ("comparison", result.comparison),
                       ("run file", run_file)):
        if path:
            log.info("%s: %s", what, path)
    sys.stdout.write(f"{result.output}\n")


def keyframes(arguments: argparse.Namespace) -> None:
    """Print shots, keyframes and batches; with --json in a form that --keys reads."""
    target, arguments.output = arguments.output, None
    if target:
        require_files(Path(target))
    inputs = _gather_inputs(arguments)
    from fresco.run.translate import detect_keyframes

    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(_progress(arguments))
        space = _workspace(arguments) or stack.enter_context(open_temporary_folder())
        clip, _, plans, notes = detect_keyframes(inputs.source, inputs.settings, progress, space)
    all_notes = (*clip.info.notes, *notes)  # those of the source were logged when it was read
    text = json.dumps(_plans_as_json(inputs.source, plans, all_notes), indent=1) + "\n"
    if target:
        clear_parts(Path(target))
        write_bytes(follow_link(Path(target)), text.encode())
    _log_notes(notes)
    if arguments.json:
        sys.stdout.write(text)
        return
    keys = sum(len(plan.keyframes) for plan in plans)
    sys.stdout.write(
        f"{inputs.source}: {clip.count} frames, {len(plans)} shots, {keys} keyframes\n"
    )
    for number, plan in enumerate(plans, 1):
        sys.stdout.write(
            f"shot {number}, frames {plan.keyframes[0]} to {plan.keyframes[-1]}, "
            f"{len(plan.batches)} batches: {','.join(map(str, plan.keyframes))}\n"
        )


def _plans_as_json(
    source: Path, plans: Sequence[KeyframePlan], notes: Sequence[str]
) -> dict[str, Any]:
    """The plans as JSON. Keyframes come first, so the file can be given to --keys."""
    return {
        "keyframes": [key for plan in plans for key in plan.keyframes],
        "source": str(source),
        "shots": [
            {
                "first": plan.keyframes[0],
                "last": plan.keyframes[-1],
                "keyframes": plan.keyframes,
                "batches": [{"anchors": b.anchors, "frames": b.frames} for b in plan.batches],
            }
            for plan in plans
        ],
        "notes": list(notes),
    }


def propagate(arguments: argparse.Namespace) -> None:
    """Propagate external keyframes to all frames of a clip."""
    inputs = _gather_inputs(arguments)
    from fresco.run.translate import propagate_keys

    with _progress(arguments) as progress:
        result = propagate_keys(
            inputs.source, Path(arguments.keys), inputs.output, inputs.settings, progress,
            workspace=_workspace(arguments), device=_find_device(inputs.settings.flow),
        )
    _log_notes(result.notes)
    sys.stdout.write(f"{result.output}\n")


def _find_device(flow: FlowSettings) -> str:
    """Choose the device for flow if no model is loaded: an accelerator if there is one."""
    if flow.estimator in ("dis", "files"):
        return "cpu"  # not checked, because that needs torch
    from fresco.hosts.devices import find_accelerator

    return str(find_accelerator() or "cpu")


def compare(arguments: argparse.Namespace) -> None:
    """Write a clip and its translations side by side."""
    source, results = Path(arguments.source), [Path(text) for text in arguments.results]
    for path in (source, *results):
        if not path.exists():
            raise VideoError(f"{path} does not exist; give the clip, then its translations.")
    default = results[0].absolute().with_name(f"{source.stem}_compared.mp4")
    output = Path(arguments.output) if arguments.output else default
    if output.resolve() in [path.resolve() for path in (source, *results)]:
        raise SettingsError(f"{output} is one of the videos; give --output another path.")
    from fresco.run.compare import compare_videos

    labels = ["source", *(path.stem for path in results)]
    with _progress(arguments) as progress:
        compare_videos(
            [source, *results], labels, output, progress,
            first_frames=[arguments.first_frame, *(0 for _ in results)],
        )
    sys.stdout.write(f"{output}\n")


def config(arguments: argparse.Namespace) -> None:
    """Print what a configuration file means; with --output also write it as a run file."""
    imported = load_config(Path(arguments.file))
    sys.stdout.write(imported.report.text() + "\n")
    if not arguments.output:
        return
    if imported.source is None:
        raise VideoError(
            f"The clip that {arguments.file} names is not there, so no run file can be written; "
            "put it where the report says."
        )
    output = imported.output or _name_result(imported.source, imported.settings)
    clear_parts(Path(arguments.output))
    write_run_file(
        Path(arguments.output), imported.settings, source=imported.source, output=output, host=""
    )


def options(arguments: argparse.Namespace) -> None:
    """Print all options as a Markdown table."""
    sys.stdout.write(options_table())


def _workspace(arguments: argparse.Namespace) -> Path | None:
    return Path(arguments.workspace) if arguments.workspace else None


def _log_notes(notes: Sequence[str]) -> None:
    for note in notes:
        log.warning("%s", note)


@contextlib.contextmanager
def _progress(arguments: argparse.Namespace) -> Iterator[Progress]:
    """Show progress bars and handle Ctrl-C within the context."""
    token = CancelToken()
    with stopping_on_ctrl_c(token), Bars(quiet=arguments.quiet) as bars:
        yield Progress(bars, token)
