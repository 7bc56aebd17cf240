"""The ingest endpoint: every line accounted for, acknowledged only once committed."""

import gzip
import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import timedelta
from itertools import islice
from urllib.parse import urlsplit

import httpx
import pytest
import zstandard
from endpoints import DEADLINE_S, Endpoints, batch, bearer, outlaws, running
from psycopg_pool import ConnectionPool

from server.buckets.folder import FolderBucket
from server.etl import run_etl
from wire.receipt import IngestAnswer, RejectedLine

URL = "/ingest-transaction"
SALE = b'{"store_id":"102","peso_value":150.50}'
JSONL = b'{"transaction_id":"t1","peso_value":1}\n{"transaction_id":"t2","peso_value":2}\n'


@pytest.fixture
def server(pool: ConnectionPool, bucket: FolderBucket):
    """Run the endpoints."""
    with running(pool, bucket) as endpoints:
        yield endpoints


def post(server: Endpoints, body: bytes | Iterator[bytes], token: str, **headers: str):
    """Post a body; keyword arguments become headers."""
    return server.client.post(URL, content=body, headers=bearer(token, **headers))


def counts(response: httpx.Response) -> tuple[int, int, int]:
    """How many lines were accepted, duplicates and rejected."""
    assert response.status_code == 200, response.text
    answer = IngestAnswer.parse(response.content)
    return answer.accepted, answer.duplicates, len(answer.rejected)


def payloads(server: Endpoints) -> list[str]:
    """The payloads in bronze, in their order."""
    return [row[0] for row in server.rows("select payload from scout_bronze.transactions_raw order by raw_id")]


def test_the_seeds_first_post_lands_byte_for_byte(server: Endpoints):
    """The seed's first post lands byte for byte."""
    response = post(server, SALE, server.device("test-01"), x_device_id="test-01", Content_Type="application/json")

    assert counts(response) == (1, 0, 0)
    assert response.json()["sha256"] == hashlib.sha256(SALE).hexdigest()
    assert payloads(server) == [SALE.decode()]


def test_the_seeds_second_post_lands_line_by_line_under_the_functions_path_too(server: Endpoints):
    """The seed's second post lands line by line under the functions path too."""
    headers = bearer(server.device(), x_device_id="pi-05", Content_Type="application/jsonl")
    response = server.client.post("/functions/v1/ingest-transaction", content=JSONL, headers=headers)

    assert counts(response) == (2, 0, 0)
    assert payloads(server) == JSONL.decode().split()


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", None])
def test_an_array_an_object_over_several_lines_and_jsonl_are_told_apart(server: Endpoints, content_type: str | None):
    """An array an object over several lines and JSONL are told apart."""
    headers = {"Content_Type": content_type} if content_type else {}
    token = server.device()
    bodies = [b'[{"a":1},{"a":2}]', b'{\n "a": 3\n}', b'{"a":4}\n{"a":5}\n']

    assert [counts(post(server, body, token, **headers)) for body in bodies] == [(2, 0, 0), (1, 0, 0), (2, 0, 0)]
    assert [json.loads(payload)["a"] for payload in payloads(server)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("compress", "encoding"),
    [
        (gzip.compress, "gzip"),
        (gzip.compress, None),
        (zstandard.compress, "zstd"),
        (zstandard.compress, None),
        (bytes, "identity"),
    ],
)
def test_a_compressed_body_is_taken_by_its_header_or_its_first_bytes(
    server: Endpoints, compress: Callable[[bytes], bytes], encoding: str | None
):
    """A compressed body is taken by its header or its first bytes."""
    headers = {"Content_Encoding": encoding} if encoding else {}
    response = post(server, compress(JSONL), server.device(), **headers)

    assert counts(response) == (2, 0, 0)
    assert response.json()["sha256"] == hashlib.sha256(JSONL).hexdigest()


