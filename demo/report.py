"""One self-contained page about a run: its clips, its measures as charts, its settings.

Run as `python -m demo.report OUT.mp4 -o REPORT.html` after `fresco translate --compare`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco.flow.dis import DisEstimator
from fresco.metrics import Metrics
from fresco.video.reader import open_source
from fresco.video.size import carried_size, scale_frame

_CHARTS = {
    "flicker": "Flicker: how much the picture trembles, in grey levels. Lower is steadier.",
    "warp_error": "Warp error: how much a frame differs from the one before it, moved along with "
    "the motion. Lower is steadier.",
    "batch_border_jump": "Border jump: warp error where one batch of keyframes meets the next, "
    "over that elsewhere. 1 is no jump.",
    "edge_agreement": "Edges: how well they lie where the source has them. 1 is all of them.",
    "sharpness_ratio": "Sharpness over the source's. 1 is as sharp.",
    "colour_drift": "Colour drift away from the first frame, in Lab units. Lower is steadier.",
}
"""Measures that are drawn, with their titles."""
_NAMES = {
    "source": "source", "vae": "source, encoded and decoded", "frame_by_frame": "frame by frame",
    "fresco": "FRESCO", "flow_propagation": "FRESCO, carried by flow",
    "patch_propagation": "FRESCO, carried by patches", "alone": "each frame painted alone",
    "carried": "keyframes carried",
}
_COLOURS = {"source": "#8a8f98", "vae": "#b9bdc4", "frame_by_frame": "#d9822b",
            "alone": "#d9822b"}
_OURS = "#2f6fd0"
_LABEL, _BAR, _ROW = 190, 260, 22
"""Widths of the labels and of the longest bar, and a bar's height with its gap, in pixels."""

_MEASURED = 240
"""Short side of the frames on which the painted clip is measured."""


