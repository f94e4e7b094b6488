"""Write the table of options into README.md: `python -m tools.write_options`."""

from __future__ import annotations

from pathlib import Path

from fresco.cli.flags import options_table

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- options: begin -->\n", "<!-- options: end -->\n"


def with_table(text: str) -> str:
    """The text with the table between its markers replaced by the present one."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + options_table() + "\n" + END + after


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
