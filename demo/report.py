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


@dataclass(frozen=True, slots=True)
class Drawn:
    """A measure that is drawn."""

    title: str
    said: str
    """What it measures, and which way is better."""
    factor: float = 1.0
    """What it is multiplied by, so that it can be read."""


_STEADY = {
    "flicker": Drawn(
        "Flicker", "How much still parts tremble, in grey levels of 255. Lower is steadier."
    ),
    "warp_error": Drawn(
        "Warp error", "How much a frame differs from the one before it, moved along with the "
        "motion, in thousandths. Lower is steadier.", 1000.0
    ),
    "batch_border_jump": Drawn(
        "Border jump", "Warp error where one batch of keyframes meets the next, over that "
        "elsewhere. 1 is no jump."
    ),
}
_LOOK = {
    "edge_agreement": Drawn(
        "Edges", "How well they lie where the source has them. 1 is all of them."
    ),
    "sharpness_ratio": Drawn("Sharpness", "Over the source's. 1 is as sharp."),
    "colour_drift": Drawn(
        "Colour drift", "Away from the first frame, in Lab units. Lower is steadier."
    ),
}
_NAMES = {
    "source": "source", "vae": "source, encoded and decoded", "frame_by_frame": "frame by frame",
    "fresco": "FRESCO", "flow_propagation": "FRESCO, carried by flow",
    "patch_propagation": "FRESCO, carried by patches", "alone": "each frame painted alone",
    "carried": "keyframes carried",
}
_COLOURS = {"source": "#8a8f98", "vae": "#b9bdc4", "frame_by_frame": "#d9822b",
            "alone": "#d9822b"}
