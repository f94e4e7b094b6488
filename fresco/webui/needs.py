"""List the names of the WebUI that a part of FRESCO needs, from FRESCO's own source.

A name counts if a module that is imported with the part uses it. Imports within a function or under
`try` do not count, nor does what is asked for by `hasattr` or `getattr`, because that code also
works without the name.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

HOST_PACKAGE = "modules"
"""The package of every WebUI of this family."""
_OWN_PACKAGE = "fresco"
_ROOT = Path(__file__).resolve().parents[1]
_SEARCHED = ("fresco.webui", "fresco.hosts")
"""Only these import a WebUI; a contract checks it."""


@functools.cache
def list_needed_names(*roots: str) -> tuple[str, ...]:
    """Names such as `modules.shared.opts`, in alphabetical order.

    Args:
        roots: modules of FRESCO that are imported first, such as `fresco.webui.environment`.
    """
    found: set[str] = set()
    known: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module in known or not module.startswith(_SEARCHED):
            continue
        known.add(module)
        uses = _read_uses(module)
        found |= uses.names
        waiting += uses.own_modules
    return tuple(sorted(found))


def list_missing_names(names: Iterable[str]) -> list[str]:
    """List those names that this WebUI does not have; a missing module counts once."""
    missing: dict[str, None] = {}
    for name in names:
        module, _, attribute = name.rpartition(".")
        try:
            loaded = importlib.import_module(module)
        except ImportError:
            missing[module] = None
        else:
            if not _has(loaded, attribute):
                missing[name] = None
    return list(missing)


def _has(module: ModuleType, name: str) -> bool:
    """Whether a module has a name; its value is not read."""
    try:
        inspect.getattr_static(module, name)
    except AttributeError:
        computed = "__getattr__" in vars(module) or hasattr(type(module), "__getattr__")
        return computed and hasattr(module, name)
    return True


@dataclass(slots=True)
class _Uses:
    """The names that one module needs."""

    names: set[str] = field(default_factory=set)
    """Names of the WebUI."""
    own_modules: list[str] = field(default_factory=list)
    """Modules of FRESCO that are imported with it."""


@functools.cache
def _read_uses(module: str) -> _Uses:
    uses, aliases = _Uses(), dict[str, str]()
    path = _ROOT.joinpath(*module.split(".")[1:])
    sources = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    if not sources:  # a name out of a module, not a module
        return uses
    tree = ast.parse(sources[0].read_text("utf-8"))
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            _note_import(statement.module, statement.names, uses, aliases)
    if not aliases:  # as in most modules
        return uses
    optional = set(_list_optional(tree))
    used = {(name, attribute) for name, attribute in _walk(tree, frozenset()) if name in aliases}
    uses.names |= {f"{aliases[name]}.{attribute}" for name, attribute in used - optional}
    return uses


def _note_import(
    package: str, imported: Iterable[ast.alias], uses: _Uses, aliases: dict[str, str]
) -> None:
    """Record a `from package import names` at a module's top."""
    top = package.partition(".")[0]
    if package == HOST_PACKAGE:
        aliases |= {name.asname or name.name: f"{package}.{name.name}" for name in imported}
    elif top == HOST_PACKAGE:
        uses.names |= {f"{package}.{name.name}" for name in imported}
    elif top == _OWN_PACKAGE:
        uses.own_modules += [package, *(f"{package}.{name.name}" for name in imported)]


def _is_question(node: ast.AST) -> bool:
    """Whether a call is one of `hasattr` or `getattr`."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) \
        and node.func.id in ("hasattr", "getattr")


def _list_optional(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """List names that are asked for by `hasattr` or `getattr`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_question(node):
            owner, name = node.args[:2]
            if isinstance(owner, ast.Name) and isinstance(name, ast.Constant):
                yield owner.id, str(name.value)


def _walk(node: ast.AST, hidden: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield every `name.attribute` that is always read, unless the name is local to the function.
    """
    if isinstance(node, ast.If) and any(map(_is_question, ast.walk(node.test))):
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        hidden |= _list_own_names(node)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) \
            and isinstance(node.ctx, ast.Load) and node.value.id not in hidden:
        yield node.value.id, node.attr
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, hidden)


def _list_own_names(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    arguments = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    stored = {
        node.id for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return arguments | stored
