"""The method against vectors that travel with the repository."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden.own_vectors import CASES, FILE
from tests.helpers.tolerances import OWN_VECTOR


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_that_agreed_with_the_official_ones(name: str) -> None:
    with np.load(FILE, allow_pickle=False) as archive:
        stored = {key: archive[key] for key in archive.files}
    arrays = {key[3:]: value for key, value in stored.items() if key.startswith("in ")}
    results = CASES[name](arrays)
    assert len(results) == sum(key.startswith(f"out {name} ") for key in stored)
    for number, result in enumerate(results):
        wanted = stored[f"out {name} {number}"]
        if wanted.dtype.kind == "f":
            assert np.abs(result.numpy() - wanted).mean() < OWN_VECTOR
        else:
            np.testing.assert_array_equal(result.numpy(), wanted)