_OURS = "#2f6fd0"
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
video { max-width: 100%; border-radius: 6px; background: #000; }
video[autoplay] { width: 100%; }
h2 { margin-top: 2.2rem; } figure { margin: 0 0 1.2rem; }
figcaption, .said { color: #59606b; } .verdict { font-size: 1.15em; }
.charts { display: grid; gap: 1rem 2.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); }
.bars { display: grid; grid-template-columns: 10.5rem 1fr; gap: 4px 10px; margin-top: 6px; }
.bars > span:nth-child(odd) { text-align: right; }
.bars > span:nth-child(even) { display: flex; align-items: center; gap: 6px; margin-right: 3.5rem; }
.bars i { flex: none; height: 1rem; min-width: 2px; border-radius: 2px; }
.bars b { font-weight: normal; }
summary { cursor: pointer; font-size: 1.2em; margin: 1.2rem 0; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: 2px 10px 2px 0; vertical-align: top;
  border-bottom: 1px solid #e4e7eb; }
td + td { overflow-wrap: anywhere; }
@media (max-width: 600px) { td { overflow-wrap: anywhere; }
  .bars { grid-template-columns: 1fr; gap: 0; }
  .bars > span:nth-child(odd) { text-align: left; } }
@media (prefers-color-scheme: dark) { body { color: #dfe3ea; background: #16181d; }
  td, th { border-color: #333841; } figcaption, .said { color: #a4acb8; } }
"""


def _number(value: float) -> str:
    if value and abs(value) < 0.001:
        return f"{value:.1g}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def chart(title: str, said: str, values: Mapping[str, float]) -> str:
    """Horizontal bars, the longest as wide as the space."""
    longest = max((abs(value) for value in values.values()), default=0.0) or 1.0
    bars = []
    for name, value in values.items():
        width, colour = 100 * max(0.0, value) / longest, _COLOURS.get(name, _OURS)
        bars.append(
            f"<span>{html.escape(_NAMES.get(name, name))}</span>"
            f'<span><i style="width:{width:.1f}%;background:{colour}"></i>'
            f"<b>{_number(value)}</b></span>"
        )
    return (
        f"<figure><strong>{html.escape(title)}</strong><br>"
        f'<span class="said">{html.escape(said)}</span>'
        f'<div class="bars">{"".join(bars)}</div></figure>'
    )


def charts(
    measures: Mapping[str, Mapping[str, Any]], drawn: Mapping[str, Drawn]
) -> str:
    """A chart of every measure that has at least two numbers."""
    order = [name for name in _NAMES if name in measures]
    order += [name for name in measures if name not in _NAMES]
    made = []
    for key, wanted in drawn.items():
        found = {name: measures[name].get(key) for name in order}
        values = {name: wanted.factor * value for name, value in found.items() if value is not None}
        if len(values) > 1:
            made.append(chart(wanted.title, wanted.said, values))
    return f'<div class="charts">{"".join(made)}</div>'


def compare_steadiness(ours: Mapping[str, Any], other: Mapping[str, Any], words: str) -> str:
    """One sentence: how much less flicker and warp error ours has; empty where none is known.

    Args:
        words: the sentence, with {} for what was found.
    """
    told = []
    for key, noun in (("flicker", "flicker"), ("warp_error", "warp error")):
        pair = ours.get(key), other.get(key)
        if pair[0] and pair[1]:
            ratio = pair[1] / pair[0]
            times, more = max(ratio, 1 / ratio), "less" if ratio > 1 else "more"
            told.append(f"{times:.2g} times {more} {noun}")
    said = html.escape(words.format(" and ".join(told)))
    return f'<p class="verdict">{said}</p>' if told else ""


def _video(path: Path, caption: str, *, plays: bool = False) -> str:
    """A clip that repeats; with sound unless it plays by itself."""
    played = " autoplay muted playsinline" if plays else ""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure><video controls loop{played} src="data:video/mp4;base64,{data}"></video>'
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


def _explain_borders(measures: Mapping[str, Mapping[str, Any]]) -> str:
    """Why there is no chart of border jumps, where there is none."""
    if any(values.get("batch_border_jump") is not None for values in measures.values()):
        return ""
    return '<p class="said">Border jump: not measured, because no batch of keyframes meets ' \
        "another here.</p>"


def _render_painted(clip: Path, painted: Painted) -> list[str]:
    measures = measure_painted(clip, painted)
    shown = {name: {key: values[key] for key in ("flicker", "warp_error")}
             for name, values in measures.items()}
    return [
        "<h2>Without any model</h2>",
        "<p>A few keyframes were painted in brush strokes by a classical filter, at full size. "
        "All frames between them are made of their patches.</p>",
        _video(painted.comparison, "source | each frame painted alone | keyframes carried",
               plays=True),
        compare_steadiness(
            shown["carried"], shown["alone"],
            "Carried keyframes have {} than frames painted one by one.",
        ), charts(shown, _STEADY),
    ]


def page(output: Path, painted: Painted | None = None) -> str:
    """The whole page about the run that wrote this video, with what lies beside it."""
    report = json.loads(output.with_name(f"{output.stem}-report.json").read_text("utf-8"))
    comparison = output.with_name(f"{output.stem}-comparison.mp4")
    clips = []
    if comparison.exists():
        clips.append(_video(comparison, "source | frame by frame | FRESCO", plays=True))
    clips.append(_video(output, "the translated clip, with its sound"))
    keyframes, definitions = report["keyframes"], report["definitions"]
    measures = report["measures"]["frames"]
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
        f"<h2>{_name_measured(report)}, in numbers</h2>",
        compare_steadiness(
            measures.get("fresco", {}), measures.get("frame_by_frame", {}),
            "FRESCO has {} than frames translated one by one.",
        ), charts(measures, _STEADY),
        _explain_borders(measures),
        "<details><summary>More measures</summary>", charts(measures, _LOOK),
        "<h3>Keyframes alone, before they are carried</h3>",
        charts(report["measures"]["keyframes"], _STEADY | _LOOK),
        "<h3>What the measures are</h3>", _table(iter(definitions.items())), "</details>",
        f"<details><summary>Settings and notes</summary><ul>{notes}</ul>",
        _table(_rows(report["settings"])), "</details>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
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