def test_a_posted_sale_without_a_time_is_dated_by_its_arrival(server: Endpoints):
    """For a sale that no agent took, the endpoint is the intake; gold shows it on that day."""
    post(server, SALE, server.device())
    run_etl(server.pool)

    (days,) = server.rows("select array_agg(business_day::text) from scout.gold_daily_revenue")
    assert days == ([server.clock.at.date().isoformat()],)


@pytest.mark.parametrize("corrected", [b"1.00", b"99.00"])
def test_of_two_posted_versions_of_a_sale_the_one_posted_later_counts(server: Endpoints, corrected: bytes):
    """A correction wins because intake saw it later, whatever its bytes hash to."""
    token = server.device()
    for amount in (b"50.00", corrected):
        post(server, b'{"transaction_id":"t1","peso_value":%s}' % amount, token)
        server.clock.at += timedelta(minutes=1)
    run_etl(server.pool)

    assert server.rows("select peso_value::text from scout.silver_transactions") == [(corrected.decode(),)]


def test_a_post_without_key_and_id_is_new_each_time_and_with_a_key_once(server: Endpoints):
    """A post without key and id is new each time and with a key once."""
    token = server.device()
    without = [counts(post(server, SALE, token)) for _ in range(2)]
    with_key = [counts(post(server, SALE, token, Idempotency_Key="till-7")) for _ in range(2)]

    assert without == [(1, 0, 0), (1, 0, 0)]
    assert with_key == [(1, 0, 0), (0, 1, 0)]
    assert payloads(server) == [SALE.decode()] * 3


def test_a_line_with_a_transaction_id_is_the_same_sale_again(server: Endpoints):
    """A line with a transaction id is the same sale again."""
    token = server.device()

    assert [counts(post(server, JSONL, token)) for _ in range(2)] == [(2, 0, 0), (0, 2, 0)]


def test_the_same_key_with_another_body_is_refused_and_stores_nothing(server: Endpoints):
    """The same key with another body is refused and stores nothing."""
    token = server.device()
    post(server, SALE, token, Idempotency_Key="till-7")
    other = post(server, b'{"another":1}', token, Idempotency_Key="till-7")

    assert other.status_code == 422
    assert "new key" in other.json()["message"]
    assert payloads(server) == [SALE.decode()]


def test_a_key_belongs_to_its_device(server: Endpoints):
    """A key belongs to its device."""
    first = post(server, SALE, server.device("pi-05"), Idempotency_Key="1")
    second = post(server, b'{"another":1}', server.device("pi-06"), Idempotency_Key="1")

    assert [counts(first), counts(second)] == [(1, 0, 0), (1, 0, 0)]


def test_a_bad_line_is_rejected_and_held_and_its_neighbours_are_accepted(server: Endpoints):
    """A bad line is rejected and held and its neighbours are accepted."""
    body = b'{"a":1}\n{"a":NaN}\n{"a":2}\n\xff\n'
    response = post(server, body, server.device(), Content_Type="application/x-ndjson; charset=utf-8")

    assert counts(response) == (2, 0, 2)
    assert [line["line"] for line in response.json()["rejected"]] == [2, 4]
    held = server.rows("select line, raw from scout_bronze.quarantine where kind = 'line' order by line")
    assert [(line, bytes(raw)) for line, raw in held] == [(2, b'{"a":NaN}'), (4, b"\xff")]


@pytest.mark.parametrize(
    ("body", "line"),
    [(b'{"a":', 1), (b'[{"a":1},\n{"a":2}', 2), (b'{\n"a":\nNaN}', 3), (b'{"a":NaN}', 1), (b"\xff\xfe", 1)],
)
def test_a_body_that_is_no_transaction_at_all_is_refused_with_line_and_reason(
    server: Endpoints, body: bytes, line: int
):
    """A body that is no transaction at all is refused with line and reason."""
    response = post(server, body, server.device(), Content_Type="application/json")

    assert response.status_code == 400
    assert response.json()["line"] == line
    assert response.json()["reason"]
    assert "NaN" not in response.text
    assert server.rows("select * from scout_bronze.files") == []


