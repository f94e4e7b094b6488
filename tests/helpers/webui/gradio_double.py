"""`gradio` 3.41.2, as far as an extension's controls need it: constructors that remember."""

from __future__ import annotations

from typing import Any, ClassVar

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
        if Blocks.open:
            Blocks.open[-1].children.append(self)

    def click(self, **kwargs: Any) -> Dependency:
        """Bind an event; nothing ever happens here."""
        return Dependency().then(**kwargs)

    input = change = submit = upload = click


class Place(Component):
    """What holds others; they know nothing of it here."""

    accepted = _COMMON | {"scale", "min_width", "variant", "equal_height"}
    positional = ()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        """The next components are beside it."""


class Row(Place):
    """Side by side."""


class Column(Place):
    """One below the other."""


class Blocks(Place):
    """A page; it remembers all components that are made within."""

    accepted: ClassVar[set[str]] = {"analytics_enabled", "title"}
    open: ClassVar[list[Blocks]] = []

    def __init__(self, **kwargs: Any) -> None:
        self.children: list[Component] = []
        super().__init__(**kwargs)
        self.blocked_paths: list[str] = []

    def __enter__(self) -> Blocks:
        Blocks.open.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        Blocks.open.pop()

    @property
    def text(self) -> str:
        """What can be read on it."""
        return "\n".join(str(c.value) for c in self.children if isinstance(c, Markdown | HTML))


class State(Component):
    """A value of the page's session."""

    accepted: ClassVar[set[str]] = {"value"}


class HTML(Component):
    """Marked-up text."""

    accepted = _COMMON | {"value", "label", "show_label"}


class Radio(Component):
    """One of a few words."""

    accepted = _FORM | {"choices", "type"}
    positional = ("choices",)


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


class Accordion(Place):
    """A part that folds."""

    accepted = _COMMON | {"label", "open"}
    positional = ("label",)


def update(**changes: Any) -> dict[str, Any]:
    """What a handler returns to change a component."""
    return {**changes, "__type__": "update"}
