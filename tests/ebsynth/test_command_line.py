"""The table of options: what each does, its default, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.scenes import texture
from tests.helpers.source import ROOT
from tests.helpers.synthesis import (
    Guide,
    blocks,
    command,
    decoded,
    distance_parts,
    field_bytes,
    listing,
    painted,
    read_field,
    refused,
    start,
    start_in_80_mb,
    usage,
    voted,
)

USAGE = 2
INPUT = 3
OPTION_ROW = re.compile(r"^\| `(-[a-z0-9]+)", re.MULTILINE)
QUANTISED = 0.01
"""Relative difference of a mean error whose weights had to be rounded; 0.002 was measured."""

DEFAULTS = {
    "-uniformity": "3500", "-patchsize": "5", "-pyramidlevels": "2", "-searchvoteiters": "6",
    "-patchmatchiters": "4", "-stopthreshold": "5", "-backend": "cpu", "-quality": "balanced",
    "-seed": "0", "-threads": "0",
}
"""Two resolutions fit the scene: its shorter side of 32 halves to 16, and 11 are needed."""


@pytest.mark.parametrize(("option", "value"), DEFAULTS.items())
def test_default(small: list[str], tmp_path: Path, option: str, value: str) -> None:
    assert painted(small, option, value, folder=tmp_path).data == painted(
        small, folder=tmp_path
    ).data


def test_default_weights_are_one_and_shares(small: list[str], tmp_path: Path) -> None:
    style, first, second = small[:2], small[2:5], small[5:]
    for words in ([*style, "-weight", "1", *first, *second],
                  [*style, *first, "-weight", "0.5", *second, "-weight", ".5"]):
        assert painted(words, folder=tmp_path).data == painted(small, folder=tmp_path).data


@pytest.mark.parametrize(
    "words",
    ["-uniformity 0", "-patchsize 7", "-pyramidlevels 1", "-searchvoteiters 1",
     "-patchmatchiters 1", "-extrapass3x3", "-seed 1", "-weight 3"],
)
def test_option_changes_the_picture(small: list[str], tmp_path: Path, words: str) -> None:
    changed = painted(small, *words.split(), folder=tmp_path)
    assert (changed.output != painted(small, folder=tmp_path).output).any()


def test_weight_belongs_to_the_image_before_it(small: list[str], tmp_path: Path) -> None:
    style, first, second = small[:2], small[2:5], small[5:]
    results = {
        painted(words, folder=tmp_path).data
        for words in ([*style, "-weight", "3", *first, *second],
                      [*style, *first, "-weight", "3", *second],
                      [*style, *first, *second, "-weight", "3"])
    }
    assert len(results) == 3


def test_guides_may_stand_before_the_style(small: list[str], tmp_path: Path) -> None:
    turned = [*small[2:], *small[:2]]
    assert painted(turned, folder=tmp_path).data == painted(small, folder=tmp_path).data


def test_guide_of_weight_nothing_has_no_influence(tmp_path: Path) -> None:
    style, used = blocks(1, 32, 36), Guide(blocks(2, 32, 36), blocks(3, 34, 40), 2.0)

    def result(seed: int, weight: float) -> bytes:
        other = Guide(blocks(seed, 32, 36), blocks(seed + 1, 34, 40), weight)
        return painted(command(tmp_path, style, [used, other]), folder=tmp_path).data

    assert result(20, 0.0) == result(30, 0.0)
    assert result(20, 1.0) != result(20, 0.0)


def test_uniformity_spreads_the_use_of_the_source(tmp_path: Path) -> None:
    """With a guide that says nothing, some patches please everywhere unless use costs."""
    style = texture(48, 56, 1)
    words = command(tmp_path, style, [Guide(style * 0, style * 0)])
    spread = [
        usage(painted(words, "-uniformity", value, folder=tmp_path).field, style, 5).std()
        for value in (0, 3500, 1e6)
    ]
    assert spread[1] < 0.8 * spread[0]
    assert spread[2] < 0.8 * spread[1]


def test_uniformity_counts_where_the_style_is_far_larger_than_the_target(tmp_path: Path) -> None:
    style, few = texture(220, 240, 1), texture(12, 12, 2)
    words = command(tmp_path, style, [Guide(style, few)])
    fields = [painted(words, "-uniformity", value, folder=tmp_path).field for value in (3500, 1e8)]
    spread = [len(np.unique(field.reshape(-1, 2), axis=0)) for field in fields]
    assert (fields[0] != fields[1]).any()
    assert spread[0] <= spread[1]


def test_best_quality_searches_on_where_changes_are_invisible(tmp_path: Path) -> None:
    style, guide = texture(48, 64, 1), Guide(texture(48, 64, 2), texture(48, 64, 3))
    words = command(tmp_path, style, [guide])
    quick, best = (painted(words, "-quality", word, folder=tmp_path)
                   for word in ("balanced", "best"))
    assert (quick.output != best.output).any()
    assert np.abs(quick.output.astype(int) - best.output).mean() < 8


@pytest.mark.parametrize("patch", [3, 7, 17])
def test_patch_size_is_that_of_distance_and_vote(
    small: list[str], tmp_path: Path, patch: int
) -> None:
    result = painted(small, "-patchsize", patch, "-searchvoteiters", 2, folder=tmp_path)
    assert (result.output == voted(decoded(tmp_path / "style.png"), result.field, patch)).all()


def test_extra_pass_has_patches_of_three(small: list[str], tmp_path: Path) -> None:
    style = decoded(tmp_path / "style.png")
    result = painted(small, "-extrapass3x3", folder=tmp_path)
    assert (result.output == voted(style, result.field, 3)).all()
    assert (result.output != voted(style, result.field, 5)).any()
    assert result.field.min() == 1  # patches of 5 keep 2 away from the edge


def test_levels_are_cut_to_those_that_fit(small: list[str], tmp_path: Path) -> None:
    assert painted(small, "-pyramidlevels", 2147483647, folder=tmp_path).data == painted(
        small, "-pyramidlevels", 2, folder=tmp_path
    ).data


@pytest.mark.parametrize("threshold", [0, 255])
def test_stop_threshold_is_taken_and_changes_nothing(
    small: list[str], tmp_path: Path, threshold: int
) -> None:
    changed = painted(small, "-stopthreshold", threshold, folder=tmp_path)
    assert changed.data == painted(small, folder=tmp_path).data


@pytest.mark.parametrize("words", ["-searchvoteiters 0", "-patchmatchiters 0"])
def test_without_search_the_field_stays(small: list[str], tmp_path: Path, words: str) -> None:
    style = decoded(tmp_path / "style.png")
    random = np.random.default_rng(0)
    field = np.stack([random.integers(2, 34, (34, 40)), random.integers(2, 30, (34, 40))], -1)
    (tmp_path / "start.nnf").write_bytes(field_bytes(field, style))
    result = painted(small, "-start", "start.nnf", *words.split(), folder=tmp_path)
    assert (result.field == field).all()
    assert (result.output == voted(style, field, 5)).all()


def test_bytes_do_not_depend_on_threads(tmp_path: Path) -> None:
    guide = Guide(blocks(2, 200, 24), blocks(3, 330, 28))
    words = command(tmp_path, blocks(1, 200, 24), [guide])
    options = ("-searchvoteiters", 2, "-patchmatchiters", 2)
    results = {
        painted(words, *options, "-threads", threads, folder=tmp_path).data
        for threads in (1, 2, 3, 5)
    }
    assert len(results) == 1


def test_fewer_threads_than_wanted_paint_the_same(small: list[str], tmp_path: Path) -> None:
    """The stacks of 255 threads do not fit the memory that the system allows."""
    wanted = painted(small, folder=tmp_path).output
    done = start_in_80_mb(*small, "-threads", 255, "-output", "few.png", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (decoded(tmp_path / "few.png") == wanted).all()


def test_seed_gives_the_same_bytes_again(small: list[str], tmp_path: Path) -> None:
    results = [painted(small, "-seed", seed, folder=tmp_path).data for seed in (5, 5, 2147483647)]
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("extra", [[], ["-extrapass3x3"]])
def test_error_map_of_reference_weights_is_exact(tmp_path: Path, extra: list[str]) -> None:
    """Colour 6, edge 0.5, temporal 0.5, position 2: multiples of a sixth by channel."""
    style = blocks(1, 32, 36)
    guides = [Guide(blocks(seed, 32, 36, channels), blocks(seed + 1, 34, 40, channels), weight)
              for seed, channels, weight in [(2, 3, 6.0), (4, 1, 0.5), (6, 3, 0.5), (8, 3, 2.0)]]
    result = painted(command(tmp_path, style, guides), *extra, folder=tmp_path)
    sums, weights = distance_parts(style, guides, 1.0, result, 3 if extra else 5)
    sixths = np.rint(weights * 6).astype(np.int64)
    assert np.allclose(sixths / 6, weights)
    assert (result.errors == ((sums * sixths).sum(2) / 6).astype(np.float32)).all()


@pytest.mark.parametrize("weights", [(0.7, 1.3, 0.11), (1e6, 3.1e5, 7e5), (1e-6, 2.3e-6, 1e-6)])
def test_error_map_of_awkward_weights_is_close(
    tmp_path: Path, weights: tuple[float, ...]
) -> None:
    style = blocks(1, 32, 36)
    guides = [Guide(blocks(2, 32, 36), blocks(3, 34, 40), weights[1]),
              Guide(blocks(4, 32, 36, 1), blocks(5, 34, 40, 1), weights[2])]
    words = command(tmp_path, style, guides, weights[0])
    result = painted(words, "-searchvoteiters", 2, folder=tmp_path)
    sums, each = distance_parts(style, guides, weights[0], result, 5)
    off = np.abs(result.errors - sums @ each)
    assert (off <= sums.sum(2) * each.max() / 64).all()
    assert off.mean() <= QUANTISED * (sums @ each).mean()


def test_weights_of_nothing_still_paint(small: list[str], tmp_path: Path) -> None:
    style, first, second = small[:2], small[2:5], small[5:]
    words = [word for part in (style, first, second) for word in (*part, "-weight", "0")]
    result = painted(words, folder=tmp_path)
    assert (result.errors == 0).all()
    assert (result.output == voted(decoded(tmp_path / "style.png"), result.field, 5)).all()


def test_written_field_is_taken_as_a_start(small: list[str], tmp_path: Path) -> None:
    first = painted(small, folder=tmp_path)
    style = decoded(tmp_path / "style.png")
    (tmp_path / "start.nnf").write_bytes(field_bytes(first.field, style))
    again = painted(small, "-start", "start.nnf", "-searchvoteiters", 0, folder=tmp_path)
    assert again.data == first.data


def test_start_near_the_edge_is_moved_inside(small: list[str], tmp_path: Path) -> None:
    field = np.zeros((34, 40, 2), np.int32)
    field[..., 0] = 35
    (tmp_path / "start.nnf").write_bytes(field_bytes(field, decoded(tmp_path / "style.png")))
    result = painted(small, "-start", "start.nnf", "-searchvoteiters", 0, folder=tmp_path)
    assert (result.field == (33, 2)).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [(lambda data: data[:-1], "no field of 40x34 pixels into a source of 36x32"),
     (lambda data: data + b"0", "no field"),
     (lambda data: data[:7], "no field"),
     (lambda data: data[4:8] + data[:4] + data[8:], "no field"),
     (lambda data: data[:8] + data[12:16] + data[8:12] + data[16:], "no field"),
     (lambda data: data[:16] + b"\x24\0\0\0" + data[20:], "match at 36, 3, outside"),
     (lambda data: data[:16] + b"\xff\xff\xff\xff" + data[20:], "match at -1, 3, outside")],
)
def test_start_of_another_size_is_refused(
    small: list[str], tmp_path: Path, change, reason: str
) -> None:
    field = np.full((34, 40, 2), 3, np.int32)
    data = change(field_bytes(field, decoded(tmp_path / "style.png")))
    (tmp_path / "start.nnf").write_bytes(data)
    assert reason in refused(INPUT, *small, "-start", "start.nnf", folder=tmp_path)


def test_field_file_names_both_sizes(small: list[str], tmp_path: Path) -> None:
    assert start(*small, "-nnf", "field", folder=tmp_path).returncode == 0
    field, source = read_field(tmp_path / "field")
    assert field.shape == (34, 40, 2)
    assert source == (36, 32)
    assert field.min() >= 2
    assert (field.max((0, 1)) <= (33, 29)).all()


def test_output_is_named_output_png_by_default(small: list[str], tmp_path: Path) -> None:
    before = listing(tmp_path)
    assert start(*small, folder=tmp_path).returncode == 0
    assert listing(tmp_path) - before == {"output.png"}
    assert decoded(tmp_path / "output.png").shape == (34, 40, 3)


def test_an_older_output_is_replaced(small: list[str], tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    assert start(*small, "-output", "old.png", folder=tmp_path).returncode == 0
    assert decoded(tmp_path / "old.png").shape == (34, 40, 3)


def test_a_device_is_written_to_and_stays(small: list[str], tmp_path: Path) -> None:
    null = Path("/dev/null")
    if not null.is_char_device():
        pytest.skip("this system has no /dev/null")
    assert start(*small, "-output", null, folder=tmp_path).returncode == 0
    assert null.is_char_device()


def test_progress_rises_to_a_hundred(small: list[str], tmp_path: Path) -> None:
    done = start(*small, "-progress", folder=tmp_path)
    lines = done.stderr.decode().splitlines()
    assert all(re.fullmatch(r"progress \d+", line) for line in lines)
    numbers = [int(line.split()[1]) for line in lines]
    assert len(numbers) > 4
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (0, 100)


def test_paths_with_spaces_and_umlauts(small: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "ein Bild"
    folder.mkdir()
    output, style = folder / "größer ☃ 100%.png", folder / "ä b.png"
    style.write_bytes((tmp_path / "style.png").read_bytes())
    done = start("-style", style, *small[2:], "-output", output, folder=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert listing(folder) == {output.name, style.name}
    plain = painted(small, folder=tmp_path)
    assert (decoded(output) == plain.output).all()


def test_content_counts_not_the_name(small: list[str], tmp_path: Path) -> None:
    plain = painted(small, folder=tmp_path)
    (tmp_path / "style.jpg").write_bytes((tmp_path / "style.png").read_bytes())
    words = ["-style", "style.jpg", *small[2:]]
    assert painted(words, folder=tmp_path).data == plain.data


def test_version_help_and_self_test(tmp_path: Path) -> None:
    for words, text in [("-version", r"ebsynth \d+\.\d+\.\d+ \(\w+\)\n"),
                        ("-help", r"usage: ebsynth [\s\S]*\n"),
                        ("-selftest", r"(\w+: ok\n)*scalar: ok\n")]:
        done = start(words, folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        assert re.fullmatch(text, done.stdout.decode())
    assert not listing(tmp_path)


def test_help_and_readme_name_the_same_options(tmp_path: Path) -> None:
    table = (ROOT / "ebsynth" / "README.md").read_text("utf-8")
    documented = set(OPTION_ROW.findall(table)) | {"-help", "-selftest"}
    assert len(documented) > 20
    shown = start("-help", folder=tmp_path).stdout.decode()
    assert set(re.findall(r"(?<!\S)-[a-z0-9]{2,}", shown.replace("[", " "))) == documented


@pytest.mark.parametrize(
    ("words", "reason"),
    [("", "-style FILE is missing"),
     ("-style style.png", "-guide SOURCE TARGET is missing"),
     ("-guide source0.png target0.png", "-style FILE is missing"),
     ("@ -unknown 3", "'-unknown' is no option"),
     ("@ extra.png", "'extra.png' is no option"),
     ("-weight 1 @", "-weight must stand right behind -style or -guide"),
     ("@ -weight 1 -weight 1", "-weight must stand right behind"),
     ("@ -seed 1 -weight 1", "-weight must stand right behind"),
     ("@ -weight", "-weight stands at the end; it needs a number"),
     ("@ -output", "-output stands at the end; it needs a file"),
     ("@ -patchsize", "-patchsize stands at the end; it needs a whole number"),
     ("-style", "-style stands at the end"),
     ("@ -guide source0.png", "-guide stands at the end; it needs a source and a target"),
     ("@ -weight nan", "-weight is 'nan'; give a number from 0"),
     ("@ -weight inf", "-weight is 'inf'; give a number from 0"),
     ("@ -weight -1", "-weight is '-1'; give a number from 0"),
     ("@ -weight 1e7", "-weight is '1e7'; give a number from 0 to 1000000"),
     ("@ -weight 1e-9", "too little to count"),
     ("@ -weight 2x", "-weight is '2x'"),
     ("@ -uniformity -1", "-uniformity is '-1'"),
     ("@ -uniformity nan", "-uniformity is 'nan'"),
     ("@ -patchsize 4", "-patchsize is 4; give an odd number from 3 to 31"),
     ("@ -patchsize 1", "-patchsize is '1'; give a whole number from 3 to 2147483647"),
     ("@ -patchsize 33", "-patchsize is 33"),
     ("@ -patchsize 5.5", "-patchsize is '5.5'"),
     ("@ -pyramidlevels 0", "-pyramidlevels is '0'; give a whole number from 1 to 2147483647"),
     ("@ -searchvoteiters -1", "-searchvoteiters is '-1'"),
     ("@ -patchmatchiters 99999999999999999999", "'99999999999999999999'; give a whole number"),
     ("@ -seed 2147483648", "'2147483648'; give a whole number from 0 to 2147483647"),
     ("@ -threads -1", "-threads is '-1'"),
     ("@ -stopthreshold x", "-stopthreshold is 'x'"),
     ("@ -backend cuda", "-backend cuda is not built in; leave it out or give cpu"),
     ("@ -backend gpu", "-backend is 'gpu'; give cpu"),
     ("@ -quality good", "-quality is 'good'; give best or balanced")],
)
def test_wrong_usage(small: list[str], tmp_path: Path, words: str, reason: str) -> None:
    given = [part for word in words.split() for part in (small if word == "@" else [word])]
    assert reason in refused(USAGE, *given, folder=tmp_path)


@pytest.mark.parametrize("option", ["-output", "-errormap", "-nnf", "-start", "-style"])
def test_empty_file_name(small: list[str], tmp_path: Path, option: str) -> None:
    assert f"{option} is ''" in refused(USAGE, *small, option, "", folder=tmp_path)


def test_line_ends_in_names_do_not_break_the_line(small: list[str], tmp_path: Path) -> None:
    assert "a b" in refused(USAGE, *small, "a\nb", folder=tmp_path)
    assert "c  d" in refused(INPUT, "-style", "c\r\nd", *small[2:], folder=tmp_path)


def test_wide_ranges_of_options_run(small: list[str], tmp_path: Path) -> None:
    result = painted(small, "-uniformity", "1e9", "-patchsize", 31, "-threads", 2147483647,
                     "-searchvoteiters", 1, "-patchmatchiters", 1, folder=tmp_path)
    assert cv2.countNonZero(result.errors) > 0
