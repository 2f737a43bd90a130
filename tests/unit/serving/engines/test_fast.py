"""The fast engine may be called from several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.serving.engines import served
from wine_api.serving.engines.choice import choose_engine

SLICES = [slice(start, start + size) for size in (1, 2, 30, 300) for start in range(0, 100, 10)]


@pytest.mark.parametrize(
    "kind", ["forest", "gradient boosting", "deep gradient boosting", "hist gradient boosting", "voting"]
)
def test_threads_do_not_disturb_each_other(kind: str) -> None:
    table, _ = served.wines()
    engine, _ = choose_engine(served.classifier(kind), proven=True)
    alone = [engine.predict(table[rows]) for rows in SLICES]

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda rows: engine.predict(table[rows]), SLICES * 5))

    assert all(served.equal(one, alone[number % len(SLICES)]) for number, one in enumerate(together))
