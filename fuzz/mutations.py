"""Small changes to bytes, as fuzzers make them: every one can be made again from its seed."""

from __future__ import annotations

import random
from collections.abc import Sequence


def mutated(chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return one of *seeds* after a few changes, some of them with *words* that mean something to the reader."""
    content = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        start = chance.randrange(len(content) + 1)
        end = min(len(content), start + chance.choice((0, 1, 1, 2, 8, 64)))
        match chance.randrange(8):
            case 0:
                del content[start:end]
            case 1:
                content[start:start] = chance.choice(words)
            case 2:
                content[start:end] = chance.choice(words)
            case 3:
                content[start:start] = content[start:end] * chance.choice((1, 2, 16))
            case 4:
                content[start:end] = chance.randbytes(end - start)
            case 5:
                other = chance.choice(seeds)
                content[start:end] = other[chance.randrange(len(other)) :][:64]
            case _:  # another number, which is often as good
                for place in range(start, end):
                    if content[place] in b"0123456789":
                        content[place] = chance.choice(b"0123456789")
    return bytes(content)
