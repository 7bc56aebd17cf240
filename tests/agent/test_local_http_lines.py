"""The local HTTP source against clients that stall, lie, flood or are merely odd: raw bytes on real sockets."""

import gzip
import socket
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from agent_kit import sale, until
from doors import (
    NO_CERTIFICATES,
    URL,
    RunningDoor,
    a_door,
    counts,
    last_answer,
    read_to_end,
    request,
    statuses,
    threads_of_clients,
)
from fakes import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from json_texts import OBJECTS_ON_A_LINE

from agent.config import LocalHttp
from agent.sources.local_http.conversation import HEAD_BYTES_MAX, Conversation
from agent.sources.local_http.listening import Listener
from agent.sources.local_http.messages import Answer, Head, Refused
from agent.sources.local_http.post import Form, Post, form_of, read_post
from wire.loopback import is_loopback_host

SALE = b'{"store_id":"102","peso_value":150.50}'
CLOSE = "Connection: close"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[RunningDoor]:
    """Give a running local HTTP source."""
    with a_door(tmp_path) as running:
        yield running


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def test_a_body_in_chunks_is_taken(door: RunningDoor) -> None:
    """However it is cut, with an extension and a trailer."""
    body = b"5;name=value\r\n" + SALE[:5] + b"\r\n" + chunked(SALE[5:6], SALE[6:])[:-2] + b"X-Sum: 1\r\n\r\n"
    answer = door.raw(request(body, "Transfer-Encoding: chunked", CLOSE))

    assert statuses(answer) == [200]
    assert door.stored() == [SALE.decode()]


def test_a_client_that_asks_first_is_told_to_go_on_and_only_if_it_is_served(door: RunningDoor) -> None:
    """Expect: 100-continue, as curl sends it before a large body; a refusal comes instead of the body."""
    head = request(b"", f"Content-Length: {len(SALE)}", "Expect: 100-continue", CLOSE)
    with socket.create_connection(door.address, 20) as line:
        line.sendall(head)
        assert statuses(line.recv(65536)) == [100]
        line.sendall(SALE)
        assert statuses(read_to_end(line)) == [200]
    too_large = door.raw(request(b"", "Content-Length: 99999999", "Expect: 100-continue"))

    assert statuses(too_large) == [413]
    assert door.stored() == [SALE.decode()]


def test_requests_sent_without_waiting_are_answered_in_their_order(door: RunningDoor) -> None:
    """Pipelining; a client that then closes its half still hears every answer."""
    requests = [request(sale(1)), request(b"no sale"), request(method="GET", path="/healthz"), request(sale(2))]
    answers = door.raw(b"".join(requests), half_close=True)

    assert statuses(answers) == [200, 400, 200, 200]
    assert door.stored() == [sale(1).decode(), sale(2).decode()]


def test_a_request_that_trickles_in_is_taken(door: RunningDoor) -> None:
    """Byte by byte."""
    whole = request(SALE, CLOSE)

    assert statuses(door.raw(*(whole[place : place + 1] for place in range(len(whole))))) == [200]
    assert door.stored() == [SALE.decode()]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(chunked(SALE), "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (request(chunked(SALE), "Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        (request(SALE, "Content-Length: 5", "Content-Length: 6"), 400),
        (request(SALE, "Content-Length: -1"), 400),
        (request(SALE, "Content-Length: 0x10"), 400),
        (request(SALE, "Content-Length: " + "9" * 30), 400),
        (request(SALE, "Content-Length : 5"), 400),
        (request(chunked(SALE), "Transfer-Encoding: chunked", "Transfer-Encoding: identity"), 501),
        (request(chunked(SALE), "Transfer-Encoding: gzip, chunked"), 501),
        (request(chunked(SALE), "Transfer-Encoding: xchunked"), 501),
        (request(b"zz\r\n" + SALE, "Transfer-Encoding: chunked"), 400),
        (request(b"5\r\n" + SALE, "Transfer-Encoding: chunked"), 400),
        (request() + SALE, 411),
        (request(SALE, "Host: localhost"), 400),
        (request(SALE).replace(b"Host: localhost\r\n", b""), 400),
        (b"POST /ingest-transaction\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client that speaks TLS\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (request(SALE, "X-Large: " + "x" * HEAD_BYTES_MAX), 431),
        (b"POST /" + b"x" * 200_000, 431),
        (request(SALE, *(f"X-{number}: y" for number in range(2000))), 431),
    ],
)
def test_what_is_ambiguous_malformed_or_huge_is_refused_and_the_connection_ends(
    door: RunningDoor, sent: bytes, status: int
) -> None:
    """What follows it on the connection is never taken for another request; nothing is stored."""
    answers = door.raw(sent + request(sale(7)))

    assert statuses(answers) == [status]
    assert last_answer(answers)[1]["message"]
    assert b"Connection: close" in answers
    assert door.stored() == []


