"""Receipts and replies: what an agent may believe."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.heartbeat import NotAReply, Reply, resend_number
from wire.receipt import IngestAnswer, NotAReceipt, RejectedLine

PORTAL = b"<!DOCTYPE html><html><title>Welcome to Free WiFi</title></html>"
DEEP = b"[" * 100_000 + b"]" * 100_000
ANSWER: dict[str, Any] = {
    "accepted": 2,
    "duplicates": 1,
    "rejected": [{"line": 3, "reason": "not a JSON object"}],
    "sha256": "ab",
}
REPLY: dict[str, Any] = {
    "nonce": "n-1",
    "server_time": "2026-11-22T10:30:00.000Z",
    "generation": "g-1",
    "keep_for_days": 8,
    "batches": {"key": "settled"},
}
FOREIGN = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"ok"',
    b"200",
    PORTAL,
    DEEP,
    b'{"a":' + DEEP + b"}",
    b"\xff\xfe",
    b'{"success":true,"accepted":2}',
]


def written(fields: dict[str, Any], **changed: object) -> bytes:
    """Write an answer with some fields changed."""
    return json.dumps(fields | changed).encode()


def without(fields: dict[str, Any], name: str) -> bytes:
    """Write an answer that lacks a field."""
    return json.dumps({key: value for key, value in fields.items() if key != name}).encode()


def test_an_ingest_answer_reads_back_as_written() -> None:
    """Fields of a newer server are ignored."""
    answer = IngestAnswer(2, 1, (RejectedLine(3, "not a JSON object"),), "ab")

    assert IngestAnswer.parse(answer.to_json()) == answer
    assert answer.lines == 4
    assert IngestAnswer.parse(written(ANSWER, a_later_field={"x": 1})) == answer


@pytest.mark.parametrize(
    "body",
    [
        *FOREIGN,
        written(ANSWER, accepted=-1),
        written(ANSWER, duplicates=-1),
        written(ANSWER, accepted=1.5),
        written(ANSWER, accepted="2"),
        written(ANSWER, accepted=True),
        written(ANSWER, accepted=None),
        written(ANSWER, rejected=3),
        written(ANSWER, rejected=[3]),
        written(ANSWER, sha256=None),
        written(ANSWER)[:-1],
        written(ANSWER) + b"}",
        b"[" + written(ANSWER) + b"]",
        *(without(ANSWER, name) for name in ANSWER),
    ],
)
def test_what_is_no_ingest_answer_is_no_receipt(body: bytes) -> None:
    """A portal's page, another service's success or a cut answer acknowledges nothing."""
    with pytest.raises(NotAReceipt):
        IngestAnswer.parse(body)


def test_a_reply_to_our_report_is_read() -> None:
    """Fields of a newer server are ignored."""
    reply = Reply.parse(written(REPLY, a_later_field=1), "n-1")

    assert reply.batches == {"key": "settled"}
    assert not reply.renew_token


@pytest.mark.parametrize(
    "body",
    [
        *FOREIGN,
        written(REPLY, nonce="n-2"),
        written(REPLY, nonce=None),
        written(REPLY, batches=[]),
        written(REPLY, batches={"key": 1}),
        written(REPLY, keep_for_days=-1),
        written(REPLY, keep_for_days=10**9),
        written(REPLY, keep_for_days="8"),
        written(REPLY, server_time="soon"),
        written(REPLY, server_time="2026-11-22T10:30:00"),
        written(REPLY, server_time="0001-01-01T00:00:00Z"),
        written(REPLY, server_time=1_700_000_000),
        written(REPLY)[:-1],
        *(without(REPLY, name) for name in ("nonce", "server_time", "generation", "keep_for_days")),
    ],
)
def test_what_is_no_reply_to_our_report_is_refused(body: bytes) -> None:
    """A cached or foreign answer settles nothing, and a strange one breaks nothing."""
    with pytest.raises(NotAReply):
        Reply.parse(body, "n-1")


def test_the_servers_time_is_read_in_one_form_whatever_its_offset() -> None:
    """It is compared as text when the spool forgets."""
    times = ("2026-11-22T18:30:00.5+08:00", "2026-11-22T10:30:00.500000+00:00", "2026-11-22T10:30:00.500Z")

    parsed = {Reply.parse(written(REPLY, server_time=time), "n-1").server_time for time in times}

    assert parsed == {"2026-11-22T10:30:00.500Z"}


@settings(deadline=None)
@given(st.integers(1, 999_999))
def test_a_resend_state_names_its_number(number: int) -> None:
    """Every number that a key can carry."""
    assert resend_number(f"resend {number}") == number


@pytest.mark.parametrize(
    "state",
    [
        "",
        "settled",
        "unknown",
        "resend",
        "resend ",
        "resend 0",
        "resend -1",
        "resend 1.5",
        "resend ²",
        "resend \u0661",
        "resend 1000000",
        "resend " + "1" * 5000,
        "resend 1 2",
        "RESEND 1",
        " resend 1",
    ],
)
def test_any_other_state_asks_for_nothing(state: str) -> None:
    """Least of all for a number that no key can carry."""
    assert resend_number(state) is None


@settings(deadline=None)
@given(st.text())
def test_no_state_can_break_the_reader(state: str) -> None:
    """Whatever a server says."""
    resend_number(state)
