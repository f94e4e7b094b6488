"""Use pydantic for the models of request bodies, in its versions 1 and 2.

AUTOMATIC1111's WebUI has pydantic 1.10, Forge Neo pydantic 2. Every field has a type made by
`checked`, so both versions accept the same values, with the same errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, Field, ValidationError, create_model

__all__ = ["ApiModel", "Field", "ValidationError", "build_model", "checked", "describe_first",
           "list_fields", "list_given", "make_schema"]

_pydantic: Any = pydantic
_IS_FIRST = pydantic.VERSION.startswith("1.")


class ApiModel(BaseModel, extra="forbid"):
    """A JSON object from a client."""


def checked(check: Callable[[Any], Any], schema: dict[str, Any]) -> Any:
    """Make a type for fields.

    Args:
        check: converts a given value to the stored one; raises ValueError.
        schema: JSON schema of the given values.
    """
    if not _IS_FIRST:
        return Annotated[
            Any, _pydantic.PlainValidator(check), _pydantic.WithJsonSchema(schema)
        ]

    class Checked:
        """The type, in the form that pydantic 1 needs."""

        @classmethod
        def __get_validators__(cls) -> Any:
            yield lambda value: check(value)

        @classmethod
        def __modify_schema__(cls, field_schema: dict[str, Any]) -> None:
            field_schema.update({**schema, **field_schema})

    return Checked


def build_model(name: str, fields: dict[str, tuple[Any, Any]]) -> type[ApiModel]:
    """Build a model from fields that are known only at run time: name -> type and `Field`."""
    build: Any = create_model
    return build(name, __base__=ApiModel, **fields)


def list_fields(model: type[ApiModel]) -> list[str]:
    """List the names of a model's fields."""
    kind: Any = model
    return list(kind.__fields__ if _IS_FIRST else kind.model_fields)


def list_given(body: ApiModel) -> dict[str, Any]:
    """List the fields that a client gave, and their values."""
    known: Any = body
    given = known.__fields_set__ if _IS_FIRST else known.model_fields_set
    return {name: getattr(body, name) for name in list_fields(type(body)) if name in given}


def describe_first(error: ValidationError) -> tuple[str, str]:
    """Describe the first wrong field by the text of the ValueError that `checked` raised."""
    first = error.errors()[0]
    name, text = str(first["loc"][0]), str(first["msg"]).removeprefix("Value error, ")
    return name, " is missing; give it." if "missing" in first["type"] else text


def make_schema(model: type[ApiModel]) -> dict[str, Any]:
    """Make the JSON schema of a model, without the titles that pydantic makes from names."""
    kind: Any = model
    schema = kind.schema() if _IS_FIRST else kind.model_json_schema()
    return _clean(json.loads(json.dumps(schema)))


def _clean(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove titles, and `null` for fields that may be left out."""
    kept = {
        name: value for name, value in schema.items()
        if name != "title" and not (name == "default" and value is None)
    }
    if "properties" in kept:
        kept["properties"] = {name: _clean(node) for name, node in kept["properties"].items()}
    return kept