def test_a_refused_body_that_still_comes_does_not_reset_the_answer(door: RunningDoor) -> None:
    """A client that first sends all and then listens hears why it was refused."""
    body = b"x" * 8_000_000
    answers = door.raw(request(body, f"Content-Length: {len(body)}"))

    assert statuses(answers) == [413]


@pytest.mark.parametrize("cut_at", [1, 30, -1])
def test_a_client_that_leaves_in_the_middle_has_sent_nothing(door: RunningDoor, cut_at: int) -> None:
    """Closed for good or half: without its end it is no request."""
    assert door.raw(request(SALE)[:cut_at], half_close=True) == b""
    with socket.create_connection(door.address, 20) as line:
        line.sendall(request(SALE)[:cut_at])

    assert counts(door.post(SALE)) == (1, 0, 0)
    assert door.stored() == [SALE.decode()]


def test_a_client_that_leaves_before_its_answer_is_stored_all_the_same(door: RunningDoor) -> None:
    """And harms nobody: it asked, and can't know."""
    with socket.create_connection(door.address, 20) as line:
        line.sendall(request(SALE))
    until(lambda: door.spool.commits == 1, "it is stored")

    assert counts(door.post(SALE)) == (1, 0, 0)


@pytest.mark.parametrize(("headers", "status"), [((), 405), (("Transfer-Encoding: chunked", "Content-Length: 0"), 400)])
def test_a_head_request_is_answered_without_a_body(door: RunningDoor, headers: tuple[str, ...], status: int) -> None:
    """Monitors send it, and would take a body for the next answer."""
    answers = door.raw(request(b"", *headers, method="HEAD", path="/healthz"))

    assert statuses(answers) == [status]
    assert answers.endswith(b"\r\n\r\n")


def test_an_http_1_0_client_is_served_and_closed(door: RunningDoor) -> None:
    """Small tills speak it, and may leave out Host."""
    named = request(SALE).replace(b"HTTP/1.1", b"HTTP/1.0")

    assert door.raw(named).startswith(b"HTTP/1.1 200 OK\r\n")
    assert statuses(door.raw(named.replace(b"Host: localhost\r\n", b""))) == [200]
    assert door.stored() == [SALE.decode()] * 2


def trickled(line: socket.socket, whole: bytes) -> bytes:
    """Send a byte every few milliseconds until something is answered; return that."""
    line.settimeout(0.01)
    for byte in whole:
        line.sendall(bytes([byte]))
        try:
            return line.recv(65536)
        except TimeoutError:
            continue
    return b""


def test_a_stalled_client_is_told_and_ended_while_others_are_served(tmp_path: Path) -> None:
    """In the head, in the body, or between requests: only so long, and a trickle doesn't prolong it."""
    with a_door(tmp_path, request_timeout_s=1.0, idle_timeout_s=1.0) as door:
        lines = [socket.create_connection(door.address, 20) for _ in range(4)]
        idle, in_head, in_body, trickle = lines
        in_head.sendall(request(SALE)[:20])
        in_body.sendall(request(SALE)[:-5])
        began = time.monotonic()
        assert counts(door.post(SALE)) == (1, 0, 0)
        answers = trickled(trickle, request(SALE, "X-Long: " + "x" * 10_000))
        assert time.monotonic() - began < 15
        assert statuses(answers) == [408]
        assert read_to_end(idle) == b""
        assert [statuses(read_to_end(line)) for line in (in_head, in_body)] == [[408], [408]]
        for line in lines:
            line.close()
        assert door.stored() == [SALE.decode()]


def test_idle_connections_make_way_for_a_client_with_something_to_say(tmp_path: Path) -> None:
    """Clients that keep connections open can't shut the door."""
    with a_door(tmp_path, connections_max=4) as door:
        idle = [socket.create_connection(door.address, 20) for _ in range(10)]
        assert counts(door.post(SALE)) == (1, 0, 0)
        assert max(threads_of_clients()) <= 4
        for line in idle:
            line.close()


