"""How many lines a body has, told without making anything of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.line_count import has_more_lines
from wire.framing import RefusedBody, split_body, split_lines

VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a",[]{}\\\n', max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet=',"]', max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(elements=st.lists(VALUES, min_size=1, max_size=12), indent=st.none() | st.integers(0, 2))
def test_the_elements_of_an_array_are_those_that_are_read(elements: list[object], indent: int | None) -> None:
    """The elements counted are those that are read later, whatever they hold."""
    body = json.dumps(elements, indent=indent).encode()
    read = len(list(split_body(body)))

    assert read == len(elements)
    assert not has_more_lines(body, read, lines_only=False)
    assert has_more_lines(body, read - 1, lines_only=False) == (read > 1)


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:1 \n\\', max_size=200).map(str.encode), st.integers(1, 5))
def test_what_passes_never_gives_more_lines(body: bytes, lines_max: int) -> None:
    """Whatever the bytes: what passes gives at most one line more, which then has no end."""
    if not has_more_lines(body, lines_max, lines_only=True):
        assert len(list(split_lines(body))) <= lines_max + 1
    if not has_more_lines(body, lines_max, lines_only=False):
        try:
            pieces = list(split_body(body))
        except RefusedBody:
            pieces = []
        assert len(pieces) <= lines_max + 1


@pytest.mark.parametrize("end", [b"", b"\\", b'"'])
def test_a_string_without_an_end_is_looked_through_once(end: bytes) -> None:
    """Looked through from each of its quotes, this would take hours."""
    body = b"[" + b"," * 2 + b'"' + b'\\"' * 1_000_000 + end

    assert not has_more_lines(body, 3, lines_only=False)
    assert has_more_lines(body, 2, lines_only=False)


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (b"{}\n" * 3, False),
        (b"{}\n" * 4, True),
        (b"\n" * 4, True),
        (b"\xef\xbb\xbf \n[1,2,3]", False),
        (b"\xef\xbb\xbf \n[1,2,3,4]", True),
        (b'[{"a":"x,y,z,w","b":[1,2,3,4,5]}]', False),
        (b"[1,2,3,4", True),
    ],
)
def test_lines_and_elements_are_counted_alike(body: bytes, more: bool) -> None:
    """Lines and elements are counted alike."""
    assert has_more_lines(body, 3, lines_only=False) is more
