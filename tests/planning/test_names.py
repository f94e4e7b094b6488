"""Names of results by a pattern."""

from __future__ import annotations

import pytest

from fresco.errors import SettingsError
from fresco.planning.names import TELLING, check_pattern, has_number, name_result


@pytest.mark.parametrize(("pattern", "clip", "prompt", "seed", "name"), [
    (TELLING, "dog.mp4", "a watercolor painting of a dog, soft light, more and more words", 7,
     "dog-a_watercolor_painting_of_a_dog_soft-7"),
    (TELLING, "dog.mp4", "<lora:x:1> (fox:1.2)", -1, "dog-fox_1_2-random"),
    (TELLING, "dog.mp4", "", 7, "dog-7"),
    ("{clip}/{prompt}", "a<b>:c.mkv", "x", 7, "a-b-c-x"),
    ("{clip}_{number}", "x", "", 0, "x_0012"),
    ("{clip}", "CON.mp4", "", 0, "_CON"),
    ("{clip}. ", "lpt1", "", 0, "_lpt1"),
    ("../..", "x", "", 0, "result"),
    ("{prompt}", "x", "犬の水彩画", 0, "犬の水彩画"),
])
def test_names_are_telling_and_safe(
    pattern: str, clip: str, prompt: str, seed: int, name: str
) -> None:
    assert name_result(pattern, clip, prompt, seed, 12) == name


def test_a_name_is_bounded() -> None:
    name = name_result("{clip}{prompt}" * 3, "犬" * 200, "word " * 100, 1)
    assert len(name.encode()) <= 120


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(SettingsError, match=r"\{date\}; fields are \{clip\}"):
        check_pattern("{clip}-{date}")
    assert has_number("{number}")
    assert not has_number(TELLING)
