"""`gradio` 3.41.2, as far as an extension's controls need it: constructors that remember."""

from __future__ import annotations

from typing import Any

__version__ = "3.41.2"
_COMMON = {"elem_id", "elem_classes", "visible"}
_FORM = _COMMON | {
    "value", "label", "info", "every", "show_label", "container", "scale", "min_width",
    "interactive",
}


class Component:
    """A control; arguments it does not have are refused, gradio only warns of them."""

    accepted: set[str] = _FORM
    positional: tuple[str, ...] = ("value",)
    value: Any = None
    label = elem_id = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = dict(zip(self.positional, args, strict=False)) | kwargs
        if unknown := given.keys() - self.accepted:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        vars(self).update(given)


class Checkbox(Component):
    """True or false."""

    value = False


class Slider(Component):
    """A number in a range."""

    accepted = _FORM | {"minimum", "maximum", "step", "randomize"}
    positional = ("minimum", "maximum", "value", "step")


class Number(Component):
    """A number."""

    accepted = _FORM | {"precision", "minimum", "maximum", "step"}


class Dropdown(Component):
    """One of several words."""

    accepted = _FORM | {"choices", "type", "multiselect", "allow_custom_value", "max_choices"}
    positional = ("choices", "value")


class Textbox(Component):
    """A text."""

    accepted = _FORM | {"lines", "max_lines", "placeholder", "type"}
    value = ""


class Markdown(Component):
    """A text that is read."""

    accepted = _COMMON | {"value"}


class File(Component):
    """An uploaded file."""

    accepted = (_FORM - {"info"}) | {"file_count", "file_types", "type", "height"}


_EVENT = {"fn", "inputs", "outputs", "queue", "api_name", "show_progress", "_js"}


class Dependency:
    """What follows an event."""

    def then(self, **kwargs: Any) -> Dependency:
        """Bind what comes next; nothing is ever pressed here."""
        if unknown := kwargs.keys() - _EVENT:
            raise TypeError(f"an event has no {', '.join(sorted(unknown))}")
        return self


class Button(Component):
    """Something to press."""

    accepted = _COMMON | {"value", "variant", "size", "icon", "link", "interactive", "scale",
                          "min_width"}

    def click(self, **kwargs: Any) -> Dependency:
        """Bind an event."""
        return Dependency().then(**kwargs)


class Accordion(Component):
    """A part that folds."""

    accepted = _COMMON | {"label", "open"}
    positional = ("label",)

    def __enter__(self) -> Accordion:
        return self

    def __exit__(self, *error: object) -> None:
        """Its children know nothing of it here."""


class Blocks(Component):
    """A page of its own."""

    accepted = _COMMON | {"analytics_enabled"}

    def __enter__(self) -> Blocks:
        return self

    def __exit__(self, *error: object) -> None:
        """Its children know nothing of it here."""


def update(**changes: Any) -> dict[str, Any]:
    """What a handler returns to change a component."""
    return {**changes, "__type__": "update"}
