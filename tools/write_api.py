"""Write the fields of the API's bodies into docs/api.md: `python -m tools.write_api`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fresco.server.api.models import ControlNetUnitBody, HostBody, ResumeBody, VideoBody
from fresco.server.api.pydantic_shim import ApiModel, make_schema

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
_TABLES = {
    "video": VideoBody, "job": ResumeBody, "host": HostBody, "controlnet": ControlNetUnitBody,
}
"""Tables by the names of their markers in the page."""


def write_tables(text: str) -> str:
    """The page with every table between its markers replaced by the present one."""
    for name, model in _TABLES.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{_table(model)}\n{end}{after}"
    return text


def _table(model: type[ApiModel]) -> str:
    schema = make_schema(model)
    rows = ["| field | value | default | what |", "|---|---|---|---|"]
    for name, field in schema["properties"].items():
        default = "required" if name in schema.get("required", ()) else _default(field)
        about = field["description"].replace("|", "\\|")
        rows.append(f"| `{name}` | {_kind(field)} | {default} | {about} |")
    return "\n".join(rows) + "\n"


def _default(field: dict[str, Any]) -> str:
    return f"`{field['default']}`" if field.get("default", "") != "" else ""


def _kind(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return "object, list or text"
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    words = {"string": "text", "integer": "whole number", "array": "list"}
    kind: str = words.get(field["type"], str(field["type"]))
    if "minimum" in field:
        return f"{kind}, {field['minimum']} to {field['maximum']}"
    if "maxLength" in field:
        return f"{kind} of at most {field['maxLength']} letters"
    return f"{kind} of at most {field['maxItems']}" if "maxItems" in field else kind


if __name__ == "__main__":
    PAGE.write_text(write_tables(PAGE.read_text("utf-8")), "utf-8")
