"""What names of ControlNets tell of the hints that they want."""

from __future__ import annotations

import pytest

from fresco.control import ControlUnit
from fresco.hosts.options import choose_module, find_control_notes, find_hint_kind


@pytest.mark.parametrize(("model", "kind"), [
    ("control_v11p_sd15_canny [d14c016b]", "canny"),
    ("diffusers_xl_canny_full", "canny"),
    ("control_sd15_depth-fp16.safetensors", "depth"),
    ("control_v11p_sd15_normalbae", "normal"),
    ("control_v11p_sd15s2_lineart_anime", "lineart_anime"),
    ("control_v11p_sd15_lineart", "lineart"),
    ("t2iadapter_seg_sd14v1", "seg"),
    ("control_v11f1e_sd15_tile", "tile"),
    ("/canny/control_depth.pth", "depth"),
    ("canny/model.safetensors", "canny"),
    ("control_v11p_sd15_inpaint", ""),
    ("segmented", ""),
    ("", ""),
])
def test_the_kind_of_hint_is_in_the_name(model: str, kind: str) -> None:
    assert find_hint_kind(model) == kind


def test_a_model_brings_its_preprocessor_if_it_is_offered() -> None:
    offered = ("none", "canny", "depth_zoe", "softedge_hed", "softedge_pidinet")
    assert choose_module("control_canny", offered) == "canny"
    assert choose_module("control_depth", offered) == "depth_zoe", "another of the same kind"
    assert choose_module("control_softedge", offered) == "softedge_pidinet", "the usual one"
    assert choose_module("control_mlsd", offered) == ""
    assert choose_module("control_tile", offered) == "none"
    assert choose_module("control_ip2p", ("None", "canny")) == "None"


def test_a_unit_without_a_preprocessor_is_warned_about() -> None:
    units = [
        ControlUnit("control_canny", "none"), ControlUnit("control_canny", "canny"),
        ControlUnit("control_tile", "none"), ControlUnit("control_depth", "None"),
        ControlUnit("control_depth", "none", hints="made elsewhere"),
        ControlUnit("control_of_mine", "none"),
    ]
    canny, depth, unknown = find_control_notes(units)
    assert canny.startswith("ControlNet control_canny gets every frame itself as its hint")
    assert "such as canny" in canny
    assert depth.startswith("ControlNet control_depth gets")
    assert unknown.endswith("its name does not tell what hints it was trained on.")
