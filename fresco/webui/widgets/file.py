"""A file control whose upload does not break when the page does other things.

Gradio 3.41 forgets its own upload if another answer arrives before its end, and then waits for
ever. So the page sends the files itself (javascript/fresco.js) and then passes on where they are.
Without that script the control works as gradio's own.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from fresco.errors import SettingsError
from fresco.webui.widgets.events import HIDDEN, get_path, keep_unsaved, on
from fresco.webui.widgets.uploads import check_sent_files, drop_sent_file


@dataclass(frozen=True, slots=True)
class FileControl:
    """A gradio `File`, and the event after the page has sent files."""

    file: Any
    """The component."""
    taken: Callable[..., Any]
    """Binds what follows an upload, as `button.click` does."""


def make_file_control(
    elem_id: str, *, label: str, several: bool = False, **more: Any
) -> FileControl:
    """Make a file control.

    Args:
        elem_id: names the element; hidden ones beside it are named after it.
        label: title.
        several: whether more than one file may be given; the value then is a list.
        more: further arguments of `gradio.File`.
    """
    file: Any = keep_unsaved(gr.File(
        label=label, elem_id=elem_id, file_count="multiple" if several else "single",
        elem_classes=["fresco_file"], **more,
    ))
    sent = keep_unsaved(gr.Textbox(visible=HIDDEN, elem_id=f"{elem_id}_sent"))
    button = gr.Button("Take", visible=HIDDEN, elem_id=f"{elem_id}_take")

    def take(text: str) -> Any:
        paths = check_sent_files(text)
        return gr.update(value=paths if several else paths[0])

    taken = on(button.click, take, [sent], [file], script=f"fresco.sent('{elem_id}')")
    return FileControl(file, taken.then)


@contextmanager
def use_upload(file: Any) -> Iterator[Path]:
    """Yield the path of an upload; gradio's own copy is removed if the context ends well.

    Args:
        file: the value of a file control.

    Raises:
        SettingsError: there is no file yet.
    """
    path = Path(get_path(file))
    if file is None or not path.is_file():
        raise SettingsError("The upload has not ended; wait, or choose the file again.")
    yield path
    drop_sent_file(path)
