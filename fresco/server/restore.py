"""Read the settings from a result, for a new job."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from fresco.control import AUTO, NO_MODULE, ControlUnit, list_units
from fresco.errors import SettingsError
from fresco.hosts.options import HostOptions
from fresco.options import Entry, entries
from fresco.run.embedded import read_result
from fresco.server.ports import Offer
from fresco.settings import FrescoSettings


@dataclass(frozen=True, slots=True)
class Restored:
    """The settings of a result, as far as this server can use them."""

    settings: FrescoSettings
    """Options that a client may set; the others have their defaults."""
    host: HostOptions
    """The model and its sampling; empty where this server does not have it."""
    notes: tuple[str, ...]
    """What could not be restored, in sentences."""


def restore_settings(path: Path, name: str, offer: Offer) -> Restored:
    """Read the settings from a result of this program; SettingsError if it has none.

    Args:
        path: the file, which may have any name.
        name: name of the file in messages.
        offer: what this server offers.
    """
    found = read_result(path, name)
    model = str(found.host.get("model") or found.settings.sampling.model)
    # In a run of the command line, the units are among the options.
    own = [dataclasses.asdict(unit) for unit in list_units(found.settings.sampling)]
    settings, notes = _keep_offered(found.settings)
    host, more = _choose_host({"control": own, **found.host, "model": model}, offer)
    return Restored(settings, host, (*notes, *more))


_TAKEN = frozenset(("sampling", name) for name in (
    "model", "control", "control_model", "control_weight", "control_units", "canny_low",
    "canny_high",
))
"""Options of the command line that become options of the host."""


def _keep_offered(settings: FrescoSettings) -> tuple[FrescoSettings, list[str]]:
    """Remove the settings that only the command line has."""
    notes: list[str] = []
    for entry in entries():
        group = getattr(settings, entry.group)
        value = getattr(group, entry.name)
        if value == entry.default:
            continue
        if entry.option.instead:
            if entry.place not in _TAKEN:
                notes.append(f"{entry.group}.{entry.name} was {value!r}: {entry.option.instead}.")
        elif entry.option.file and not _has_folder(value):
            notes.append(_describe_absent(entry, settings))
        else:
            continue
        group = dataclasses.replace(group, **{entry.name: entry.default})
        settings = dataclasses.replace(settings, **{entry.group: group})
    return settings, notes


def _has_folder(value: Any) -> bool:
    """Whether a file names others with their folders, as run files do and results do not."""
    paths = [value] if isinstance(value, str) else value
    return all(PurePath(str(path).replace("\\", "/")).name != str(path) for path in paths)


def _describe_absent(entry: Entry, settings: FrescoSettings) -> str:
    """Say that a result does not contain the files of an option, and what to do."""
    name = f"{entry.group}.{entry.name}"
    if entry.place == ("mask", "path") and settings.mask.source == "drawing":
        return f"{name}: the masks were drawn. A result does not hold drawings; draw them again."
    value = getattr(getattr(settings, entry.group), entry.name)
    told = value if isinstance(value, str) else ", ".join(value)
    return f"{name} was {told}, which the result does not hold; name it again, with its folder."


def _choose_host(known: Mapping[str, Any], offer: Offer) -> tuple[HostOptions, list[str]]:
    """Keep the host's options as far as this server offers them."""
    notes: list[str] = []

    def choose(what: str, name: Any, names: Sequence[str]) -> str:
        wanted = str(name or "")
        found = _find_name(wanted, names)
        if wanted and not found:
            notes.append(f"{what} was {wanted!r}, which is not here; choose another.")
        return found

    units = []
    for each in known.get("control") or ():
        unit = dict(each) if isinstance(each, Mapping) else {}
        unit["model"] = choose("ControlNet", unit.get("model"), offer.control_models)
        if unit["model"]:
            unit["module"] = choose(
                "Preprocessor", unit.get("module"), (*offer.control_modules, NO_MODULE, AUTO)
            ) or AUTO
            if unit.get("hints"):
                notes.append(
                    f"The hints of ControlNet {unit['model']} came from {unit['hints']}, which "
                    "the result does not hold; name their folder or video again."
                )
                continue
            units.append(_make_unit(unit, notes))
    return HostOptions(
        choose("host.model", known.get("model"), offer.models),
        choose("host.sampler", known.get("sampler"), offer.samplers),
        choose("host.scheduler", known.get("scheduler"), offer.schedulers),
        tuple(unit for unit in units if unit),
    ), notes


def _make_unit(values: Mapping[str, Any], notes: list[str]) -> ControlUnit | None:
    known = {field.name for field in dataclasses.fields(ControlUnit)}
    try:
        return ControlUnit(**{name: each for name, each in values.items() if name in known})
    except (TypeError, SettingsError) as error:
        notes.append(f"A ControlNet unit is left out: {error}")
        return None


def _find_name(wanted: str, names: Sequence[str]) -> str:
    """Find the same name, also without hash, folder and ending; empty if there is none."""
    if wanted in names:
        return wanted
    bare = _strip(wanted)
    return next((name for name in names if bare and _strip(name) == bare), "")


def _strip(name: str) -> str:
    """`folder/model.safetensors [a1b2c3]` -> `model`."""
    return PurePath(name.partition(" [")[0].replace("\\", "/")).stem.lower()
