"""Rules of style that no linter checks."""

from __future__ import annotations

import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.source import ROOT, python_files, tree

FILE_LINES = 400
FUNCTION_LINES = 60
MEDIAN_FUNCTION_LINES = 12
FORBIDDEN = {"hack", "paras", "proc", "cf", "controller", "utils", "todo", "fixme"}
"""Words that say nothing, or something else."""

FRESCO = python_files("fresco")
ALL = python_files("fresco", "scripts", "benchmarks", "demo", "tests")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[Function]:
    """Every function of a file, inner ones too."""
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= FILE_LINES
    long = [f"{node.name}: {length(node)}" for node in functions(path)
            if length(node) > FUNCTION_LINES]
    assert not long


def test_the_median_function_is_short() -> None:
    lengths = [length(node) for path in FRESCO for node in functions(path)
               if not isinstance(node.body[-1].__dict__.get("value"), ast.Constant)]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION_LINES


def names_given(path: Path) -> Iterator[str]:
    """Names a file gives itself; those of other packages are theirs."""
    yield from path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(tree(path)):
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def words(path: Path) -> set[str]:
    """Words of names, comments and docstrings, in lower case: `bestGuess_2` gives three."""
    reader = io.StringIO(path.read_text("utf-8")).readline
    texts = [token.string for token in tokenize.generate_tokens(reader)
             if token.type == tokenize.COMMENT]
    nodes = (ast.Module, ast.ClassDef, Function)
    texts += [ast.get_docstring(node) or "" for node in ast.walk(tree(path))
              if isinstance(node, nodes)]
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", " ".join([*texts, *names_given(path)]))
    return set(re.split(r"[\W_]+", text.lower()))


@pytest.mark.parametrize("path", [p for p in ALL if p != Path(__file__).resolve()], ids=name_of)
def test_forbidden_words_are_absent(path: Path) -> None:
    assert words(path) & FORBIDDEN == set()
    assert "my_forward" not in path.read_text("utf-8")


@pytest.mark.parametrize("path", FRESCO, ids=name_of)
def test_devices_come_from_tensors(path: Path) -> None:
    calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    moved = [call.lineno for call in calls
             if isinstance(call.func, ast.Attribute) and call.func.attr == "cuda"]
    named = [call.lineno for call in calls
             for value in [*call.args, *(keyword.value for keyword in call.keywords)]
             if isinstance(value, ast.Constant) and isinstance(value.value, str)
             and re.fullmatch(r"cuda(:\d+)?", value.value)]
    assert not moved + named


@pytest.mark.parametrize("path", FRESCO, ids=name_of)
def test_nothing_prints(path: Path) -> None:
    calls = [node.lineno for node in ast.walk(tree(path))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
             and node.func.id == "print"]
    assert not calls


def public(path: Path) -> Iterator[Function | ast.ClassDef]:
    """Public classes and functions of a module, and the public methods of such classes."""
    for node in tree(path).body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (inner for inner in node.body if isinstance(inner, Function)
                            and not inner.name.startswith("_"))


@pytest.mark.parametrize("path", FRESCO, ids=name_of)
def test_public_names_say_what_they_are(path: Path) -> None:
    assert ast.get_docstring(tree(path)), "the module has no docstring"
    assert not [node.name for node in public(path) if not ast.get_docstring(node)]


@pytest.mark.parametrize("path", FRESCO, ids=name_of)
def test_public_functions_are_typed(path: Path) -> None:
    untyped = []
    for node in public(path):
        if isinstance(node, Function):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a for a in arguments if not a.annotation and a.arg not in ("self", "cls")]
            if bare or node.returns is None:
                untyped.append(node.name)
    assert not untyped
