"""Records, payloads and lines."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from json_texts import OBJECTS_ON_A_LINE, strings

from wire.record import (
    DEPTH_MAX,
    PAYLOAD_BYTES_MAX,
    SEQ_MAX,
    Record,
    RefusedLine,
    RefusedPayload,
    format_instant,
    from_line,
    parse_payload,
    to_line,
)

MARKER = "Maria Clara"
ID = "0192f0a0-0000-7000-8000-000000000001"
RECORD = Record(17, ID, "2026-11-22T10:30:00.000Z", "synced", "boot-1", 81234, b'{"peso_value": 150.50}')

KNOWN = {"seq", "id", "captured_at", "clock", "boot", "mono_ms", "payload"}

unknown_fields = st.dictionaries(
    strings().map(json.loads).filter(lambda name: name not in KNOWN), OBJECTS_ON_A_LINE, min_size=1, max_size=3
).map(
    lambda fields: (
        b"{"
        + b",".join(json.dumps(name, ensure_ascii=False).encode() + b":" + text for name, text in fields.items())
        + b"}"
    )
)
records = st.builds(
    Record,
    seq=st.integers(1, SEQ_MAX),
    id=st.uuids().map(str),
    captured_at=st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
        format_instant
    ),
    clock=st.sampled_from(["synced", "unsynced"]),
    boot=st.from_regex("[0-9A-Za-z-]{1,64}", fullmatch=True),
    mono_ms=st.integers(0, 2**63 - 1),
    payload=OBJECTS_ON_A_LINE,
    extra=st.just(b"") | unknown_fields,
)


@settings(deadline=None)
@given(records)
def test_a_line_read_gives_the_record_written_byte_for_byte(record: Record) -> None:
    """`to_line` and `from_line` are inverse; fields of a newer agent are kept."""
    line = to_line(record)

    assert from_line(line) == record
    assert to_line(from_line(line)) == line


@settings(deadline=None)
@given(OBJECTS_ON_A_LINE)
@example(rb'{"a":1,"a":2,"z":"\u0000"}')
@example('{"n":"Señorita  🥥"}'.encode())
def test_every_object_is_a_payload_and_is_kept_as_it_is(text: bytes) -> None:
    """The till's own text: blanks, escapes, digits, order and duplicate keys."""
    assert parse_payload(text) == json.loads(text, parse_int=float)
    assert from_line(to_line(_with(text))).payload == text


def test_of_duplicate_keys_the_last_counts() -> None:
    """As PostgreSQL and most readers have it."""
    assert parse_payload(b'{"a":1,"a":2}') == {"a": 2}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"null", id="null"),
        pytest.param(b"17", id="number"),
        pytest.param(b'"text"', id="text"),
        pytest.param(b'[{"a":1}]', id="array"),
        pytest.param(b'{"a":1', id="cut"),
        pytest.param(b'{"a":1}}', id="one bracket too many"),
        pytest.param(b'{"a":1}{"b":2}', id="two objects"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":Infinity}', id="Infinity"),
        pytest.param(b'{"a":-Infinity}', id="-Infinity"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b'{"a":1,}', id="trailing comma"),
        pytest.param(b'{"a":01}', id="leading zero"),
        pytest.param(b'{"a":"\xff"}', id="invalid UTF-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="surrogate in UTF-8"),
        pytest.param(b'{"a":"\xc0\x80"}', id="overlong NUL"),
        pytest.param(rb'{"a":"\ud800"}', id="lone high surrogate"),
        pytest.param(rb'{"a":"\udc00x"}', id="lone low surrogate"),
        pytest.param(rb'{"\ud800":1}', id="lone surrogate in a key"),
        pytest.param(b'{"a":"\x00"}', id="raw NUL"),
        pytest.param(b'{"a":"line\nbreak"}', id="raw line break in a string"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="byte order mark inside"),
    ],
)
def test_what_is_no_strict_json_object_is_refused(text: bytes) -> None:
    """At intake and again when a line is read."""
    with pytest.raises(RefusedPayload):
        parse_payload(text)
    with pytest.raises(RefusedLine):
        from_line(to_line(_with(text)))


