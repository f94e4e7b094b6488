"""Make the samples of this folder with version 0.1: see README.md beside this file.

Runs in a source tree of version 0.1 and imports its modules, never those of this tree:

    cd TREE-OF-0.1 && PYTHONPATH=. python THIS-FILE TARGET-FOLDER
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from fresco.hosts.diffusers_host import ModelParts, fingerprint_of
from fresco.translate import translate
from fresco.webui.jobs.engine import JobEngine
from fresco.webui.jobs.job import ControlUnit, Goal, HostOptions, JobRequest, request_as_dict
from fresco.webui.jobs.runner import Outcome, job_work
from tests.helpers.job_hosting import TinyHosting, tiny_settings

import fresco
from demo.make_model import write_model
from fresco.cli import main as fresco_main
from fresco.config import RUN_FILE, load_config, run_file_of, write_run_file
from fresco.errors import Cancelled
from fresco.flow.estimator import create_estimator
from fresco.hosts.diffusers import load_host
from fresco.options import entries, from_dict, to_dict
from fresco.progress import CancelToken, Progress, StageStatus
from fresco.propagation.program import checked_program
from fresco.settings import FlowSettings, FrescoSettings, SamplingSettings
from fresco.webui.img2img.infotext import write_infotext
from fresco.webui.img2img.request import list_options, parse_arguments
from fresco.workspace import write_image
from tests.helpers.clips import ClipOptions, moving_texture, write_clip

torch.set_num_threads(1)
FOLDER = "@FOLDER@"
"""Stands in the samples for the folder that they lie in; tests write the real one."""
FLAGS = (
    "--config", "model.json", "--prompt", "a painting", "--resolution", "64", "--steps", "4",
    "--strength", "0.25", "--optimization-iterations", "2", "--min-interval", "2",
    "--max-interval", "3", "--batch-size", "3", "--keys", "0,2,4,7", "--flow", "dis",
    "--workers", "1", "--crf", "20", "--no-gradient-blend", "--quiet",
)


def write_text(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def stop_when(reached: Callable[[StageStatus], bool]) -> Progress:
    """A progress that cancels its run at a point."""
    token = CancelToken()

    def report(status: StageStatus) -> None:
        if reached(status):
            token.cancel()

    return Progress(report, token)


# Runs of the command line


def run_command(*words: object) -> None:
    assert fresco_main([str(word) for word in words]) == 0, words


def run_stopped(
    output: Path, settings: FrescoSettings, reached: Callable[[StageStatus], bool]
) -> bool:
    """Translate up to a point; whether it was stopped there, at work on something."""
    host = load_host(settings.sampling, offline=True)
    try:
        translate(Path("clip.mp4"), output, settings, lambda: host, stop_when(reached))
    except Cancelled:
        write_run_file(run_file_of(output), settings, source=Path("clip.mp4"), output=output,
                       host=host.name)
        frames = [*output.parent.rglob("frames-*/*.png")]
        return not frames or (len(frames) < 4 and any(output.parent.rglob("evidence-*")))
    return False


def make_runs(root: Path) -> None:
    """A finished translation, two that were stopped, and a finished propagation."""
    # A flag would make the model's path absolute, and the path is part of what is hashed.
    write_text(root / "model.json", {"sampling": {"model": "tiny"}})
    run_command("translate", "clip.mp4", "-o", "finished/result.mp4", *FLAGS,
                "--propagation-quality", "best")
    (root / "model.json").unlink()
    settings = load_config(run_file_of(root / "finished" / "result.mp4")).settings
    flow = from_dict({"propagation": {"method": "flow"}}, settings)
    points: Mapping[str, Callable[[StageStatus], bool]] = {
        "stopped_in_keyframes": lambda status: status.stage == "keyframes" and status.done == 3,
        "stopped_in_frames": lambda status: status.stage == "propagate" and status.done >= 1,
    }
    for name, reached in points.items():
        while not run_stopped(root / name / "result.mp4", flow, reached):
            shutil.rmtree(root / name)  # the run was faster than the cancellation
    write_text(root / "propagation.json", {
        "sampling": {"resolution": 64}, "flow": {"estimator": "dis"}, "output": {"crf": 20},
        "propagation": {"method": "flow", "workers": 1}, "blend": {"histogram": False},
    })
    for number in (2, 5):
        image = np.full((64, 64, 3), 30 * number, np.uint8)
        image[16:48, 16 + number:40 + number] = (200, 60, 20)
        write_image(root / "keys" / f"{number:06d}.png", image)
    run_command("propagate", "clip.mp4", "--keys", "keys", "-o", "propagated/result.mp4",
                "--config", "propagation.json", "--quiet")
    imported = load_config(root / "propagation.json")
    (root / "propagation.json").unlink()
    write_run_file(run_file_of(root / "propagated" / "result.mp4"), imported.settings,
                   source=Path("clip.mp4"), output=root / "propagated" / "result.mp4", host="")


# Files of settings and requests


def other_values(names: Iterable[tuple[str, str]] | None = None) -> dict[str, dict[str, Any]]:
    """A value for every option that is not its default."""
    told: dict[tuple[str, str], Any] = {
        ("keyframes", "keys"): "0,3,9", ("flow", "weights_dir"): "weights",
        ("sampling", "model"): "model.safetensors", ("sampling", "vae"): "vae.pt",
        ("sampling", "lora"): ["a.safetensors:0.5", "b.safetensors"],
        ("sampling", "prompt"): "a car, größer", ("sampling", "added_prompt"): "best",
        ("sampling", "negative_prompt"): "blurry", ("sampling", "key_prompts"): {"3": "night"},
        ("sampling", "scheduler"): "euler", ("sampling", "control_model"): "control",
        ("sampling", "device"): "cpu", ("propagation", "cluster"): "tcp://host:8786",
        ("output", "first_frame"): 1, ("output", "last_frame"): 9,
        ("sampling", "resolution"): 128, ("sampling", "canny_low"): 20,
        ("sampling", "canny_high"): 90, ("keyframes", "min_interval"): 3,
        ("keyframes", "max_interval"): 12,
    }
    made: dict[str, dict[str, Any]] = {}
    for entry in entries():
        key = entry.group, entry.name
        if names is not None and key not in names:
            continue
        if key in told:
            value = told[key]
        elif entry.type is bool:
            value = not entry.default
        elif entry.option.choices:
            value = next(c for c in entry.option.choices if c != entry.default)
        else:
            value = entry.type(entry.default + (1 if entry.type is int else 0.05))
        made.setdefault(entry.group, {})[entry.name] = value
    return made


def make_run_file_of_everything(root: Path) -> None:
    """All options at values that are not their defaults."""
    settings = from_dict(other_values())
    for entry in entries():
        assert getattr(getattr(settings, entry.group), entry.name) != entry.default, entry
    write_run_file(root / f"everything.{RUN_FILE}", settings, source=Path("clip.mp4"),
                   output=Path("result.mp4"), host="diffusers: model.safetensors")


def make_requests(target: Path) -> None:
    """`request.json` of every goal, with everything that a host may be told."""
    host = HostOptions(**{
        name: f"a {name}" for name, value in asdict(HostOptions()).items()
        if isinstance(value, str)
    }, control=(ControlUnit("canny", "control", 0.6, 0.1, 0.9), ControlUnit("depth", "other")))
    settings = from_dict(other_values())
    made = [
        request_as_dict(JobRequest(
            "clip.mp4", goal, settings, host, own_keys="keys", preview=2, frame=4,
            frame_seed=None if goal is Goal.ALL else 11, title=f"Title of {goal.value}",
        ))
        for goal in Goal
    ]
    write_text(target / "requests.json", [*made, request_as_dict(JobRequest("clip.mp4"))])


def make_payloads(target: Path) -> None:
    """Arguments of the script in `alwayson_scripts`, and what they meant."""
    order = [(entry.group, entry.name) for entry in list_options()]
    groups = other_values(order)
    flat = {name: groups[group][name] for group, name in order}
    video, mask = "AAECAw==", "data:image/png;base64,BA=="
    payloads: dict[str, list[Any]] = {
        "by name": [{**flat, "path": "clip.mp4", "masks": "masks",
                     "key_prompts": {"0": "night"}}],
        "by group": [{**groups, "enabled": True, "video": video, "masks": [mask, mask]}],
        "switched off by name": [{"enabled": False, **flat}],
        "defaults": [{}],
        "by position": [True, None, "clip.mp4", *flat.values(), "masks"],
        "by position, sent files": [True, video, None, *flat.values(), [mask]],
        "by position, the first ones": [True, video, "", *list(flat.values())[:9]],
        "by position, gaps": [True, None, "clip.mp4", *[
            value if place % 3 == 0 else None for place, value in enumerate(flat.values())
        ]],
        "by position, switched off": [False, video, "clip.mp4", *flat.values(), ""],
    }
    made = []
    for name, args in payloads.items():
        request = parse_arguments(args)
        meant = request and {
            "settings": to_dict(request.settings), "path": request.path,
            "data": request.data.hex(), "masks": [data.hex() for data in request.masks],
            "masks_path": request.masks_path, "infotext": write_infotext(request),
        }
        made.append({"name": name, "args": args, "meant": meant})
    write_text(target / "payloads.json", {
        "order": [".".join(names) for names in order], "payloads": made,
    })


# Jobs of the server


def make_jobs(root: Path) -> dict[str, str]:
    """One job of every state, by what became of it."""
    hosting, jobs = TinyHosting(root / "models"), root / "jobs"
    settings = tiny_settings({
        "keyframes": {"keys": "0,2,4,7"}, "sampling": {"strength": 0.25, "prompt": "a painting"},
    })
    whole = JobRequest(str(root / "clip.mp4"), settings=settings, title="A clip")
    made: dict[str, str] = {}

    def wait(engine: JobEngine, job: str) -> None:
        while not engine.status(job).state.ended:
            time.sleep(0.05)

    engine = JobEngine(jobs, job_work(hosting))
    engine.start()
    made["done"] = engine.submit(whole).id
    wait(engine, made["done"])
    gone = JobRequest(str(root / "gone.mp4"), settings=settings)
    made["failed"] = engine.submit(gone).id
    wait(engine, made["failed"])
    folder = engine.new_folder()
    for path in (root / "keys").iterdir():
        shutil.copy(path, folder)
    carried = JobRequest(str(root / "clip.mp4"), Goal.PROPAGATION, settings, own_keys=str(folder))
    made["propagated"] = engine.submit(carried).id
    wait(engine, made["propagated"])
    engine.close()

    def stopping(request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        """As the work of 0.1, but a person cancels once the first batch is there."""
        def report(status: StageStatus) -> None:
            progress._report(status)
            if status.stage == "keyframes" and status.done == 3 and progress.token:
                progress.token.cancel()

        return job_work(hosting)(request, folder, Progress(report, progress.token))

    engine = JobEngine(jobs, stopping)
    engine.start()
    made["cancelled"] = engine.submit(whole).id
    wait(engine, made["cancelled"])
    engine.close()

    killed = root / "killed"

    def dying(request: JobRequest, folder: Path, progress: Progress) -> Outcome:
        """The folders are copied while the job runs, as if the program had been killed then."""
        with progress.stage("keyframes", 4) as stage:
            stage.advance()
            time.sleep(1.5)  # until the status on disk says so
            shutil.copytree(jobs, killed)
        return Outcome(None, {}, None, None, ())

    engine = JobEngine(jobs, dying)
    made["killed"] = engine.submit(whole).id
    made["queued"] = engine.submit(whole).id
    engine.start()
    wait(engine, made["killed"])
    engine.close()
    shutil.rmtree(jobs)
    killed.rename(jobs)
    return made


# What stands in hashes


def make_facts(root: Path, target: Path, jobs: Mapping[str, str]) -> None:
    """What the names of folders hang on, besides the samples themselves."""
    run = load_config(run_file_of(root / "finished" / "result.mp4")).settings
    estimator = create_estimator(FlowSettings(estimator="dis"), "cpu")
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6.0).reshape(2, 3))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    parts = ModelParts(layer, layer, layer, None, {"beta_start": 0.00085, "beta_end": 0.012})
    write_text(target / "facts.json", {
        "version": fresco.__version__,
        "jobs": dict(jobs),
        "host": load_host(run.sampling, offline=True).fingerprint,
        "job_host": TinyHosting(root / "models").open(
            HostOptions(), tiny_settings({"sampling": {"strength": 0.25}}).sampling
        ).fingerprint,
        "estimator": estimator.fingerprint,
        "program": {"fingerprint": checked_program().fingerprint,
                    "version": checked_program().version},
        "small_parts": fingerprint_of(parts, SamplingSettings(), torch.device("cpu")),
        "made_with": {"torch": torch.__version__, "opencv": cv2.__version__},
    })


def make_flow(target: Path) -> None:
    """One cached flow of 32 x 32 pixels, between the two images stored beside it."""
    frames = [frame[:32, :32] for frame in moving_texture(2, 64, 64)]
    for name, frame in zip(("source", "target"), frames, strict=True):
        write_image(target / f"{name}.png", frame)
    pair = [torch.from_numpy(frame.copy()).permute(2, 0, 1)[None] / 128 - 1 for frame in frames]
    create_estimator(FlowSettings(estimator="dis"), "cpu", cache=target / "cache").estimate(*pair)


def store(root: Path, target: Path) -> None:
    """Copy what a later program needs; what it makes again in a second stays behind."""
    left = shutil.ignore_patterns("flow", "lock", "models", "tiny", "result-report.json")
    shutil.copytree(root, target, ignore=left, dirs_exist_ok=True)
    for path in target.glob("*/result.mp4"):
        path.unlink()
    make_flow(target / "flow")
    for path in target.rglob("*"):
        if path.suffix in (".json", ".txt"):
            path.write_text(path.read_text("utf-8").replace(str(root), FOLDER), "utf-8")


def make_all(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        os.chdir(root)
        frames = moving_texture(8, 64, 64)
        write_clip(root / "clip.mp4", frames, ClipOptions(sound=("aac",)))
        write_model(root / "tiny")
        make_runs(root)
        make_run_file_of_everything(root)
        jobs = make_jobs(root)
        make_facts(root, target, jobs)
        make_requests(target)
        make_payloads(target)
        store(root, target)


if __name__ == "__main__":
    make_all(Path(sys.argv[1]).resolve())
