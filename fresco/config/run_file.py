"""Read the configuration files of other tools, and read and write our own run files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fresco import __version__
from fresco.config.official import import_fresco
from fresco.config.rerender import import_rerender
from fresco.config.translation import ImportedRun, ImportReport
from fresco.errors import SettingsError
from fresco.options import entries, to_dict
from fresco.planning.parsing import read_json_text
from fresco.run.embedded import MARK, RUN_FORMAT, check_nested, read_embedded
from fresco.settings import FrescoSettings
from fresco.video.containers import HOLD_SETTINGS
from fresco.workspace import write_json
from fresco.writing import follow_link

RUN_FILE = "fresco-run.json"
"""Usual end of a run file's name."""
_OFFICIAL_KEYS = frozenset(
    {"file_path", "save_path", "mininterv", "maxinterv", "sd_path", "use_controlnet",
     "controlnet_type", "cond_scale", "num_warmup_steps", "end_opt_step", "run_ebsynth",
     "use_salinecy", "use_saliency", "gmflow_path", "sod_path"}
)
_RERENDER_KEYS = frozenset(
    {"input", "work_dir", "key_subdir", "interval", "sd_model", "x0_strength", "control_type",
     "control_strength", "ddim_steps", "freeu_args", "loose_cfattn", "style_update_freq"}
)
_GROUPS = frozenset(entry.group for entry in entries())
_MOST_BYTES = 1 << 24
"""Largest size of a file; the longest run files, with thousands of prompts, have some megabytes."""
_MOST_NODES = 200_000
"""Most values of a YAML file, each counted as often as aliases repeat it."""


def load_config(path: Path) -> ImportedRun:
    """Read a file of any kind: official YAML, Rerender JSON, or one of ours; its content decides.

    Our own are run files, files that hold only groups of settings, as JSON or YAML, and result
    videos, which have the settings inside.
    """
    holds = path.suffix.lower() in HOLD_SETTINGS
    values = read_embedded(path) if holds else _parsed(path)
    if MARK in values:
        return _own(values, path, "Run file")
    known = {
        "official": len(_OFFICIAL_KEYS & values.keys()),
        "rerender": len(_RERENDER_KEYS & values.keys()),
        "own": len((_GROUPS | {"settings"}) & values.keys()),
    }
    kind = max(known, key=lambda name: known[name])
    if not known[kind]:
        raise SettingsError(
            f"{path} is neither a configuration of FRESCO or Rerender nor a run file; its keys "
            f"are {', '.join(map(str, values)) or 'none'}."
        )
    if kind == "official":
        return import_fresco(values, path)
    if kind == "rerender":
        return import_rerender(values, path)
    return _own(values, path, "Settings")


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise SettingsError(
                f"{path} is larger than {_MOST_BYTES} bytes, so it is not a configuration; give a "
                "YAML or JSON file."
            )
        text = data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise SettingsError(f"{path} does not exist; give a YAML or JSON file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as text: {error}.") from error
    json_like = path.suffix.lower() == ".json"
    values = read_json_text(text, str(path)) if json_like else _parsed_yaml(text, path)
    if not isinstance(values, dict):
        raise SettingsError(
            f"{path} holds {type(values).__name__ if values is not None else 'nothing'}; give a "
            "mapping of names to values."
        )
    return {str(key): value for key, value in values.items()}


def _parsed_yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise SettingsError(
            f"{path} is YAML, and PyYAML is not installed; install it, or give a JSON file."
        ) from error
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            _refuse_endless(node, path)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise SettingsError(f"{path} is nested too deep; flatten it.") from error
    except ValueError as error:  # such as a date that does not exist
        raise SettingsError(f"{path} holds a value that cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SettingsError(f"{path} is broken YAML{line}: {why}.") from error


def _refuse_endless(root: Any, path: Path) -> None:
    """Raise SettingsError if a small YAML file becomes huge by its aliases.

    Args:
        root: of the tree of nodes that PyYAML makes, in which an alias is its anchor's own node.
    """
    sizes: dict[int, int] = {}

    def measure(node: Any) -> int:
        if id(node) in sizes:
            if not sizes[id(node)]:
                raise SettingsError(f"{path} holds a value that holds itself by an alias; write "
                                    "it out.")
            return sizes[id(node)]
        sizes[id(node)] = 0  # begun
        size = 1
        for part in _list_parts(node):
            size += measure(part)
            if size > _MOST_NODES:
                raise SettingsError(
                    f"{path} holds more than {_MOST_NODES} values, each counted as often as an "
                    "alias repeats it; write it out without aliases."
                )
        sizes[id(node)] = size
        return size

    if root is not None:
        measure(root)


def _list_parts(node: Any) -> list[Any]:
    """The nodes within a YAML node: keys and values of a mapping, items of a list."""
    if not isinstance(node.value, list):
        return []
    return [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]


def _own(values: Mapping[str, Any], path: Path, kind: str) -> ImportedRun:
    """Read a file with our own options: nested groups, or a whole run."""
    version = values.get(MARK, RUN_FORMAT)
    if version != RUN_FORMAT:
        raise SettingsError(
            f"{path} is a run file of format {version!r}; this program, {__version__}, reads "
            f"format {RUN_FORMAT}. Use the program that wrote it, version {values.get('version')}."
        )
    nested = values.get("settings", {name: values[name] for name in _GROUPS & values.keys()})
    settings = check_nested(nested, path)
    about = {MARK, "version", "settings", "source", "result", "host"} | _GROUPS
    ignored = tuple(f"{k} ({v!r}): unknown here." for k, v in values.items() if k not in about)
    given = {(group, name) for group, items in nested.items() for name in items}
    mapped = [f"{group}.{name} is {getattr(getattr(settings, group), name)!r}."
              for group, name in sorted(given)]
    defaulted = [f"{e.group}.{e.name} is not there: it stays {e.default!r}."
                 for e in entries() if (e.group, e.name) not in given]
    if isinstance(values.get("host"), str):
        mapped.append(f"host: the result was made by {values['host']}.")
    source = _path(values, "source", path)
    if source is not None and not source.exists():
        beside = path.resolve().parent / source.name
        ignored += () if beside.exists() else (
            f"source ({str(source)!r}): no such file. Name the clip on the command line.",)
        source = beside if beside.exists() else None
    output = _path(values, "result", path)
    report = ImportReport(kind, tuple(mapped), tuple(defaulted), ignored)
    return ImportedRun(settings, source, output, report)


def _path(values: Mapping[str, Any], name: str, path: Path) -> Path | None:
    """Resolve a path of a run file; a relative one starts at the file's own folder."""
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise SettingsError(f"{name} is {value!r} in {path}; give a path.")
    return path.resolve().parent / Path(value).expanduser()


def run_file_of(output: Path) -> Path:
    """Path of the run file of a result, which is beside it."""
    return output.with_name(f"{output.stem}.{RUN_FILE}")


def write_run_file(
    path: Path, settings: FrescoSettings, *, source: Path, output: Path, host: str
) -> None:
    """Write a file that reproduces a run: `fresco translate --config FILE`.

    Args:
        host: name of the model and its host, as shown to the user.
    """
    write_json(follow_link(path), {
        MARK: RUN_FORMAT,
        "version": __version__,
        "source": str(source.resolve()),
        "result": str(output.resolve()),
        "host": host,
        "settings": to_dict(settings),
    })