@dataclass(frozen=True, slots=True)
class Painted:
    """A clip in brush strokes."""

    alone: Path
    """Folder of frames, each painted alone."""
    carried: Path
    """Video of keyframes that were carried to all frames."""
    comparison: Path
    """Both beside the source."""


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: #1d2129; background: #fff; }
video { width: 100%; border-radius: 6px; background: #000; }
h2 { margin-top: 2.2rem; } figure { margin: 0 0 1.2rem; } figcaption { color: #59606b; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(31rem, 1fr)); }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: 2px 10px 2px 0; vertical-align: top;
  border-bottom: 1px solid #e4e7eb; }
td { overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) { body { color: #dfe3ea; background: #16181d; }
  td, th { border-color: #333841; } figcaption { color: #9aa2ae; } text { fill: #dfe3ea; } }
"""


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def chart(title: str, values: Mapping[str, float]) -> str:
    """Horizontal bars as SVG, the longest as wide as the space."""
    longest = max((abs(value) for value in values.values()), default=0.0) or 1.0
    height = _ROW * len(values)
    bars = []
    for row, (name, value) in enumerate(values.items()):
        y, width = row * _ROW, max(1.0, _BAR * max(0.0, value) / longest)
        colour = _COLOURS.get(name, _OURS)
        bars.append(
            f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">'
            f"{html.escape(_NAMES.get(name, name))}</text>"
            f'<rect x="{_LABEL}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}" rx="2" '
            f'fill="{colour}"/>'
            f'<text x="{_LABEL + width + 6:.1f}" y="{y + 15}">{_number(value)}</text>'
        )
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 '
        f'{_LABEL + _BAR + 60} {height}" font-size="12" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(bars)}</svg></figure>'
    )


def charts(measures: Mapping[str, Mapping[str, Any]]) -> str:
    """A chart of every measure that has at least two numbers."""
    order = [name for name in _NAMES if name in measures]
    order += [name for name in measures if name not in _NAMES]
    drawn = []
    for key, title in _CHARTS.items():
        found = {name: measures[name].get(key) for name in order}
        values = {name: float(value) for name, value in found.items() if value is not None}
        if len(values) > 1:
            drawn.append(chart(title, values))
    return f'<div class="charts">{"".join(drawn)}</div>'


def _video(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure><video controls loop muted src="data:video/mp4;base64,{data}"></video>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _rows(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", json.dumps(value, ensure_ascii=False)


def _table(rows: Iterator[tuple[str, str]]) -> str:
    lines = (f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in rows)
    return f"<table>{''.join(lines)}</table>"


def _name_measured(report: Mapping[str, Any]) -> str:
    measured = report["measured_frames"]
    return "All frames" if measured == report["frames"] else f"The first {measured} frames"


def measure_painted(clip: Path, painted: Painted) -> dict[str, dict[str, Any]]:
    """Measures of the painted clip and of its frames painted alone, on small frames."""
    results = {"source": clip, "alone": painted.alone, "carried": painted.carried}
    with contextlib.ExitStack() as stack:
        opened = {n: stack.enter_context(open_source(path)) for n, path in results.items()}
        info = opened["carried"].info
        size = carried_size(info.width, info.height, min(_MEASURED, info.height, info.width))
        measures = Metrics(DisEstimator(), tuple(results))
        last = opened["carried"].info.frames - 1
        streams = [source.frames(0, last) for source in opened.values()]
        for frames in zip(*streams, strict=True):
            small = dict(zip(results, (scale_frame(f, size) for f in frames), strict=True))
            measures.update(small["source"], small)
    return measures.report()


def _render_painted(clip: Path, painted: Painted) -> list[str]:
    measures = measure_painted(clip, painted)
    shown = {name: {key: values[key] for key in ("flicker", "warp_error")}
             for name, values in measures.items()}
    return [
        "<h2>Without any model</h2>",
        "<p>A few keyframes were painted in brush strokes by a classical filter, at full size. "
        "All frames between them are made of their patches.</p>",
        _video(painted.comparison, "source | each frame painted alone | keyframes carried"),
        charts(shown),
    ]


def page(output: Path, painted: Painted | None = None) -> str:
    """The whole page about the run that wrote this video, with what lies beside it."""
    report = json.loads(output.with_name(f"{output.stem}-report.json").read_text("utf-8"))
    comparison = output.with_name(f"{output.stem}-comparison.mp4")
    clips = [_video(comparison, "source | frame by frame | FRESCO")] if comparison.exists() else []
    clips.append(_video(output, "the translated clip, with its sound"))
    keyframes, definitions = report["keyframes"], report["definitions"]
    facts = (
        f"{report['frames']} frames of {Path(report['source']).name}; {len(keyframes)} keyframes "
        f"({', '.join(map(str, keyframes))}) were translated, the rest was carried by "
        f"{report['propagation']}. Working size {' x '.join(map(str, report['working_size']))}."
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in report["notes"])
    parts = [
        "<h1>FRESCO video to video</h1>",
        *(_render_painted(Path(report["source"]), painted) if painted else ()),
        "<h2>Translated</h2>",
        f"<p>Prompt: <b>{html.escape(report['settings']['sampling']['prompt'])}</b></p>",
        f"<p>{html.escape(facts)}</p>", *clips,
        f"<h2>{_name_measured(report)}, in numbers</h2>", charts(report["measures"]["frames"]),
        "<h2>Keyframes alone, before anything is carried</h2>",
        charts(report["measures"]["keyframes"]),
        "<h2>What the measures are</h2>", _table(iter(definitions.items())),
        f"<h2>Notes of the run</h2><ul>{notes}</ul>",
        "<h2>Settings</h2>", _table(_rows(report["settings"])),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>FRESCO: {html.escape(output.stem)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Command line of this file."""
    parser = argparse.ArgumentParser(description="One page about a run of fresco translate.")
    parser.add_argument("output", type=Path, help="the video that the run wrote")
    parser.add_argument("-o", "--report", type=Path, required=True, help="HTML file to write")
    parser.add_argument("--painted", type=Path, nargs=3, metavar=("ALONE", "CARRIED", "COMPARISON"),
                        help="the clip without a model: a folder of frames painted alone, the "
                        "video of carried keyframes, and both beside the source")
    options = parser.parse_args(words)
    painted = Painted(*options.painted) if options.painted else None
    fresh = options.report.with_suffix(".new")
    fresh.write_text(page(options.output, painted), "utf-8")
    fresh.replace(options.report)


if __name__ == "__main__":
    main()
