"""Arguments of the script: by position, as one object, and everything that may be wrong."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from fresco.errors import SettingsError
from fresco.options import Entry, entries
from fresco.settings import FrescoSettings, Option
from fresco.webui.img2img import request as requests
from fresco.webui.img2img.request import (
    POSITIONS,
    list_arguments,
    list_options,
    name_flat,
    parse_arguments,
)


def settings_of(*args: Any) -> FrescoSettings:
    request = parse_arguments(args)
    assert request is not None
    return request.settings


@pytest.mark.parametrize("args", [(), (False,), (None,), ({"enabled": False},), (False, None, "x")])
def test_off(args: tuple[Any, ...]) -> None:
    assert parse_arguments(args) is None


@pytest.mark.parametrize("args", [(True,), ({},), ({"enabled": True},)])
def test_defaults(args: tuple[Any, ...]) -> None:
    request = parse_arguments(args)
    assert request is not None
    assert request.settings == FrescoSettings()
    assert not request.has_source


STEADY = {"guidance.preset": "steady", "guidance.temporal_attention": False}


@pytest.mark.parametrize("args", [
    [{"preset": "steady", "temporal_attention": False}],
    [{"guidance": {"preset": "steady", "temporal_attention": False}}],
    [True, *(STEADY.get(name) for name in list_arguments())],
])
def test_a_preset_by_name_by_group_and_by_position(args: list[Any]) -> None:
    """The options beside it count more; the page sends all of them, and so its switches count."""
    guidance = settings_of(*args).guidance
    assert (guidance.consensus, guidance.temporal_attention) == (True, False)


def test_every_option_by_position_by_name_and_by_group() -> None:
    """A value of each that is not its default arrives at its own place, on all three ways."""
    options = list_options()
    values: list[Any] = []
    for entry in options:
        if entry.type is bool:
            values.append(not entry.default)
        elif entry.option.choices:
            values.append(next(c for c in entry.option.choices if c != entry.default))
        elif entry.type is str:
            values.append("0,3")
        else:
            low = entry.option.low if entry.option.low is not None else 0
            values.append(entry.type(low if low != entry.default else low + 1))
    by_name = dict(zip(map(name_flat, options), values, strict=True))
    groups: dict[str, Any] = {}
    for entry in options:
        groups.setdefault(entry.group, {})[entry.name] = by_name[name_flat(entry)]
    by_name["last_frame"] = by_name["first_frame"] + 1  # a range must agree with itself
    groups["output"]["last_frame"] = by_name["last_frame"]
    path = {"path": "clip.mp4"}
    places = path | {".".join(entry.place): by_name[name_flat(entry)] for entry in options}
    by_position = settings_of(True, *(places.get(name) for name in list_arguments()))
    assert by_position == settings_of(by_name | path) == settings_of(groups | path)
    for entry in options:
        value = getattr(getattr(by_position, entry.group), entry.name)
        assert value == by_name[name_flat(entry)]


def test_every_argument_has_a_stored_position() -> None:
    assert list_arguments() == POSITIONS
    assert len(set(POSITIONS)) == len(POSITIONS)


def test_a_new_option_moves_no_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it stands in the settings, programs send it last."""
    old = [True, None, "clip.mp4", 4, 12, *[None] * 23, 3, 9, "masks"]
    before = parse_arguments(old)
    new = Entry("keyframes", "made_up", int, 1, Option("Made up.", img2img=True))
    known = list(entries())
    for place in (0, 3, len(known)):
        more = [*known[:place], new, *known[place:]]
        monkeypatch.setattr(requests, "entries", lambda more=more: iter(more))
        assert new in list_options()
        assert list_arguments() == (*POSITIONS, "keyframes.made_up")
        assert parse_arguments(old) == before
    assert before is not None
    assert before.masks_path == "masks"
    assert (before.settings.output.first_frame, before.settings.output.last_frame) == (3, 9)


