"""Messages of errors."""

from __future__ import annotations

from fresco.errors import FrescoError, SettingsError
from fresco.planning.parsing import parse_keys


def test_a_message_keeps_its_beginning_and_its_end_however_long_the_value_is() -> None:
    keys = "1" + " " * 60_000 + "x"
    try:
        parse_keys(keys, 10)
    except SettingsError as error:
        message = str(error)
    assert message.startswith("'x' in '1   ")
    assert message.endswith("give whole numbers from 0, such as 38.")
    assert len(message) < 4100
    assert " letters] " in message


def test_a_message_of_some_lines_is_left_alone() -> None:
    text = "line\n" * 700
    assert str(FrescoError(text)) == text