@pytest.mark.parametrize("body", [gzip.compress(JSONL)[:-5], gzip.compress(JSONL) + b"x", b"\x1f\x8bnothing"])
def test_a_damaged_compressed_body_is_refused(server: Endpoints, body: bytes):
    """A damaged compressed body is refused."""
    response = post(server, body, server.device(), Content_Encoding="gzip")

    assert response.status_code == 400
    assert server.rows("select * from scout_bronze.files") == []


def test_bodies_over_the_limits_are_refused_compressed_and_expanded(pool: ConnectionPool, bucket: FolderBucket):
    """Bodies over the limits are refused compressed and expanded."""
    with running(pool, bucket, body_bytes_max=1000, expanded_bytes_max=10_000) as server:
        token = server.device()
        large = post(server, b"x" * 1001, token)
        chunked = post(server, iter([b"x" * 600] * 2), token)
        bomb = post(server, gzip.compress(b" " * 100_000), token)
        exact = post(server, SALE + b" " * (1000 - len(SALE)), token)

    assert [large.status_code, chunked.status_code, bomb.status_code] == [413, 413, 400]
    assert counts(exact) == (1, 0, 0)


def test_an_unknown_encoding_or_key_is_refused(server: Endpoints):
    """An unknown encoding or key is refused."""
    token = server.device()

    assert post(server, SALE, token, Content_Encoding="br").status_code == 415
    assert post(server, SALE, token, Idempotency_Key="x" * 256).status_code == 400
    assert post(server, SALE, token, Idempotency_Key="").status_code == 400
    assert payloads(server) == []


def test_an_agents_batch_settles_under_its_name_once(server: Endpoints):
    """An agent's batch settles under its name once."""
    jsonl, name = batch(1, 3)
    token = server.device()
    answers = [
        counts(post(server, gzip.compress(jsonl), token, Idempotency_Key=name, Content_Encoding="gzip"))
        for _ in range(2)
    ]

    assert answers == [(3, 0, 0), (0, 3, 0)]
    assert server.rows("select bucket, key, state, lines from scout_bronze.files") == [("endpoint", name, "loaded", 3)]
    with server.pool.connection() as connection:
        settled = connection.execute("select scout_bronze.is_settled('pi-05', %s)", [name]).fetchone()
    assert settled == (True,)


def test_a_batch_that_is_not_what_its_key_says_settles_nothing(server: Endpoints):
    """A batch that is not what its key says settles nothing."""
    jsonl, name = batch(1, 3)
    _, of_another_device = batch(1, 3, "pi-06")
    another, _ = batch(2, 4)
    token = server.device("pi-05")
    server.device("pi-06")
    wrong_range = name.replace("000000000003", "000000000004")
    refused = [
        post(server, jsonl, token, Idempotency_Key=of_another_device),
        post(server, another, token, Idempotency_Key=name),
        post(server, jsonl[:-1], token, Idempotency_Key=name),
        post(server, jsonl, token, Idempotency_Key=wrong_range),
    ]

    assert [response.status_code for response in refused] == [422] * 4
    assert server.rows("select * from scout_bronze.files") == []


def test_the_header_must_name_the_tokens_device(server: Endpoints):
    """The header must name the token's device."""
    response = post(server, SALE, server.device("pi-05"), x_device_id="pi-06")

    assert response.status_code == 403
    for word in ("'pi-05'", "'pi-06'", "tokens issue --name pi-06"):
        assert word in response.json()["message"]
    assert payloads(server) == []


def test_a_service_token_posts_for_the_known_device_it_names(server: Endpoints):
    """A service token posts for the known device it names."""
    server.device("pi-05")
    token = server.service()

    assert counts(post(server, SALE, token, x_device_id="pi-05")) == (1, 0, 0)
    assert post(server, SALE, token).status_code == 400
    assert post(server, SALE, token, x_device_id="pi-99").status_code == 403
    assert server.rows("select device_id from scout_bronze.transactions_raw") == [("pi-05",)]


