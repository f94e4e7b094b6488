"""The double without one of the names that FRESCO needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from fresco.webui.needs import list_needed_names
from tests.helpers.source import ROOT

_SEARCHED = ("fresco/webui", "fresco/hosts/webui")
NEVER_CALLED = object()
"""In place of what only a job at work would call."""


def list_all_names() -> tuple[str, ...]:
    """Every name of the WebUI that FRESCO needs anywhere."""
    files = [file for folder in _SEARCHED for file in sorted((ROOT / folder).rglob("*.py"))]
    return list_needed_names(*(_name_module(file) for file in files))


def _name_module(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _make_part(
    name: str, whole: ModuleType | None, further: Iterable[str], hidden: str
) -> ModuleType:
    """A module of the double without a name, and with further ones; else the same.

    Names are properties of its class, as some of the real WebUI's are.
    """
    def read(name: str) -> Any:
        return property(lambda _: getattr(whole, name))

    known = [name for name in (vars(whole) if whole else ()) if not name.startswith("__")]
    members = dict.fromkeys(further, NEVER_CALLED) | {name: read(name) for name in known}
    members.pop(hidden, None)
    return type("Part", (ModuleType,), members)(name)


def lack(missing: str = "") -> Callable[[dict[str, Any]], None]:
    """Change the double's modules: a name or a module is missing, all other needed ones are there.

    Args:
        missing: `modules.x.name` or `modules.x`; empty: nothing is missing.
    """

    def change(own: dict[str, Any]) -> None:
        names, (home, _, hidden) = list_all_names(), missing.rpartition(".")
        for module in sorted({name.rpartition(".")[0] for name in names}):
            further = [n.rpartition(".")[2] for n in names if n.startswith(module + ".")]
            own[module] = _make_part(
                module, own.get(module), further, hidden if module == home else ""
            )
        if missing in own:
            own[missing] = None

    return change