def nested(levels: int) -> bytes:
    """Write an object with so many levels, itself included."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_128_levels_are_accepted_and_129_are_not() -> None:
    """Arrays and objects alike."""
    objects = b'{"a":' * DEPTH_MAX + b"1" + b"}" * DEPTH_MAX

    parse_payload(nested(DEPTH_MAX))
    parse_payload(objects)
    with pytest.raises(RefusedPayload, match="nested deeper than 128 levels"):
        parse_payload(nested(DEPTH_MAX + 1))
    with pytest.raises(RefusedPayload, match="nested deeper than 128 levels"):
        parse_payload(b'{"a":' + objects + b"}")


def test_brackets_in_strings_and_beside_one_another_are_no_depth() -> None:
    """Only what is open at once counts."""
    parse_payload(b'{"a":"' + b"[{" * 1000 + b'","b\\"[":[' + b"[]," * 1000 + b"[]]}")


def test_depth_counts_where_a_duplicate_key_hides_it() -> None:
    """The parsed value lacks it, but the text that travels has it."""
    hidden = nested(DEPTH_MAX + 1).removesuffix(b"}") + b',"a":1}'

    with pytest.raises(RefusedPayload, match="nested deeper"):
        parse_payload(hidden)


@pytest.mark.parametrize("levels", [1_000, 100_000])
def test_nesting_that_breaks_parsers_is_a_refusal(levels: int) -> None:
    """Not a crash."""
    with pytest.raises(RefusedPayload):
        parse_payload(nested(levels))
    with pytest.raises(RefusedLine):
        from_line(to_line(_with(nested(levels))))


def test_one_mebibyte_is_accepted_and_one_byte_more_is_not() -> None:
    """The limit is exact."""
    filled = b'{"a":"' + b"x" * (PAYLOAD_BYTES_MAX - 8) + b'"}'
    assert len(filled) == PAYLOAD_BYTES_MAX

    parse_payload(filled)
    assert from_line(to_line(_with(filled))).payload == filled
    with pytest.raises(RefusedPayload, match="longer than 1048576 bytes"):
        parse_payload(filled + b" ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seq", "0"),
        ("seq", "-1"),
        ("seq", "1.0"),
        ("seq", "true"),
        ("seq", '"17"'),
        ("seq", "1000000000000"),
        ("seq", "1" * 5000),
        ("mono_ms", "-1"),
        ("mono_ms", str(2**63)),
        ("id", '"0192F0A0-0000-7000-8000-000000000001"'),
        ("id", '"17"'),
        ("id", "null"),
        ("captured_at", '"yesterday"'),
        ("captured_at", '"2026-11-22T10:30:00"'),
        ("captured_at", '"2026-02-30T10:30:00Z"'),
        ("captured_at", '"2026-W47-7T10:30:00Z"'),
        ("captured_at", '"20261122T103000Z"'),
        ("captured_at", '"2026-11-22T10:30:00+23:59"'),
        ("captured_at", '"2026-11-22T10:30:00+08:00:30"'),
        ("captured_at", '"٢٠٢٦-11-22T10:30:00Z"'),
        ("clock", '"wrong"'),
        ("boot", '""'),
        ("boot", '"a\\"b"'),
        ("boot", json.dumps("x" * 65)),
        ("payload", "17"),
        ("payload", "[]"),
    ],
)
def test_a_line_with_a_malformed_field_is_refused(field: str, value: str) -> None:
    """What is accepted here must never fail a COPY into PostgreSQL."""
    fields = {
        "seq": "17",
        "id": f'"{ID}"',
        "captured_at": '"2026-11-22T10:30:00.000Z"',
        "clock": '"synced"',
        "boot": '"boot-1"',
        "mono_ms": "81234",
        "payload": "{}",
    }
    good, missing, bad = fields, {k: v for k, v in fields.items() if k != field}, fields | {field: value}

    from_line(_line_of(good))
    with pytest.raises(RefusedLine, match=f"'{field}' is missing"):
        from_line(_line_of(missing))
    with pytest.raises(RefusedLine):
        from_line(_line_of(bad))


@settings(deadline=None)
@given(st.binary(max_size=60) | OBJECTS_ON_A_LINE)
@example(b'{"\xff":1}')
@example(rb'{"\ud800":1}')
def test_any_bytes_are_a_record_or_a_refusal(line: bytes) -> None:
    """No other error."""
    with pytest.raises(RefusedLine):
        from_line(line)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_reason_never_quotes_the_payload(data: st.DataObject) -> None:
    """Whatever is broken in it."""
    text = b'{"customer":"%s","items":[{"peso_value":150.50}]}' % MARKER.encode()
    spoiled = bytearray(text)
    where = data.draw(st.integers(0, len(text) - 1))
    spoiled[where : where + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    line = to_line(_with(bytes(spoiled)))
    reasons = []
    for read, what in ((parse_payload, bytes(spoiled)), (from_line, line), (from_line, line[:-1])):
        try:
            read(what)
        except (RefusedPayload, RefusedLine) as refused:
            reasons.append(str(refused))

    assert reasons
    for reason in reasons:
        assert not any(word in reason for word in ("Maria", "Clara", "customer", "peso_value", "150"))


def test_an_instant_is_written_in_utc_with_milliseconds() -> None:
    """Cut, not rounded."""
    at = datetime.fromisoformat("2026-11-22T18:30:00.123999+08:00")

    assert format_instant(at) == "2026-11-22T10:30:00.123Z"


def _with(payload: bytes) -> Record:
    return Record(RECORD.seq, RECORD.id, RECORD.captured_at, RECORD.clock, RECORD.boot, RECORD.mono_ms, payload)


def _line_of(fields: dict[str, str]) -> bytes:
    return ("{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}").encode()
