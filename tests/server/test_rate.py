"""How often a device may deliver: enough for every honest one, and no more."""

import gzip
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from endpoints import DEADLINE_S, Endpoints, batch, bearer, running
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from psycopg_pool import ConnectionPool

from agent.upload import fault_of
from server.buckets.folder import FolderBucket
from server.rate import RateLimit

INGEST = "/ingest-transaction"
OBJECT = "/storage/v1/object/scout-ingest/2026-01-20/{}/{}.jsonl"
SALE = b'{"store_id":"102","peso_value":150.50}'


class TokenBucket:
    """The same in its textbook form: a count that refills, the clock in whole milliseconds."""

    def __init__(self, per_s: int, burst: int) -> None:
        self._per_s, self._full = per_s, burst * 1000
        self._thousandths, self._at_ms = self._full, 0

    def admits(self, now_ms: int) -> bool:
        """Whether a delivery passes now."""
        refilled = self._thousandths + (now_ms - self._at_ms) * self._per_s
        self._thousandths, self._at_ms = min(self._full, refilled), now_ms
        if self._thousandths < 1000:
            return False
        self._thousandths -= 1000
        return True


@given(
    per_s=st.integers(1, 50),
    burst=st.integers(1, 20),
    waits_ms=st.lists(st.sampled_from([0, 0, 0, 1, 20, 333, 1000, 60_000]), min_size=1, max_size=200),
)
def test_it_admits_what_a_token_bucket_admits(per_s: int, burst: int, waits_ms: list[int]) -> None:
    """It admits what a token bucket admits, whatever the times between deliveries."""
    clock = FakeClock()
    start_s = clock.monotonic_s()
    rate, model, now_ms = RateLimit(per_s, burst, lambda: start_s + now_ms / 1000), TokenBucket(per_s, burst), 0
    for wait_ms in waits_ms:
        now_ms += wait_ms
        assert (rate.wait_s("pi-05") == 0) == model.admits(now_ms)


@given(per_s=st.floats(0.01, 50), burst=st.integers(1, 20), more=st.integers(1, 10))
def test_whoever_waits_as_told_is_admitted(per_s: float, burst: int, more: int) -> None:
    """Whoever waits as told is admitted; being refused costs nothing, however often."""
    clock = FakeClock()
    rate = RateLimit(per_s, burst, clock.monotonic_s)
    assert [rate.wait_s("pi-05") for _ in range(burst)] == [0] * burst

    waits_s = {rate.wait_s("pi-05") for _ in range(more)}

    (wait_s,) = waits_s
    assert wait_s >= 1
    clock.pass_s(wait_s)
    assert rate.wait_s("pi-05") == 0


def test_one_device_never_uses_up_anothers() -> None:
    """One device never uses up another's."""
    rate = RateLimit(1, 2, FakeClock().monotonic_s)

    assert [rate.wait_s("pi-05") > 0 for _ in range(3)] == [False, False, True]
    assert rate.wait_s("pi-06") == 0


def test_idle_devices_are_forgotten_and_busy_ones_are_not() -> None:
    """However many devices come by, those are remembered that came lately, and at most as many again."""
    clock = FakeClock()
    rate = RateLimit(1, 1, clock.monotonic_s)
    most = 0
    for number in range(50_000):
        rate.wait_s(f"pi-{number}")
        clock.pass_s(0.001)  # a thousand devices within the second that a bucket needs to fill
        most = max(most, rate.devices)

    assert 1000 <= most <= 2100
    assert rate.wait_s("pi-49999") > 0


@pytest.fixture
def clock() -> FakeClock:
    """Make a clock that stands."""
    return FakeClock()


@pytest.fixture
def server(pool: ConnectionPool, bucket: FolderBucket, clock: FakeClock) -> Iterator[Endpoints]:
    """Run the endpoints, which take two deliveries of a device at once and one in ten seconds."""
    with running(
        pool, bucket, monotonic=clock.monotonic_s, device_posts_per_s_max=0.1, device_posts_burst=2
    ) as endpoints:
        yield endpoints


def test_a_device_that_is_too_fast_waits_and_then_is_taken(server: Endpoints, clock: FakeClock) -> None:
    """A device that is too fast waits as the answer says, and then is taken; nothing of it was stored meanwhile."""
    headers = bearer(server.device())
    posts = [server.client.post(INGEST, content=SALE, headers=headers) for _ in range(3)]
    others = server.client.post(INGEST, content=SALE, headers=bearer(server.device("pi-06")))

    assert [answer.status_code for answer in (*posts, others)] == [200, 200, 429, 200]
    clock.pass_s(int(posts[-1].headers["Retry-After"]))
    assert server.client.post(INGEST, content=SALE, headers=headers).status_code == 200
    assert server.rows("select device_id, count(*) from scout_bronze.transactions_raw group by 1 order by 1") == [
        ("pi-05", 3),
        ("pi-06", 1),
    ]


def test_both_paths_count_together_and_the_bucket_answers_as_supabase_does(server: Endpoints) -> None:
    """Both paths count together, and the bucket answers as Supabase does."""
    headers = bearer(server.device())
    first = server.client.post(INGEST, content=SALE, headers=headers)
    uploads = [server.client.post(OBJECT.format("pi-05", name), content=SALE, headers=headers) for name in "ab"]

    assert [answer.status_code for answer in (first, *uploads)] == [200, 200, 429]
    assert uploads[1].json()["statusCode"] == "429"
    assert uploads[1].json()["code"] == "SlowDown"
    assert int(uploads[1].headers["Retry-After"]) >= 1
    assert len(list(server.bucket.list("2026-01-20/"))) == 1


def test_the_agent_understands_both_refusals_as_waiting_so_long(server: Endpoints) -> None:
    """The agent understands both refusals as waiting so long, never as the batch's own."""
    jsonl, name = batch(1, 1)
    headers = bearer(server.device())
    for _ in range(2):
        server.client.post(INGEST, content=SALE, headers=headers)
    refused = [
        server.client.post(INGEST, content=gzip.compress(jsonl), headers=headers | {"Idempotency-Key": name}),
        server.client.post(f"/storage/v1/object/scout-ingest/{name}", content=gzip.compress(jsonl), headers=headers),
    ]

    faults = [fault_of(answer, server.base_url) for answer in refused]

    assert [type(fault).__name__ for fault in faults] == ["Wait", "Wait"]
    assert [getattr(fault, "retry_after_s", None) for fault in faults] == [10.0, 10.0]


def test_the_limit_is_asked_after_the_token_and_before_the_body(server: Endpoints) -> None:
    """A stranger can't use up a device's deliveries, and who is refused need not have sent a body."""
    headers = bearer(server.device())
    strangers = [server.client.post(INGEST, content=SALE, headers=bearer("garbage")) for _ in range(5)]
    mine = [server.client.post(INGEST, content=SALE, headers=headers) for _ in range(2)]
    head = (
        f"POST {INGEST} HTTP/1.1\r\nHost: t\r\nAuthorization: {headers['Authorization']}\r\nContent-Length: 9\r\n\r\n"
    )
    address = urlsplit(server.base_url)
    with socket.create_connection((address.hostname, address.port), DEADLINE_S) as line:
        line.sendall(head.encode())
        without_a_body = line.recv(4096)

    assert {answer.status_code for answer in strangers} == {401}
    assert [answer.status_code for answer in mine] == [200, 200]
    assert without_a_body.startswith(b"HTTP/1.1 429 ")
