"""ControlNet units of the tab: a JSON text that the page (javascript/fresco_control.js) edits."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fresco.control import CONTROL_MODES, NO_MODULE, RESIZE_MODES, ControlUnit
from fresco.errors import SettingsError
from fresco.hosts.options import choose_module, find_control_notes
from fresco.options import from_dict
from fresco.server.api.fields import WrongValueError
from fresco.server.api.models import read_units
from fresco.server.hints import draw_hint
from fresco.server.ids import make_id
from fresco.server.images import fit_side
from fresco.server.ports import Environment
from fresco.server.service import Service
from fresco.server.videos import encode_jpeg
from fresco.webui.tab.text import NO_VIDEO, describe_error

_KEPT = 8
"""Number of latest hints that are kept for the page."""
_SIDE, _QUALITY = 640, 90
"""Longest side of a hint that is shown, and quality of its JPEG."""
_MOST_LETTERS = 100_000
_PAGE_ONLY = "enabled"
"""Fields of a unit that only the page uses."""


def read_control(text: str) -> tuple[ControlUnit, ...]:
    """Read the units that are on from the page's text; empty if there are none."""
    if not (text or "").strip():
        return ()
    try:
        listed = json.loads(text[:_MOST_LETTERS])
        on = [unit for unit in listed if unit.get(_PAGE_ONLY, True)]
        shown = [{name: value for name, value in unit.items() if name != _PAGE_ONLY} for unit in on]
    except (ValueError, TypeError, AttributeError) as error:
        raise SettingsError("The ControlNet units of the page cannot be read; load the page "
                            "again.") from error
    for place, unit in enumerate(listed, 1):
        if unit in on and not unit.get("model"):
            raise SettingsError(f"ControlNet unit {place} has no model; choose one, or remove the "
                                "unit.")
    try:
        return read_units(shown)
    except WrongValueError as error:
        raise SettingsError(f"ControlNet unit {_count_from_one(str(error))}") from error


def _count_from_one(text: str) -> str:
    """`[0].weight is 3` -> `1: weight is 3`."""
    place, _, rest = text.removeprefix("[").partition("]")
    return f"{int(place) + 1}: {rest.removeprefix('.')}" if place.isdecimal() else text


def write_control(units: Sequence[ControlUnit]) -> str:
    """Write units as the page's text."""
    return json.dumps([asdict(unit) for unit in units])


def describe_offer(environment: Environment) -> dict[str, Any]:
    """Describe for JSON what the page offers for a unit."""
    offer = environment.offer()
    none = next((name for name in offer.control_modules if name.lower() == NO_MODULE), NO_MODULE)
    return {
        "models": list(offer.control_models), "modules": list(offer.control_modules) or [none],
        "units": offer.control_units,
        "sliders": {
            module: {name: asdict(slider) for name, slider in sliders.items()}
            for module, sliders in offer.control_sliders.items()
        },
        "control_modes": CONTROL_MODES, "resize_modes": RESIZE_MODES, "none": none,
        # By the name of each model: its preprocessor, and what is told where it has none.
        "chosen": {
            name: choose_module(name, offer.control_modules) for name in offer.control_models
        },
        "told": {
            name: "".join(find_control_notes([ControlUnit(name, NO_MODULE)]))
            for name in offer.control_models
        },
    }


@dataclass(slots=True)
class _Drawing:
    """A hint in progress; only its thread changes it."""

    image: str = ""
    error: str = ""


class ControlAnswers:
    """Answers about ControlNet: what is offered, and the hint of a frame."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._drawings: dict[str, _Drawing] = {}
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self.known: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
            "control": lambda ask, _: describe_offer(service.environment),
            "hint": self._begin,
            "hint_made": self._look,
        }

    def _begin(self, question: Mapping[str, Any], source: str) -> str:
        """Begin to draw the hint of a frame in a thread; return its id."""
        if not source:
            raise SettingsError(NO_VIDEO)
        units = read_control(json.dumps([{**question["unit"], _PAGE_ONLY: True}]))
        settings = from_dict({
            "sampling": {"resolution": int(question["resolution"])},
            "output": {"first_frame": int(question["first"]), "last_frame": int(question["last"])},
        })
        frame, identity, began = int(question["frame"]), make_id(), _Drawing()
        with self._lock:
            self._drawings[identity] = began
            for old in list(self._drawings)[:-_KEPT]:
                del self._drawings[old]

        def work() -> None:
            try:
                with self._turn:
                    hint = draw_hint(
                        self._service.environment, Path(source), frame, units[0], settings
                    )
                data = base64.b64encode(encode_jpeg(fit_side(hint, _SIDE), _QUALITY))
                began.image = f"data:image/jpeg;base64,{data.decode('ascii')}"
            except Exception as error:
                began.error = describe_error(error)

        threading.Thread(target=work, name="fresco-hint", daemon=True).start()
        return identity

    def _look(self, question: Mapping[str, Any], source: str) -> str:
        """Get the hint as an address; empty while it is being made."""
        with self._lock:
            began = self._drawings.get(str(question["id"]))
        if began is None:
            raise SettingsError("This hint is no longer known; press Show hint again.")
        if began.error:
            raise SettingsError(began.error)
        return began.image