def test_names_are_unique() -> None:
    names = [entry.name for entry in list_options()]
    assert len(set(names)) == len(names)


def test_fewer_arguments_than_controls_leave_defaults() -> None:
    first = list_options()[0]
    settings = settings_of(True, None, "", 4.0)
    assert getattr(getattr(settings, first.group), first.name) == 4
    assert settings.guidance == FrescoSettings().guidance


@pytest.mark.parametrize("text", ["AAECAw==", "data:video/mp4;base64,AAECAw=="])
def test_video_as_base64(text: str) -> None:
    request = parse_arguments([{"video": text}])
    assert request is not None
    assert request.data == base64.b64decode("AAECAw==")
    assert request.has_source


def test_a_text_by_position_is_base64_and_never_a_path() -> None:
    """Only the WebUI turns an upload into a path; a program could name any file."""
    sent = parse_arguments([True, "AAECAw=="])
    uploaded = parse_arguments([True, Path("clip.mp4")])
    assert sent is not None
    assert uploaded is not None
    assert (sent.data, sent.video) == (bytes(range(4)), None)
    assert (uploaded.data, uploaded.video) == (b"", Path("clip.mp4"))
    with pytest.raises(SettingsError, match="video is not base64"):
        parse_arguments([True, "/etc/clip.mp4"])


@pytest.mark.parametrize("place", ["by name", "by position"])
def test_masks_are_pictures_in_a_list_and_else_a_path(place: str) -> None:
    def parsed(masks: Any) -> Any:
        gap = [None] * list_arguments().index("masks")
        args = [{"masks": masks}] if place == "by name" else [True, *gap, masks]
        return parse_arguments(args)

    sent = parsed(["AAECAw==", "data:image/png;base64,BA=="])
    named, none = parsed(" a/b "), parsed("")
    assert (sent.masks, sent.masks_path) == ((bytes(range(4)), b"\4"), "")
    assert (named.masks, named.masks_path) == ((), "a/b")
    assert [request.has_masks for request in (sent, named, none)] == [True, True, False]


def test_key_prompts() -> None:
    assert settings_of({"key_prompts": {"12": "night"}}).sampling.key_prompts == {"12": "night"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (({"batch_sze": 8},), "'batch_sze' is not an option of FRESCO; did you mean batch_size?"),
        (({"batch_size": 2},), "keyframes.batch_size is 2; give 3 to 64."),
        (({"batch_size": 7.5},), "keyframes.batch_size is 7.5, a float"),
        (({"guidance": {"freeu": 1}},), "'freeu' is not an option of FRESCO"),
        (({"guidance": 3},), "guidance is 3; give an object"),
        (({"sampling": {"steps": 3}},), "'sampling' is not an option of FRESCO"),
        (({"model": "x"},), "'model' is not an option of FRESCO"),
        (({"enabled": "yes"},), "enabled is 'yes'; give true or false."),
        (({"video": "***"},), "video is not base64"),
        (({"video": 3},), "video is int; give a text."),
        (({"masks": ["***"]},), "masks[0] is not base64"),
        (({"masks": [""]},), "masks[0] is empty"),
        (({"masks": 3},), "masks is int; give a text."),
        (({"masks": {"0": "***"}},), "masks[0] is not base64"),
        (({"masks": {"x": "AAECAw=="}},), "masks[x] is not of a frame"),
        (({"source": "motion"},), "did you mean mask_source?"),
        (({"key_prompts": {"1": 2}},), "sampling.key_prompts holds 2"),
        (({"key_prompts": {"x": "night"}},), "key_prompts"),
        (({"min_interval": 40},), "min_interval is 40, above keyframes.max_interval, which"),
        ((5,), "The first argument of FRESCO is 5"),
        ((True, None, None, "ten"), "is 'ten', a str; give a whole number."),
    ],
)
def test_wrong_arguments_are_named(args: tuple[Any, ...], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_arguments(args)
    assert said in str(caught.value)
