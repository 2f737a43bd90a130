"""Rows are computed in another order and come back in their own."""

from __future__ import annotations

import numpy as np
import pytest

from wine_api.serving.engines.alike import in_alike_order


@pytest.mark.parametrize("rows", [1, 2, 17, 1000])
def test_each_row_gets_its_own_answer(rows: int) -> None:
    table = np.random.default_rng(0).random((rows, 11))

    computed = in_alike_order(table, [3, 1, 7], lambda ordered: 2 * ordered)

    assert np.array_equal(computed, 2 * table)


def test_neighbours_are_alike() -> None:
    table = np.random.default_rng(0).random((2000, 11))
    seen = []

    in_alike_order(table, [3, 1], lambda ordered: seen.append(ordered) or ordered)

    steps = np.abs(np.diff(seen[0][:, [3, 1]], axis=0)).mean(axis=0)
    assert (steps < 0.2).all()
