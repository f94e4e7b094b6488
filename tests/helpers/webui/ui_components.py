"""`modules.ui_components`: the WebUI's own controls."""

from __future__ import annotations

from tests.helpers.webui.gradio_double import Checkbox


class InputAccordion(Checkbox):
    """An accordion that is open when its value is true."""

    def __enter__(self) -> InputAccordion:
        return self

    def __exit__(self, *error: object) -> None:
        """Its children know nothing of it here."""
