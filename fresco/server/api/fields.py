"""Types of the fields of bodies, and functions that read the objects of a body.

The text of an error begins after the name of the field. So the names of the fields around it can be
put before it: `controlnet` + `[1]` + `.weight` + ` is 3; give ...`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from fresco.errors import SettingsError
from fresco.server.api.pydantic_shim import (
    ApiModel,
    ValidationError,
    checked,
    describe_first,
    list_fields,
    make_schema,
)
from fresco.server.encoded import EncodedFile
from fresco.server.jobs.job import Goal

_M = TypeVar("_M", bound=ApiModel)

_LARGEST = 1 << 63
MOST_LEVELS = 16
"""Largest number of levels of JSON; the deepest valid body has 4."""
_LETTERS = 1000
"""Default of the largest number of letters of a text."""


class WrongValueError(ValueError):
    """A value is wrong. The text follows the name of the field: ` is 3; give a text.`"""


def text(most: int = _LETTERS) -> Any:
    """Type of a text of at most `most` letters, without the spaces around it."""
    def check(value: object) -> str:
        if isinstance(value, EncodedFile):
            value = read_letters(value, most)
        if not isinstance(value, str):
            raise WrongValueError(f" is {value!r}; give a text.")
        if len(value.strip()) > most:
            raise WrongValueError(f" has {len(value.strip())} letters; give at most {most}.")
        return value.strip()

    return checked(check, {"type": "string", "maxLength": most})


def read_letters(value: EncodedFile, most: int) -> str:
    """Read a text that only looks like a file in base64."""
    if len(value) > most:
        raise WrongValueError(f" has {len(value)} letters; give at most {most}.")
    return value.letters()


def encoded() -> Any:
    """Type of a file in base64."""
    def check(value: object) -> str | EncodedFile:
        if not isinstance(value, str | EncodedFile):
            raise WrongValueError(f" is {value!r}; give a text.")
        return value.strip() if isinstance(value, str) else value

    return checked(check, {"type": "string"})


def whole(low: int, high: int) -> Any:
    """Type of a whole number, which JSON may write as 8.0."""
    def check(value: object) -> int:
        number = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
            raise WrongValueError(f" is {value!r}; give a whole number, {low} to {high}.")
        return number

    return checked(check, {"type": "integer", "minimum": low, "maximum": high})


def number(low: float, high: float) -> Any:
    """Type of a number."""
    def check(value: object) -> float:
        if (isinstance(value, bool) or not isinstance(value, int | float)
                or not math.isfinite(value) or not low <= value <= high):
            raise WrongValueError(f" is {value!r}; give a number, {low} to {high}.")
        return float(value)

    return checked(check, {"type": "number", "minimum": low, "maximum": high})


def boolean() -> Any:
    """Type of true or false."""
    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise WrongValueError(f" is {value!r}; give true or false.")
        return value

    return checked(check, {"type": "boolean"})


def nested(model: type[ApiModel]) -> Any:
    """Type of an object within a body; the field describes it."""
    schema = make_schema(model)
    schema.pop("description", None)
    return checked(partial(read_object, model), schema)


def choice(kind: type[Goal]) -> Any:
    """Type of a member of an enumeration."""
    words = [each.value for each in kind]

    def check(value: object) -> Goal:
        return kind(read_word(value, words))

    return checked(check, {"type": "string", "enum": words})


def one_of(words: Sequence[str]) -> Any:
    """Type of one of some words."""
    return checked(partial(read_word, words=words), {"type": "string", "enum": list(words)})


def read_word(value: object, words: Sequence[str]) -> str:
    """Read one of some words."""
    if not isinstance(value, str) or value not in words:
        raise WrongValueError(f" is {value!r}; choose one of {', '.join(words)}.")
    return value


def read_object(model: type[_M], values: object) -> _M:
    """Read an object of a body; a field that is null counts as left out."""
    if not isinstance(values, Mapping):
        raise WrongValueError(f" is {values!r}; give an object.")
    known = list_fields(model)
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name)[:100], known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."
            raise WrongValueError(f" has no field {name!r}; {hint}")
    try:
        return model(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        name, told = describe_first(error)
        raise WrongValueError(f".{name}{told}") from error


def read_item(model: type[_M], place: int, item: object) -> _M:
    """Read an object of a list; its errors name its place."""
    try:
        return read_object(model, item)
    except WrongValueError as error:
        raise WrongValueError(f"[{place}]{error}") from error


def refuse_broken(value: Any, depth: int = 0) -> None:
    """Refuse texts that cannot be stored in a file or a path, and numbers beyond every range."""
    if depth > MOST_LEVELS:
        raise SettingsError(f"The request is nested deeper than {MOST_LEVELS} levels; flatten it.")
    if isinstance(value, str):
        if "\0" in value or not _can_encode(value):
            raise SettingsError(
                f"{value[:60]!r} holds a null character or half of a surrogate pair; remove it."
            )
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise SettingsError(f"{value} is beyond the range of every option; give a smaller number.")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            refuse_broken(name, depth + 1)
            refuse_broken(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            refuse_broken(item, depth + 1)


def _can_encode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
