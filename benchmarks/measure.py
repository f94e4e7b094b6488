"""CPU time and extra peak memory of one piece of work, each side in a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What Linux wants written to forget the peak of resident memory."""
SIDES = ("ours", "plain")
MIB = 1024.0
"""KiB in a MiB."""


def read_resident(key: str) -> float:
    """MiB from the process's status: VmRSS now, VmHWM at most so far."""
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(f"{key}:"))
    return float(line.split()[1]) / MIB


def measured(work: Callable[[], object], *, warm_up: Callable[[], object]) -> dict[str, float]:
    """CPU seconds, and MiB of resident memory beyond what was there before.

    Args:
        warm_up: the same on tiny inputs, so that loading of library code is not counted.
    """
    warm_up()
    before = read_resident("VmRSS")
    CLEAR.write_text(RESET_PEAK)
    start = time.process_time()
    work()
    return {
        "cpu_seconds": round(time.process_time() - start, 3),
        "extra_peak_mib": round(read_resident("VmHWM") - before, 1),
    }


def side_by_side(
    module: str, options: list[str], *, rounds: int, before: Path | None = None
) -> dict[str, Any]:
    """Medians of `module --side ours` and `--side plain`, run in turn, and their ratios.

    In turn, so that another load on the machine meets all.

    Args:
        before: another source tree, whose `ours` is run too; its benchmark has the same options.
    """
    here = Path(__file__).resolve().parents[1]
    cases = {side: (here, side) for side in SIDES}
    if before:
        cases["before"] = before, "ours"
    runs = [{name: _run(module, ["--side", side, *options], tree)
             for name, (tree, side) in cases.items()} for _ in range(rounds)]
    found = {
        name: {key: statistics.median(run[name][key] for run in runs) for key in runs[0][name]}
        for name in cases
    }
    ours = found["ours"]
    ratios = {
        f"ours_of_{name}": {key: round(ours[key] / other[key], 4) for key in ours if other[key]}
        for name, other in found.items() if name != "ours"
    }
    return {"benchmark": module, "options": options, "rounds": rounds, **found, **ratios}


def _run(module: str, options: list[str], tree: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", module, *options], check=True, stdout=subprocess.PIPE, text=True,
        cwd=tree,
    )
    return json.loads(done.stdout)