def test_when_all_connections_are_busy_the_next_client_waits_and_is_served(tmp_path: Path) -> None:
    """Bounded, and nobody is turned away: stalled ones give way after their time."""
    with a_door(tmp_path, connections_max=2, request_timeout_s=0.5) as door:
        stalled = [socket.create_connection(door.address, 20) for _ in range(2)]
        for line in stalled:
            line.sendall(request(SALE)[:-1])
        until(lambda: threads_of_clients()[0] == 2, "both are served")
        assert counts(door.post(SALE)) == (1, 0, 0)
        for line in stalled:
            line.close()


def test_more_busy_clients_than_connections_take_turns(tmp_path: Path) -> None:
    """While six keep posting on two connections, each gets its turn, and no post fails."""
    sold: Counter[int] = Counter()
    with a_door(tmp_path, connections_max=2) as door, ThreadPoolExecutor(6) as threads:
        deadline_s = time.monotonic() + 20

        def sell(till: int) -> None:
            with httpx.Client(base_url=door.base_url, timeout=30, verify=NO_CERTIFICATES) as client:
                while len(sold) < 6 and time.monotonic() < deadline_s:
                    assert counts(client.post(URL, content=sale(till))) == (1, 0, 0)
                    sold[till] += 1

        for future in [threads.submit(sell, till) for till in range(6)]:
            future.result()
        assert time.monotonic() < deadline_s
        assert len(door.stored()) == sum(sold.values())


def test_a_defect_of_the_listening_thread_reaches_the_daemon(door: RunningDoor) -> None:
    """A door that is shut without a word would be found by the till only."""

    def fail() -> Listener:
        raise ValueError("a defect")

    door.source._wanted["broken"] = fail
    with socket.create_connection(door.address, 20):
        until(lambda: door.source._defect, "it is noticed")
    with pytest.raises(ValueError, match="a defect"):
        door.source.step()


def test_a_client_that_never_reads_its_answers_is_ended(tmp_path: Path) -> None:
    """It holds one connection for so long and no longer."""
    body = b"x\n" * 15_000
    with a_door(tmp_path, request_timeout_s=0.5) as door, socket.create_connection(door.address, 20) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(5)
        with pytest.raises((ConnectionError, TimeoutError)):
            line.sendall(request(body, "Content-Type: application/jsonl") * 1000)
        until(lambda: not threads_of_clients()[0], "its connection is over")
        assert counts(door.post(SALE)) == (1, 0, 0)


class _Echo:
    """A door that says what came through it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def admit(self, head: Head) -> None:
        """Everybody."""

    def answer(self, _head: Head, body: bytes) -> Answer:
        """Keep the body."""
        self.bodies.append(body)
        return Answer(200, b"{}")

    def answered(self, head: Head | None, answer: Answer, seconds: float) -> None:
        """Nothing."""


def _converse(sent: list[bytes]) -> tuple[list[bytes], bytes]:
    near, far = socket.socketpair()
    echo = _Echo()
    limits = LocalHttp(body_bytes_max=1 << 20, request_timeout_s=5.0)
    thread = threading.Thread(target=Conversation(near, echo, limits, FakeClock(), over_tcp=True).run)
    thread.start()
    with far:
        try:
            for piece in sent:
                far.sendall(piece)
            far.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            answers = read_to_end(far)
        except ConnectionResetError:
            answers = b""
    thread.join()
    return echo.bodies, answers


BODIES = st.binary(max_size=300)


@settings(deadline=None)
@given(st.lists(st.tuples(BODIES, st.booleans()), min_size=1, max_size=4), st.lists(st.integers(1, 400), max_size=8))
def test_bodies_arrive_whole_and_in_order_however_they_are_framed_and_cut(
    bodies: list[tuple[bytes, bool]], cuts: list[int]
) -> None:
    """Any bytes, with a length or in chunks, pipelined, and cut into packets anywhere."""
    stream = b"".join(
        request(chunked(*(piece for piece in (body[:7], body[7:]) if piece)), "Transfer-Encoding: chunked")
        if in_chunks
        else request(body, f"Content-Length: {len(body)}")
        for body, in_chunks in bodies
    )
    pieces, place = [], 0
    for cut in cuts:
        pieces.append(stream[place : place + cut])
        place += cut
    received, answers = _converse([piece for piece in (*pieces, stream[place:]) if piece])

    assert received == [body for body, _ in bodies]
    assert statuses(answers) == [200] * len(bodies)


HEADS = st.lists(
    st.sampled_from(
        [
            *(b"POST /ingest-transaction HTTP/1.1", b"GET / HTTP/1.1", b"\r\n", b"\n", b": ", b"Content-Length", b"5"),
            *(b"Transfer-Encoding: chunked", b"Host: localhost", b"Expect: 100-continue", b"0\r\n\r\n", b"\x00"),
        ]
    )
    | st.binary(max_size=20),
    max_size=14,
).map(b"".join)


@settings(deadline=None)
@given(HEADS)
def test_rubbish_is_answered_or_ended_and_never_more(sent: bytes) -> None:
    """Every answer is HTTP, and no error but the client's."""
    _, answers = _converse([sent])

    assert set(statuses(answers)) <= {100, 200, 400, 408, 411, 413, 431, 501}
    assert not answers or answers.startswith(b"HTTP/1.1 ")


