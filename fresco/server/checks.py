"""Check the installation: what works, and what to do about what does not."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable

from fresco import __version__
from fresco.errors import FrescoError
from fresco.run.propagate import choose_engine
from fresco.server.ports import Check, Environment
from fresco.settings import FlowSettings, FrescoSettings
from fresco.weights import (
    GMFLOW_SINTEL,
    U2NETP,
    WeightFile,
    find_weights,
    is_offline,
    weights_folder,
)

_PACKAGES = ("torch", "numpy", "cv2", "av", "scipy", "einops", "safetensors")


def check_installation(environment: Environment) -> tuple[Check, ...]:
    """Make all lines of the check; a failed check becomes a line, not an error."""
    flow = environment.complete_flow(FlowSettings())
    lines: list[Callable[[], Check]] = [
        lambda: _versions(environment),
        _program,
        _video,
        lambda: _weights(GMFLOW_SINTEL, flow, "optical flow falls back on DIS, with poorer masks"),
        lambda: _weights(U2NETP, flow, "only the saliency u2netp needs it"),
    ]
    return (*map(_guarded, lines), *environment.run_checks())


def _guarded(line: Callable[[], Check]) -> Check:
    try:
        return line()
    except (FrescoError, ImportError, OSError) as error:
        return Check("Check", False, str(error))


def _versions(environment: Environment) -> Check:
    found = [f"FRESCO {__version__}", environment.name, f"Python {platform.python_version()}"]
    missing: list[str] = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.import_module(name).__version__}")
        except ImportError:
            missing.append(name)
    text = ", ".join(found)
    if missing:
        text += (f". Missing: {', '.join(missing)}; install them, which a WebUI does unless it is "
                 "started with --skip-install.")
    return Check("Versions", not missing, text)


def _program() -> Check:
    engine, note = choose_engine(FrescoSettings())
    if note:
        return Check("Synthesis program", False, note)
    return Check("Synthesis program", True, f"{engine.text}; its self-test passed.")


def _video() -> Check:
    av = importlib.import_module("av")
    encoders = [name for name in ("libx264", "aac") if name in av.codecs_available]
    libraries = ", ".join(
        f"{name} {'.'.join(map(str, version))}" for name, version in av.library_versions.items()
        if name in ("libavcodec", "libavformat")
    )
    if "libx264" not in encoders:
        return Check("Video", False, f"PyAV {av.__version__} ({libraries}) cannot write H.264; "
                     "install PyAV from its published wheels: pip install --only-binary av av.")
    return Check("Video", True, f"PyAV {av.__version__} ({libraries}) reads and writes H.264.")


def _weights(weight: WeightFile, flow: FlowSettings, without: str) -> Check:
    folder = weights_folder(flow.weights_dir)
    name = f"Weights {weight.name}"
    if find_weights(weight, folder):
        return Check(name, True, f"In {folder}, whole.")
    if is_offline(flow.offline):
        return Check(name, False, f"Not in {folder}, and downloads are switched off; {without}. "
                     f"Fetch it from {weight.address} and put it there.", needed=False)
    return Check(name, True, f"Not in {folder} yet; it is fetched ({weight.size >> 20} MB) when it "
                 f"is needed. Without it, {without}.")
