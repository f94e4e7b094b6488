"""Keyframes and key prompts in every form that people and tools write."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco.errors import SettingsError
from fresco.planning.parsing import parse_key_prompts, parse_keys, write_keys_inline

KEYS = [
    "0,11,23", "0 11 23", "0_11_23", "0; 11; 23", "0|11|23", "0, 11,\n23\n", "23 11 0 11",
    "keyframe:0,11,23", "keyframes: 0 11 23", "Keys=0,11,23", "[0, 11, 23]", '["0", "11", "23"]',
    '{"keyframes": [0, 11, 23], "source": "a.mp4"}', '{"keys": [23, 0, 11]}',
    "# by hand\n0\n11\n23\n",
]


@pytest.mark.parametrize("text", KEYS)
def test_every_form_of_keys_is_understood(text: str) -> None:
    assert parse_keys(text, 24) == (0, 11, 23)


@pytest.mark.parametrize("text", KEYS)
def test_every_form_may_be_a_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "my keys, 2.txt"
    path.write_text(text, encoding="utf-8-sig")
    assert parse_keys(str(path), 24) == (0, 11, 23)
    assert write_keys_inline(str(path)) == "0,11,23"


@given(st.sets(st.integers(0, 999), min_size=1), st.sampled_from([",", " ", "_", ";", "\n", ", "]))
def test_any_separator_gives_the_same_keys(keys: set[int], separator: str) -> None:
    assert parse_keys(separator.join(map(str, keys)), 1000) == tuple(sorted(keys))
    assert parse_keys(json.dumps(list(keys)), 1000) == tuple(sorted(keys))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("0,24", "Keyframe 24 .*0 to 23"), ("0,-3", "'-3'"), ("a,b", "'a'"), ("1.5", "'1.5'"),
        ("5-9", "'5-9'"), ("0x10", "'0x10'"), ("²", "'²'"), ("", "names no keyframe"),
        (" , ;", "names no keyframe"), ("[0, true]", "True"), ("[0, 1.5]", "1.5"), ("[]", "no key"),
        ("[0,\n 1", "line 2"), ('{"a": [1]}', "no list"), ('{"keys": 3}', "no list"),
        ("keys.txt", "keys.txt does not exist"), ("12345678901", "'12345678901'"),
    ],
)
def test_wrong_keys_are_named(text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        parse_keys(text, 24)


def test_keys_below_the_first_frame_used_are_named() -> None:
    with pytest.raises(SettingsError, match=r"Keyframe 4 .*5 to 23"):
        parse_keys("4,6", 24, first=5)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(SettingsError, match=r"keys\.txt cannot be read as text"):
        parse_keys(str(path), 24)


def test_keys_inline_are_empty_only_if_nothing_was_given() -> None:
    assert write_keys_inline("  ") == ""
    with pytest.raises(SettingsError):
        write_keys_inline("no, number")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("38: closed eyes", {"38": "closed eyes"}),
        ("38:closed eyes, smile\n40: open: wide", {"38": "closed eyes, smile", "40": "open: wide"}),
        ("0: a (b:1.2) | 7: c", {"0": "a (b:1.2)", "7": "c"}),
        ("0: a; 7: c", {"0": "a", "7": "c"}),
        ('{"38": "closed eyes", "7": "c"}', {"38": "closed eyes", "7": "c"}),
        ('"0": "a, b",\n"30": "c"\n', {"0": "a, b", "30": "c"}),
        ('"0": "a", "30": "c: d"', {"0": "a", "30": "c: d"}),
        ("0:(red hat)\n10:(a:1.2) and (b)", {"0": "red hat", "10": "(a:1.2) and (b)"}),
        ("0:(red hat:1.3)\n10: ((a:.5) b)", {"0": "(red hat:1.3)", "10": "((a:.5) b)"}),
        ("# eyes\n007: 'shut'", {"7": "shut"}),
        ("5: don't, 6: won't", {"5": "don't, 6: won't"}),
        ("0: note; well: this", {"0": "note; well: this"}),
    ],
)
def test_every_form_of_key_prompts_is_understood(
    text: str, words: dict[str, str], tmp_path: Path
) -> None:
    assert parse_key_prompts(text) == words
    path = tmp_path / "prompts"
    path.write_text(text, encoding="utf-8")
    assert parse_key_prompts(str(path)) == words


@given(st.dictionaries(st.integers(0, 999).map(str), st.sampled_from(["a", "b, c", "d (e:1.1)"]),
                       min_size=1))
def test_key_prompts_survive_both_ways_of_writing(words: dict[str, str]) -> None:
    assert parse_key_prompts(json.dumps(words)) == words
    assert parse_key_prompts("\n".join(f"{n}: {w}" for n, w in words.items())) == words
    assert parse_key_prompts(" | ".join(f"{n}: {w}" for n, w in words.items())) == words


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("closed eyes", "names no frame"), ("", "names no frame"), ("eyes: closed", "'eyes'"),
        ("-3: x", "'-3'"), ("closed 3: x", "names no frame"), ('{"x": "y"}', "'x'"),
        ('{"1": 2}', "Frame 1 .* has 2"), ('{"1": "a",\n "2"}', "line 2"),
        ("3: cat --neg dog", "--neg is not understood"), ("words.txt", "does not exist"),
        ('{"max_f-1": "a"}', "max_f-1"),
    ],
)
def test_wrong_key_prompts_are_named(text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        parse_key_prompts(text)


LONG = 60_000


@pytest.mark.parametrize("text", [
    " " * LONG + "x", "0" + " " * LONG + "x", "key" + " " * LONG + "x", "," * LONG + "x",
    "1: a\n" + " " * LONG + "x", "1: a|" + " " * LONG + "x", "1: a" + "\n," * (LONG // 2) + " x",
    "1: a\n" + "9" * LONG, "1" + " " * LONG + ": a", '"' * LONG, ("\n" + " " * 300) * 200 + "x",
])
def test_no_text_takes_long_to_be_read(text: str) -> None:
    """The time is linear in the length; where it is quadratic, some of these take minutes."""
    begun = time.process_time()
    for parse in (lambda: parse_keys(text, 9), lambda: parse_key_prompts(text)):
        with contextlib.suppress(SettingsError):
            parse()
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("text", [
    "[" * 100_000, "[" * 30 + "]" * 30, "[" + "9" * 5000 + "]", '{"a":' * 2000,
    '{"keys": ' + "[" * 900 + "]" * 900 + "}",
])
def test_json_without_end_is_refused(text: str) -> None:
    for parse in (lambda: parse_keys(text, 9), lambda: parse_key_prompts(text)):
        with pytest.raises(SettingsError):
            parse()


SECRETS = [
    "hunter2 rest", "77341", "0 77341", "[77341]", '["hunter2"]', '{"keys": ["hunter2"]}',
    '{"77341": 5}', '{"3": "hunter2 --neg"}', '{"hunter2": "3"}', "hunter2: 3", "3: hunter2 --neg",
    "3: [hunter2", "{hunter2", '{"keys": "hunter2"}',
]


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("name", ["secret", "secret.txt", "secret.json"])
def test_errors_never_quote_a_file(tmp_path: Path, text: str, name: str) -> None:
    """Who names a file to a server need not be who may read it."""
    path = tmp_path / name
    path.write_text(text)
    for parse in (lambda: parse_keys(str(path), 9), lambda: parse_key_prompts(str(path))):
        try:
            parse()
        except SettingsError as error:
            told = str(error)
            assert str(path) in told
            assert not {"hunter2", "77341"} & set(told.replace("'", " ").replace('"', " ").split())
            assert "hunter2" not in told


def test_errors_say_where_in_a_file_it_is(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("0, 5\nx, 7")
    with pytest.raises(SettingsError, match=r"Entry 3 in .*keys\.txt is not a frame number"):
        parse_keys(str(path), 9)
    path.write_text("0, 5, 90")
    with pytest.raises(SettingsError, match=r"Entry 3 in .*keys\.txt is outside .* 0 to 8"):
        parse_keys(str(path), 9)


def test_a_client_names_no_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("0 2")
    with pytest.raises(SettingsError, match="not a frame number"):
        parse_keys(str(path), 9, read_files=False)
    path.write_text("0: a")
    with pytest.raises(SettingsError, match="names no frame"):
        parse_key_prompts(str(path), read_files=False)


def test_a_file_too_large_for_a_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(SettingsError, match="larger than"):
        parse_keys(str(path), 9)
