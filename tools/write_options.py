"""Write docs/options.md from the settings: `python -m tools.write_options`."""

from __future__ import annotations

from pathlib import Path

from fresco.cli.flags import options_table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"
HEAD = """# Options

Made from `fresco/settings.py` by `python -m tools.write_options`. `fresco translate --help` says
the same.

An option belongs to a group. Run files, the API and error messages name it by group and name:
`sampling.seed`, in JSON `{"sampling": {"seed": 7}}`. The command line has a flag for each. The
column *also in* says who else offers it: the tab, the API, the script in img2img. Where a server
does not offer an option, the API's error says what to do instead.

"""


def options_page() -> str:
    """The whole page."""
    return HEAD + options_table()


if __name__ == "__main__":
    PAGE.write_text(options_page(), "utf-8")
