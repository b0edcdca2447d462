from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfo_mcp.presentation.transport.framing import LineFramer

LIMIT = 8

# Few different bytes, so that newlines, blank lines and lines just below and above the limit are common.
data = st.lists(st.sampled_from([b"\n", b"\n\n", b" \r\n", b"a", b"abc", b"12345678", b"\x00", b"\xff"])).map(b"".join)


def lines_of(chunks: Iterable[bytes], limit: int = LIMIT) -> list[bytes | None]:
    framer = LineFramer(limit)
    lines = [line for chunk in chunks for line in framer.feed(chunk)]
    lines += framer.end()
    return [None if line is None else bytes(line) for line in lines]


def chunks_of(whole: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    return [whole[start:end] for start, end in pairwise(edges)]


def expected(whole: bytes) -> list[bytes | None]:
    """What stands between newlines: blank is nothing, over the limit is None."""
    return [line if len(line) <= LIMIT else None for line in whole.split(b"\n") if line.strip()]


@pytest.mark.behaviour("stdio.lines")
@given(data, st.lists(st.integers(min_value=0, max_value=1000), max_size=20))
@example(b"123456789\n\n1\n", [3, 9, 10])
@example(b" " * (LIMIT + 1) + b"\n", [])
def test_lines_are_the_same_however_the_bytes_are_cut(whole: bytes, cuts: list[int]) -> None:
    assert lines_of(chunks_of(whole, cuts)) == lines_of([whole])


@given(data.filter(lambda whole: all(line.strip() or len(line) <= LIMIT for line in whole.split(b"\n"))))
def test_lines_are_what_stands_between_newlines(whole: bytes) -> None:
    assert lines_of([whole]) == expected(whole)


def test_a_line_at_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert lines_of([b"12345678\n123456789\n1\n"]) == [b"12345678", None, b"1"]


def test_an_oversized_line_is_told_of_once_and_before_its_end() -> None:
    framer = LineFramer(LIMIT)
    assert list(framer.feed(b"123456789")) == [None]
    assert list(framer.feed(b"0" * 100)) == []
    assert list(framer.feed(b"00\n{}\n")) == [b"{}"]
    assert list(framer.end()) == []


@pytest.mark.behaviour("stdio.lines")
def test_the_last_line_needs_no_newline() -> None:
    assert lines_of([b"one\ntwo"]) == [b"one", b"two"]


def test_memory_stays_within_one_line_and_one_chunk_whatever_comes() -> None:
    limit, chunk, chunks = 50_000, b"x" * 10_000, 2_000
    framer = LineFramer(limit)
    tracemalloc.start()
    try:
        told = sum(len(list(framer.feed(chunk))) for _ in range(chunks))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told == 1
    assert peak < 2 * limit + 3 * len(chunk)  # the line, a copy while it grows, and what a chunk is split into
