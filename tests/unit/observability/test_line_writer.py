"""Log lines leave whole and in order, and whoever does not read them never holds up whoever writes them."""

from __future__ import annotations

import os
import threading

import pytest

from wine_api.observability.line_writer import LineWriter


@pytest.fixture
def pipe():
    """A pipe: what it is read from, and what it is written to."""
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:  # the test closed it
            continue


class Drops:
    """Counts lines that were lost."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def __call__(self, lines: int) -> None:
        with self._lock:
            self.count += lines


def fill(descriptor: int) -> int:
    """Fill the pipe, and return how many bytes it took."""
    os.set_blocking(descriptor, False)
    taken = 0
    try:
        while True:
            taken += os.write(descriptor, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(descriptor, True)
    return taken


def read_all(descriptor: int, size: int) -> bytes:
    content = b""
    while len(content) < size:
        content += os.read(descriptor, 65536)
    return content


@pytest.mark.parametrize("in_a_thread", [False, True], ids=["master", "worker"])
def test_lines_come_out_whole_and_in_order(pipe, in_a_thread):
    reader, writer = pipe
    lines = LineWriter(writer)
    if in_a_thread:
        lines.begin_thread(Drops())

    for number in range(100):
        lines.write(b"line %d\n" % number)
    lines.flush()

    assert os.read(reader, 65536) == b"".join(b"line %d\n" % number for number in range(100))


def test_a_reader_who_does_not_read_loses_lines_and_holds_up_nobody(pipe):
    reader, writer = pipe
    taken, drops = fill(writer), Drops()
    lines = LineWriter(writer)
    lines.begin_thread(drops)

    for number in range(8000):  # returns, though nobody reads
        lines.write(b"line %d\n" % number)
    lost = drops.count
    content = read_all(reader, taken + sum(len(b"line %d\n" % number) for number in range(8000 - lost)))

    assert 0 < lost < 8000
    assert content[taken:].endswith(b"\n")
    assert content[taken:].startswith(b"line 0\nline 1\n")


def test_the_master_gives_a_reader_some_time_and_then_loses_the_line(pipe):
    reader, writer = pipe
    taken = fill(writer)

    LineWriter(writer).write(b"lost\n")

    os.close(writer)
    assert b"lost" not in read_all(reader, taken)


def test_a_flush_does_not_wait_for_a_reader_for_ever(pipe):
    _, writer = pipe
    fill(writer)
    lines = LineWriter(writer)
    lines.begin_thread(Drops())
    lines.write(b"a line\n")

    lines.flush()  # returns


def test_lines_after_the_reader_has_gone_are_lost_and_counted(pipe):
    reader, writer = pipe
    os.close(reader)
    drops = Drops()
    lines = LineWriter(writer)
    lines.begin_thread(drops)

    lines.write(b"one\n")
    lines.write(b"two\n")
    lines.flush()

    assert drops.count == 2


def test_a_pipe_that_does_not_block_is_waited_for(pipe):
    """Whoever started the service may have made it so."""
    reader, writer = pipe
    taken, drops = fill(writer), Drops()
    os.set_blocking(writer, False)
    lines = LineWriter(writer)
    lines.begin_thread(drops)

    lines.write(b"late\n")
    content = read_all(reader, taken + len(b"late\n"))

    assert content.endswith(b"late\n")
    assert drops.count == 0


def test_several_lines_are_written_at_once_but_never_more_than_a_pipe_takes_whole(pipe):
    reader, writer = pipe
    os.set_blocking(reader, False)
    lines = LineWriter(writer)
    lines.begin_thread(Drops())

    for _ in range(10):
        lines.write(b"x" * 1500 + b"\n")
    lines.flush()

    assert len(os.read(reader, 65536)) == 15010


def test_a_line_that_cannot_be_written_takes_no_other_with_it(pipe):
    reader, writer = pipe
    drops = Drops()
    lines = LineWriter(writer)
    lines.begin_thread(drops)

    lines.write({"no": "timestamp"})
    lines.write({"timestamp": 0.0, "message": "the next"})
    lines.flush()

    assert drops.count == 1
    assert os.read(reader, 4096) == b'{"timestamp":"1970-01-01T00:00:00.000Z","message":"the next"}\n'
