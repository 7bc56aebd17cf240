"""Bodies divided into transactions."""

import json
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from json_texts import OBJECTS, OBJECTS_ON_A_LINE

from wire.framing import Piece, RefusedBody, split_body, split_lines
from wire.record import RefusedPayload, parse_payload

BOM = b"\xef\xbb\xbf"
MARKER = b"Maria Clara"

LINE_ENDS = st.sampled_from([b"\n", b"\r\n"])
BLANK_LINES = st.lists(st.sampled_from([b"", b" ", b"\t", b"\r"]), max_size=2)


def on_one_line(text: bytes) -> bytes:
    """Blank out line breaks, as the framing does."""
    return text.translate(bytes.maketrans(b"\r\n", b"  "))


@settings(deadline=None)
@given(st.lists(st.tuples(OBJECTS_ON_A_LINE, BLANK_LINES), max_size=5), LINE_ENDS, st.booleans(), st.booleans())
def test_lines_come_back_byte_for_byte_with_their_numbers(
    written: list[tuple[bytes, list[bytes]]], end: bytes, marked: bool, ended: bool
) -> None:
    """With a byte order mark, CRLF, blank lines and with or without a last line end."""
    lines: list[bytes] = []
    expected = []
    for text, blank_lines in written:
        lines += blank_lines
        expected.append(Piece(len(lines) + 1, text))
        lines.append(text)
    body = (BOM if marked else b"") + end.join(lines) + (end if ended else b"")

    assert list(split_lines(body)) == expected
    assert list(split_body(body)) == expected


@settings(deadline=None)
@given(st.lists(OBJECTS, max_size=5), st.sampled_from([b"", b" ", b"\n", b"\r\n  "]), st.booleans())
@example([b'{"a":1}', b'{"a":1}'], b"\n", False)
@example([b"{}", b'{"b":{}}', b"{}"], b"", True)
def test_the_elements_of_an_array_come_back_with_the_lines_on_which_they_begin(
    texts: list[bytes], blank: bytes, marked: bool
) -> None:
    """Equal elements and nested ones are told apart by their place."""
    body, expected = BOM * marked + blank + b"[" + blank, []
    for number, text in enumerate(texts):
        body += b"," + blank if number else b""
        expected.append(Piece(body.count(b"\n") + 1, on_one_line(text)))
        body += text + blank
    body += b"]" + blank

    assert list(split_body(body)) == expected


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('[]{}",:\\ a'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}",:\\ a'), inner, max_size=3),
)


@settings(deadline=None)
@given(st.lists(VALUES, max_size=6), st.sampled_from([None, 0, 1]))
def test_the_elements_of_an_array_may_be_anything(values: list[object], indent: int | None) -> None:
    """Brackets, quotes and commas within texts end nothing."""
    body = json.dumps(values, indent=indent).encode()

    assert [json.loads(piece.text) for piece in split_body(body)] == values


def test_an_array_is_divided_in_little_memory() -> None:
    """Beside the body only what is asked for: a file of hostile commas is no bomb."""
    body = b"[" + b"1," * 300_000 + b"1]"
    tracemalloc.start()
    count = sum(1 for _ in split_body(body))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == 300_001
    assert peak_bytes < 100_000


@settings(deadline=None)
@given(OBJECTS, st.sampled_from([b"", b"\n", b" \r\n\r\n"]), st.booleans())
def test_an_object_over_several_lines_is_one_transaction(text: bytes, blank: bytes, marked: bool) -> None:
    """Its line breaks become blanks, and nothing else of it changes."""
    pieces = list(split_body(BOM * marked + blank + text + blank))

    # A carriage return alone breaks no line, so what stands on one line keeps it.
    assert pieces == [Piece(blank.count(b"\n") + 1, on_one_line(text) if b"\n" in text else text)]
    assert parse_payload(pieces[0].text) == json.loads(text, parse_int=float)


@pytest.mark.parametrize("body", [b"", BOM, b"\n", b" \r\n\t\n", BOM + b"\r\n", b"[]", b" [ ]\n"])
def test_a_body_without_data_is_empty(body: bytes) -> None:
    """Not an error: a till may write nothing."""
    assert list(split_body(body)) == []


def test_a_bad_line_is_the_callers_to_refuse_and_stops_no_other() -> None:
    """The framing does not judge."""
    body = b'{"a":1}\n{"a":\n\xff\n{"a":4}\n'

    assert list(split_body(body)) == [
        Piece(1, b'{"a":1}'),
        Piece(2, b'{"a":'),
        Piece(3, b"\xff"),
        Piece(4, b'{"a":4}'),
    ]


def test_a_bad_element_that_can_be_told_apart_stops_no_other() -> None:
    """Invalid text within an element leaves the array whole."""
    body = b'[{"a":1},\n{"a":"\xff"},\n{"a":3}]'

    assert [piece.line for piece in split_body(body)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'[{"a":1},\n{"a":2}', 2),
        (b'[{"a":1},\n{"a":NaN}]', 2),
        (b'[{"a":1}\n\n{"a":2}]', 3),
        (b'[{"a":1}]\n[{"b":2}]', 2),
        (b'\n[{"a":1},\n]', 3),
        (b'{\n"a": 1,\n"b": oops\n}', 3),
        (b'{\n"a": 1,\n', 3),
        (b'\n\n{\n"a": "\xff"\n}', 3),
        (b'{\n"a": 1\n}\n{\n"a": 2\n}', 4),
        (b"[" * 100_000, 1),
        (b"[" + b"[" * 100_000 + b"]" * 100_000 + b"]", 1),
    ],
)
def test_a_body_that_cannot_be_divided_is_refused_with_its_line(body: bytes, line: int) -> None:
    """Before the first piece, so nothing of it is taken by half."""
    with pytest.raises(RefusedBody) as refused:
        split_body(body)

    assert refused.value.line == line
    assert str(refused.value).startswith(f"line {line}: ")


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_body_is_divided_or_refused_and_no_reason_quotes_it(data: st.DataObject) -> None:
    """No other error, and no customer in a log."""
    sale = b'{"customer": "' + MARKER + b'",\n "peso_value": 150.50}'
    whole = data.draw(st.sampled_from([sale, b"[" + sale + b",\n" + sale + b"]", sale.replace(b"\n", b"") * 2]))
    body = bytearray(whole)
    where = data.draw(st.integers(0, len(whole) - 1))
    body[where : where + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    reasons = []
    try:
        for piece in split_body(bytes(body)):
            try:
                parse_payload(piece.text)
            except RefusedPayload as refused:
                reasons.append(str(refused))
    except RefusedBody as refused:
        reasons.append(str(refused))

    for reason in reasons:
        assert not any(word in reason for word in ("Maria", "Clara", "customer", "peso_value", "150"))
