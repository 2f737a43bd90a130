"""The fuzzers find nothing, as far as a test has time to look."""

from __future__ import annotations

import random

from fuzz import bodies, models, plain_requests
from fuzz.mutations import mutated
from wine_api.errors import ModelRejected
from wine_api.serving.unpickling import load


def test_made_up_bodies_are_refused_or_understood():
    chance = random.Random(1)

    verdicts = [bodies.check(mutated(chance, bodies.SEEDS, bodies.WORDS)) for _ in range(5000)]

    assert 0 < sum(verdict.shortly for verdict in verdicts) < sum(verdict.taken for verdict in verdicts) < 5000


def test_made_up_models_are_refused_or_loaded(tmp_path):
    chance, honest, refused = random.Random(1), models.seeds(), 0

    for _ in range(200):
        (tmp_path / "model").write_bytes(mutated(chance, honest, models.WORDS))
        try:
            load(tmp_path / "model", max_bytes=models.MOST_BYTES)
        except ModelRejected:
            refused += 1

    assert refused > 100


def test_made_up_requests_are_plain_only_if_gunicorn_reads_the_same():
    chance = random.Random(1)

    plain = [plain_requests.check(mutated(chance, plain_requests.SEEDS, plain_requests.WORDS)) for _ in range(5000)]

    assert 500 < sum(plain) < 4500
