"""Lines out of pieces, wherever the cuts fall."""

import hashlib
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from server.lines import HEAD_BYTES, Overlong, lines_of

PIECES = st.lists(st.binary(max_size=12) | st.text("ab\n", max_size=12).map(str.encode), max_size=12)


@given(PIECES)
def test_the_lines_are_those_of_the_whole_wherever_it_was_cut(pieces: list[bytes]) -> None:
    """But for an empty last one, which is no line."""
    lines = b"".join(pieces).split(b"\n")
    expected = lines if lines[-1] else lines[:-1]

    assert list(lines_of(pieces, 1000)) == expected


@given(PIECES, st.integers(0, 6))
def test_a_line_that_is_too_long_is_told_by_its_beginning_and_hash(pieces: list[bytes], bytes_max: int) -> None:
    """The same wherever it was cut, and its neighbours are whole."""
    lines = b"".join(pieces).split(b"\n")
    expected = [
        line
        if len(line) <= bytes_max
        else Overlong(line[: min(HEAD_BYTES, bytes_max)], len(line), hashlib.sha256(line).digest(), bytes_max)
        for line in (lines if lines[-1] else lines[:-1])
    ]

    assert list(lines_of(pieces, bytes_max)) == expected


def test_of_a_line_that_is_too_long_little_is_held() -> None:
    """However much of it comes."""
    piece = b"x" * 10_000
    tracemalloc.start()
    (line,) = lines_of((piece for _ in range(3000)), 50_000)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert isinstance(line, Overlong)
    assert (line.line_bytes, len(line.head)) == (30_000_000, HEAD_BYTES)
    assert peak_bytes < 500_000


def test_a_piece_of_very_many_lines_is_divided_as_they_are_asked_for() -> None:
    """What expands to millions of short lines is no bomb."""
    piece = b"11\n" * 1_000_000
    tracemalloc.start()
    count = sum(1 for _ in lines_of([piece], 100))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == 1_000_000
    assert peak_bytes < 5_000_000
