"""The golden vectors of the repository: small, drawn as torch draws, and made by their tool."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.drawn import Draw, checksum, draw_all, from_table, make, to_table, uniform_stream
from tests.helpers.shared import FULL, GOLDEN, SHARED, golden
from tests.helpers.tolerances import EXACT_BY_DTYPE
from tools.reduce_golden import LIMIT_BYTES, WEIGHTS, Stream, find_draw, write_arrays

SEED, BEFORE = 5, 32


def test_all_of_it_is_small() -> None:
    files = [path for path in GOLDEN.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) < LIMIT_BYTES


@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_draws_are_those_of_torch(law: str) -> None:
    torch.manual_seed(SEED)
    torch.rand(BEFORE)
    empty = torch.empty(48, 3)
    theirs = empty.uniform_(-0.3, 0.3) if law == "uniform" else empty.normal_(0, 0.3)
    draw = Draw("x", "uniform" if law == "uniform" else "normal", (48, 3), SEED, BEFORE, 0.3)
    ours = make(draw, uniform_stream(SEED, 200))
    torch.testing.assert_close(
        torch.from_numpy(ours), theirs.half(), atol=EXACT_BY_DTYPE[torch.float16], rtol=0
    )


def test_the_place_of_an_array_in_its_stream_is_found() -> None:
    name = "control_residual_0"
    drawn = make(Draw(name, "normal", (8, 16), SEED, 64, 0.5), uniform_stream(SEED, 4000))
    found = find_draw(name, {name: drawn}, Stream(SEED, 4000))
    assert (found.law, found.start, found.scale, found.fixes) == ("normal", 64, 0.5, ())


def test_a_table_gives_its_draws_back(tmp_path: Path) -> None:
    draws = [
        Draw("one", "constant", (7,), scale=1.0),
        Draw("two", "uniform", (3, 4, 1, 1), SEED, 16, 0.25, 16.0, ((2, 0.5), (11, -1.0))),
        Draw("three", "normal", (16,), SEED, 32, 0.5),
    ]
    stream = uniform_stream(SEED, 100)
    draws = [replace(draw, checksum=checksum(make(draw, stream))) for draw in draws]
    write_arrays(tmp_path / "x.npz", to_table(draws))
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        assert from_table({name: archive[name] for name in archive.files}) == draws
    assert draw_all(draws)["two"][0, 2] == 0.5


def test_another_array_than_the_one_drawn_first_is_refused() -> None:
    with pytest.raises(ValueError, match="two drawn from seed 5 is not the array"):
        draw_all([Draw("two", "uniform", (3,), SEED, checksum=1)])


if (SHARED / "golden").is_dir():  # defined, not skipped: a clone alone has nothing to compare with

    @pytest.mark.parametrize(("folder", "name"), WEIGHTS)
    def test_drawn_weights_are_the_stored_ones(folder: str, name: str) -> None:
        drawn, stored = golden(folder, name)[0], golden(folder, FULL + name)[0]
        assert drawn.keys() == stored.keys()
        assert all(np.array_equal(drawn[key], stored[key]) for key in stored)

    def test_inputs_are_the_stored_ones() -> None:
        """What is stored once for several cases too."""
        for folder, name in (("10_e2e", "car_128"), ("05_optimize", "car_3x3"),
                             ("05_optimize", "warp_tensor_car"), ("06_step", "step_car")):
            (reduced, note), whole = golden(folder, name), golden(folder, FULL + name)[0]
            for key in reduced.keys() - note.get("kept", {}).keys() - {"in_s1"}:
                np.testing.assert_array_equal(reduced[key], whole[key], err_msg=key)
