"""Try the extension in real WebUIs, and print a table for docs/verified.md."""

from __future__ import annotations

import argparse
import datetime
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.hosts_smoke.cases import CASES
from tests.hosts_smoke.smoke import ABSENT, Outcome, Wishes, try_host

COLUMNS = (
    "start", "plain", *(case.name for case in CASES), "job", "plain after", "unharmed",
    "Reload UI", "memory",
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.hosts_smoke", description=__doc__)
    parser.add_argument("hosts", type=Path, nargs="+", metavar="HOST_DIR", help=(
        "folder of a WebUI: A1111, Forge Neo, Forge or reForge, with its requirements in venv/"
    ))
    parser.add_argument("--model", choices=("demo", "sd15", "sdxl", "slim"), help=(
        "checkpoint instead of the kind's usual one"
    ))
    parser.add_argument("--write-reference", action="store_true", help=(
        "store the guided images that others are compared with; for A1111"
    ))
    parser.add_argument("--fresco-alone", action="store_true", help=(
        "do not start it without FRESCO first, to compare other scripts and routes"
    ))
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the consoles here")
    return parser.parse_args(arguments)


def format_row(outcome: Outcome) -> str:
    """One host's row."""
    today = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    cells = (outcome.cells.get(column, ABSENT) for column in COLUMNS)
    return "| " + " | ".join(
        (outcome.host, outcome.version, outcome.model, today, *cells)
    ) + " |"


def format_head() -> str:
    """The table's first two lines."""
    names = ("host", "version", "checkpoint", "when", *COLUMNS)
    return "| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|"


def main(arguments: Sequence[str] | None = None) -> int:
    """1 if anything failed."""
    given = parse(arguments)
    wishes = Wishes(given.model, given.write_reference, not given.fresco_alone)
    outcomes = [_try(webui, wishes, given.logs) for webui in given.hosts]
    sys.stdout.write("\n".join([format_head(), *map(format_row, outcomes)]) + "\n")
    failures = [line for outcome in outcomes for line in outcome.failures]
    sys.stderr.write("".join(f"{line}\n" for line in failures))
    return 1 if failures else 0


def _try(webui: Path, wishes: Wishes, logs: Path | None) -> Outcome:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            return try_host(webui.resolve(), Path(folder), wishes)
        finally:
            if logs is not None:
                logs.mkdir(parents=True, exist_ok=True)
                for log in Path(folder).glob("*/log.txt"):
                    shutil.copyfile(log, logs / f"{webui.name}-{log.parent.name}.txt")


if __name__ == "__main__":
    sys.exit(main())
