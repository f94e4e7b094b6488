"""Read configuration files of the official FRESCO, flat YAML files of twenty keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fresco.config.translation import NUMBER, SWITCH, TEXT, WHOLE, ImportedRun, Translation
from fresco.errors import SettingsError

FREEU = (1.2, 1.5, 1.0, 1.0)
"""b1, b2, s1, s2 that the official tool uses wherever FreeU is on."""
OFFICIAL_VAE = "stabilityai/sd-vae-ft-mse"
"""The VAE that the official tool always loads."""


def import_fresco(values: Mapping[str, Any], path: Path) -> ImportedRun:
    """Convert a configuration of the official FRESCO (`config_*.yaml`).

    Args:
        values: the parsed file.
        path: the file itself, from which relative paths are resolved.
    """
    run = Translation(values, path)
    source, base = run.clip("file_path")
    output = _output(run, source, base)
    for key, target, kind in (
        ("mininterv", "keyframes.min_interval", WHOLE),
        ("maxinterv", "keyframes.max_interval", WHOLE),
        ("batch_size", "keyframes.batch_size", WHOLE),
        ("prompt", "sampling.prompt", TEXT),
        ("max_process", "propagation.workers", WHOLE),
    ):
        run.map(key, target, kind)
    run.seed("seed")
    run.model("sd_path")
    run.put("sampling.vae", OFFICIAL_VAE)
    run.mapped.append(f"sampling.vae is {OFFICIAL_VAE}, which the official tool always uses.")
    for step in (Translation.added_words, _control, _freeu, _steps, _saliency,
                 _propagation, _weights):
        step(run)
    run.defaulted.append(
        "keyframes.detect_shots stays on; the official tool does not look for cuts. "
        "Switched off, it gives its keyframes on a clip with cuts."
    )
    return run.result("Configuration of the official FRESCO", source, output)


def _output(run: Translation, source: Path | None, base: Path) -> Path | None:
    text = run.take("save_path", TEXT)
    if not text:
        run.defaulted.append("save_path is not there: the result goes beside the clip.")
        return None
    folder = base / Path(text).expanduser()
    output = folder / f"{source.stem if source else 'result'}_fresco.mp4"
    run.mapped.append(f"save_path: the result is {output}.")
    if any((folder / "keys").glob("*.png")):
        run.mapped.append(
            f"save_path: keyframes of an earlier official run in {folder / 'keys'} are left "
            f"alone; fresco propagate CLIP --keys {folder / 'keys'} carries them to all frames."
        )
    return output


def _control(run: Translation) -> None:
    used = run.take("use_controlnet", SWITCH)
    if used is None:
        run.leave_open("use_controlnet", "sampling.control")
    if used:
        run.mapped.append("use_controlnet: a ControlNet is used.")
        run.control("controlnet_type")
        run.map("cond_scale", "sampling.control_weight", NUMBER)
    else:
        run.put("sampling.control", "none")
        if used is False:
            run.mapped.append("use_controlnet: sampling.control is 'none'.")
        run.ignore("controlnet_type", "no ControlNet is used.")
        run.ignore("cond_scale", "no ControlNet is used.")


def _freeu(run: Translation) -> None:
    used = run.take("use_freeu", SWITCH)
    if used is None:
        run.defaulted.append("use_freeu is not there: FreeU stays off.")
        return
    factors = FREEU if used else (1.0,) * 4
    run.freeu(factors)
    run.mapped.append(f"use_freeu: FreeU is {f'on with {factors}' if used else 'off'}.")


def _steps(run: Translation) -> None:
    run.map("num_inference_steps", "sampling.steps", WHOLE)
    steps = run.options.get("sampling", {}).get("steps", 20)
    if steps < 1:
        raise SettingsError(f"num_inference_steps is {steps} in {run.path}; give at least 1.")
    warmup = run.take("num_warmup_steps", WHOLE)
    if warmup is None:
        run.leave_open("num_warmup_steps", "sampling.strength")
    elif not 0 <= warmup <= steps:
        raise SettingsError(f"num_warmup_steps is {warmup} in {run.path}; give 0 to {steps}.")
    else:
        strength = (steps - warmup) / steps
        run.put("sampling.strength", strength)
        run.mapped.append(
            f"num_warmup_steps: sampling.strength is {strength:g}, {warmup} of {steps} steps are "
            "left out."
        )
    end = run.take("end_opt_step", WHOLE)
    if end is None:
        run.leave_open("end_opt_step", "guidance.optimization_end")
        return
    share = min(max(end, 0), steps) / steps
    run.put("guidance.optimization_end", share)
    run.mapped.append(f"end_opt_step ({end}): guidance.optimization_end is {share:g}.")


def _saliency(run: Translation) -> None:
    # `use_salinecy` is how the official files spell it.
    right = "use_saliency" in run.values and "use_salinecy" not in run.values
    key = "use_saliency" if right else "use_salinecy"
    run.map(key, "guidance.background_smoothing", SWITCH)
    run.ignore("use_saliency" if not right else "use_salinecy", "use_salinecy is taken instead.")
    run.ignore("sod_path", "the weights of its subject network have no licence; "
               "guidance.saliency names ours.")


def _propagation(run: Translation) -> None:
    value = run.take("run_ebsynth", SWITCH)
    run.put("propagation.enabled", True)
    run.put("propagation.method", "patch")
    said = "is not there" if value is None else f"is {value}"
    (run.defaulted if value is None else run.mapped).append(
        f"run_ebsynth {said}: propagation.enabled is True and propagation.method is 'patch', so "
        "that a whole video comes out; switched off, only keyframes are written."
    )


def _weights(run: Translation) -> None:
    text = run.take("gmflow_path", TEXT)
    found = run.locate(text)[0] if text else None
    if text is None:
        run.leave_open("gmflow_path", "flow.weights_dir")
    elif found is None:
        run.ignored.append(
            f"gmflow_path ({text!r}): no such file; flow.estimator auto finds its own."
        )
    else:
        run.put("flow.weights_dir", str(found.parent))
        run.mapped.append(f"gmflow_path: flow.weights_dir is {found.parent}.")