NOT_ALLOWED = {"device revoked", "device unknown", "no subject", "anon", "authenticated", "no role"}


def test_every_bad_token_is_refused(server: Endpoints):
    """Every bad token is refused."""
    matrix = outlaws(server)

    assert matrix.keys() > NOT_ALLOWED
    for name, token in matrix.items():
        response = server.client.post(URL, content=SALE, headers=bearer(token) if token else {})
        assert response.status_code == (403 if name in NOT_ALLOWED else 401), name
        assert response.json()["message"], name
    assert payloads(server) == []


def test_concurrent_posts_of_one_key_are_one_sale(server: Endpoints):
    """Concurrent posts of one key are one sale."""
    headers = bearer(server.device(), Idempotency_Key="till-7")
    with ThreadPoolExecutor(8) as threads:
        responses = list(
            threads.map(lambda _: httpx.post(server.base_url + URL, content=SALE, headers=headers), range(16))
        )

    assert sorted(counts(response) for response in responses) == [(0, 1, 0)] * 15 + [(1, 0, 0)]
    assert payloads(server) == [SALE.decode()]


def test_concurrent_posts_share_commits_and_each_is_committed(server: Endpoints):
    """Concurrent posts share commits and each is committed."""
    headers = bearer(server.device())
    sales = [b'{"transaction_id":"t%d"}' % number for number in range(200)]
    with ThreadPoolExecutor(16) as threads, httpx.Client(base_url=server.base_url) as client:
        responses = list(threads.map(lambda sale: client.post(URL, content=sale, headers=headers), sales))

    assert [counts(response) for response in responses] == [(1, 0, 0)] * 200
    assert sorted(payloads(server)) == sorted(sale.decode() for sale in sales)
    assert 0 < len(server.commits) < 200


def test_a_client_that_leaves_early_changes_nothing_for_others(server: Endpoints):
    """A client that leaves early changes nothing for others."""
    token = server.device()
    address = urlsplit(server.base_url)
    head = f"POST {URL} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), DEADLINE_S) as line:
        line.sendall(head.encode() + SALE)

    assert counts(post(server, SALE, token)) == (1, 0, 0)
    assert payloads(server) == [SALE.decode()]


def test_while_the_database_is_down_nothing_is_acknowledged(server: Endpoints):
    """While the database is down nothing is acknowledged."""
    token = server.device()
    server.pool.close()
    response = post(server, SALE, token)

    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0


def test_an_answer_is_what_the_agent_believes(server: Endpoints):
    """An answer is what the agent believes."""
    response = post(server, b'{"a":1}\nnonsense\n', server.device(), Content_Type="application/jsonl")

    answer = IngestAnswer.parse(response.content)
    assert answer.lines == 2
    (rejected,) = answer.rejected
    assert isinstance(rejected, RejectedLine)
    assert "nonsense" not in rejected.reason


def test_more_posts_than_can_wait_are_told_to_come_back_and_the_others_are_committed(
    pool: ConnectionPool, bucket: FolderBucket
) -> None:
    """More posts than can wait are told to come back, and the others are committed."""
    with running(pool, bucket, posts_waiting_max=1, rows_per_commit_max=1) as server, ThreadPoolExecutor(6) as threads:
        headers = bearer(server.device())
        with server.pool.connection() as holder, holder.transaction():
            holder.execute("lock table scout_bronze.files in access exclusive mode")
            sent = [threads.submit(httpx.post, server.base_url + URL, content=SALE, headers=headers) for _ in range(6)]
            refused = [future.result(DEADLINE_S) for future in islice(as_completed(sent), 3)]
        taken = [future.result(DEADLINE_S) for future in sent if future.result(DEADLINE_S) not in refused]

        assert [answer.status_code for answer in refused] == [503] * 3
        assert all(answer.headers["Retry-After"] for answer in refused)
        accepted = sum(answer.status_code == 200 for answer in taken)
        assert accepted >= 2
        assert payloads(server) == [SALE.decode()] * accepted