def _reading(form: Form, body: bytes) -> Post | int:
    try:
        return read_post(form, body, 1 << 20)
    except Refused as refused:
        return refused.answer.status


LINES = st.lists(OBJECTS_ON_A_LINE | st.binary(max_size=30).map(lambda text: text.replace(b"\n", b" ")), max_size=6)


MEBIBYTE = 1 << 20


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1," * (MEBIBYTE // 2 - 1) + b"1]",
        b"\xef\xbb\xbf\r\n[" + b"{}," * (MEBIBYTE // 3 - 3) + b"{}]",
        b"\n" * MEBIBYTE,
        b"x\n" * (MEBIBYTE // 2),
        gzip.compress(b" " * 64 * MEBIBYTE),
        gzip.compress(b"[" + b"1," * (MEBIBYTE // 2 - 1) + b"1]"),
    ],
    ids=["array", "array of objects", "blank lines", "lines", "bomb", "array in gzip"],
)
def test_a_hostile_body_takes_little_more_memory_than_its_size(body: bytes) -> None:
    """It is refused before its pieces are made, each of which would cost a hundred bytes."""
    tracemalloc.start()
    try:
        assert _reading(Form("", lines_only=False, key=None), body) == 413
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 5 * MEBIBYTE


def test_a_gzip_of_very_many_members_is_read_in_linear_time() -> None:
    """Each member costs itself, not a copy of all that follow it: ten times as many, about ten times the work."""
    spent_s = []
    for members in (4_000, 40_000):
        began = time.thread_time()
        post = _reading(Form("gzip", lines_only=False, key=None), gzip.compress(b"") * members + gzip.compress(SALE))
        spent_s.append(time.thread_time() - began)
        assert isinstance(post, Post)

    assert spent_s[1] < 30 * spent_s[0]


@settings(max_examples=50, deadline=None)
@given(LINES)
def test_every_line_is_taken_or_rejected_and_taken_ones_keep_their_bytes(lines: list[bytes]) -> None:
    """Whatever is posted as lines, the counts add up; as an unknown form it may also be refused as a whole."""
    body = b"\n".join(lines)
    post = _reading(Form("identity", lines_only=True, key=None), body)
    texts = [line.strip(b" \t\r") for line in body.removeprefix(b"\xef\xbb\xbf").split(b"\n")]

    assert isinstance(post, Post)
    assert len(post.payloads) + len(post.rejected) == sum(map(bool, texts))
    assert [text for text in texts if text in post.payloads] == list(post.payloads)
    assert isinstance(_reading(Form("", lines_only=False, key=None), body), Post | int)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["content-encoding", "content-type", "idempotency-key"]), st.text(max_size=40))
def test_headers_are_read_or_refused(name: str, value: str) -> None:
    """No header is a defect."""
    try:
        outcome = form_of({name: value}).encoding
    except Refused as refused:
        outcome = str(refused.answer.status)

    assert outcome in ("", "identity", "gzip", "x-gzip", "400", "415", "422")


@given(st.text(alphabet="localhst127.0:[]/@#?%x", max_size=20) | st.text(max_size=10))
def test_a_host_that_passes_is_one_of_ours(host: str) -> None:
    """Whatever is written into the header."""
    if is_loopback_host(host):
        assert host.lower().startswith(("localhost", "127.", "[", "::1"))
        assert not set(host) & set("/@#? ")
