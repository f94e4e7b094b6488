"""Draw the measures of a report as bars (inline SVG)."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

_SHOWN: Mapping[str, tuple[str, str]] = {
    "warp_error": ("Warp error", "lower is steadier"),
    "flicker_ratio": ("Flicker against the source", "1: as in the source"),
    "batch_border_jump": ("Jump between batches", "1: none"),
    "edge_agreement": ("Edge agreement", "1: as in the source"),
    "sharpness_ratio": ("Sharpness against the source", "below 1: blurred"),
    "colour_drift": ("Colour drift", "lower is steadier"),
}
"""Measure -> its name and how it is read."""
_NAMES = {"fresco": "this result", "source": "source", "vae": "autoencoder alone",
          "frame_by_frame": "frame by frame"}
_ROW, _HEAD, _LEFT, _BAR, _WIDTH = 20, 26, 150, 330, 560
"""Pixels of the drawing."""


def draw_report(report: Mapping[str, Any]) -> str:
    """Draw all measures of all frames as bars, in groups; empty if there are none."""
    measured = report.get("measures")
    frames = measured.get("frames") if isinstance(measured, Mapping) else None
    if not isinstance(frames, Mapping) or not frames:
        return ""
    parts: list[str] = []
    top = 4
    for measure, (title, reading) in _SHOWN.items():
        values = {
            str(name): float(numbers[measure]) for name, numbers in frames.items()
            if isinstance(numbers, Mapping) and _is_number(numbers.get(measure))
        }
        if values:
            parts.append(_group(title, reading, values, top))
            top += _HEAD + _ROW * len(values) + 10
    if not parts:
        return ""
    return (
        f'<svg class="fresco_chart" viewBox="0 0 {_WIDTH} {top}" role="img" '
        f'aria-label="Measures of the result">{"".join(parts)}</svg>'
    )


def _group(title: str, reading: str, values: Mapping[str, float], top: int) -> str:
    most = max(*values.values(), 1e-12)
    rows = [
        f'<text class="fresco_chart_title" x="0" y="{top + 14}">{html.escape(title)}'
        f'<tspan class="fresco_chart_hint" dx="8">{html.escape(reading)}</tspan></text>'
    ]
    for position, (name, value) in enumerate(values.items()):
        y = top + _HEAD + position * _ROW
        length = max(1.0, _BAR * max(0.0, value) / most)
        kind = "fresco_bar_own" if name == "fresco" else "fresco_bar"
        shown = _NAMES.get(name, name.replace("_", " "))
        rows.append(
            f'<text x="{_LEFT - 8}" y="{y + 9}" text-anchor="end">{html.escape(shown)}</text>'
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{length:.1f}" height="11" rx="2"/>'
            f'<text class="fresco_chart_value" x="{_LEFT + length + 6:.1f}" y="{y + 9}">'
            f"{value:.4g}</text>"
        )
    return "".join(rows)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
