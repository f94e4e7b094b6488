"""Prompts as the WebUI reads them: weights, brackets, BREAK, LoRAs, and what cannot be done."""

from __future__ import annotations

from typing import Any

import pytest

from fresco.errors import SettingsError
from fresco.planning.prompt_syntax import LoraTag, check_syntax, list_loras, read_fragments
from fresco.settings import SamplingSettings

LESS = 1 / 1.1


@pytest.mark.parametrize(("prompt", "groups"), [
    ("a cat", [[("a cat", 1)]]),
    ("", [[]]),
    ("(cat)", [[("cat", 1.1)]]),
    ("((cat))", [[("cat", 1.21)]]),
    ("[cat]", [[("cat", LESS)]]),
    ("a (cat:1.3), dog", [[("a ", 1), ("cat", 1.3), (", dog", 1)]]),
    ("(cat: .5 )", [[("cat", 0.5)]]),
    ("(cat:-1)", [[("cat", -1)]]),
    ("(a (cat:2):1.5)", [[("a ", 1.5), ("cat", 3)]]),
    ("(a [cat])", [[("a ", 1.1), ("cat", 1.1 * LESS)]]),
    # Brackets of two kinds do not wait for each other.
    ("(a [b) c]", [[("a ", 1.1), ("b", 1.1 * LESS), (" c", LESS)]]),
    ("[cat:dog]", [[("cat:dog", LESS)]]),
    (r"\(cat\) \[x\] \\ a\b", [[(r"(cat) [x] \ ab", 1)]]),
    (r"(\(cat\):2)", [[("(cat)", 2)]]),
    # Not closed: to the end. Not opened: words.
    ("a (cat, dog", [[("a ", 1), ("cat, dog", 1.1)]]),
    ("a [cat (dog", [[("a ", 1), ("cat ", LESS), ("dog", 1.1 * LESS)]]),
    ("cat) dog] :1.3)", [[("cat) dog] :1.3)", 1)]]),
    ("time: 12:30", [[("time: 12:30", 1)]]),
    ("a|b", [[("a|b", 1)]]),
    ("a BREAK b", [[("a", 1)], [("b", 1)]]),
    ("(a BREAK b:2)", [[("a", 2)], [("b", 2)]]),
    ("BREAK", [[], []]),
    ("BREAKfast aBREAK break", [[("BREAKfast aBREAK break", 1)]]),
    ("a <lora:x:0.8>, b", [[("a , b", 1)]]),
    ("<lora:x>", [[]]),
    ("a < b > c <3", [[("a < b > c <3", 1)]]),
    ("a # (no\nb", [[("a \nb", 1)]]),
])
def test_words_and_weights(prompt: str, groups: list[list[tuple[str, float]]]) -> None:
    found = read_fragments(prompt)
    assert [[f.text for f in group] for group in found] == [[t for t, _ in g] for g in groups]
    weights = [fragment.weight for group in found for fragment in group]
    assert weights == pytest.approx([weight for group in groups for _, weight in group])


def settings(prompt: str = "", **more: Any) -> SamplingSettings:
    return SamplingSettings(prompt=prompt, **{"lora_dir": "loras", **more})


@pytest.mark.parametrize(("prompt", "words"), [
    ("[cat:dog:0.5]", r"\[cat:dog:0.5\], which changes the words between steps"),
    ("[cat:5]", r"\[cat:5\], which changes the words"),
    ("[cat::0.5]", r"\[cat::0.5\], which changes"),
    ("[:cat: 10 ]", r"\[:cat: 10 \], which changes"),
    ("[(cat:1.2):dog:.5]", r"which changes"),
    ("([cat:dog:0.5]:1.2)", r"\[cat:dog:0.5\], which changes"),
    ("[cat|dog]", r"\[cat\|dog\], which alternates"),
    ("a [cat|dog|] b", r"which alternates"),
    ("<hypernet:x:1>", r"<hypernet:x:1>, which only the WebUI can use"),
    ("<style:x>", r"<style:x>, which only the WebUI"),
    ("<lora:x:nan>", r"<lora:x:nan>, whose weight 'nan' is not a number"),
    ("<lora:x:strong>", r"whose weight 'strong' is not a number"),
    ("<lora:x:te=inf>", r"whose weight 'inf' is not a number"),
    ("<lora:x:1:1:4>", r"<lora:x:1:1:4>, of which only a name and weights"),
    ("<lora:x:dyn=4>", r"only a name and weights"),
    ("(cat:1.2.3)", r"the weight '1\.2\.3', which is not a number"),
])
def test_what_cannot_be_done_is_named(prompt: str, words: str) -> None:
    with pytest.raises(SettingsError, match=rf"sampling\.prompt holds .*{words}"):
        check_syntax(settings(f"oil painting, {prompt}"))


def test_all_faults_come_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        check_syntax(settings("[a|b] <hypernet:c>", negative_prompt="[x:y:3]"))
    for words in ("[a|b]", "<hypernet:c>", "sampling.negative_prompt holds [x:y:3]"):
        assert words in str(caught.value)


@pytest.mark.parametrize(("option", "value"), [
    ("negative_prompt", "<lora:x:1>"), ("key_prompts", {"3": "eyes <lora:x:1>"}),
])
def test_loras_belong_into_the_prompt(option: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=rf"{option}.* holds <lora:x:1>, .* sampling\.prompt"):
        check_syntax(settings(**{option: value}))


def test_a_named_lora_needs_a_folder() -> None:
    with pytest.raises(SettingsError, match=r"<lora:x:1> names a LoRA, but sampling\.lora_dir is"):
        check_syntax(settings("a <lora:x:1>", lora_dir=""))
    check_syntax(settings("a # <lora:x:1>", lora_dir=""))


@pytest.mark.parametrize("prompt", [
    "", "a cat", "(cat:1.3) [dog] ((x)) BREAK y", "a|b, c: 0.5", r"\[cat:dog:0.5\]", "[cat:dog]",
    "(cat|dog)", "[(cat:1.2)]", "<lora:x>", "<lora:a b:-0.5:1>, <lyco:y:te=1:unet=0.5>",
    "# [a|b]", "a [cat (b:0.5]", "12:30",
])
def test_what_can_be_done_passes(prompt: str) -> None:
    check_syntax(settings(prompt))


def test_loras_of_a_prompt_with_their_weights() -> None:
    chosen = settings(
        "<lora:a>, x <lora: b c :0.5>, <lora:d:0.5:0.25> # <lora:no>",
        added_prompt="<lyco:e:unet=2:te=-1><lora:f:te=3>",
    )
    assert list_loras(chosen) == (
        LoraTag("a", 1, 1), LoraTag("b c", 0.5, 0.5), LoraTag("d", 0.5, 0.25), LoraTag("e", -1, 2),
        LoraTag("f", 3, 3),
    )
