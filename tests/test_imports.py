"""What importing the project does: nothing, and without heavy packages where that matters.

Who may import whom is the contract in `.importlinter`, which test.sh checks.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.helpers.source import ROOT, imported, module_name, python_files

HOST_PACKAGES = {
    "modules", "modules_forge", "backend", "ldm", "sgm", "diffusers", "transformers", "gradio",
    "fastapi",
}
"""Packages of a WebUI or of diffusers, which an installation may lack or patch."""

NEEDS_HOST = ("fresco.hosts.webui", "fresco.hosts.diffusers", "fresco.webui", "fresco.ui",
              "fresco.server.api")
"""Rooms whose modules import one of them."""

SNAPSHOT = """
import gc, importlib, json, logging, os, sys, threading, warnings
import av, cv2, numpy, scipy.fft, safetensors, torch, torch.nn.functional
def state():
    return {
        "threads": torch.get_num_threads(), "grad": torch.is_grad_enabled(),
        "dtype": str(torch.get_default_dtype()), "deterministic": repr(
            (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark)),
        "cv2": cv2.getNumThreads(), "handlers": len(logging.getLogger().handlers),
        "level": logging.getLogger("fresco").level, "environment": dict(os.environ),
        "hooks": repr((sys.excepthook, threading.excepthook, sys.path_hooks, sys.meta_path)),
        "running": threading.active_count(), "folder": os.getcwd(),
        "torch forward": torch.nn.Module.__call__.__qualname__,
    }
before = state()
for name in sys.argv[1:]:
    importlib.import_module(name)
after = state()
loaded = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps({"before": before, "after": after, "loaded": loaded}))
"""


def run_python(code: str, *arguments: str) -> str:
    """Standard output of a fresh interpreter at the repository's root."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_everything_leaves_the_process_as_it_was() -> None:
    names = [module_name(path) for path in python_files("fresco") if path.name != "__main__.py"]
    seen = json.loads(run_python(SNAPSHOT, *(n for n in names if not n.startswith(NEEDS_HOST))))
    assert seen["after"] == seen["before"]
    assert HOST_PACKAGES.isdisjoint(seen["loaded"])


@pytest.mark.parametrize("name", [
    "fresco.options", "fresco.errors", "fresco.cli.main", "fresco.propagation.executor",
    "fresco.run.translate",
])
def test_light_modules_do_not_load_torch(name: str) -> None:
    code = "import sys; __import__(sys.argv[1]); print('torch' in sys.modules)"
    assert run_python(code, name).strip() == "False"


def test_scripts_import_only_the_webui_room() -> None:
    for path in python_files("scripts"):
        own = {name for name in imported(path) if name.startswith("fresco.")}
        assert all(name.startswith("fresco.webui") for name in own), path
