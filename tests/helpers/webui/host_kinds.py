"""Kinds of WebUI: how a folder is recognised, started on a CPU, and seen to be ready."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ALL = (
    "--skip-prepare-environment", "--skip-version-check", "--api",
    "--disable-console-progressbars", "--no-hashing",
)
"""Flags of every kind. None installs, downloads or hashes anything."""
STARTED, LOADED = "Startup time", "Model loaded in"
"""What the console says."""


@dataclass(frozen=True, slots=True)
class HostKind:
    """One kind of WebUI."""

    name: str
    flags: tuple[str, ...]
    """To run on a CPU in float32, besides those of all kinds."""
    models: tuple[str, ...]
    """Checkpoints of `checkpoints.py` that it can load; the first is the one it gets unasked."""
    ready: tuple[str, ...] = (STARTED,)
    """All of this is in the console when requests may come."""
    extensions: tuple[str, ...] = ()
    """Test extensions without which it does not load those checkpoints."""
    checkpoint_flag: str | None = "--ckpt"
    """Names the checkpoint's file; Neo would take it for `--ckpt-dirs`."""


_A1111_CPU = (
    "--use-cpu", "all", "--no-half", "--no-half-vae", "--skip-torch-cuda-test",
    "--skip-python-version-check", "--no-download-sd-model", "--do-not-download-clip",
)
A1111 = HostKind(
    "A1111", (*_A1111_CPU, "--opt-sdp-attention"), ("sd15", "demo", "sdxl", "slim"),
    # A request before the model is loaded may end its start.
    ready=(STARTED, LOADED), extensions=("tiny_open_clip", "tiny_controlnet"),
)
NEO = HostKind(
    "Forge Neo", ("--cpu", "--use-pytorch-cross-attention"), ("demo", "sdxl", "slim"),
    extensions=("tiny_models",), checkpoint_flag=None,
)
FORGE = HostKind(
    "Forge", ("--always-cpu", "--all-in-fp32", "--attention-pytorch", "--skip-torch-cuda-test"),
    ("demo", "sdxl", "slim"), extensions=("tiny_models",),
)
REFORGE = HostKind(
    "reForge",
    ("--always-cpu", "--all-in-fp32", "--attention-pytorch", "--skip-torch-cuda-test"),
    ("slim",),
)


def find_kind(webui: Path) -> HostKind:
    """The kind of the WebUI in a folder, by what lies there.

    Raises:
        ValueError: it is none of those that are known.
    """
    if not (webui / "launch.py").is_file() or not (webui / "modules").is_dir():
        raise ValueError(f"{webui} holds no WebUI: it has no launch.py or no modules.")
    if not (webui / "modules_forge").is_dir():
        return A1111
    if not (webui / "backend").is_dir():
        return REFORGE
    return NEO if (webui / "modules_forge" / "packages").is_dir() else FORGE


def read_version(webui: Path) -> str:
    """What a WebUI calls itself, and its commit if it is a clone; for tables."""
    version = " ".join(_read_own_version(webui)) or "unknown version"
    if not (webui / ".git").exists():
        return version
    asked = ["git", "-C", str(webui), "rev-parse", "--short=8", "HEAD"]
    return f"{version} ({subprocess.run(asked, capture_output=True, text=True).stdout.strip()})"


def _read_own_version(webui: Path) -> list[str]:
    """Forge kinds have a file for it; the change log of A1111 begins with it."""
    for name, pattern in (
        ("modules_forge/forge_version.py", r"^(?:version|release)\s*=\s*['\"]([^'\"]+)"),
        ("CHANGELOG.md", r"\A## (\S+)"),
    ):
        path = webui / name
        if path.is_file():
            return re.findall(pattern, path.read_text("utf-8"), re.MULTILINE)
    return []
