"""Who may import whom, and that importing changes nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.source import ROOT, imported, module_name, python_files, tree

FOUNDATION = {"errors", "progress", "settings", "workspace", "weights"}
"""Anyone may import these; they import nothing of ours but each other, downward."""

PURE = {"video", "key_text", "keyframes", "shots", "blending", "flow", "saliency", "metrics"}
STAGES = PURE | {"guidance", "propagation"}

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "progress": {"errors"},
    "settings": {"errors"},
    "workspace": {"errors", "settings", "progress"},
    "weights": {"errors", "settings", "progress", "workspace"},
    "video": FOUNDATION,
    "key_text": FOUNDATION,
    "keyframes": FOUNDATION | {"key_text"},
    "shots": FOUNDATION,
    "blending": FOUNDATION,
    "flow": FOUNDATION,
    "saliency": FOUNDATION | {"flow"},
    "metrics": FOUNDATION | {"flow"},
    "guidance.ports": FOUNDATION,
    "guidance": FOUNDATION | {"flow", "guidance.ports"},
    "propagation": FOUNDATION | {"flow", "blending"},
    "hosts": FOUNDATION | {"guidance.ports"},
    "stages": FOUNDATION | STAGES | {"guidance.ports"},
    "translate": FOUNDATION | STAGES | {"guidance.ports", "stages"},
    "importing": FOUNDATION | {"key_text"},
    "config": FOUNDATION | {"importing", "key_text"},
    "flags": FOUNDATION | {"key_text"},
    "console": FOUNDATION,
    "commands": FOUNDATION | {
        "config", "console", "flags", "guidance.ports", "hosts", "key_text", "keyframes",
        "translate",
    },
    "cli": FOUNDATION | {"commands", "console", "flags"},
    "__main__": {"cli"},
    "form_file": set(),
    "client": {"errors", "form_file"},
    "webui": FOUNDATION | {
        "config", "guidance.ports", "hosts", "key_text", "keyframes", "stages", "translate",
        "video",
    },
}
"""Part of the project -> parts it may import besides itself."""

HOST_PACKAGES = {
    "modules", "modules_forge", "backend", "ldm", "sgm", "diffusers", "transformers", "gradio",
    "fastapi",
}
"""Packages of a WebUI or of diffusers, which an installation may lack or patch."""

MAY_IMPORT_HOSTS = {"hosts", "webui"}

HARMLESS = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign,
    ast.AnnAssign,
)

FRESCO = python_files("fresco")


def part(module: str) -> str:
    """Part of the project that a module belongs to: a key of ALLOWED."""
    names = module.split(".")[1:]
    if not names:
        return ""
    return "guidance.ports" if names[:2] == ["guidance", "ports"] else names[0]


def own_imports(path: Path) -> set[str]:
    """Parts of the project that a file imports."""
    modules = {module_name(file) for file in FRESCO}
    names = {name for name in imported(path) if name in modules}
    packages = {name for name in names if any(other.startswith(f"{name}.") for other in names)}
    return {part(name) for name in names - packages} - {""}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FRESCO, ids=name_of)
def test_imports_follow_the_arrows(path: Path) -> None:
    own = part(module_name(path))
    allowed = ALLOWED[own] | {own} if own else set()
    assert own_imports(path) <= allowed


def test_scripts_import_only_the_webui_part() -> None:
    for path in python_files("scripts"):
        assert own_imports(path) <= {"webui"}, path


@pytest.mark.parametrize("path", FRESCO, ids=name_of)
def test_only_hosts_and_webui_import_host_packages(path: Path) -> None:
    if part(module_name(path)) not in MAY_IMPORT_HOSTS:
        assert {name.split(".")[0] for name in imported(path)}.isdisjoint(HOST_PACKAGES)


def changes_something(node: ast.stmt) -> bool:
    """Whether a statement at the top of a module does more than give names their values."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return not all(isinstance(name, ast.Name | ast.Tuple) for name in node.targets)
    if isinstance(node, ast.If):
        return any(changes_something(inner) for inner in [*node.body, *node.orelse])
    if isinstance(node, ast.Try):
        inner = [*node.body, *node.orelse, *node.finalbody]
        inner += [statement for handler in node.handlers for statement in handler.body]
        return any(changes_something(statement) for statement in inner)
    return not isinstance(node, HARMLESS)


@pytest.mark.parametrize("path", [f for f in FRESCO if f.name != "__main__.py"], ids=name_of)
def test_modules_do_nothing_when_imported(path: Path) -> None:
    lines = [node.lineno for node in tree(path).body if changes_something(node)]
    assert not lines, f"{name_of(path)} acts on import in lines {lines}"


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
    names = [
        module_name(path) for path in FRESCO
        if path.name != "__main__.py" and part(module_name(path)) not in MAY_IMPORT_HOSTS
    ]
    seen = json.loads(run_python(SNAPSHOT, *names))
    assert seen["after"] == seen["before"]
    assert HOST_PACKAGES.isdisjoint(seen["loaded"])


@pytest.mark.parametrize("name", ["fresco.settings", "fresco.errors", "fresco.cli.main"])
def test_light_modules_do_not_load_torch(name: str) -> None:
    if not (ROOT / (name.replace(".", "/") + ".py")).exists():
        pytest.fail(f"{name} is gone; name its successor here")
    code = "import sys; __import__(sys.argv[1]); print('torch' in sys.modules)"
    assert run_python(code, name).strip() == "False"
