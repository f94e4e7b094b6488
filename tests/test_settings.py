"""Every option: documented, checked, and the same through every form it takes."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fresco.errors import SettingsError
from fresco.options import (
    Entry,
    cache_settings,
    check_value,
    entries,
    from_dict,
    image_settings,
    range_text,
    rename_options,
    to_dict,
    validated,
)
from fresco.settings import PRESETS, FrescoSettings, GuidanceSettings, Option

ENTRIES = list(entries())


def entry_id(entry: Entry) -> str:
    return f"{entry.group}.{entry.name}"


def wrong_values(entry: Entry) -> list[Any]:
    """Values that an option of this type must refuse."""
    others: dict[type, list[Any]] = {
        bool: [1, "yes", None], int: [True, 1.5, "3"], float: ["1", True, math.nan, math.inf],
        str: [1, None, True], tuple: ["a", [1], {}], dict: [[], "a", {"1": 2}],
    }
    values = list(others[entry.type])
    if entry.option.low is not None:
        values.append(entry.type(entry.option.low - 1))
    if entry.option.high is not None:
        values.append(entry.type(entry.option.high + 1))
    return values + (["nothing of the kind"] if entry.option.choices else [])


@pytest.mark.parametrize("entry", ENTRIES, ids=entry_id)
def test_every_option_is_documented_and_its_default_fits(entry: Entry) -> None:
    assert entry.option.help.endswith(".")
    assert check_value(entry, entry.default) == entry.default
    numeric = entry.type in (int, float)
    assert numeric == (entry.option.low is not None), "numbers have a smallest value"


@pytest.mark.parametrize("entry", ENTRIES, ids=entry_id)
def test_every_option_refuses_other_values_by_name(entry: Entry) -> None:
    for value in wrong_values(entry):
        with pytest.raises(SettingsError) as caught:
            from_dict({entry.group: {entry.name: value}})
        assert str(caught.value).startswith(f"{entry.group}.{entry.name} ")


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.type in (str, tuple, dict)
                                   and not e.option.choices], ids=entry_id)
def test_texts_without_end_are_refused(entry: Entry) -> None:
    """Their length is told, not their letters."""
    long = "a" * (entry.option.letters + 1)
    for value in {str: [long], tuple: [[long], ["a"] * 100_001], dict: [{"0": long}]}[entry.type]:
        with pytest.raises(SettingsError, match="give at most") as caught:
            from_dict({entry.group: {entry.name: value}})
        assert len(str(caught.value)) < 200
    fits: Any = long[:-1]
    assert check_value(entry, {str: fits, tuple: (fits,), dict: {"0": fits}}[entry.type])


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.type is float], ids=entry_id)
def test_numbers_beyond_floats_are_refused(entry: Entry) -> None:
    with pytest.raises(SettingsError, match="finite"):
        from_dict({entry.group: {entry.name: 10**400}})


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.type in (int, float)], ids=entry_id)
def test_both_ends_of_a_range_are_allowed(entry: Entry) -> None:
    for end in (entry.option.low, entry.option.high):
        if end is not None:
            assert check_value(entry, entry.type(end)) == end


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.option.choices], ids=entry_id)
def test_every_choice_is_allowed(entry: Entry) -> None:
    assert [check_value(entry, choice) for choice in entry.option.choices] == list(
        entry.option.choices)


def test_whole_numbers_are_numbers_and_lists_are_tuples() -> None:
    settings = from_dict({"sampling": {"strength": 1, "lora": ["a.safetensors:0.5"]}})
    assert type(settings.sampling.strength) is float
    assert settings.sampling.lora == ("a.safetensors:0.5",)


@given(st.integers(1, 30), st.integers(0, 30), st.floats(0, 1), st.text(max_size=9), st.booleans())
def test_settings_survive_a_dict_and_json(
    low: int, more: int, strength: float, prompt: str, switch: bool
) -> None:
    settings = from_dict({
        "keyframes": {"min_interval": low, "max_interval": low + more},
        "sampling": {"strength": strength, "prompt": prompt, "lora": ["x"],
                     "key_prompts": {"3": prompt}},
        "guidance": {"temporal_attention": switch},
    })
    assert from_dict(to_dict(settings)) == settings
    assert from_dict(json.loads(json.dumps(to_dict(settings)))) == settings


def test_a_base_keeps_what_is_not_named() -> None:
    base = from_dict({"sampling": {"prompt": "a", "steps": 5}})
    changed = from_dict({"sampling": {"steps": 6}}, base)
    assert (changed.sampling.prompt, changed.sampling.steps) == ("a", 6)
    assert base.sampling.steps == 5


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"samplin": {}}, "'samplin' is not an option .*did you mean sampling"),
        ({"sampling": {"promt": "x"}}, "'promt' is not an option of sampling; did you mean prompt"),
        ({"sampling": {"zzz": 1}}, "known are model, vae"),
        ({"sampling": 3}, "sampling is 3; give a mapping"),
        ({"keyframes": {"min_interval": 31}}, "is 31, above keyframes.max_interval, which is 30"),
        ({"output": {"first_frame": 5, "last_frame": 4}}, "before output.first_frame, which is 5"),
        ({"sampling": {"control": "canny"}}, "is 'canny' but sampling.control_model is"),
        ({"sampling": {"canny_low": 101}}, "is 101, above sampling.canny_high, which is 100"),
    ],
)
def test_unknown_names_and_pairs_that_disagree_are_refused(
    values: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        from_dict(values)


def test_validation_also_looks_at_settings_made_without_a_dict() -> None:
    settings = FrescoSettings(guidance=GuidanceSettings(optimization_iterations=0))
    with pytest.raises(SettingsError, match="optimization_iterations is 0; give 1 to 200"):
        validated(settings)


@pytest.mark.parametrize(
    ("option", "text"),
    [(Option("", low=3, high=64), "3 to 64"), (Option("", low=0), "0 or more"),
     (Option("", high=0.5), "0.5 or less"), (Option(""), "any value")],
)
def test_ranges_read_well(option: Option, text: str) -> None:
    assert range_text(option) == text


def test_presets_name_switches_of_guidance() -> None:
    switches = {e.name for e in ENTRIES if e.group == "guidance" and e.type is bool}
    assert all(set(preset) <= switches for preset in PRESETS.values())
    off = from_dict({"guidance": dict(PRESETS["off"])}).guidance
    assert not any(getattr(off, name) for name in switches - {"plain_statistics"})


def test_a_preset_may_stand_among_the_options() -> None:
    """In files and in what programs send; options beside it count more, and nothing writes it."""
    steady = from_dict({"guidance": {"preset": "steady", "temporal_attention": False}})
    assert (steady.guidance.consensus, steady.guidance.temporal_attention) == (True, False)
    assert steady.propagation.join_keyframes
    apart = {"guidance": {"preset": "steady"}, "propagation": {"join_keyframes": False}}
    assert not from_dict(apart).propagation.join_keyframes
    for published in ("paper", "full"):
        assert from_dict({"guidance": {"preset": published}}, steady) == FrescoSettings()
    assert "preset" not in to_dict(steady)["guidance"]
    for wrong in ("fast", 3, ["off"]):
        with pytest.raises(SettingsError, match="paper, steady, attention, off"):
            from_dict({"guidance": {"preset": wrong}})


def test_the_identity_of_a_run_leaves_out_what_changes_no_picture() -> None:
    settings = from_dict({"flow": {"offline": True}, "propagation": {"workers": 3}})
    groups = ("flow", "propagation", "sampling")
    assert image_settings(settings, *groups) == image_settings(FrescoSettings(), *groups)
    seed = from_dict({"sampling": {"seed": 1}})
    assert image_settings(seed, "sampling") != image_settings(FrescoSettings(), "sampling")
    assert set(image_settings(seed, "sampling")) == {"sampling"}


@pytest.mark.parametrize(("group", "name", "value", "beside"), [
    ("sampling", "canny_low", 3, {"sampling": {"control": "canny", "control_model": "c"}}),
    ("sampling", "canny_high", 70, {"sampling": {"control": "canny", "control_model": "c"}}),
    ("sampling", "control_weight", 0.3, {"sampling": {"control": "hed", "control_model": "c"}}),
    ("guidance", "saliency", "u2netp", {"guidance": {"background_smoothing": True}}),
    ("guidance", "temporal_attention_end", 0.2, {"guidance": {"temporal_attention": True}}),
    ("guidance", "spatial_weight", 2.0, {"guidance": {"spatial_optimization": True}}),
    ("guidance", "optimization_iterations", 2, {"guidance": {"temporal_optimization": True}}),
    ("guidance", "optimization_rate", 0.1, {"guidance": {"temporal_optimization": True}}),
    ("guidance", "optimization_end", 0.1, {"guidance": {"temporal_optimization": True}}),
    ("guidance", "plain_statistics", True, {"guidance": {"temporal_optimization": True}}),
])
def test_an_option_counts_for_a_cache_key_only_beside_what_it_needs(
    group: str, name: str, value: Any, beside: dict[str, Any]
) -> None:
    off = from_dict({"guidance": dict(PRESETS["off"])})
    for settings, counts in ((off, False), (from_dict(beside, off), True)):
        changed = from_dict({group: {name: value}}, settings)
        keys = [cache_settings(each, "guidance", "sampling") for each in (settings, changed)]
        assert (keys[0] != keys[1]) is counts


def test_what_the_weights_tell_is_in_no_cache_key() -> None:
    named = from_dict({"sampling": {"model": "a", "vae": "b", "control_model": "c",
                                    "device": "cuda", "resolution": 640}})
    assert cache_settings(named, "sampling") == cache_settings(FrescoSettings(), "sampling")
    for name, value in (("prompt", "a"), ("lora", ("a",)), ("seed", 1), ("dtype", "float32")):
        changed = from_dict({"sampling": {name: value}})
        assert cache_settings(changed, "sampling") != cache_settings(FrescoSettings(), "sampling")


def test_messages_name_options_as_the_front_end_does() -> None:
    text = "sampling.seed is -1, see flow.estimator and key.word; e.g. output.pdf stays."
    assert rename_options(text, lambda entry: entry.label) == (
        "Seed is -1, see Optical flow and key.word; e.g. output.pdf stays."
    )
    assert rename_options("(keyframes.keys)", lambda entry: f"--{entry.name}") == "(--keys)"
