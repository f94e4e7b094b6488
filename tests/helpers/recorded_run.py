"""The run replaced by a record of its calls, for tests of the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fresco.cli.main import main
from fresco.progress import Progress
from fresco.settings import FrescoSettings


@dataclass(frozen=True)
class Result:
    """As fresco.run.translate.RunResult."""

    output: Path
    workspace: Path = Path()
    report: Path | None = None
    comparison: Path | None = None
    notes: tuple[str, ...] = ("Frame 7 was added.",)


@dataclass
class Calls:
    """What reached the run."""

    arguments: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    act: Callable[[Progress], None] = lambda progress: None

    def run(self, *arguments: Any, **options: Any) -> Result:
        self.arguments, self.options = list(arguments), options
        self.act(next(a for a in arguments if isinstance(a, Progress)))
        return Result(next(a for a in arguments[1:] if isinstance(a, Path) and a.suffix != ".d"))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Calls:
        """Stand in for fresco.run.translate, so that neither model nor frames are needed."""
        stands_for = {"translate": ("translate", "propagate_keys"), "compare": ("compare_videos",)}
        for step, names in stands_for.items():
            module = ModuleType(f"fresco.run.{step}")
            for name in names:
                setattr(module, name, self.run)
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return self

    @property
    def settings(self) -> FrescoSettings:
        return next(a for a in self.arguments if isinstance(a, FrescoSettings))


def fails(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    """The one sentence that a failing command says."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fresco: ")
    assert err.count("\n") == 1
    return err
